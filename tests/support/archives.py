"""An assignment whose image archives are in S3, and the operator's command line in this process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fleet.cli.main import run
from tests.support.datasets import task, write_dataset

if TYPE_CHECKING:
    from tests.support.buckets import Front

BUCKET = "images"
PREFIX = "eval/2026/"
READ = ("s3:GetObject", f"arn:aws:s3:::{BUCKET}/{PREFIX}*")
"""All that a host needs."""


def commit(number: int) -> str:
    return f"{number:02d}" * 20


def key(number: int) -> str:
    """Return the key of the archive of an instance."""
    return f"{PREFIX}example_teapot-{commit(number)}.tar"


def uri(number: int) -> str:
    return f"s3://{BUCKET}/{key(number)}"


@dataclass
class Desk:
    """An operator's directory with hosts.yaml, and what a command answered."""

    directory: Path
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def assign(self, uris: Sequence[str | None], name: str = "phase8", host: str = "eval{}", **fields: Any) -> Path:
        """Write an assignment with one task per address, for a host each; None = a dataset without an address."""
        entries: dict[str, list[dict[str, Any]]] = {}
        for number, address in enumerate(uris, start=1):
            instance = f"teapot-{number}"
            extra = {"base_commit": commit(number), "image_storage_uri": address, **fields}
            write_dataset(self.directory / f"{name}-{instance}.json", instance, extra=extra)
            entries.setdefault(host.format(number), []).append(task(instance, "gpt", f"{name}-{instance}.json"))
        path = self.directory / f"{name}.json"
        path.write_text(json.dumps(entries))
        return path

    def sign_as(self, credentials: tuple[str, str]) -> None:
        """Put credentials into the environment."""
        for name, value in zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), credentials, strict=True):
            self.monkeypatch.setenv(name, value)

    def fleet(self, *words: str | Path) -> tuple[int, str, str]:
        """Run a command and return its code and what it wrote."""
        self.capsys.readouterr()
        code = run([*map(str, words), "--hosts-file", str(self.directory / "hosts.yaml")])
        said = self.capsys.readouterr()
        return code, said.out, said.err

    def images(self, path: Path, *words: str) -> tuple[int, dict[str, Any]]:
        """Run `fleet images --json` and return its code and its document."""
        code, out, err = self.fleet("images", path, "--json", *words)
        assert err == "", err
        return code, json.loads(out)


def desk_in(directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Return a desk with nine hosts that nobody could reach."""
    (directory / "hosts.yaml").write_text("hosts:\n" + "".join(f"  eval{n}: {{address: 192.0.2.{n}}}\n" for n in range(1, 10)))
    return Desk(directory, capsys, monkeypatch)


def fill(store: Front, desk: Desk) -> Front:
    """Put three archives into a private bucket, and sign the operator in with a key that reads them and nothing else."""
    s3 = store.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    for number in (1, 2, 3):
        s3.put_object(Bucket=BUCKET, Key=key(number), Body=b"x" * 1000 * number, ChecksumAlgorithm="SHA256")
    desk.sign_as(store.user("host", READ))
    store.asked.clear()
    return store
