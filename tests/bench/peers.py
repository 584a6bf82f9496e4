"""Other tools doing the work of a check, told to use curve25519 where they let one choose; installed only when asked for."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.bench.check import check
from tests.bench.hosts import SSH_OPTIONS, BenchHosts
from tests.bench.measure import Row, Run, execute, in_turn

PACKAGES = ("ClusterShell", "parallel-ssh", "pyinfra", "ansible-core")
PARALLEL_SSH = """
import sys
from pssh.clients import ParallelSSHClient
addresses, user, port, key, script = sys.argv[1:]
client = ParallelSSHClient(addresses.split(","), user=user, port=int(port), pkey=key, pool_size=100)
output = client.run_command(open(script).read())
client.join(output)
assert all(sum(1 for _ in host.stdout) > 10 for host in output)
"""


def against_peers(hosts: BenchHosts, runs: int, venv: Path) -> list[Row]:
    """Compare every tool that could be installed with fleet, on all hosts."""
    install(venv)
    names, bin_ = hosts.names, venv / "bin"
    contestants: dict[str, Callable[[], Run]] = {
        "fleet check": functools.partial(check, hosts, [f"eval[1-{len(names)}]"]),
        "ssh, 32 at once": functools.partial(execute, hosts.ssh_check(names)),
    }
    folder = hosts.directory / "peers"
    folder.mkdir()
    env = {**hosts.environment, "ANSIBLE_HOST_KEY_CHECKING": "False", "ANSIBLE_LOCALHOST_WARNING": "False"}
    for name, argv in _commands(hosts, bin_, folder).items():
        run = functools.partial(execute, argv, env=env, output=folder / "last")
        if run().code == 0:
            contestants[name] = run
        else:
            print(f"{name} cannot do it here and is left out: {(folder / 'last').read_text(errors='replace')[-300:]}")
    found = in_turn(runs, contestants)
    ours = found["fleet check"]
    return [
        Row(
            f"{name} over fleet check, {len(names)} hosts, wall", one.wall_s / ours.wall_s, "×",
            note=f"{one.wall_s:.2f} s, client CPU {1000 * one.cpu_s / len(names):.1f} ms per host",
        )
        for name, one in found.items()
    ]  # fmt: skip


def install(venv: Path) -> None:
    """Make the venv once; a tool that cannot be installed is left out."""
    if not venv.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    for package in PACKAGES:
        argv = [str(venv / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", package]
        if subprocess.run(argv, check=False).returncode != 0:
            print(f"{package} cannot be installed")


def _commands(hosts: BenchHosts, bin_: Path, folder: Path) -> dict[str, list[str]]:
    names = [f"aws-instance-{name}" for name in hosts.names]
    options = " ".join(SSH_OPTIONS)
    ansible = folder / "ansible.ini"
    ansible.write_text("\n".join(names) + f"\n[all:vars]\nansible_ssh_common_args=-F {hosts.ssh_config} {options}\n")
    pyinfra = folder / "inventory.py"
    pyinfra.write_text(f"hosts = {[(name, {'ssh_config_file': str(hosts.ssh_config)}) for name in names]!r}\n")
    one_line = "; ".join(line for line in hosts.script.read_text().splitlines() if line)
    python = str(bin_ / "python")
    addresses = ",".join(hosts.addresses[name] for name in hosts.names)
    commands = {
        "clush -f 64": [
            "sh", "-c",
            f'exec {bin_}/clush -f 64 -o "-F {hosts.ssh_config} {options}" -w {",".join(names)} sh -s <{hosts.script}',
        ],
        "parallel-ssh": [
            python, "-c", PARALLEL_SSH, addresses, hosts.user, str(hosts.port), str(hosts.identity), str(hosts.script),
        ],
        "pyinfra exec": [str(bin_ / "pyinfra"), "-y", "--parallel", "100", str(pyinfra), "exec", "--", one_line],
        "ansible script, 50 forks": [
            str(bin_ / "ansible"), "all", "-i", str(ansible), "-f", "50", "-m", "script", "-a", str(hosts.script),
        ],
    }  # fmt: skip
    return {name: argv for name, argv in commands.items() if argv[0] in ("sh", python) or shutil.which(argv[0])}
