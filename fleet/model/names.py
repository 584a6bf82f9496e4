"""What a name may look like, and how foreign text is made safe to show.

Names reach argv lists, file names and SSH options; the patterns below are the reason none of them can act as an
option, a path or shell text.
"""

from __future__ import annotations

import re
import unicodedata

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")
"""Instance ids, models, hosts, groups, batches, agents: first character alphanumeric."""

USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")
"""SSH users: OpenSSH before 10.6 expands `$` and backslash in %u (CVE-2026-106583)."""

ADDRESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,252}\Z|::1\Z")
"""Host names and addresses; never starts with `-`, so it cannot become an ssh option."""

_PATH_PART = re.compile(r"[A-Za-z0-9._@=,+][A-Za-z0-9._@=,+~-]{0,254}\Z")
_MAX_DEPTH = 8
_KEY_SHAPES = (
    r"\b[sr]k[-_][A-Za-z0-9_-]{12,}",  # OpenAI, Anthropic, OpenRouter, Stripe
    r"\bA[KS]IA[0-9A-Z]{16}\b",  # AWS
    r"\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}",
    r"\bxox[abeprs]-[A-Za-z0-9-]{10,}|\bxapp-[A-Za-z0-9-]{10,}",  # Slack
    r"\bAIza[\w-]{30,}|\bya29\.[\w-]{20,}",  # Google
    r"\b(?:hf|gsk|r8|npm|pplx|xai|nvapi|dckr_pat|lsv2_[a-z]+)[_-][A-Za-z0-9_-]{20,}|\bd(?:op_v1_|api)[a-f0-9]{32,}",
    r"\bpypi-[\w-]{32,}|\bhvs\.[\w-]{20,}|\bSG\.[\w-]{16,}\.[\w-]{16,}",
    r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*",  # JSON web tokens
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[^-]{0,8192}-----END [A-Z ]*PRIVATE KEY-----)?",
    r"(?i:\bbearer|\bbasic)\s+[A-Za-z0-9._~+/-]{16,}=*",
    r"(?<=://)[^\s/:@]{0,128}:[^\s/@]{3,256}(?=@)",  # https://user:password@host
    r"(?i:x-amz-(?:signature|security-token|credential)|[?&]sig)=[^&\s\"']{8,}",  # presigned addresses
    r"(?P<name>(?i:api[_-]?key|access[_-]?key|account[_-]?key|secret|token|passw(?:or)?d|passphrase)[\w-]{0,40}"
    r"[\\\"']{0,4}[ \t]{0,8}[=:][ \t]{0,8}[\\\"']{0,4})[^\s\\\"',;&]{8,}",
)
_SECRET = re.compile("|".join(_KEY_SHAPES))


def is_name(text: object) -> bool:
    """Tell whether `text` is a valid id: `[A-Za-z0-9._-]`, first character alphanumeric, no `..`."""
    return isinstance(text, str) and NAME.match(text) is not None and ".." not in text


def is_safe_path(path: object) -> bool:
    """Tell whether a path named by a host may be created below a directory of ours."""
    if not isinstance(path, str) or not path or len(path) > 1024 or path.startswith("/"):
        return False
    parts = path.split("/")
    return len(parts) <= _MAX_DEPTH and all(part not in (".", "..") and _PATH_PART.match(part) is not None for part in parts)


def visible(text: str, limit: int | None = None) -> str:
    """Return foreign text on one line with every control, bidi and zero-width character escaped.

    A log can carry terminal escapes (title, clipboard, cursor) and a name can carry bidi marks; kubectl's CVE-2021-25743
    is the incident this prevents.
    """
    shown = "".join(character if _printable(character) else _escape(character) for character in text)
    if limit is not None and len(shown) > limit:
        shown = shown[: max(0, limit - 1)] + "…"
    return shown


def _printable(character: str) -> bool:
    if " " <= character <= "~":
        return True
    return unicodedata.category(character)[0] not in "CZ"


def _escape(character: str) -> str:
    code = ord(character)
    if character == "\t":
        return "  "
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


_TERMINAL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\|\Z)"
    r"|\x1b[PX^_][^\x1b]*(?:\x1b\\|\Z)"
    r"|\x1b[ -/]*[0-~]"
)


def plain(text: str, limit: int | None = None) -> str:
    """Return one line of a log without terminal sequences, secrets redacted, the rest made visible."""
    return visible(redact(_TERMINAL.sub("", text)).strip("\r\n"), limit)


def redact(text: str) -> str:
    """Return `text` with what looks like a key, token or password replaced."""
    return _SECRET.sub(lambda found: (found["name"] or "") + "[redacted]", text)
