"""`make bench`, or `python -m tests.bench [PART]...`: measure, and print tables of ratios with the goals beside them.

Nothing here is a test: a number that misses its goal is printed as MISSED and the exit code stays 0.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench.check import against_ssh, silent_hosts
from tests.bench.collect import collect
from tests.bench.distance import distance
from tests.bench.hosts import BenchHosts
from tests.bench.lite import overhead
from tests.bench.measure import Row, table
from tests.bench.peers import against_peers
from tests.bench.start import start_up
from tests.bench.validate import validate
from tests.bench.waiting import waiting

PARTS = ("start", "validate", "check", "silent", "waiting", "collect", "distance", "lite")


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.split("\n\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all when none is named")
    parser.add_argument("--hosts", default="10,100,300", help="numbers of hosts to check (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each contestant (default: %(default)s)")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="install other tools into a venv there and compare them")
    parser.add_argument("--collect-hosts", type=int, default=100, help="hosts to collect from (default: %(default)s)")
    parser.add_argument("--big", type=int, default=0, metavar="MB", help="also collect one file of this size")
    parser.add_argument("--results", type=int, default=1000, help="results of 4 MB to validate (default: %(default)s)")
    asked = parser.parse_args()
    unknown = set(asked.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part: {', '.join(sorted(unknown))}")
    parts = asked.parts or ([] if asked.peers else list(PARTS))
    counts = sorted({int(word) for word in asked.hosts.split(",")})
    print(describe_machine(), flush=True)
    with tempfile.TemporaryDirectory(prefix="fleet-bench-") as name:
        folder = Path(name)
        if "start" in parts:
            show("Without hosts", lambda: start_up(folder / "start", asked.runs))
        if "validate" in parts:
            show("Validate", lambda: validate(folder / "validate", asked.results, asked.runs))
        if "lite" in parts:
            show("One warm run of swebench_lite", lambda: overhead(folder / "lite", asked.runs))
        if "check" in parts or "silent" in parts:
            with BenchHosts(max(counts) if "check" in parts else 10, folder / "check") as hosts:
                if "check" in parts:
                    show("Check", lambda: against_ssh(hosts, counts, asked.runs))
                if "silent" in parts:
                    show("Hosts that do not answer", lambda: silent_hosts(hosts, min(3, asked.runs)))
        if asked.peers:
            with BenchHosts(100, folder / "peers") as hosts:
                show("Other tools", lambda: against_peers(hosts, min(3, asked.runs), asked.peers))
        if "distance" in parts:
            with BenchHosts(100, folder / "distance") as hosts:
                show("Check at a distance", lambda: distance(hosts, min(3, asked.runs)))
        if "waiting" in parts:
            with BenchHosts(100, folder / "waiting") as hosts:
                show("Launch and wait", lambda: waiting(hosts))
        if "collect" in parts:
            with BenchHosts(asked.collect_hosts, folder / "collect") as hosts:
                show("Collect", lambda: collect(hosts, asked.collect_hosts, asked.runs, asked.big))


def show(title: str, measure: Callable[[], list[Row]]) -> None:
    """Measure and print one table."""
    print(table(title, measure()), flush=True)


def describe_machine() -> str:
    """Return what the numbers depend on, without any name."""
    ssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr.split(",")[0].strip()
    rsync = subprocess.run(["rsync", "--version"], capture_output=True, text=True, check=False).stdout.split("  ")[1:2]
    load = ", ".join(f"{number:.1f}" for number in os.getloadavg())
    parts = [f"{os.cpu_count()} CPUs", f"Python {platform.python_version()}", ssh, *rsync, f"load before: {load}"]
    return f"clients and hosts on one machine: {'; '.join(parts)}\n"


if __name__ == "__main__":
    main()
