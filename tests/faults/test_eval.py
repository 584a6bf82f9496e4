"""Faults of the eval itself: what its exit code and its outputs say against each other, and what it prints."""

from __future__ import annotations

import os
import re
import time

from tests.faults.test_host_machine import LABEL, begun, records, scripted, scripts
from tests.support.catalogue import fault
from tests.support.containers import ContainerFleet
from tests.support.harness import SCRIPT
from tests.support.operator import Operator, finish

__all__ = ["scripts"]

ENDLESS_GB = int(os.environ.get("FLEET_TEST_ENDLESS_GB", "2"))
"""How much an eval prints that never stops; `make endless` has it print 10."""


@fault("E1")
def test_outputs_that_are_valid_count_whatever_the_exit_code(scripts: Operator, eval_hosts: ContainerFleet) -> None:
    # The harness's own outputs, by the harness itself; then an exit code of 3 all the same.
    harness = "cd ~/SWETEs7/OpenHands && PATH=$HOME/.local/bin:$PATH PYTHONPATH=$PWD HARNESS_SECONDS=0.3 "
    harness += f"./{SCRIPT} llm.gpt ~/.fleet/inputs/*/one-1.jsonl 1 200 1\n"
    copy = 'cp -r "$(dirname "$(find evaluation/evaluation_outputs -name output.jsonl)")"/. "$1"; exit 3'
    path = scripted(scripts, eval_hosts, "eval1", harness + copy)
    said = scripts.run("dispatch", path)
    assert said.code == 0, said.err
    assert scripts.states() == {LABEL: "accepted"}
    assert [one["rc"] for one in records(scripts, "observed") if one["state"] == "finished"] == [3]
    # And none, with an exit code of 0, counts for nothing.
    path = scripted(scripts, eval_hosts, "eval2", "exit 0", "two-2")
    said = scripts.run("dispatch", path, "--batch", "empty")
    assert said.code == 2, said.err
    assert scripts.states("empty") == {"two-2/gpt/run1": "rejected"}
    assert begun(eval_hosts, "eval1") == begun(eval_hosts, "eval2") == 1


@fault("E2")
def test_endless_output_is_capped_on_the_host_and_comes_in_pieces(scripts: Operator, eval_hosts: ContainerFleet) -> None:
    endless = f"yes 0123456789 | dd bs=1M iflag=fullblock status=none count={ENDLESS_GB * 1000}"
    path = scripted(scripts, eval_hosts, "eval1", f"echo FIRST; {endless}; echo; echo LAST")
    process = scripts.start("dispatch", path)
    sizes = [0]
    while process.poll() is None:
        sizes.append(int(eval_hosts.shell("eval1", "du -sb ~/.fleet/attempts 2>/dev/null | cut -f1") or 0))
        time.sleep(0.2)
    assert finish(process).code == 2
    assert max(sizes) < 68 << 20, "nothing but the log, and that within its cap, at any time"
    size = int(eval_hosts.shell("eval1", "stat -c %s ~/.fleet/attempts/*/log"))
    assert 64 << 20 < size < 66 << 20
    kept = scripts.collected / "phase8" / LABEL / "attempt1" / "fleet.log"
    text = kept.read_text()
    assert text.endswith("LAST\n") and len(text) <= 1 << 20
    (left_out,) = re.findall(r"(\d+) bytes of log left out here", text)
    assert abs(int(left_out) + size - (ENDLESS_GB * 1000 << 20)) < 1 << 20, "every byte was read, and is kept or counted"
    shown = scripts.run("logs", "one-1")
    assert shown.code == 0 and len(shown.out) <= 64 << 10
    assert shown.out.rstrip().endswith("LAST")
