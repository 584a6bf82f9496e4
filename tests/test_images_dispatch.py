"""`dispatch --check-images`: no host is touched unless every archive is there, and what they were is kept."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from fleet.demo.embedded import EmbeddedHosts
from fleet.inventory.pipelines import Pipelines
from tests.support.archives import BUCKET, PREFIX, READ, Desk, key, uri
from tests.support.buckets import Front, error
from tests.support.catalogue import attack


@pytest.fixture
def host(desk: Desk) -> Iterator[list[object]]:
    """Stand where eval1 is said to be, and keep who came."""
    came: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"{{address: 127.0.0.1, port: {listener.getsockname()[1]}}}"
        (desk.directory / "hosts.yaml").write_text(f"hosts:\n  eval1: {address}\n")
        listener.settimeout(0.2)
        done = False

        def accept() -> None:
            while not done:
                try:
                    came.append(listener.accept()[0].close())
                except TimeoutError:
                    continue

        thread = Thread(target=accept)
        thread.start()
        yield came
        done = True
        thread.join(5)


def dispatch(desk: Desk, path: Path, *words: str) -> tuple[int, str, str]:
    return desk.fleet("dispatch", path, "--check-images", "--collected", str(desk.directory / "collected"), *words)


def test_dispatch_touches_no_host_when_an_archive_is_missing_unknown_or_open(
    filled: Front, desk: Desk, host: list[object]
) -> None:
    path = desk.assign([f"s3://{BUCKET}/{PREFIX}gone.tar", uri(1)], host="eval1")
    code, _, err = dispatch(desk, path)
    assert code == 1
    assert f"{PREFIX}gone.tar: is not there" in err or "forbidden, or missing" in err
    assert "no host was asked" in err
    filled.instead = lambda asked: (503, error("SlowDown")) if asked.method == "HEAD" and asked.signed else None
    path = desk.assign([uri(1)], host="eval1")
    assert dispatch(desk, path)[0] == 4
    filled.instead = lambda asked: None
    filled.everyone_may(READ)
    code, _, err = dispatch(desk, path, "--json")
    assert code == 16
    assert json.loads(err)["code"] == "bucket-unsafe"
    assert host == []
    assert not (desk.directory / "collected").exists()


def test_a_dry_run_checks_the_images_too(filled: Front, desk: Desk, host: list[object]) -> None:
    code, out, err = dispatch(desk, desk.assign([uri(1)], host="eval1"), "--dry-run")
    assert code == 0, err
    assert "1 image archive: 1 there" in err and "1 to run" in out
    assert dispatch(desk, desk.assign([f"s3://{BUCKET}/{PREFIX}gone.tar"], host="eval1"), "--dry-run")[0] == 1
    assert host == []


@attack("S43")
def test_what_the_archives_were_is_in_the_journal_and_a_replaced_one_stops_the_batch(filled: Front, desk: Desk) -> None:
    """What asks only whether an archive is there goes on with the other code."""
    datasets = Pipelines().folder("demo") / "datasets"
    record = json.loads((datasets / "spans-17.json").read_text()) | {"image_storage_uri": uri(1)}
    (desk.directory / "d.json").write_text(json.dumps(record))
    with EmbeddedHosts(1, desk.directory / "hosts", pipeline="demo") as hosts:
        (desk.directory / "hosts.yaml").write_text(hosts.hosts_file.read_text())
        path = desk.directory / "phase8.json"

        def assign(runs: int) -> None:
            entry = {"instance_id": "spans-17", "model": "demo-strong", "dataset_file": str(desk.directory / "d.json")}
            defaults = {"pipeline": "demo", "env": {"DEMO_LIGHT": "0.1"}}
            tasks = [entry | {"run": number} for number in range(1, runs + 1)]
            path.write_text(json.dumps({"$defaults": defaults, hosts.names[0]: tasks}))

        assert desk.fleet("trust", "*", "--yes")[0] == 0
        assert desk.fleet("sync", "--yes")[0] == 0
        assign(1)
        code, _, err = dispatch(desk, path)
        assert code == 0, err
        (seen,) = [one for one in journal(desk) if one["type"] == "images"]
        found = filled.client("s3").head_object(Bucket=BUCKET, Key=key(1), ChecksumMode="ENABLED")
        assert seen["archives"] == {
            uri(1): {"bytes": 1000, "etag": found["ETag"].strip('"'), "checksum": f"sha256:{found['ChecksumSHA256']}"}
        }
        filled.client("s3").put_object(Bucket=BUCKET, Key=key(1), Body=b"y" * 1000)
        assign(2)
        assert desk.images(path)[0] == 0
        code, _, err = dispatch(desk, path)
        assert code == 16
        assert "was replaced since this batch began" in err and "--batch NAME" in err
        assert len([one for one in journal(desk) if one["type"] == "started"]) == 1
        recovered = desk.fleet("recover", "phase8", "--collected", str(desk.directory / "collected"))
        assert recovered[0] == 0, recovered[2]
        assert dispatch(desk, path)[0] == 16
        code, _, err = dispatch(desk, path, "--batch", "phase8b")
        assert code == 0, err


def journal(desk: Desk, batch: str = "phase8") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (desk.directory / "collected" / batch / "journal.jsonl").read_text().splitlines()]
