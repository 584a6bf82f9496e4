"""What the tests said: outcomes by test id from pytest's own JUnit report, and what follows from them. Never from words.

pytest names a test case by a mangled class name and a name. Ids that a task expects are mangled the same way and compared
exactly; other ids are put together from the file that the report names. SWE-bench read its ids from lines by words: one that
ended up without its closing bracket stands for all tests that begin with it and a space.
"""

import xml.etree.ElementTree as ElementTree

from errors import StageError

MAX_REPORT = 16 * 1024 * 1024
USAGE = 4
NOTHING_COLLECTED = 5
RAN = (0, 1, 2)
"""pytest's exit codes after which there is something to judge: all passed, some failed, some could not be collected."""


def junit_key(test_id):
    """Return (class name, name) under which pytest reports a test id; of a file that could not be collected ("", its name)."""
    address, bracket, parameters = test_id.partition("[")
    parts = address.split("::")
    module = parts[0][:-3] if parts[0].endswith(".py") else parts[0]
    names = [module.replace("/", "."), *parts[1:]]
    if len(names) == 1:
        return "", names[0]
    return ".".join(names[:-1]), names[-1] + bracket + parameters


def outcome_of(case):
    """Return passed, failed, error or skipped; an expected failure that fails counts as passed, as SWE-bench counts it."""
    tags = {child.tag: child for child in case}
    if "error" in tags:
        return "error"
    if "failure" in tags:
        return "failed"
    if "skipped" in tags:
        return "passed" if tags["skipped"].get("type") == "pytest.xfail" else "skipped"
    return "passed"


def read_junit(data, expected=()):
    """Return {test id: outcome} of a JUnit report; a test that is there twice has its worse outcome."""
    if len(data) > MAX_REPORT:
        raise StageError("tests", "pytest's report has %d bytes, more than %d" % (len(data), MAX_REPORT))
    if b"<!DOCTYPE" in data[:4096] or b"<!ENTITY" in data:
        raise StageError("tests", "pytest's report declares entities; pytest does not write such")
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise StageError("tests", "pytest's report cannot be read: %s" % error) from None
    known = {junit_key(test_id): test_id for test_id in expected}
    order = ("passed", "skipped", "failed", "error")
    outcomes = {}
    for case in root.iter("testcase"):
        key = (case.get("classname") or "", case.get("name") or "")
        cut = (key[0], key[1].partition(" ")[0])
        test_id = known.get(key) or ("[" in cut[1] and known.get(cut)) or _own_id(case, *key)
        outcome = outcome_of(case)
        outcomes[test_id] = max(outcome, outcomes.get(test_id, "passed"), key=order.index)
    return outcomes


def _own_id(case, classname, name):
    path = case.get("file") or ""
    module = path[:-3].replace("/", ".") if path.endswith(".py") else ""
    if not classname:
        return name
    if module and (classname == module or classname.startswith(module + ".")):
        return "::".join([path, *[part for part in classname[len(module) + 1 :].split(".") if part], name])
    return classname.replace(".", "/") + ".py::" + name


class Report:
    """The outcomes of one run of the tests against what the task expects."""

    def __init__(self, outcomes, exit_code, fail_to_pass, pass_to_pass):
        self.outcomes = outcomes
        self.exit_code = exit_code
        self.fail_to_pass = _split(fail_to_pass, outcomes)
        self.pass_to_pass = _split(pass_to_pass, outcomes)
        self.resolved = None
        if fail_to_pass:
            self.resolved = not self.fail_to_pass["failure"] and not self.pass_to_pass["failure"]

    def status(self, before=None):
        """Return pass or fail; StageError where pytest itself says that nothing can be concluded.

        Where pytest ran `before` the patch and cannot even begin after it (conftest.py may import what the patch broke), the
        patch has failed, and nothing else.
        """
        if before and before.exit_code in RAN and self.exit_code in (USAGE, NOTHING_COLLECTED):
            return "fail"
        if self.exit_code not in RAN:
            why = {3: "an internal error", USAGE: "a usage error", NOTHING_COLLECTED: "no tests collected"}
            words = why.get(self.exit_code, "exit code %s" % self.exit_code)
            raise StageError("tests", "pytest ended with %s" % words)
        if self.resolved is not None:
            return "pass" if self.resolved else "fail"
        if self.exit_code == 2:
            raise StageError("tests", "pytest could not collect the tests")
        return "pass" if self.exit_code == 0 else "fail"

    def count(self, outcome):
        """Return how many tests had this outcome."""
        return sum(one == outcome for one in self.outcomes.values())

    def as_json(self):
        """Return the counts, and F2P and P2P as the harness writes them."""
        counts = {outcome: self.count(outcome) for outcome in ("passed", "failed", "error", "skipped")}
        return {
            "counts": counts,
            "exit_code": self.exit_code,
            "FAIL_TO_PASS": self.fail_to_pass,
            "PASS_TO_PASS": self.pass_to_pass,
        }


def _split(tests, outcomes):
    good = [test for test in tests if outcomes.get(test) == "passed"]
    return {"success": good, "failure": [test for test in tests if outcomes.get(test) != "passed"]}
