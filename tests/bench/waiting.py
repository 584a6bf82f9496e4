"""Launching evals and waiting for them on many hosts at once: CPU on both sides, memory, and how late the end is known."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.bench.hosts import BenchHosts
from tests.bench.measure import Row

WINDOW_S = 20.0


def waiting(hosts: BenchHosts) -> list[Row]:
    """Measure one controller with all hosts."""
    argv = [sys.executable, "-m", "tests.bench.evals", str(hosts.hosts_file), str(WINDOW_S)]
    with subprocess.Popen(argv, env=hosts.environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ticks: list[dict[int, int]] = []
        document: dict[str, Any] = {}
        for line in process.stdout:
            if line.startswith("{"):
                document = json.loads(line)
            else:
                ticks.append(_host_ticks(hosts))
    if process.returncode != 0 or len(ticks) != 2:
        raise SystemExit("the controller of the waiting benchmark failed")
    count = document["hosts"]
    spent = sum(after - ticks[0].get(pid, after) for pid, after in ticks[1].items()) / os.sysconf("SC_CLK_TCK")
    host_percent = 100 * spent / WINDOW_S / count
    median, late = document["known_ms"]
    sealed = "sealed after {:.0f} ms, p95 {:.0f} ms".format(*document["sealed_ms"])
    started = f"the last eval runs after {document['launch_all_started_s']:.2f} s"
    scale = 100 / count
    return [
        Row("launch, decision to the eval's first action, median", document["launch_one_ms"], "ms", 150.0),
        Row(f"launch on {count} hosts at once", document["launch_all_s"], "s", 3.0, started),
        Row(f"waiting for {count} evals, controller, per 100", document["controller_percent"] * scale, "% of a core", 0.5),
        Row(f"waiting for {count} evals, each host", host_percent, "% of a core", 0.05),
        Row("memory per open connection", document["memory_kb"], "kB"),
        Row("eval's end to the controller knowing it, median", median, "ms", 200.0, sealed),
        Row("eval's end to the controller knowing it, p95", late, "ms"),
    ]


def _host_ticks(hosts: BenchHosts) -> dict[int, int]:
    """Return the CPU ticks of everything that runs on the hosts: what has a host's HOME, and what its sshd started."""
    homes = {f"HOME={home}".encode() for home in hosts.homes.values()}
    listeners = {listener.pid for listener in hosts.listeners.values()}
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    ours: set[int] = set(listeners)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            pid = int(entry.name)
            parents[pid], ticks[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
            if homes & set((entry / "environ").read_bytes().split(b"\0")):
                ours.add(pid)
    for pid in parents:
        above = pid
        while above in parents and above not in listeners:
            above = parents[above]
        if above in listeners:
            ours.add(pid)
    return {pid: ticks[pid] for pid in ours if pid in ticks}
