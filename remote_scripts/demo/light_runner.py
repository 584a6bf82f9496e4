"""Runs plain test functions without pytest, for rehearsals with hundreds of hosts on one machine.

    light_runner.py REPORT

Calls every `test_*` function below ./tests, prints lines like `pytest -rA`, and writes the same JUnit report. No fixtures,
no parameters, no plugins: starting pytest costs ten times what the demo's own tests cost.
"""

import importlib
import sys
import traceback
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def main(report):
    sys.path.insert(0, ".")
    suite = ElementTree.Element("testsuite", name="light")
    lines = []
    for path in sorted(Path("tests").glob("test_*.py")):
        name = "tests." + path.stem
        try:
            module = importlib.import_module(name)
        except Exception:
            ElementTree.SubElement(ElementTree.SubElement(suite, "testcase", name=name), "error").text = traceback.format_exc()
            lines.append("ERROR %s" % path)
            continue
        for test in [key for key in vars(module) if key.startswith("test_")]:
            case = ElementTree.SubElement(suite, "testcase", classname=name, name=test)
            try:
                getattr(module, test)()
            except Exception as error:
                ElementTree.SubElement(case, "failure").text = traceback.format_exc()
                lines.append("FAILED %s::%s - %s" % (path, test, type(error).__name__))
            else:
                lines.append("PASSED %s::%s" % (path, test))
    ElementTree.ElementTree(suite).write(report)
    failed = sum(not line.startswith("PASSED") for line in lines)
    print("\n".join(["collected %d items" % len(lines), *lines, "%d failed, %d passed" % (failed, len(lines) - failed)]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
