"""`fleet check` of 10, 100 and more hosts against plain ssh that does the same work, and what hosts that stay silent cost."""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Sequence
from pathlib import Path

from tests.bench.hosts import BenchHosts
from tests.bench.measure import Row, Run, Series, execute, fleet, in_turn

SILENT = 3
TIMEOUT_S = 3.0


def check(hosts: BenchHosts, names: Sequence[str], hosts_file: Path | None = None) -> Run:
    """Return one run of `fleet check --json`; hosts that stay silent are no failure of the benchmark."""
    more = ["--hosts-file", str(hosts_file)] if hosts_file else []
    run = execute(fleet("check", "--json", *more, *names), env=hosts.environment, output=hosts.answers / "check.json")
    return Run(run.wall_s, run.cpu_s, run.peak_mb, 0 if run.code in (0, 4) else run.code)


def against_ssh(hosts: BenchHosts, counts: Sequence[int], runs: int) -> list[Row]:
    """Compare at each number of hosts."""
    rows: list[Row] = []
    walls: dict[int, float] = {}
    for count in counts:
        names = hosts.names[:count]
        found = in_turn(
            runs if count <= 100 else max(1, runs // 2) if count <= 300 else 1,
            {
                "fleet": functools.partial(check, hosts, [f"eval[1-{count}]"]),
                "ssh": functools.partial(execute, hosts.ssh_check(names)),
            },
        )
        walls[count] = found["fleet"].wall_s
        rows += _rows(count, found)
    if 100 in walls and 300 in walls:
        rows.append(Row("check of 300 hosts over check of 100, wall", walls[300] / walls[100], "×", 3.2))
    return rows


def _rows(count: int, found: dict[str, Series]) -> list[Row]:
    ours, theirs = found["fleet"], found["ssh"]
    note = f"{ours.wall_s:.2f} s against {theirs.wall_s:.2f} s; spread {ours.spread:.1f} and {theirs.spread:.1f}"
    wall = Row(
        f"check of {count} hosts over ssh (32 at once), wall", ours.wall_s / theirs.wall_s, "×",
        {10: 1.5, 100: 1.0}.get(count), note,
    )  # fmt: skip
    cpu = Row(
        f"check of {count} hosts, client CPU per host", 1000 * ours.cpu_s / count, "ms",
        7.0 if count == 100 else None, f"ssh {1000 * theirs.cpu_s / count:.1f} ms",
    )  # fmt: skip
    memory = Row(f"check of {count} hosts, peak memory", ours.peak_mb, "MB", 300.0 if count >= 1000 else None)
    return [wall, cpu, memory]


def silent_hosts(hosts: BenchHosts, runs: int) -> list[Row]:
    """Measure what hosts cost that accept a connection and then say nothing: their own timeout, once, not added up."""
    with contextlib.ExitStack() as stack:
        entries = []
        for number in range(1, SILENT + 1):
            listener = stack.enter_context(socket.socket())
            listener.bind((f"127.76.0.{number}", 0))
            listener.listen()
            address, port = listener.getsockname()
            entries.append(f"  dead{number}: {{address: {address}, port: {port}}}\n")
        text = hosts.hosts_file.read_text()
        text = text.replace("defaults:\n", f"defaults:\n  banner_timeout: {TIMEOUT_S}\n", 1)
        file = hosts.directory / "with-silent.yaml"
        file.write_text(text.replace("groups:", "".join(entries) + "groups:", 1))
        found = in_turn(
            runs,
            {
                "all": functools.partial(check, hosts, ["eval[1-10]", "dead*"], file),
                "alive": functools.partial(check, hosts, ["eval[1-10]"], file),
            },
        )
    cost = (found["all"].wall_s - found["alive"].wall_s) / TIMEOUT_S
    note = f"{found['all'].wall_s:.2f} s with them, {found['alive'].wall_s:.2f} s without; timeout {TIMEOUT_S:.0f} s"
    return [Row(f"{SILENT} silent hosts beside 10, in timeouts", cost, "×", 1.1, note)]
