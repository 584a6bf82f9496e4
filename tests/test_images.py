"""`fleet images`: every archive is asked for once, and whatever S3 answers is said as it is."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fleet.aws.address import address_of
from fleet.aws.document import ImagesDocument
from tests.support.archives import BUCKET, PREFIX, READ, Desk, commit, key, uri
from tests.support.buckets import Asked, Front, Reply, error
from tests.support.catalogue import attack
from tests.support.hostile import refusal, shell_payloads


def heads(store: Front, *, signed: bool = True) -> list[str]:
    return [one.path for one in store.asked if one.method == "HEAD" and one.signed == signed]


# --- addresses


@pytest.mark.parametrize(
    ("text", "bucket", "key"),
    [
        ("s3://images/a/b_c-0f.tar", "images", "a/b_c-0f.tar"),
        ("s3://my.images-1/b_c-0f.tar", "my.images-1", "b_c-0f.tar"),
        ("s3://images/a/", "images", "a/example_teapot-0f.tar"),
        ("s3://images", "images", "example_teapot-0f.tar"),
    ],
)
def test_an_address_is_a_bucket_and_a_key_or_a_directory_of_the_archive(text: str, bucket: str, key: str) -> None:
    address = address_of(text, "example_teapot-0f")
    assert address is not None
    assert (address.bucket, address.key) == (bucket, key)


@pytest.mark.parametrize("text", ["", "registry.example/teapot:1", "https://images.example/a.tar", "/data/a.tar"])
def test_what_is_not_in_s3_is_no_address(text: str) -> None:
    assert address_of(text, "a-b") is None


@attack("S24")
@pytest.mark.parametrize(
    "text",
    [
        "s3://Images/a.tar", "s3://-images/a.tar", "s3://127.0.0.1/a.tar", "s3://a..b/a.tar", "s3://im/a.tar",
        "s3://images//a.tar", "s3://images/../other/a.tar", "s3://images/a/./b.tar", "s3://images/-rf.tar",
        "s3://images/a b.tar", "s3://images/a%2e%2e/b.tar", "s3://user:word@images/a.tar", "s3://images:80/a.tar", "s3://images/a?versionId=1",
        "s3://arn:aws:s3:us-east-1:1:accesspoint/x/a.tar", "s3://images/" + "a" * 300,
    ],
)  # fmt: skip
def test_an_address_that_could_mean_anything_else_is_refused(text: str) -> None:
    assert "which is not the" in refusal(lambda: address_of(text, "a-b"))


@attack("S24")
def test_shell_text_in_an_address_is_refused_before_anybody_is_asked(filled: Front, desk: Desk, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for payload in shell_payloads(mark).values():
        for address in (f"s3://images/{payload}", f"s3://{payload}/a.tar"):
            code, out, err = desk.fleet("images", desk.assign([address]))
            assert (code, out) == (1, ""), address
            assert "image_storage_uri" in err
    assert filled.asked == []
    assert not mark.exists()


def test_a_directory_of_an_archive_without_a_name_is_refused_with_the_dataset(desk: Desk) -> None:
    desk.sign_as(("AKIATEST", "secret"))
    code, _, err = desk.fleet("images", desk.assign(["s3://images/eval/"], repo=""))
    assert code == 1
    assert "phase8-teapot-1.json" in err


# --- what is there and what is not


def test_every_archive_is_there_with_size_etag_and_checksum_and_is_asked_for_once(filled: Front, desk: Desk) -> None:
    code, document = desk.images(desk.assign([uri(1), uri(2), uri(1), f"s3://{BUCKET}/{PREFIX}"], base_commit=commit(1)))
    assert code == 0, document
    first, second = document["archives"]
    assert (first["uri"], first["state"], first["bytes"]) == (uri(1), "ok", 1000)
    assert first["etag"] and first["checksum"].startswith("sha256:") and first["modified"].startswith("20")
    assert first["tasks"] == ["teapot-1/gpt/run1", "teapot-3/gpt/run1", "teapot-4/gpt/run1"]
    assert first["hosts"] == ["eval1", "eval3", "eval4"]
    assert second["bytes"] == 2000
    assert document["summary"] == {"archives": 2, "ok": 2, "missing": 0, "unknown": 0, "bytes": 3000}
    assert {one["host"]: one["bytes"] for one in document["hosts"]} == {
        "eval1": 1000, "eval2": 2000, "eval3": 1000, "eval4": 1000,
    }  # fmt: skip
    assert document["findings"] == []
    assert sorted(heads(filled)) == [f"/{BUCKET}/{key(1)}", f"/{BUCKET}/{key(2)}"]
    ImagesDocument.model_validate(document)


def test_a_missing_archive_is_named_with_the_nearest_key_where_listing_is_allowed(filled: Front, desk: Desk) -> None:
    desk.sign_as(filled.user("host", READ, ("s3:ListBucket", f"arn:aws:s3:::{BUCKET}")))
    code, document = desk.images(desk.assign([uri(1), f"s3://{BUCKET}/{PREFIX}example_teapot-{'0102' * 10}.tar"]))
    assert code == 2
    missing = document["archives"][1]
    assert missing["state"] == "missing"
    assert missing["nearest"] in (key(1), key(2))
    code, out, _ = desk.fleet("images", desk.assign([f"s3://{BUCKET}/{PREFIX}example__teapot-{commit(3)}.tar"]))
    assert code == 2
    assert f"is not there; the nearest there is {key(3)}" in out
    assert "→ upload it: aws s3 cp FILE" in out


def test_a_403_is_called_forbidden_or_missing_unless_listing_tells_the_two_apart(filled: Front, desk: Desk) -> None:
    path = desk.assign([f"s3://{BUCKET}/elsewhere/a.tar"])
    filled.client("s3").put_object(Bucket=BUCKET, Key="elsewhere/a.tar", Body=b"x")
    code, document = desk.images(path)
    assert code == 2
    assert document["archives"][0]["state"] == "forbidden"
    assert "forbidden, or missing where listing is not granted" in document["archives"][0]["message"]
    desk.sign_as(filled.user("lister", ("s3:ListBucket", f"arn:aws:s3:::{BUCKET}")))
    code, document = desk.images(path)
    assert code == 2
    assert document["archives"][0]["message"].startswith("forbidden (GetObject")


def test_empty_and_cold_archives_are_there_and_of_no_use(filled: Front, desk: Desk) -> None:
    s3 = filled.client("s3")
    s3.put_object(Bucket=BUCKET, Key=key(4), Body=b"")
    s3.put_object(Bucket=BUCKET, Key=key(5), Body=b"x", StorageClass="DEEP_ARCHIVE")
    code, document = desk.images(desk.assign([uri(4), uri(5)]))
    assert code == 2
    assert [one["state"] for one in document["archives"]] == ["unusable", "unusable"]
    assert "is empty" in document["archives"][0]["message"]
    assert "cold storage (DEEP_ARCHIVE)" in document["archives"][1]["message"]
    assert "restore-object" in document["archives"][1]["fix"]


def test_a_name_that_hosts_do_not_make_from_repo_and_commit_is_pointed_out(filled: Front, desk: Desk) -> None:
    path = desk.assign([uri(2)])
    code, document = desk.images(path)
    assert code == 0
    assert f"look for example_teapot-{commit(1)}.tar" in document["archives"][0]["message"]
    assert "⚠" in desk.fleet("images", path)[1]


def test_a_bucket_that_does_not_exist_is_named_once_for_all(store: Front, desk: Desk) -> None:
    desk.sign_as(store.user("host", READ, ("s3:ListBucket", "*")))
    code, document = desk.images(desk.assign([uri(1), uri(2)]))
    assert code == 2
    assert {one["message"] for one in document["archives"]} == {f"there is no bucket {BUCKET}"}
    assert heads(store) == []


def test_tasks_without_an_archive_in_s3_are_named_and_an_assignment_without_any_is_refused(filled: Front, desk: Desk) -> None:
    code, document = desk.images(desk.assign([uri(1), None, "registry.example/teapot:1"]))
    assert code == 0
    assert document["elsewhere"] == ["teapot-2/gpt/run1", "teapot-3/gpt/run1"]
    assert "2 tasks without an archive in S3" in desk.fleet("images", desk.assign([uri(1), None, None]))[1]
    code, _, err = desk.fleet("images", desk.assign([None]))
    assert code == 1
    assert "names an image archive in S3" in err


def test_several_assignments_are_one_table(filled: Front, desk: Desk) -> None:
    code, out, err = desk.fleet("images", desk.assign([uri(1)], "a"), desk.assign([uri(1), uri(2)], "b"))
    assert code == 0, err
    assert "2 image archives: 2 there; 2.9 KB, most for eval2" in out


# --- a store in trouble


def test_throttling_is_waited_for(filled: Front, desk: Desk) -> None:
    slow_down = [(503, error("SlowDown"))] * 2

    def throttled(asked: Asked) -> Reply | None:
        return slow_down.pop() if asked.method == "HEAD" and asked.signed and slow_down else None

    filled.instead = throttled
    code, document = desk.images(desk.assign([uri(1)]))
    assert code == 0, document
    assert len(heads(filled)) == 3


def test_endless_throttling_is_not_known_rather_than_missing(filled: Front, desk: Desk) -> None:
    filled.instead = lambda asked: (503, error("SlowDown")) if asked.method == "HEAD" and asked.signed else None
    code, document = desk.images(desk.assign([uri(1)]))
    assert code == 4
    assert document["archives"][0]["state"] == "unknown"
    assert "answered 503" in document["archives"][0]["message"]


def test_a_dead_endpoint_costs_its_patience_once_and_is_not_known(desk: Desk) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        desk.monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{held.getsockname()[1]}")
        desk.sign_as(("AKIATEST", "secret"))
        started = time.monotonic()
        code, document = desk.images(desk.assign([uri(number) for number in range(1, 9)]))
    assert code == 4
    assert document["summary"]["unknown"] == 8
    assert "S3 gave no answer" in document["archives"][0]["message"]
    assert time.monotonic() - started < 20


def test_a_store_that_stops_answering_is_not_asked_for_the_rest(filled: Front, desk: Desk) -> None:
    def stuck(asked: Asked) -> Reply | None:
        if asked.method == "HEAD":
            time.sleep(1.0)
        return None

    filled.instead = stuck
    started = time.monotonic()
    path = desk.assign([f"s3://{BUCKET}/{PREFIX}n{number}.tar" for number in range(1, 81)], host="eval1", base_commit="0f")
    code, document = desk.images(path, "--timeout", "0.3")
    assert code == 4
    assert document["summary"]["unknown"] == 80
    assert sum("not asked for" in one["message"] for one in document["archives"]) == 64
    assert time.monotonic() - started < 25


@pytest.mark.parametrize("page", [b"<html>hello \x1b]0;x\x07</html>", b"<html><body>please log in</body></html>", b""])
def test_an_answer_that_is_not_of_s3_is_not_known(filled: Front, desk: Desk, page: bytes) -> None:
    filled.instead = lambda asked: (200, page)
    code, out, err = desk.fleet("images", desk.assign([uri(1)]))
    assert code == 4, out + err
    assert "is not S3" in out
    assert "✗" not in out and "\x1b" not in out


# --- credentials


def test_without_credentials_nobody_is_asked_and_the_next_command_is_named(filled: Front, desk: Desk) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        desk.monkeypatch.delenv(name)
    path = desk.assign([uri(1)])
    code, _, err = desk.fleet("images", path)
    assert code == 1
    assert "no AWS credentials" in err and "→ aws configure" in err
    desk.monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    code, _, err = desk.fleet("images", path)
    assert code == 1 and "missing" in err
    desk.monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    desk.monkeypatch.setenv("AWS_PROFILE", "nobody")
    code, _, err = desk.fleet("images", path)
    assert code == 1 and "nobody" in err
    assert filled.asked == []


def test_credentials_that_aws_refuses_are_an_error_of_input_and_never_shown(filled: Front, desk: Desk) -> None:
    access, secret = filled.users["host"]
    path = desk.assign([uri(1)])
    desk.sign_as((access, "canary-" + secret))
    code, out, err = desk.fleet("images", path)
    assert code == 1
    assert "the secret key does not belong to the access key" in err
    assert "canary" not in out + err
    desk.sign_as(("AKIANOBODY0000000000", secret))
    code, _, err = desk.fleet("images", path)
    assert code == 1 and "the access key is not known there" in err


def test_a_bad_endpoint_is_an_error_of_input(desk: Desk) -> None:
    desk.sign_as(("AKIATEST", "secret"))
    desk.monkeypatch.setenv("AWS_ENDPOINT_URL", "not a url")
    code, _, err = desk.fleet("images", desk.assign([uri(1)]))
    assert code == 1
    assert "Invalid endpoint" in err


def test_without_boto3_the_command_says_what_to_install_and_check_does_not_miss_it(desk: Desk) -> None:
    path = desk.assign([uri(1)])
    hosts = desk.directory / "hosts.yaml"
    hosts.write_text("hosts:\n  eval1: {address: 127.0.0.1, port: 1}\n")
    program = (
        "import sys; sys.modules['boto3'] = sys.modules['botocore'] = None\n"
        "from fleet.cli.main import run; sys.exit(run(sys.argv[1:]))"
    )

    def without(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, *words, "--hosts-file", str(hosts)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    said = without("images", str(path))
    assert said.returncode == 1
    assert "→ pip install 'fleet-evals[aws]'" in said.stderr
    assert without("check").returncode == 4
    assert without("dispatch", str(path), "--dry-run").returncode == 0
