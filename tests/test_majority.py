"""Which content of a critical file is right, when nobody but the hosts themselves can say."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.checks.base import Authority
from fleet.checks.critical import CHECK
from fleet.checks.facts import FileFacts
from fleet.checks.majority import vote
from fleet.checks.reference import critical_files, expectations
from fleet.errors import InputError
from fleet.model.findings import Mark
from tests.support.facts import healthy, make_pipeline, patched, subject


def on_hosts(*digests: str | None) -> dict[str, FileFacts]:
    return {f"eval{n}": FileFacts(exists=digest is not None, sha256=digest) for n, digest in enumerate(digests, start=1)}


def test_more_than_half_of_the_hosts_decide() -> None:
    expected = vote(on_hosts("aaa", "aaa", "bbb"))
    assert (expected.authority, expected.sha256, expected.source) == (Authority.MAJORITY, "aaa", "2 of 3 hosts")


def test_a_host_without_the_file_has_no_vote() -> None:
    assert vote(on_hosts("aaa", "aaa", None, None, None)).sha256 == "aaa"


@pytest.mark.parametrize("digests", [("aaa", "bbb"), ("aaa", "aaa", "bbb", "bbb"), ("aaa", "aaa", "bbb", "ccc", "ddd")])
def test_a_tie_or_a_mere_plurality_decides_nothing_and_names_the_parties(digests: tuple[str, ...]) -> None:
    expected = vote(on_hosts(*digests))
    assert expected.authority is Authority.NOBODY
    assert expected.sha256 is None
    assert "disagree" in expected.source
    assert "eval1" in expected.source
    assert f"eval{len(digests)}" in expected.source


def test_one_host_alone_proves_nothing() -> None:
    assert vote(on_hosts("aaa")).source == vote({}).source == "no reference to compare with"


def test_a_file_that_nobody_vouches_for_is_a_warning_not_a_failure() -> None:
    (finding,) = CHECK.findings(subject(healthy(), expected={}))
    assert finding.mark is Mark.WARN


def test_files_that_nobody_vouches_for_are_one_warning_that_lists_them() -> None:
    disagree = vote(on_hosts("aaa", "SHA_HELPER"))
    findings = CHECK.findings(subject(healthy(), expected={"~/.fleet/pipelines/bench/helper.py": disagree}))
    assert [finding.mark for finding in findings] == [Mark.WARN, Mark.WARN]
    together, alone = findings
    assert together.message == "no reference to compare with: scripts/run.sh is SHA_RUN, docker.py is SHA_DOCKER"
    assert together.subject is None
    assert "--reference DIR" in together.fix
    assert "the hosts disagree" in alone.message
    assert alone.subject == "~/.fleet/pipelines/bench/helper.py"


def test_the_outlier_is_named_with_what_it_has_and_what_the_others_have() -> None:
    expected = {"docker.py": vote(on_hosts("SHA_OTHER", "SHA_OTHER", "SHA_DOCKER"))}
    problems = [f for f in CHECK.findings(subject(healthy(), expected=expected)) if f.subject == "docker.py"]
    assert [f.mark for f in problems] == [Mark.FAIL]
    assert problems[0].message == "docker.py is SHA_DOCKER, not SHA_OTHER (2 of 3 hosts)"
    assert "--reference DIR" in problems[0].fix


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_listed_digest_outranks_every_other_opinion(kind: str) -> None:
    length = {"sha256": 64, "md5": 32}[kind]
    pipeline = make_pipeline(critical=[{"path": "docker.py", kind: "a" * length}], ship=[])
    majority = {"docker.py": vote(on_hosts("SHA_DOCKER", "SHA_DOCKER"))}
    (wrong,) = CHECK.findings(subject(healthy(), pipeline=pipeline, expected=majority))
    assert wrong.mark is Mark.FAIL
    assert "pipeline.yaml" in wrong.message
    answer = patched({"files": {"~/OpenHands/docker.py": {kind: "a" * length}}})
    (right,) = CHECK.findings(subject(answer, pipeline=pipeline, expected=majority))
    assert right.mark is Mark.OK


def test_the_reference_directory_gives_digest_and_mode(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/run.sh").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "docker.py").write_bytes(b"x = 1\n")
    (tmp_path / "helper.py").write_bytes(b"y = 2\n")
    pipeline = make_pipeline(reference=str(tmp_path))
    script, module = critical_files(pipeline, tmp_path)
    assert script.mode == 0o755
    assert module.mode == 0o644
    expected = expectations(pipeline, tmp_path)
    assert expected["docker.py"].sha256 == module.sha256
    assert set(expected) == {"scripts/run.sh", "docker.py", "~/.fleet/pipelines/bench/helper.py"}


def test_a_reference_that_lacks_a_file_is_refused_before_any_host_is_asked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scripts/run\.sh cannot be read"):
        expectations(make_pipeline(), tmp_path, tmp_path)
    with pytest.raises(InputError, match="is not there"):
        expectations(make_pipeline(ship=[]), tmp_path, tmp_path / "nowhere")


def test_a_reference_that_is_not_what_pipeline_yaml_lists_is_refused(tmp_path: Path) -> None:
    (tmp_path / "docker.py").write_bytes(b"x = 1\n")
    pipeline = make_pipeline(critical=[{"path": "docker.py", "sha256": "a" * 64}])
    with pytest.raises(InputError, match=r"pipeline\.yaml lists aaaaaaaaaaaa"):
        critical_files(pipeline, tmp_path)
