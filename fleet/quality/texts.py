"""When each reason code speaks, what that means, and what to do: the words of docs/verdicts.md and `--explain`."""

from __future__ import annotations

from typing import NamedTuple


class Text(NamedTuple):
    """The words of one code, as sentences without markup but backticks."""

    when: str
    means: str
    do: str


TEXTS: dict[str, Text] = {
    "manifest-mismatch": Text(
        when="a collected file is not the one that the host had: other bytes, other size, not there, or not in the manifest",
        means="The copy is damaged or was edited after it was collected; nothing else in this directory can be trusted.",
        do="Collect again; the host keeps its files until the attempt is acknowledged.",
    ),
    "image-mismatch": Text(
        when="the Docker image is not the one that the assignment's `image_id` names, or none was there at the end",
        means="The archive was replaced or cut off, a tag was moved, or an old image was taken for the one just loaded: another"
        " code was tested. It is a warning where no id is given and the image's names meant two images, at once or at start"
        " and end, or where the id is not known.",
        do="Remove the image on the host (`docker rmi`) and the archive if it is damaged, have it loaded again, then retry.",
    ),
    "host-failed": Text(
        when="output.jsonl or the evaluation is missing, and the eval's own log ends with the Docker engine gone, a full disk,"
        " or a disk that failed",
        means="The host broke under the eval. The result says nothing about the model.",
        do="Repair what the message names, then retry; `fleet dispatch` gives the host nothing before it is ready again.",
    ),
    "output-missing": Text(
        when="there is no output.jsonl, or it is not a regular file",
        means="The agent never ran to its end, or wrote somewhere else.",
        do="Read the end of the eval's log, then retry.",
    ),
    "output-empty": Text(
        when="output.jsonl has zero bytes, or only white space",
        means="The harness opened its output and died before the first row, usually in the runtime build.",
        do="Read the end of the eval's log, then retry.",
    ),
    "output-malformed": Text(
        when="output.jsonl is not one JSON object for this instance: cut off, not JSON, a list, NaN, NUL bytes, a key "
        "twice, nested too deeply, an integer of thousands of digits, or several rows that contradict each other. "
        "Half a surrogate pair only warns, a byte order mark is only noted",
        means="The row was not written to its end, or by something that does not write JSON; what can be read is shown, "
        "not believed.",
        do="Compare with the file on the host; if it is the same there, retry.",
    ),
    "instance-mismatch": Text(
        when="the instance_id in output.jsonl is absent, empty or not the task's, or the evaluation is of another instance",
        means="This is somebody else's result, or nobody's: outputs were found by time instead of by id, or the wrong "
        "dataset was staged.",
        do="Look at which directory was collected, then retry.",
    ),
    "environment-broken": Text(
        when="no test ran, or the F2P tests are missing from the log, and the log shows the environment at fault: "
        "command not found, no such file, missing image, missing shared library, no space, killed; where no test ran also a "
        "library that is not in the image, no network, a program for another machine, or any complaint of the shell",
        means="`resolved: false` here says nothing about the model: the tests could not have passed.",
        do="Repair what the message names, then retry.",
    ),
    "agent-error": Text(
        when="`error` is set in output.jsonl; only a warning when the patch is good (long enough and a diff that parses)",
        means="The agent ended with an error. The message says which kind: provider (key, rate limit, 5xx), limit "
        "(iterations, budget, context), runtime-build, runtime, output, other.",
        do="Follow the fix of its kind. A limit is the model's own failure and may be kept.",
    ),
    "patch-missing": Text(
        when="there is no git_patch: absent, null, blank or not text",
        means="The agent changed nothing, or its changes were not recorded.",
        do="Look at the end of the history; retry if the agent was cut off.",
    ),
    "patch-too-small": Text(
        when="the patch is under `min_patch_bytes` (100 bytes)",
        means="The harness ends with exit 0 and no evaluation for such a patch.",
        do="Look at the end of the history, then retry.",
    ),
    "history-missing": Text(
        when="the history is absent, empty or not a list of entries",
        means="Nothing shows what the agent did, so the patch cannot be checked for how it came about.",
        do="Read the eval's log, then retry.",
    ),
    "eval-error": Text(
        when="`error_eval` is true",
        means="The evaluation failed itself; its numbers are leftovers. The cause is environment where its message says so.",
        do="Read the eval's log, then retry.",
    ),
    "test-patch-failed": Text(
        when="`failed_apply_test_patch` is true",
        means="The dataset's tests could not be put in place, often because the model's patch touches the same lines; "
        "the wrong tests ran.",
        do="Compare the patch with the dataset's test_patch.",
    ),
    "eval-missing": Text(
        when="there is no eval_pilot2_output.jsonl, or it is not a regular file",
        means="The patch was not evaluated. The script ends with exit 0 when the patch is under 100 bytes.",
        do="See patch-missing and patch-too-small first; else read the eval's log.",
    ),
    "eval-malformed": Text(
        when="eval_pilot2_output.jsonl is empty, cut off, not JSON, or its fields have the wrong types",
        means="The evaluation did not end, or by something that does not write its format.",
        do="Read the eval's log, then retry.",
    ),
    "report-missing": Text(
        when="eval_outputs/{instance_id}/report.json is not there, unreadable, or silent about the instance; that "
        "eval_outputs/report.json is not there is only noted",
        means="The evaluation did not write its report.",
        do="Read the eval's log, then retry.",
    ),
    "patch-diff-missing": Text(
        when="eval_outputs/{instance_id}/patch.diff is not there or unreadable",
        means="Nothing shows which patch was evaluated.",
        do="Read the eval's log, then retry.",
    ),
    "test-output-missing": Text(
        when="eval_outputs/{instance_id}/test_output.txt is not there or unreadable",
        means="Nothing shows that tests ran.",
        do="Read the eval's log, then retry.",
    ),
    "test-output-empty": Text(
        when="test_output.txt is empty or blank",
        means="Nothing shows that tests ran.",
        do="Read the eval's log, then retry.",
    ),
    "no-tests-executed": Text(
        when="zero tests were parsed: by the evaluation's own count, or in the log; drops to info beside model-broke-tests",
        means="`resolved: false` here says nothing about the model, unless its own patch kept the tests from running. The "
        "cause is model where a test file asks for what the repository should have and the patch does not bring.",
        do="Read test_output.txt; repair the environment, then retry.",
    ),
    "f2p-empty": Text(
        when="both F2P lists are empty or absent",
        means="No test shows whether the issue is solved.",
        do="Look at the dataset's FAIL_TO_PASS and at the log parser.",
    ),
    "resolved-unsupported": Text(
        when="resolved is true but an F2P failed, was skipped or is missing, or there is no F2P, or a P2P failed; by the "
        "lists, the dataset's F2P, or a log that shows it",
        means="The claim is not carried by its own evidence. Counting it would overstate the model.",
        do="Read the test log; evaluate again.",
    ),
    "report-disagrees": Text(
        when="report.json, the report above it and eval_pilot2_output.jsonl contradict each other: resolved, applied, "
        "or a list of tests. That resolved is false although all listed tests passed is only noted",
        means="Files of two different evaluations are mixed in one result.",
        do="Remove the old outputs on the host, then retry.",
    ),
    "patch-disagrees": Text(
        when="the patch in output.jsonl, in patch.diff and in eval_pilot2_output.jsonl is not the same; line ends, what stands "
        "before the first `diff --git` and blanks at the end make no difference, and binary files that were left out are "
        "only noted",
        means="Another patch than the agent's was evaluated.",
        do="Remove the old outputs on the host, then retry.",
    ),
    "patch-not-applied": Text(
        when="`failed_apply_patch` is true, or run_instance.log says that it may have failed to apply",
        means="The patch does not fit the repository, so it counts as unresolved.",
        do="See patch-malformed; nothing needs doing when the model wrote a broken patch.",
    ),
    "patch-malformed": Text(
        when="the patch is not a unified diff that parses",
        means="It was cut off or written by hand, and may not apply.",
        do="Read the patch.",
    ),
    "test-timeout": Text(
        when="`test_timeout` is true",
        means="Tests that had no time count as failed; a slow host looks like an unresolved instance.",
        do="Try another run on an idle host, or raise the harness's timeout.",
    ),
    "log-disagrees": Text(
        when="reading test_output.txt again contradicts the lists, or it names none of the F2P ids. A log cut at 50,000 "
        "characters is said to be cut, and an id that is missing from it is unknown, not failed",
        means="The harness's parser and the log do not agree, or the log belongs to another run.",
        do="Read the log for the tests in the message.",
    ),
    "dataset-disagrees": Text(
        when="the F2P or P2P ids of the result are not the dataset's",
        means="Another version of the dataset was used, or tests were lost on the way.",
        do="Compare the dataset's sha256 in fleet.json.",
    ),
    "p2p-empty": Text(
        when="both P2P lists are empty or absent",
        means="Nothing shows whether the patch broke something else; some instances have no P2P.",
        do="Nothing needs doing when the dataset has none.",
    ),
    "patch-small": Text(
        when="the patch is under `small_patch_bytes` (1 KB)",
        means="Short, and often right; worth a look in a batch.",
        do="Nothing needs doing; read the patch if many are short.",
    ),
    "patch-large": Text(
        when="the patch is over `large_patch_bytes` (100 KB)",
        means="It probably holds files that a build or a test wrote.",
        do="Read the list of files.",
    ),
    "history-short": Text(
        when="the history has under `min_history` (20) entries",
        means="The agent may have given up or been cut off.",
        do="Read the last entries.",
    ),
    "history-long": Text(
        when="the history has over `max_history` (200) entries",
        means="The agent may have gone in circles until a limit.",
        do="Read the last entries.",
    ),
    "metadata-missing": Text(
        when="metadata.json is not there or unreadable",
        means="Nothing says with which model and settings the agent ran.",
        do="Keep the result only if you know the settings.",
    ),
    "completions-missing": Text(
        when="llm_completions/ holds no completion of the instance",
        means="The raw answers of the model are not there for analysis.",
        do="Switch on log_completions in the harness.",
    ),
    "claim-only": Text(
        when="the result is an entry in the report of a whole run, which lists ids by outcome",
        means="Nothing here proves what the report says: neither a list of tests nor a log is beside it.",
        do="Validate the directory with the logs of the instances instead, e.g. logs/run_evaluation/RUN.",
    ),
    "model-broke-tests": Text(
        when="no test ran, and the log shows a syntax or import error in a file that the patch touches",
        means="The patch itself keeps the tests from running. This is a valid, unresolved result.",
        do="Nothing needs doing.",
    ),
    "not-evaluated": Text(
        when="the result is a prediction or a trajectory without an evaluation",
        means="The patch was judged as a patch; whether it resolves the instance is not known.",
        do="Evaluate it, then validate the evaluation's directory.",
    ),
}
