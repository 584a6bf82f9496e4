"""The parts of the agent that need no container: the key, the model's address, endings, and what a patch may hold."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.model.verdict import Cause
from fleet.quality.agent_errors import agent_error
from tests.support.canary import forms
from tests.support.lite import parts

ROOT = Path(__file__).resolve().parent.parent
KEY = "cpk_0f8e7d6c.5b4a/3928+17=06"


@pytest.fixture(scope="module")
def part() -> Iterator[Any]:
    """Return a function that imports a module of the runner."""
    with parts() as load:
        yield load


def test_the_key_is_taken_out_of_text_in_every_form_in_which_it_could_come_back(part: Any) -> None:
    key = part("key").Key(KEY, "a test")
    for form in (*forms(KEY), urllib.parse.quote_plus(KEY).encode(), base64.urlsafe_b64encode(KEY.encode())):
        text = "before " + form.decode() + " after"
        cleaned = key.clean(json.dumps({"text": text}))
        assert form.decode()[6:-6] not in cleaned, form
        assert json.loads(cleaned)["text"].startswith("before ") and cleaned.endswith(' after"}')
    assert KEY not in repr(key)
    assert key.clean("nothing of it: cpk_0f8e") == "nothing of it: cpk_0f8e"


def test_a_word_that_stands_for_no_key_stays_in_texts(part: Any) -> None:
    assert part("key").Key("none", "a test").clean("there is none") == "there is none"


@pytest.mark.parametrize("value", ["", "two words", 'quo"te', "back\\slash", "line\nbreak", "sch\u00f6n", "x" * 5000])
def test_what_cannot_be_a_key_is_refused_without_showing_it(part: Any, value: str) -> None:
    with pytest.raises(part("errors").InputError) as error:
        part("key").Key(value, "$LITE_API_KEY")
    assert str(error.value) == "$LITE_API_KEY holds no key: one line of printable characters is expected"


def test_keys_and_settings_of_the_client_leave_the_environment(part: Any) -> None:
    environ = {"LITE_API_KEY": "a", "OPENAI_API_KEY": "b", "OPENAI_ORG_ID": "c", "CHUTES_API_KEY": "d", "PATH": "/bin"}
    part("key").forget(environ)
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "url",
    ["", "llm.chutes.ai", "ftp://a/v1", "https://", "https://user:secret@a/v1", "https://a/v1?key=secret", "https://a:x/v1", "https://a/#b"],
)  # fmt: skip
def test_an_address_that_is_none_or_holds_a_secret_is_refused(part: Any, url: str) -> None:
    with pytest.raises(part("errors").InputError) as error:
        part("model").Model("m", url or "x")
    assert "user:secret" not in str(error.value)


def test_the_price_is_per_million_tokens_and_without_one_nothing_is_said(part: Any) -> None:
    model = part("model").Model
    usage = {"prompt_tokens": 500_000, "completion_tokens": 100_000}
    assert model("m", price="0.3,1.2").cost(usage) == pytest.approx(0.27)
    assert model("m").cost(usage) is None and model("m", price="0.3,1.2").cost(None) is None
    for price in ("1", "a,b", "-1,2", "1,2,3", "nan,1"):
        with pytest.raises(part("errors").InputError):
            model("m", price=price)


def test_plain_http_to_another_machine_is_told(part: Any) -> None:
    model = part("model").Model
    assert model("m", "http://10.0.0.7:8000/v1").in_clear
    assert not model("m", "http://127.0.0.1:8000/v1").in_clear and not model("m").in_clear


def test_zero_tokens_of_a_prompt_are_a_provider_that_told_none(part: Any) -> None:
    usage_of = part("session").usage_of
    assert usage_of(0, 0) is None and usage_of(None, None) is None and usage_of(3, None) is None
    assert usage_of(3, 0) == {"prompt_tokens": 3, "completion_tokens": 0}


def test_every_limit_is_recognised_as_the_models_and_no_provider_error_is(part: Any) -> None:
    text = (ROOT / "remote_scripts/swebench_lite/session.py").read_text()
    limits = re.findall(r'raise Ended\("([a-z-]+)", "([^"]+)"', text)
    assert {name for name, _ in limits} == {"max-turns", "token-budget", "time-budget"}
    for _, words in limits:
        assert (agent_error(words).kind, agent_error(words).cause) == ("limit", Cause.MODEL)
    assert agent_error("runtime not ready, the sandbox failed in stage clone: x").cause is Cause.ENVIRONMENT
    assert agent_error("the sandbox container died: x").cause is Cause.ENVIRONMENT


def test_foreign_words_cannot_steer_a_terminal(part: Any) -> None:
    error = RuntimeError("one\x1b[2Jtwo\u202e three\r\nfour")
    ending, words, again = part("ending").explain(error, str)
    assert (ending, again) == ("framework", False)
    assert words == "RuntimeError: one\ufffd[2Jtwo\ufffd three four"


def test_of_a_diff_only_what_the_guardrails_admit_is_handed_in(part: Any) -> None:
    good = "diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-diff --git a/x b/x\n+diff --git a/y b/y\n"
    hidden = "diff --git a/t.py b/t.py\n--- a/t.py\n+++ b/t.py\n@@ -1 +1 @@\n-a\n+b\n"
    binary = "diff --git a/b.bin b/b.bin\nindex 1..2 100644\nBinary files a/b.bin and b/b.bin differ\n"
    link = (
        "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+/etc\n\\ No newline at end of file\n"
    )
    patch, left = part("tools")._admitted(hidden + good + binary + link, {"t.py"})
    assert patch == good
    assert set(left) == {"t.py", "b.bin", "l"}


def test_what_a_host_installs_is_what_the_tests_ran_with(part: Any) -> None:
    locked = set((ROOT / "requirements.lock").read_text().splitlines())
    pins = part("agent_setup").PINS
    assert set(pins) == set(part("model").FRAMEWORKS)
    for packages in pins.values():
        assert {package.replace("[openai]", "") for package in packages} <= locked
