"""`fleet collect` of the usual result layout against plain `rsync -a` from the same hosts, with the same number at once."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fleet.inventory import load_inventory
from fleet.transport import SshConnector
from tests.bench.evals import Eval, connect, launch, wait
from tests.bench.hosts import SSH_OPTIONS, BenchHosts
from tests.bench.measure import Row, Run, Series, execute, fleet, in_turn

AT_ONCE = 16
"""What `fleet collect` allows itself."""
INSTANCE = "1319603449576684"
_COMPLETIONS = 83
_OTHERS = 9


def write_layout(root: Path) -> None:
    """Write a result as the OpenHands harness leaves it: 92 files, 3.9 MB, text that compresses as JSON logs do."""
    rng = random.Random(7)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 11))) for _ in range(4000)]

    def text(size: int) -> str:
        return " ".join(rng.choices(words, k=size // 7))[:size]

    def put(path: str, content: str) -> None:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    patch = "\n".join(f"+    {text(60)}" for _ in range(60))
    record = {"instance_id": INSTANCE, "test_result": {"git_patch": patch}, "history": [], "metrics": None, "error": None}
    record["history"] = [{"id": number, "source": "agent", "message": text(2000)} for number in range(80)]
    put("output.jsonl", json.dumps(record) + "\n")
    put("metadata.json", json.dumps({"llm_config": {"model": "gpt"}, "details": text(500)}))
    for number in range(_COMPLETIONS):
        body = {"messages": [{"role": "user", "content": text(38_000)}], "number": number}
        put(f"llm_completions/{INSTANCE}/gpt-{number:04d}.json", json.dumps(body))
    put("eval_pilot2_output.jsonl", json.dumps(record | {"resolved": False}) + "\n")
    report = {INSTANCE: {"resolved": False, "patch_exists": True, "patch_successfully_applied": True, "tests_status": {}}}
    put("eval_outputs/report.json", json.dumps(report))
    for name, content in (
        ("report.json", json.dumps(report)),
        ("patch.diff", patch),
        ("test_output.txt", text(250_000)),
        ("run_instance.log", text(90_000)),
        ("eval.sh", text(2_000)),
    ):
        put(f"eval_outputs/{INSTANCE}/{name}", content)


def collect(hosts: BenchHosts, count: int, runs: int, big_mb: int) -> list[Row]:
    """Compare a first collect, one with nothing new, and with `big_mb` one large file."""
    layout = hosts.directory / "layout"
    write_layout(layout)
    files = [path for path in layout.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    assert len(files) == _COMPLETIONS + _OTHERS, len(files)
    names = hosts.names[:count]
    _finish(hosts, names, "a1", f"cp -r {layout}/. $FLEET_OUTPUT_DIR")
    found = _compare(hosts, names, "a1", runs, fresh=True)
    what = f"{count} hosts × {size / 1e6:.1f} MB in {len(files)} files"
    # With a few hosts it is fleet's own start that is measured.
    many = count >= 30
    rows = [*_rows(f"collect of {what}", found, count, 1.1 if many else None, None)]
    again = _compare(hosts, names, "a1", runs, fresh=False)
    rows += _rows(f"nothing new on {count} hosts", again, count, None, 25.0 if many else None)
    if big_mb:
        _acknowledge(hosts)
        _finish(
            hosts, names[:1], "a2", f"cp -r {layout}/. $FLEET_OUTPUT_DIR; "
            f"head -c {big_mb}M /dev/urandom >$FLEET_OUTPUT_DIR/image.tar",
        )  # fmt: skip
        found = _compare(hosts, names[:1], "a2", max(1, runs // 2), fresh=True)
        rows += _rows(f"collect of one file of {big_mb} MB", found, 1, 1 / 0.9, None)
    return rows


def _rows(what: str, found: dict[str, Series], count: int, wall: float | None, cpu: float | None) -> list[Row]:
    ours, theirs = found["fleet"], found["rsync"]
    note = f"{ours.wall_s:.2f} s against {theirs.wall_s:.2f} s; spread {ours.spread:.1f} and {theirs.spread:.1f}"
    return [
        Row(f"{what} over rsync -a, wall", ours.wall_s / theirs.wall_s, "×", wall, note),
        Row(
            f"{what}, client CPU per host", 1000 * ours.cpu_s / count, "ms", cpu,
            f"rsync {1000 * theirs.cpu_s / count:.0f} ms",
        ),
    ]  # fmt: skip


def _compare(hosts: BenchHosts, names: Sequence[str], attempt: str, runs: int, *, fresh: bool) -> dict[str, Series]:
    target = hosts.directory / "rsynced"

    def ours() -> Run:
        if fresh:
            _forget(hosts, names, attempt)
        sink = hosts.directory / "collect.json"
        run = execute(fleet("collect", "--json"), env=hosts.environment, output=sink)
        rows = json.loads(sink.read_text().splitlines()[-1])["results"] if run.code in (0, 2) else []
        got = sum(row["got"] == "collected" for row in rows)
        return Run(run.wall_s, run.cpu_s, run.peak_mb, 0 if got == (len(names) if fresh else 0) and run.code in (0, 2) else 1)

    def theirs() -> Run:
        if fresh:
            shutil.rmtree(target, ignore_errors=True)
        for name in names:
            (target / name).mkdir(parents=True, exist_ok=True)
        shell = f"ssh -F {hosts.ssh_config} {' '.join(SSH_OPTIONS)}"
        source = f"{hosts.homes['eval1'].parent}/$1/.fleet/attempts/{attempt}/out/"
        command = f'exec rsync -a -e "{shell}" aws-instance-$1:{source} {target}/$1/'
        return execute(hosts.parallel(names, AT_ONCE, command))

    contestants: dict[str, Callable[[], Run]] = {"fleet": ours, "rsync": theirs}
    return in_turn(runs, contestants)


def _finish(hosts: BenchHosts, names: Sequence[str], attempt: str, script: str) -> None:
    """Have an eval with these outputs run and end on every host, outside the measurement."""
    inventory = load_inventory(hosts.hosts_file)
    with SshConnector(inventory.defaults) as connector:
        evals = connect([inventory.get(name) for name in names], connector)

        def run(one: Eval) -> None:
            launch(one, attempt, ["/bin/sh", "-ec", script], INSTANCE if attempt == "a1" else f"{INSTANCE}9")
            wait(one, attempt)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(run, evals))


def _forget(hosts: BenchHosts, names: Sequence[str], attempt: str) -> None:
    """Make the result look new on both sides."""
    shutil.rmtree(hosts.directory / "collected", ignore_errors=True)
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            (hosts.homes[name] / ".fleet" / "attempts" / attempt / "acked").unlink()


def _acknowledge(hosts: BenchHosts) -> None:
    """Leave nothing to collect on any host."""
    execute(fleet("collect", "--json"), env=hosts.environment)
