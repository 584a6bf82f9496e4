"""A host goes on once its check cannot change any more, and waits for the others where they have a say in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fleet.checks import check_as_they_answer
from fleet.checks.facts import FileFacts
from fleet.checks.majority import is_decided, vote
from fleet.inventory.pipelines import Pipelines, agent_source
from fleet.testing import LocalConnector, local_host
from fleet.transport import Connector

PIPELINE = """
schema: fleet.pipeline/1
name: voted
workdir: "~/work"
{critical}
readiness: {{disk: {{max_used_percent: 100, min_free_gb: 0, min_free_inodes: 0}}, min_free_memory_gb: 0}}
command: ["true"]
outputs: {{root: "{{output_dir}}"}}
"""


class OneIsSilent:
    """A connector on which one host does not answer before it is told to."""

    def __init__(self, connector: Connector, silent: str) -> None:
        self._connector, self._silent = connector, silent
        self.speak = threading.Event()

    def open(self, host: Any) -> Any:
        if host.name == self._silent:
            assert self.speak.wait(30)
        return self._connector.open(host)

    def close(self) -> None:
        self._connector.close()


@contextmanager
def surveyed(
    tmp_path: Path, contents: dict[str, str], silent: str, critical: str
) -> Iterator[tuple[OneIsSilent, Iterator[list[str]]]]:
    homes = {name: tmp_path / name for name in contents}
    for name, home in homes.items():
        (home / "work").mkdir(parents=True)
        (home / "work" / "run.sh").write_text(contents[name])
    folder = tmp_path / "scripts" / "voted"
    folder.mkdir(parents=True)
    (folder / "pipeline.yaml").write_text(PIPELINE.format(critical=critical))
    connector = OneIsSilent(LocalConnector(homes), silent)
    hosts = [local_host(name, pipeline="voted") for name in contents]
    groups = check_as_they_answer(hosts, connector, Pipelines([tmp_path / "scripts"]), agent_source())
    named = ([f"{report.host} {'ready' if report.ready else 'not ready'}" for report in group] for group in groups)
    try:
        yield connector, named
    finally:
        connector.speak.set()
        connector.close()
        deadline = time.monotonic() + 10
        while any(thread.name.startswith(("host-", "reap ")) for thread in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.02)


VOTED = 'critical: [{path: "run.sh"}]'
TOLD = "critical: []"


def until(groups: Iterator[list[str]], count: int) -> set[str]:
    found: set[str] = set()
    while len(found) < count:
        found.update(next(groups))
    return found


def test_hosts_whose_files_nobody_compares_go_on_at_once(tmp_path: Path) -> None:
    with surveyed(tmp_path, {"h1": "a", "h2": "b"}, "h2", TOLD) as (connector, groups):
        assert until(groups, 1) == {"h1 ready"}
        connector.speak.set()
        assert until(groups, 1) == {"h2 ready"}


def test_a_majority_that_the_silent_host_cannot_overturn_lets_the_others_go_on_and_names_the_outlier(tmp_path: Path) -> None:
    contents = {"h1": "a", "h2": "a", "h3": "a", "h4": "b", "h5": "b"}
    with surveyed(tmp_path, contents, "h5", VOTED) as (connector, groups):
        assert until(groups, 4) == {"h1 ready", "h2 ready", "h3 ready", "h4 not ready"}
        connector.speak.set()
        assert until(groups, 1) == {"h5 not ready"}


def test_a_majority_that_the_silent_host_could_overturn_is_waited_for(tmp_path: Path) -> None:
    with surveyed(tmp_path, {"h1": "a", "h2": "a", "h3": "b", "h4": "b"}, "h4", VOTED) as (connector, groups):
        threading.Timer(1.0, connector.speak.set).start()
        began = time.monotonic()
        assert len(until(groups, 4)) == 4
        assert time.monotonic() - began > 0.9


@pytest.mark.parametrize(
    ("votes", "outstanding", "decided"),
    [
        ("a", 0, False),
        ("aa", 0, True),
        ("aa", 1, True),
        ("aa", 2, False),
        ("aaab", 1, True),
        ("aaab", 2, False),
        ("", 3, False),
    ],
)
def test_a_vote_is_decided_when_nobody_who_may_still_vote_can_change_it(votes: str, outstanding: int, decided: bool) -> None:
    def files(text: str) -> dict[str, FileFacts]:
        return {f"h{number}": FileFacts(exists=True, sha256=one * 64) for number, one in enumerate(text)}

    assert is_decided(files(votes), outstanding) is decided
    if decided:
        for other in "abc":
            assert vote(files(votes + other * outstanding)).sha256 == vote(files(votes)).sha256
