"""A small controller in a process of its own: it launches evals on every host and waits for them, and reports what it took.

python -m tests.bench.evals HOSTS_FILE WINDOW_S     prints one JSON document
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from fleet.agent import AgentClient
from fleet.inventory import load_inventory
from fleet.inventory.pipelines import agent_source
from fleet.model.hosts import Host
from fleet.transport import SshConnector

BEAT_S = 10.0
"""As dispatch waits."""
_APART_S = 0.1
SCRIPT = 'date +%s%N >"$FLEET_OUTPUT_DIR/started"; sleep {seconds}; date +%s%N >"$FLEET_OUTPUT_DIR/ended"'


@dataclass
class Eval:
    """One host with its connection, and when the controller decided and learned what (seconds since the epoch)."""

    host: Host
    client: AgentClient
    decided: float = 0.0
    answered: float = 0.0
    finished: float = 0.0
    final: float = 0.0
    frames: int = field(default=0)


def spec(argv: Sequence[str]) -> dict[str, Any]:
    """Return the launch specification of a command in the host's home."""
    return {
        "pipeline": "bench",
        "workdir": "~/work",
        "argv": list(argv),
        "env": {},
        "timeout_s": 600,
        "outputs": {"root": "{output_dir}", "marker": "output.jsonl"},
        "cleanup": {"processes": "kill", "containers": "keep", "grace_s": 2},
    }


def launch(one: Eval, attempt: str, argv: Sequence[str], instance: str) -> None:
    """Decide, and have the host start it; every host's task is its own."""
    one.decided = time.time()
    key = {"instance_id": instance, "model": one.host.name, "run": 1, "dataset_sha256": ""}
    one.client.launch(attempt=attempt, key=key, spec=spec(argv), batch="bench", controller="bench")
    one.answered = time.time()


def wait(one: Eval, attempt: str) -> None:
    """Wait as dispatch does, and note when the end is known and when the outputs are sealed."""
    for status, final in one.client.wait(attempt, beat_s=BEAT_S, max_s=600.0):
        one.frames += 1
        if status["state"] == "finished":
            one.finished = one.finished or time.time()
        if final:
            one.final = time.time()


def connect(hosts: Sequence[Host], connector: SshConnector) -> list[Eval]:
    """Open one connection to each host."""
    source = agent_source()

    def one(host: Host) -> Eval:
        client = AgentClient(connector.open(host), source)
        client.status()
        return Eval(host, client)

    with ThreadPoolExecutor(64) as pool:
        return list(pool.map(one, hosts))


def everywhere(evals: Sequence[Eval], work: Callable[[Eval], None]) -> float:
    """Do `work` for all hosts at once and return the seconds."""
    began = time.perf_counter()
    threads = [threading.Thread(target=work, args=(one,)) for one in evals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def one_launch(one: Eval, hosts_file: str) -> float:
    """Return the seconds from the decision to the eval's own first action, with nothing else going on."""
    launch(one, "one1", ["/bin/sh", "-c", SCRIPT.format(seconds="0")], "one")
    wait(one, "one1")
    seconds = stamp(hosts_file, one.host.name, "one1", "started") - one.decided
    one.finished = one.final = 0.0
    return seconds


def stamp(hosts_file: str, host: str, attempt: str, name: str) -> float:
    """Return what an eval wrote about itself; the hosts are this machine, so there is one clock."""
    home = Path(hosts_file).parent / "homes" / host
    return int((home / ".fleet" / "attempts" / attempt / "out" / name).read_text()) / 1e9


def memory_kb() -> float:
    """Return this process's resident memory."""
    return float(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1024


def cpu_s() -> float:
    """Return the CPU seconds this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure and print."""
    inventory = load_inventory(Path(sys.argv[1]))
    window_s = float(sys.argv[2])
    with SshConnector(inventory.defaults) as connector:
        connector.open(inventory.hosts[0]).close()
        before = memory_kb()
        evals = connect(inventory.hosts, connector)
        memory = (memory_kb() - before) / len(evals)
        single = [one_launch(one, sys.argv[1]) for one in evals[:20]]
        lead_s = 4.0 + window_s
        order = {one.host.name: number for number, one in enumerate(evals)}

        def start(one: Eval) -> None:
            seconds = lead_s + _APART_S * order[one.host.name]
            launch(one, "wait1", ["/bin/sh", "-c", SCRIPT.format(seconds=f"{seconds:.1f}")], "wait")

        launch_all = everywhere(evals, start)
        threads = [threading.Thread(target=wait, args=(one, "wait1")) for one in evals]
        for thread in threads:
            thread.start()
        time.sleep(2.0)
        print("waiting", flush=True)
        used, began = cpu_s(), time.perf_counter()
        time.sleep(window_s)
        share = (cpu_s() - used) / (time.perf_counter() - began)
        print("ending", flush=True)
        for thread in threads:
            thread.join()
    late = [one.finished - stamp(sys.argv[1], one.host.name, "wait1", "ended") for one in evals]
    sealed = [one.final - stamp(sys.argv[1], one.host.name, "wait1", "ended") for one in evals]
    begun = [stamp(sys.argv[1], one.host.name, "wait1", "started") for one in evals]
    print(
        json.dumps(
            {
                "hosts": len(evals),
                "memory_kb": memory,
                "threads": threading.active_count(),
                "controller_percent": 100 * share,
                "launch_one_ms": 1000 * median(single),
                "launch_all_s": launch_all,
                "launch_all_started_s": max(begun) - min(one.decided for one in evals),
                "known_ms": [1000 * median(late), 1000 * quantiles(late, n=20)[-1]],
                "sealed_ms": [1000 * median(sealed), 1000 * quantiles(sealed, n=20)[-1]],
            }
        )
    )


if __name__ == "__main__":
    main()
