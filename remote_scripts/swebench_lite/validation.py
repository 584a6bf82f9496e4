"""Can a task be graded? Its F2P tests must fail before the gold patch and pass after it, its P2P tests pass both times."""

from run import Run, Settings


def validate(task, settings, times=1, say=print):
    """Return a row: `gradable`, and if not the first reason, with the tests that it is about.

    With `times` above 1 the task is run so often, and outcomes that differ make it flaky, so not gradable.
    """
    row = {
        "task_id": task.task_id,
        "gradable": False,
        "reason": None,
        "tests": [],
        "runs": 0,
        "duration_s": 0.0,
        "image_id": None,
    }
    row["sandbox"] = settings.kind
    if not task.fail_to_pass:
        return dict(row, reason="FAIL_TO_PASS is empty: nothing tells whether it is solved")
    if not task.gold_patch:
        return dict(row, reason="there is no gold patch to try")
    twice = Settings(str(settings.directory), settings.kind, settings.image, before=True)
    seen = []
    for number in range(1, times + 1):
        run = Run(task, twice, task.gold_patch)
        result = run.execute()
        row.update(runs=number, duration_s=round(row["duration_s"] + result["duration_s"], 3), image_id=result["image_id"])
        if result["status"] not in ("pass", "fail"):
            return dict(row, reason="%s in stage %s: %s" % (result["status"], result["stage"], result["reason"]))
        seen.append((run.before.outcomes, run.report.outcomes))
        say(
            "%s: run %d, %d passed before, %d after"
            % (task.task_id, number, run.before.count("passed"), run.report.count("passed"))
        )
    reason, tests = judge(task, seen)
    return dict(row, gradable=reason is None, reason=reason, tests=tests)


def judge(task, seen):
    """Return (reason, tests) why these outcomes, a (before, after) per run, cannot grade the task; (None, []) when they can."""
    expected = (*task.fail_to_pass, *task.pass_to_pass)
    flaky = [test for test in expected if len({(before.get(test), after.get(test)) for before, after in seen}) > 1]
    if flaky:
        return "flaky: %d runs disagree" % len(seen), flaky
    before, after = seen[0]
    checks = (
        ("FAIL_TO_PASS passes without the patch", [test for test in task.fail_to_pass if before.get(test) == "passed"]),
        ("not found after the gold patch", [test for test in expected if test not in after]),
        ("FAIL_TO_PASS fails with the gold patch", [test for test in task.fail_to_pass if after.get(test) != "passed"]),
        ("PASS_TO_PASS fails without the patch", [test for test in task.pass_to_pass if before.get(test) != "passed"]),
        ("PASS_TO_PASS fails with the gold patch", [test for test in task.pass_to_pass if after.get(test) != "passed"]),
    )
    return next(((reason, tests) for reason, tests in checks if tests), (None, []))
