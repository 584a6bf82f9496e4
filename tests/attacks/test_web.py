"""The web dashboard against hostile hosts, other pages in the operator's browser, and other users of the machine.

There is no web dashboard yet: every test here starts it, and fails for no other reason than that it is not there. Whoever
adds it takes the marks away; `tests/support/served.py` says what the tests take for granted.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fleet.model.verdict import Outcome
from tests.support import batches
from tests.support.canary import as_nobody
from tests.support.catalogue import attack
from tests.support.operator import Operator
from tests.support.served import ServerMissing, page_in_a_file, served

MISSING = pytest.mark.xfail(strict=True, raises=ServerMissing, reason="the web dashboard does not exist yet")
PAYLOADS = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' autofocus onfocus='alert(1)",
    "javascript:alert(1)",
    "</title></style><svg onload=alert(1)>",
    "{{7*7}}${7*7}",
    "<a href=\"javascript:alert(1)\">x</a>",
    "<!--", "]]>", "\x1b]8;;http://evil.example\x07",
)  # fmt: skip


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    """An operator with a batch in which every text that a host may choose is an attack."""
    evil = " ".join(PAYLOADS)
    one, two, three = (batches.task(name, "gpt", host) for name, host in (("t-1", "eval1"), ("t-2", "eval2"), ("t-3", "eval3")))
    made = batches.Batch([one, two, three], ("eval1", "eval2", "eval3"))
    made.ready("eval1").blocked("eval2", "docker", evil, evil).unreachable("eval3", evil)
    made.run(one, "eval1", Outcome.REJECTED, batches.reject("agent-error", evil, evil))
    made.write(tmp_path / "collected")
    (tmp_path / "hosts.yaml").write_text("hosts: {eval1: {address: 127.0.0.1, port: 1}}\n")
    return Operator(tmp_path, tmp_path / "hosts.yaml", {"XDG_STATE_HOME": str(tmp_path / "state")})


class Elements(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_harmless(page: bytes) -> None:
    """Every payload is text, and only text."""
    elements = Elements(page)
    assert not {"img", "svg", "iframe", "object", "embed", "base", "form"} & set(elements.tags)
    assert not [name for name, _ in elements.attributes if name.startswith("on") or name in ("autofocus", "srcdoc")]
    assert not [value for name, value in elements.attributes if name in ("href", "src") and "script:" in value.lower()]
    assert "<script>alert(1)</script>" in elements.text, "the reason is shown, as text"
    assert b"<script>alert" not in page
    assert b"\x1b" not in page


@attack("S17")
@MISSING
def test_markup_in_what_a_host_says_is_text_on_the_page(operator: Operator) -> None:
    with served(operator, "phase8") as server:
        answer = server.ask()
    assert answer.status == 200
    assert_harmless(answer.body)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"].startswith("text/html")
    assert "no-store" in answer.headers["cache-control"]
    assert {"frame-ancestors 'none'", "base-uri 'none'"} <= {part.strip() for part in policy.split(";")}


@attack("S17")
@MISSING
def test_markup_in_a_log_is_sent_as_plain_text(operator: Operator) -> None:
    log = operator.collected / "phase8" / "t-1" / "gpt" / "run1" / "attempt1" / "fleet.log"
    log.parent.mkdir(parents=True)
    log.write_text("\n".join(PAYLOADS))
    with served(operator, "phase8") as server:
        answer = server.ask("/logs/t-1/gpt/run1")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert b"\x1b" not in answer.body


@attack("S17")
@MISSING
def test_markup_in_what_a_host_says_is_text_in_the_exported_file(operator: Operator, tmp_path: Path) -> None:
    page = page_in_a_file(operator, "phase8", tmp_path / "page.html")
    assert_harmless(page)
    elements = Elements(page)
    policies = [value for name, value in elements.attributes if name == "content" and "default-src" in value]
    assert policies
    assert "default-src 'none'" in policies[0]


@attack("S18")
@MISSING
def test_a_foreign_host_header_is_refused(operator: Operator) -> None:
    """A page whose name was rebound to 127.0.0.1 sends its own name, and the browser takes it for the same origin."""
    with served(operator, "phase8") as server:
        for name in ("127.0.0.1", "localhost", "[::1]"):
            assert server.ask(headers={"Host": f"{name}:{server.port}"}).status == 200
        port = server.port
        for name in (f"evil.example:{port}", "evil.example", f"127.0.0.1.evil.example:{port}", "127.0.0.1:1", "", "localhost"):
            assert server.ask(headers={"Host": name}).status == 403, name


@attack("S19")
@MISSING
def test_a_request_from_another_site_is_refused(operator: Operator) -> None:
    with served(operator, "phase8") as server:
        own = f"http://127.0.0.1:{server.port}"
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        for headers in (
            {},
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Origin": f"{own}.evil.example"},
            {"Origin": own, "Sec-Fetch-Site": "cross-site"},
            {"Origin": "http://evil.example", **form},
        ):
            for method in ("POST", "PUT", "DELETE"):
                assert server.ask(method=method, headers=headers, body=b"a=b").status == 403, (method, headers)
        assert server.ask(headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}).status == 403


@attack("S20")
@MISSING
def test_without_the_token_nothing_is_shown_and_it_is_never_in_an_address(operator: Operator) -> None:
    with served(operator, "phase8") as server:
        for path in ("/", "/logs/t-1/gpt/run1", "/anything"):
            assert server.ask(path, token=None).status == 401
            assert server.ask(path, token="wrong").status == 401
            assert server.ask(path, token=server.token[:-1]).status == 401
            assert server.ask(f"{path}?token={server.token}", token=None).status == 401
        origin = {"Origin": f"http://127.0.0.1:{server.port}"}
        cookie = server.ask("/login", method="POST", headers=origin).headers["set-cookie"]
        assert {"HttpOnly", "SameSite=Strict"} <= {part.strip() for part in cookie.split(";")}
        value = cookie.split(";")[0]
        assert server.ask(token=None, headers={"Cookie": value}).status == 200
        assert server.ask(token=None, headers={"Cookie": value[:-1]}).status == 401
        assert server.token.encode() not in server.ask().body
        token = server.token
    written = [path for path in operator.directory.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert len(written) <= 1, "the token file and nothing else; never a log"


@attack("S46")
@MISSING
def test_the_token_is_in_a_file_that_only_its_owner_reads(operator: Operator) -> None:
    with served(operator, "phase8") as server:
        assert server.token_file.stat().st_mode & 0o777 == 0o600
        assert server.token_file.is_relative_to(operator.directory / "state")
        assert len(server.token) >= 32
        assert as_nobody(["cat", str(server.token_file)]).returncode != 0
        command_line = Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert server.token.encode() not in command_line


@attack("S21")
@MISSING
def test_the_server_listens_on_loopback_and_refuses_anything_else(operator: Operator) -> None:
    with served(operator, "phase8") as server:
        listing = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, timeout=10, check=True).stdout
        own = [line.split()[3] for line in listing.splitlines() if f"pid={server.pid}," in line]
        assert own
        assert all(address.startswith(("127.0.0.1:", "[::1]:")) for address in own), own
    for address in ("0.0.0.0", "[::]", "*", "192.0.2.1"):
        said = operator.run("dashboard", "phase8", "--serve", "--listen", f"{address}:0")
        assert said.code == 1, address
        assert "loopback" in said.err


@attack("S22")
@MISSING
def test_no_address_leads_out_of_the_batch(operator: Operator, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("SECRET")
    log = operator.collected / "phase8" / "t-1" / "gpt" / "run1" / "attempt1" / "fleet.log"
    log.parent.mkdir(parents=True)
    log.symlink_to(secret)
    paths = [
        "/logs/../../../../etc/passwd", "/logs/..%2f..%2f..%2fetc/passwd", "/logs/%2e%2e/%2e%2e/etc/passwd",
        "/logs//etc/passwd", "/logs/t-1/gpt/run1/../../../../../secret", "/logs/t-1%00", "/static/../../secret",
        "/journal.jsonl", "/collected/phase8/journal.jsonl", f"/logs/{secret}", "/logs/..%252f..%252fetc/passwd",
        "/logs/t-1/gpt/run1",
    ]  # fmt: skip
    with served(operator, "phase8") as server:
        for path in paths:
            answer = server.ask(path)
            assert answer.status in (400, 404), path
            assert b"root:" not in answer.body
            assert b"SECRET" not in answer.body


@attack("S23")
@MISSING
def test_slow_many_and_huge_requests_do_not_stop_the_server(operator: Operator) -> None:
    with served(operator, "phase8") as server, contextlib.ExitStack() as stack:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        for _ in range(min(1000, limit - 200)):
            with contextlib.suppress(OSError):
                slow = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 1))
                slow.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError):
                if server.ask().status == 200:
                    break
            assert time.monotonic() < deadline, "half-open connections keep others out"
        huge = server.ask(method="POST", headers={"Content-Length": str(1 << 30), "Origin": f"http://127.0.0.1:{server.port}"})
        assert huge.status in (403, 404, 405, 411, 413)
        header = server.ask(headers={"X-Long": "x" * 1_000_000})
        assert header.status in (400, 413, 431)
        resident = Path(f"/proc/{server.pid}/statm").read_text().split()[1]
        assert int(resident) * os.sysconf("SC_PAGE_SIZE") < 400 << 20


def test_the_batch_of_these_tests_is_full_of_attacks(operator: Operator) -> None:
    """The terminal shows them without harm; so there is something to show."""
    said = operator.run("dashboard", "phase8")
    assert said.code == 0, said.err
    assert "\x1b" not in said.out
    assert "<script>" in said.out
