"""What pytest is told: which tests, and where its report and its cache go."""

import patch as patches


def pytest_words(options, junit, keywords, selected):
    """Return what Python is told to run the tests; the report goes to `junit`.

    Ids are relative to where it runs and have no prefix, whatever the settings of the project or of its tests. The cache is
    that of no other run, but there is one: a project may ask for it, and its settings too.
    """
    words = ["-m", "pytest", "--rootdir=.", *options, "-rA", "-o", "cache_dir=%s.cache" % junit]
    words += ["-o", "junit_family=xunit1", "--junit-prefix=", "--junit-xml", junit, "--continue-on-collection-errors"]
    return [*words, *(["-k", keywords] if keywords else []), *selected]


def selected(task, sandbox):
    """Return what pytest is given: the task's own choice, else the files of its F2P and P2P, else those of the test patch."""
    if task.tests or not task.test_patch:
        return task.tests
    written = [path for path in patches.Parsed(task.test_patch).paths if path.endswith(".py")]
    named = {test.split("::")[0] for test in (*task.fail_to_pass, *task.pass_to_pass)}
    chosen = [path for path in written if path in named]
    # pytest runs nothing at all where one of its files is not there, and a patch may have removed it.
    others = ["./" + path for path in sorted(named.difference(written)) if path.endswith(".py")]
    if others:
        there = sandbox.run("tests", ["find", *others, "-maxdepth", "0"], 10).output.split("\n")
        chosen += [path for path in others if path in there]
    # None of these may be taken for an option.
    return [path if path.startswith("./") else "./" + path for path in chosen or sorted(named) or written]
