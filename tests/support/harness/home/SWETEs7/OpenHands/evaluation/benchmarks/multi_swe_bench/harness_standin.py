"""What the parts of the stand-in harness share: switches, the dataset, the host's own records, where outputs go.

Switches of an instance: `seconds` (length of the whole eval, default 1.5), `layout` (1 or 2), `log_mb` (with huge-log) and
`behaviours`, a list of
    unresolved            the patch does not fix the bug; the result is valid
    exit-1-when-unresolved  the same, and the script ends with 1, as some versions of it do
    no-patch-exit-0       a patch of less than 100 bytes: no evaluation, exit 0
    crash-phase-1         the trajectory ends in a traceback
    empty-output          output.jsonl is left with zero bytes, and the trajectory crashes
    zero-tests            the evaluation runs no test
    env-broken            the evaluation's log says `command not found`
    agent-error           the agent reports an error beside a good patch
    no-metadata           metadata.json and llm_completions are not written
    wrong-instance        output.jsonl is for another instance
    shared-dir            outputs go to a directory that all datasets share, as when their files are all named alike
    slow                  lasts 60 s unless `seconds` says otherwise
    ignore-term           nothing ends on SIGTERM
    leave-children        two processes live on: one in the eval's session, one a daemon with a clean environment
    leave-container       a container lives on
    huge-log              prints `log_mb` (50) MB
    prune, pkill          the dangerous clean-up that the real script starts with
"""

from __future__ import annotations

import ast
import fcntl
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(os.environ["HOME"])
IMAGE = os.environ.get("HARNESS_IMAGE", "fleet-eval-base:latest")
BEHAVIOURS = (
    "unresolved", "exit-1-when-unresolved", "no-patch-exit-0", "crash-phase-1", "empty-output", "zero-tests", "env-broken",
    "agent-error", "no-metadata", "wrong-instance", "shared-dir", "slow", "ignore-term", "leave-children", "leave-container",
    "huge-log", "prune", "pkill",
)  # fmt: skip


def load_dataset(path):
    """Return the one object of a dataset file, in either dialect, with F2P and P2P as lists."""
    record = json.loads(Path(path).read_text())
    record["f2p"] = tests_of(record.get("FAIL_TO_PASS", record.get("fail_to_pass_tests")))
    record["p2p"] = tests_of(record.get("PASS_TO_PASS", record.get("pass_to_pass_tests")))
    return record


def tests_of(value):
    """Return a list of test ids from a list, a JSON string or a Python-literal string."""
    if not isinstance(value, str):
        return list(value or [])
    try:
        return json.loads(value)
    except ValueError:
        return ast.literal_eval(value)


class Switches:
    """How this eval behaves."""

    def __init__(self, dataset, model):
        instance = str(dataset["instance_id"])
        try:
            file = json.loads((HOME / "harness-switches.json").read_text())
        except OSError:
            file = {}
        chosen = {"seconds": None, "layout": 1, "log_mb": 50, "behaviours": []}
        for source in (
            file.get("*"),
            file.get(instance),
            file.get(f"{instance}/{model}"),
            dataset.get("harness_switches"),
            json.loads(os.environ.get("HARNESS_SWITCHES", "{}")),
        ):
            chosen.update(source or {})
        self.behaviours = set(chosen["behaviours"])
        unknown = self.behaviours - set(BEHAVIOURS)
        if unknown:
            sys.exit(f"unknown behaviour of the stand-in harness: {sorted(unknown)}")
        default = 60.0 if self.has("slow") else float(os.environ.get("HARNESS_SECONDS", "1.5"))
        self.seconds = default if chosen["seconds"] is None else float(chosen["seconds"])
        self.layout = int(os.environ.get("HARNESS_LAYOUT", chosen["layout"]))
        self.log_mb = chosen["log_mb"]

    def has(self, *names):
        """Tell whether one of these behaviours is switched on."""
        return bool(self.behaviours & set(names))


def model_of(config):
    """Return the model's name from the argument `llm.MODEL`."""
    return config[len("llm.") :] if config.startswith("llm.") else config


def output_dir(dataset_path, dataset, switches, model, max_iterations):
    """Return the directory of this eval's outputs, in layout 1 or 2 of the users' hosts."""
    root = Path("evaluation/evaluation_outputs")
    run = re.sub(r"[^0-9]", "", os.environ.get("RUN_NUMBER", "")) or "1"
    if switches.layout == 2:
        instance = str(dataset["instance_id"])
        return root / "Trajectory_results" / "Multi-SWE-bench" / instance / model / f"Run{run}"
    name = "dataset" if switches.has("shared-dir") else str(Path(dataset_path).resolve()).replace("/", "__")
    return root / "outputs" / f"{name}-train" / "CodeActAgent" / f"{model}_maxiter_{max_iterations}_N_v0.62.0-no-hint-run_{run}"


def be_stubborn(switches):
    """Ignore SIGTERM when the eval is one that does."""
    if switches.has("ignore-term"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def container(name, seconds):
    """Run a real container without network for `seconds`, when this host has an engine."""
    if os.environ.get("HARNESS_NO_DOCKER"):
        time.sleep(seconds)
        return
    command = ["docker", "run", "--rm", "--network", "none", "--name", name, IMAGE, "sleep", f"{seconds:.2f}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        sys.exit(f"docker run ended with {done.returncode}")


# The host's own record of what ran when


def process_token(pid):
    """Return pid and kernel start time, so that a reused pid is another process; empty when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else f"{pid}-{fields[19]}"


def processes_here(*words):
    """Return the pids of this host whose command line holds one of `words`.

    Hosts that share a machine are told apart by HOME, so that an eval sees, and ends, only what its own host runs.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or entry.name == str(os.getpid()):
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            here = f"HOME={HOME}".encode() in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if here and any(word in command for word in words):
            found.append(int(entry.name))
    return found


def pkill(word):
    """Do what `pkill -f WORD` does, within this host."""
    for pid in processes_here(word):
        try:
            os.kill(pid, signal.SIGTERM)
        except OSError:
            continue


def write_record(event, path, pid, instance, model, token=None, rc=None):
    """Append one line; a start also says which earlier evals, and which phases of any eval, it finds alive."""
    token = token or process_token(pid)
    line = {
        "event": event, "eval": token, "instance_id": instance, "model": model_of(model), "pid": int(pid),
        "time": time.time(), "boottime": time.clock_gettime(time.CLOCK_BOOTTIME),
    }  # fmt: skip
    with open(path, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if event == "start":
            file.seek(0)
            earlier = [json.loads(text) for text in file]
            stopped = {record["eval"] for record in earlier if record["event"] == "stop"}
            unended = [r["eval"] for r in earlier if r["event"] == "start" and r["eval"] not in stopped]
            line["alive"] = [other for other in unended if process_token(other.partition("-")[0]) == other]
            line["phases"] = [process_token(other) for other in processes_here("run_infer.py", "eval_pilot2_standardized.py")]
            line["gone"] = [other for other in unended if other not in line["alive"]]
        else:
            line["rc"] = int(rc)
        file.write(json.dumps(line) + "\n")
    return token


def leave_children():
    """Leave a child in this session and a daemon that inherits nothing, their pids in `~/harness-children`."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    stay = ["sh", "-c", f"echo $$ >>{shlex.quote(str(HOME / 'harness-children'))}; exec sleep 1987"]
    subprocess.Popen(stay, close_fds=False, **quiet)
    subprocess.Popen(["setsid", "--fork", *stay], close_fds=True, env={"PATH": os.environ["PATH"]}, **quiet).wait()
    print("left two processes behind")


def settings(path, model):
    """Return what the eval script asks for, as shell assignments."""
    dataset = load_dataset(path)
    switches = Switches(dataset, model_of(model))
    instance = str(dataset["instance_id"])
    values = {
        "INSTANCE": instance,
        "REPO_TAG": f"mswebench/{dataset['repo'].lower().replace('/', '_m_')}:pr-{instance}",
        "RECORD": str(HOME / "eval-records.jsonl"),
        "OWN_HOST": "1" if Path("/run/eval-host-ready").exists() else "",
        "IMAGE": IMAGE,
    }
    values.update({f"HAS_{name.replace('-', '_')}": "1" if switches.has(name) else "" for name in BEHAVIOURS})
    return "\n".join(f"{name}={shlex.quote(value)}" for name, value in values.items())


def patch_size(path, instance):
    """Return the size of the patch that the newest line for `instance` in output.jsonl has, in bytes."""
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    mine = [line for line in lines if line["instance_id"] == instance] or lines
    return len(mine[-1]["test_result"]["git_patch"].encode())


def main(argv):
    """Answer the eval script's questions."""
    verb, *rest = argv
    if verb == "settings":
        print(settings(*rest))
    elif verb == "record":
        print(write_record(*rest))
    elif verb == "output-dir":
        dataset = load_dataset(rest[0])
        model = model_of(rest[1])
        print(output_dir(rest[0], dataset, Switches(dataset, model), model, rest[2]))
    elif verb == "patch-size":
        print(patch_size(*rest))
    elif verb == "leave-children":
        leave_children()
    elif verb == "pkill":
        pkill(*rest)
    else:
        sys.exit(f"unknown verb {verb}")


if __name__ == "__main__":
    main(sys.argv[1:])
