"""`fleet status --all-hosts`: the hosts' own account of everything that nobody has collected yet, whoever started it.

For a machine that has no journal of it: a second operator looks, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from fleet.cli.options import Context
from fleet.model.exitcodes import Exit

if TYPE_CHECKING:
    from fleet.cli.output import Style

_LIVE = ("running", "starting")


def hosts_status(ctx: Context, batch: str | None, patterns: tuple[str, ...]) -> int:
    """Ask the hosts and show a row for each, and one for each attempt that it has and nobody has acknowledged."""
    from fleet.cli.status import ask_host

    hosts = ctx.inventory().select(patterns)
    # Of whatever machine answers: this shows what it says, and takes nothing of it for a batch's.
    known = ""
    with ThreadPoolExecutor(max_workers=ctx.inventory().defaults.in_flight) as pool:
        answers = dict(pool.map(lambda host: (host.name, ask_host(ctx, host, known)), hosts))
    rows = [_host(name, answer, batch) for name, answer in answers.items()]
    body = {"batch": batch, "hosts": rows}
    ctx.emit_text("fleet.host-status/1", body, lambda: _text(rows, ctx.style()))
    code = Exit.OK
    for answer in answers.values():
        code |= Exit(answer.get("exit", 0))
    return int(code)


def _host(name: str, asked: Mapping[str, Any], batch: str | None) -> dict[str, Any]:
    answer = asked.get("answer") or {}
    listed = answer.get("attempts")
    attempts = [_attempt(one) for one in (listed if isinstance(listed, list) else []) if isinstance(one, dict)]
    busy = any(one["state"] in _LIVE for one in attempts)
    quarantined = isinstance(answer.get("quarantine"), dict)
    state = "" if not answer else "quarantined" if quarantined else "running" if busy else "free"
    shown = [one for one in attempts if batch in (None, one["batch"])]
    return {"host": name, "link": asked["link"], "state": state or None, "error": asked.get("error"), "attempts": shown}


def _attempt(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return one attempt as its host tells of it; every word is a host's."""
    from fleet.agent.status import state_of
    from fleet.collect.judged import key_of
    from fleet.model.names import plain

    key, elapsed = key_of(status.get("key")), status.get("elapsed_s")

    def word(name: str, limit: int) -> str | None:
        value = status.get(name)
        return plain(value, limit) if isinstance(value, str) and value else None

    return {
        "attempt": word("attempt", 200),
        "task": key.label if key is not None else None,
        "batch": word("batch", 200),
        "state": str(state_of(status)),
        "controller": word("controller", 200),
        "since": word("started_at", 40) or word("accepted_at", 40),
        "elapsed_s": float(elapsed) if isinstance(elapsed, int | float) and not isinstance(elapsed, bool) else None,
        "last_line": word("last_line", 200),
    }


def _text(rows: list[dict[str, Any]], style: Style) -> str:
    from fleet.cli.output import table
    from fleet.model.names import visible

    lines = []
    for row in rows:
        if not row["attempts"]:
            lines.append([row["host"], row["link"], row["state"] or "", "", "", "", "", visible(row["error"] or "", 80)])
        for one in row["attempts"]:
            told = [one["state"], one["batch"] or "?", one["task"] or "?", one["since"] or "", one["controller"] or ""]
            lines.append([row["host"], row["link"], *told, visible(one["last_line"] or "", 60)])
    return table(["host", "link", "state", "batch", "task", "since", "started by", "last line"], lines, style)
