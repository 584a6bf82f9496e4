"""JSON made to exhaust, deceive or surprise whoever reads it: from hosts, from files, from the operator's own hand."""

from __future__ import annotations

import ast
import gzip
import io
import json
import shutil
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.agent import AgentClient
from fleet.checks.survey import judge_host
from fleet.collect.manifest import HostManifest, Limits, encode, read_manifest, result_manifest
from fleet.collect.outcome import Result
from fleet.collect.sweep import Sweep
from fleet.dispatch.files.collected import Books
from fleet.errors import AgentError, FleetError, InputError, TamperedTransfer, TransferFailed
from fleet.inventory import Inventory, load_inventory
from fleet.model.assignment import Assignment, read_assignment
from fleet.model.dataset import read_dataset
from fleet.testing import local_host
from fleet.transport import PullRequest, PullResult, Session, Transport
from tests.support.catalogue import attack
from tests.support.datasets import dataset, task
from tests.support.facts import healthy, make_host, make_pipeline
from tests.support.finished import finished_host, small_pipeline
from tests.support.mutation import QUICK, anything, places, replaced

ROOT = Path(__file__).parents[2]
ASSIGNMENT = {
    "$defaults": {"max_iterations": 100},
    "eval1": [task("i-1", "gpt", "d.json", run=2, env={"KEY": "x"})],
    "@eval": [task("i-2", "gpt", "d.json", timeout=5.0)],
}
HOSTS = {
    "defaults": {"user": "u", "port": 22, "pipeline": "openhands", "identity_file": "~/.ssh/id", "in_flight": 4},
    "hosts": {"eval[1-3]": {"alias": "aws-{name}"}, "other": {"address": "10.0.0.1", "port": 2222, "jump": "u@10.0.0.2"}},
    "groups": {"all": {"hosts": ["eval*", "other"], "user": "v"}},
}
MANIFEST = {
    "root": "/srv/u/out",
    "source": "/srv/u/out",
    "found_by": "x",
    "files": [{"path": "a/b", "size": 1, "sha256": "0" * 64}, {"path": "c", "size": 0, "sha256": "1" * 64}],
    "bytes": 1,
    "skipped": [{"path": "x", "why": "link"}],
    "stale": ["y"],
    "sealed_at": "2026-01-01T00:00:00Z",
    "leftovers": {"processes": [], "containers": []},
}


@attack("S14", "S15")
@QUICK
@given(st.sampled_from(list(places(ASSIGNMENT))), anything)
def test_an_assignment_with_anything_anywhere_is_read_or_refused(place: tuple[Any, ...], value: Any) -> None:
    raw = json.dumps(replaced(ASSIGNMENT, place, value)).encode()
    try:
        assert isinstance(read_assignment(raw, "a.json", "0"), Assignment)
    except InputError as error:
        assert error.message.startswith("a.json: ")


@attack("S14", "S15")
@QUICK
@given(st.sampled_from(list(places(dataset("i-1")))), anything)
def test_a_dataset_with_anything_anywhere_is_read_or_refused(place: tuple[Any, ...], value: Any) -> None:
    try:
        read_dataset(json.dumps(replaced(dataset("i-1"), place, value)).encode(), "d.json")
    except InputError as error:
        assert error.message.startswith("d.json: ")


@attack("S15")
@QUICK
@given(st.sampled_from(list(places(HOSTS))), anything)
def test_a_hosts_file_with_anything_anywhere_is_read_or_refused(place: tuple[Any, ...], value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hosts.yaml"
        path.write_text(json.dumps(replaced(HOSTS, place, value)))
        try:
            assert isinstance(load_inventory(path), Inventory)
        except InputError as error:
            assert str(path) in error.message or folder in error.message, error.message


@attack("S15")
@QUICK
@given(st.sampled_from(list(places(MANIFEST))), anything)
def test_a_manifest_with_anything_anywhere_is_read_or_refused_whole(place: tuple[Any, ...], value: Any) -> None:
    changed = replaced(MANIFEST, place, value)
    try:
        manifest = read_manifest(changed if isinstance(changed, dict) else {}, Limits(1 << 20, 1 << 20, 10), "eval1")
    except (TamperedTransfer, TransferFailed) as error:
        assert error.message.isprintable()
    else:
        assert isinstance(manifest, HostManifest)
        assert encode(result_manifest(manifest, "a1")).isascii()


@attack("S15")
@QUICK
@given(st.sampled_from(list(places(healthy()))), anything)
def test_a_probe_with_anything_anywhere_is_a_report_and_nothing_worse(place: tuple[Any, ...], value: Any) -> None:
    report = judge_host(make_host(), make_pipeline(), replaced(healthy(), place, value), 0.1, {})
    for finding in report.findings:
        assert finding.message.isprintable() and finding.fix.isprintable()


class Liar(AgentClient):
    """The real client of an agent that answers each verb with what it is told to."""

    def __init__(self, answers: dict[str, Any]) -> None:
        super().__init__(cast(Transport, Copier()), b"agent")
        self._answers = answers

    @contextmanager
    def conversation(self) -> Iterator[None]:
        yield

    def _ask(self, request: Any, deadline_s: float, bodies: Any = None) -> Any:
        return self._answers[request["verb"]]

    def _talk(self, request: Any, deadline_s: float) -> Any:
        return self._ask(request, deadline_s)


class Copier:
    """Brings files by copying: what is tested here comes before and after."""

    host = local_host("eval1", pipeline="small")

    def pull(self, request: PullRequest) -> PullResult:
        for name in request.files:
            source = Path(request.source) / name
            if source.is_file():
                (request.target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, request.target / name)
                (request.target / name).chmod(0o600)
        return PullResult(0.0, 0, resumed=False)

    def alive(self, _: float) -> bool:
        return True


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Yield the true answers of the agent of a host where an eval has ended."""
    with finished_host(tmp_path_factory.mktemp("honest") / "eval1") as host:
        host.run('cd "$FLEET_OUTPUT_DIR"; echo "{}" > output.jsonl; echo x > log')
        facts = host.client.probe({"files": ["~/work/scripts/run.sh"]})
        logs = {"data": "eAo=", "offset": 0, "next": 2, "size": 2, "final": True}
        yield {
            "status": host.client.status(),
            "manifest": host.client.evidence("a1"),
            "probe": {"facts": facts},
            "logs": logs,
            "ack": {"acked": True},
        }


@attack("S15")
@QUICK
@given(st.data(), anything)
def test_an_agent_that_answers_anything_anywhere_costs_its_own_results_and_no_more(
    honest: dict[str, Any], data: st.DataObject, value: Any
) -> None:
    place = data.draw(st.sampled_from([way for way in places(honest) if len(way) >= 2]))
    liar = Liar(replaced(honest, place, value))
    with tempfile.TemporaryDirectory() as folder:
        sweep = Sweep(Books(Path(folder)), lambda _: small_pipeline())
        try:
            results = sweep.run(Copier.host, liar, liar.transport, lambda _: None)
        except FleetError as error:
            assert error.message
            return
        for result in results:
            assert isinstance(result, Result)
            json.dumps(result.document, allow_nan=False).encode()
        outside = [path for path in Path(folder).rglob("*") if path.is_symlink()]
        assert not outside


class Mouth(Session):
    """A session whose host says what it is told to."""

    def __init__(self, body: bytes) -> None:
        self._body, self._said = body, False

    def send(self, data: bytes) -> None:
        for line in data.split(b"\n"):
            if line.startswith(b'{"'):
                nonce = json.loads(line)["nonce"].encode()
                self._body = self._body.replace(b"NONCE", nonce)

    def receive(self, timeout_s: float) -> bytes | None:
        said, self._body = self._body, b""
        return said

    def exit_status(self, timeout_s: float) -> int | None:
        return 0

    def stderr(self) -> bytes:
        return b""

    def close(self) -> None:
        """Nothing to close."""


@attack("S14")
@pytest.mark.parametrize(
    "answer",
    [
        b"[" * 100_000,
        b'{"ok": true, "attempts": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"ok": true, "attempts": ' + b"9" * 5000 + b"}",
        b'{"ok": true, "attempts": ',
        b'["ok"]',
        b'"ok"',
        b'{"ok": "true"}',
        b'{"ok": 1, "attempts": []}',
        b"\xff\xfe",
        b'{"ok": true, "ok": false, "attempts": []}',
        b'{"ok": true, "attempts": NaN}',
    ],
    ids=lambda body: body[:30].decode("utf-8", "replace"),
)
def test_an_answer_made_to_exhaust_or_deceive_is_refused_as_one(answer: bytes) -> None:
    class Line:
        host = local_host("eval1")
        dead_after_s = 15.0

        def start(self, *_: Any, **__: Any) -> Session:
            return Mouth(b"<<NONCE " + answer + b">>\n")

        def alive(self, _: float) -> bool:
            return True

    client = AgentClient(cast(Transport, Line()), b"agent")
    with pytest.raises(FleetError) as caught:
        client.status()
    assert isinstance(caught.value, AgentError) or caught.value.bit


@attack("S14")
def test_an_endless_line_in_an_output_is_not_read_to_its_end(tmp_path: Path) -> None:
    from fleet.model.pipeline import Quality
    from fleet.quality import judge

    with (tmp_path / "output.jsonl").open("wb") as file:
        file.write(b'{"instance_id": "')
        file.truncate(300 << 20)
    started = time.monotonic()
    verdict = judge(tmp_path, None, Quality())
    assert time.monotonic() - started < 10
    assert verdict.verdict == "rejected"
    assert "output-malformed" in {reason.code for reason in verdict.reasons}


BOMB = bytes(50_000_000)


@attack("S16")
def test_an_archive_among_the_outputs_is_a_file_like_any_other(tmp_path: Path) -> None:
    """Judged as bytes: 50 MB of zeros in 50 kB never become 50 MB again."""
    from fleet.model.pipeline import Quality
    from fleet.quality import judge

    (tmp_path / "output.jsonl.gz").write_bytes(gzip.compress(BOMB))
    with zipfile.ZipFile(tmp_path / "outputs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../evil", BOMB)
    with tarfile.open(tmp_path / "outputs.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("../../evil")
        member.size = len(BOMB)
        tar.addfile(member, io.BytesIO(BOMB))
    (tmp_path / "output.jsonl").write_bytes((tmp_path / "output.jsonl.gz").read_bytes())
    before = sum(path.stat().st_size for path in tmp_path.rglob("*"))
    verdict = judge(tmp_path, None, Quality())
    assert verdict.verdict == "rejected"
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) == before < 1_000_000
    assert not (tmp_path.parent.parent / "evil").exists()


@attack("S16")
def test_no_source_of_the_product_can_unpack_an_archive() -> None:
    """What hosts send is never unpacked; sources of a task are, by swebench_lite, inside its own limits."""
    unpackers = {"tarfile", "zipfile", "gzip", "bz2", "lzma", "zipimport"}
    scripts = [path for path in (ROOT / "remote_scripts").rglob("*.py") if path.parent.name != "swebench_lite"]
    for path in [*(ROOT / "fleet").rglob("*.py"), *scripts]:
        tree = ast.parse(path.read_bytes())
        for node in ast.walk(tree):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not unpackers & {name.split(".")[0] for name in names}, path
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("unpack_archive", "extractall", "decompress", "decompressobj"), path
