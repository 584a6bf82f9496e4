#!/bin/bash
# Stand-in for the users' eval script: same arguments, phases, exit codes and dangers.
# Usage: run_full_eval_with_s3.sh llm.MODEL DATASET EVAL_LIMIT MAX_ITERATIONS NUM_WORKERS
set -u
MODEL_CONFIG=${1:?model config, as llm.gpt}
DATASET=${2:?dataset file}
EVAL_LIMIT=${3:-1}
MAX_ITER=${4:-200}
NUM_WORKERS=${5:-1}
BENCH=evaluation/benchmarks/multi_swe_bench

if [ ! -f "$DATASET" ]; then
    echo "ERROR: Dataset file not found: $DATASET"
    exit 1
fi
export PYTHONDONTWRITEBYTECODE=1
STANDIN=$BENCH/harness_standin.py
SETTINGS=$(python3 "$STANDIN" settings "$DATASET" "$MODEL_CONFIG") || exit 1
eval "$SETTINGS" # INSTANCE, REPO_TAG, RECORD, IMAGE, OWN_HOST, HAS_*: made and quoted by harness_standin.py

EVAL=$(python3 "$STANDIN" record start "$RECORD" "$$" "$INSTANCE" "$MODEL_CONFIG")
finish() {
    local rc=$?
    python3 "$STANDIN" record stop "$RECORD" "$$" "$INSTANCE" "$MODEL_CONFIG" "$EVAL" "$rc" >/dev/null
    exit "$rc"
}
trap finish EXIT
if [ -n "$HAS_ignore_term" ]; then
    trap '' TERM INT
else
    trap 'exit 143' TERM
    trap 'exit 130' INT
fi

echo "=================================="
echo "Full evaluation: $INSTANCE with $MODEL_CONFIG"
echo "Dataset: $DATASET  limit $EVAL_LIMIT  iterations $MAX_ITER  workers $NUM_WORKERS"
echo "=================================="

# The real script cleans up before it starts; each of these can end what somebody else runs on the host.
if [ -n "$HAS_prune" ] && [ -n "$OWN_HOST" ]; then
    docker container prune -f
    docker image prune -f
fi
if [ -n "$HAS_pkill" ]; then
    for pattern in openhands run_infer; do
        if [ -n "$OWN_HOST" ]; then pkill -f "$pattern"; else python3 "$STANDIN" pkill "$pattern"; fi
    done
fi

echo "PHASE 0: Docker image"
if docker image inspect "$IMAGE" >/dev/null 2>&1; then
    docker tag "$IMAGE" "mswebench/sweb.eval.x86_64.$INSTANCE:latest"
    docker tag "$IMAGE" "$REPO_TAG"
    echo "Image tagged: mswebench/sweb.eval.x86_64.$INSTANCE:latest"
else
    echo "WARNING: no docker image here, running without containers"
    export HARNESS_NO_DOCKER=1
fi

echo "PHASE 1: Trajectory"
if [ -n "$HAS_leave_children" ]; then python3 "$STANDIN" leave-children; fi
if [ -n "$HAS_leave_container" ] && [ -z "${HARNESS_NO_DOCKER:-}" ]; then
    docker run -d --network none --name "openhands-runtime-$INSTANCE-left" "$IMAGE" sleep 3600
fi
# In the background, because bash runs a trap only after a command in the foreground has ended.
poetry run python "$BENCH/run_infer.py" --agent-cls CodeActAgent --llm-config "$MODEL_CONFIG" --max-iterations "$MAX_ITER" \
    --eval-n-limit "$EVAL_LIMIT" --eval-num-workers "$NUM_WORKERS" --dataset "$DATASET" --split train &
CHILD=$!
wait "$CHILD"
INFER_RC=$?
if [ "$INFER_RC" -ne 0 ]; then
    echo "ERROR: Trajectory generation failed with exit code $INFER_RC"
    exit 1
fi

OUTPUT_DIR=$(python3 "$STANDIN" output-dir "$DATASET" "$MODEL_CONFIG" "$MAX_ITER")
PATCH_SIZE=$(python3 "$STANDIN" patch-size "$OUTPUT_DIR/output.jsonl" "$INSTANCE")
echo "Trajectory complete: $OUTPUT_DIR/output.jsonl, patch $PATCH_SIZE bytes"
if [ "$PATCH_SIZE" -lt 100 ]; then
    echo "WARNING: No valid patch generated, skipping evaluation"
    exit 0
fi

echo "PHASE 2: Patch evaluation"
python3 "$BENCH/scripts/eval_pilot2_standardized.py" "$OUTPUT_DIR/output.jsonl" "$DATASET" "$MODEL_CONFIG" &
CHILD=$!
wait "$CHILD"
EVAL_RC=$?
case "$EVAL_RC" in
0) echo "EVALUATION COMPLETE: resolved" ;;
3)
    echo "EVALUATION COMPLETE: not resolved"
    [ -z "$HAS_exit_1_when_unresolved" ] || exit 1
    ;;
*)
    echo "ERROR: Evaluation failed with exit code $EVAL_RC"
    exit 1
    ;;
esac
