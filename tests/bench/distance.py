"""The same check with 100 ms between here and the hosts: round trips decide, not CPU."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.check import check
from tests.bench.hosts import BenchHosts
from tests.bench.measure import Row, execute, in_turn

ROUND_TRIP_S = 0.1
AT_ONCE = 100
_NEAR, _FAR = "127.77.", "127.79."


def distance(hosts: BenchHosts, runs: int) -> list[Row]:
    """Compare one host, and all of them at once."""
    with far_away(hosts) as folder:
        file, config = folder / "hosts.yaml", folder / "ssh_config"
        rows: list[Row] = []
        for count, limit_s, limit in ((1, 1.25, None), (len(hosts.names), 3.3, 1.0)):
            names = hosts.names[:count]
            found = in_turn(
                runs,
                {
                    "fleet": functools.partial(check, hosts, [f"eval[1-{count}]"], file),
                    "ssh": functools.partial(execute, hosts.ssh_check(names, AT_ONCE, config=config)),
                },
            )
            ours, theirs = found["fleet"].wall_s, found["ssh"].wall_s
            note = f"ssh: {theirs:.2f} s; spread {found['fleet'].spread:.1f} and {found['ssh'].spread:.1f}"
            plural = "hosts" if count > 1 else "host"
            rows.append(Row(f"check of {count} {plural} at 100 ms, wall", ours, "s", limit_s, note))
            rows.append(
                Row(f"check of {count} {plural} at 100 ms over ssh ({AT_ONCE} at once), wall", ours / theirs, "×", limit)
            )
    return rows


@contextlib.contextmanager
def far_away(hosts: BenchHosts) -> Iterator[Path]:
    """Put every host at a distance, under addresses of its own, and yield a directory with the files to reach them."""
    folder = hosts.directory / "far"
    folder.mkdir()
    for name in ("hosts.yaml", "ssh_config", "known_hosts"):
        text = (hosts.directory / name).read_text().replace(_NEAR, _FAR)
        # As many at once as ssh is given; fleet's own default of 64 would go twice.
        text = text.replace("defaults:\n", f"defaults:\n  in_flight: {AT_ONCE}\n", 1)
        (folder / name).write_text(text.replace(str(hosts.known_hosts), str(folder / "known_hosts")))
        (folder / name).chmod(0o600)
    argv = [sys.executable, "-m", "tests.bench.delay", str(ROUND_TRIP_S)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdin is not None and proxy.stdout is not None
        for name in hosts.names:
            address = hosts.addresses[name]
            proxy.stdin.write(f"{address.replace(_NEAR, _FAR)} {hosts.port} {address}\n")
        proxy.stdin.close()
        try:
            assert proxy.stdout.readline() == "ready\n"
            yield folder
        finally:
            proxy.terminate()
