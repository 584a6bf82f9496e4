"""What a Docker engine does to the machine's network and does not undo when it ends: bridge, firewall chains, forwarding."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

BRIDGE = Path("/sys/class/net/docker0")
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_TABLES = ("iptables", "ip6tables")


def remember(path: Path) -> None:
    """Write down how the network is before an engine starts; what an engine that was killed left is not how it was."""
    if path.exists():
        return
    policies = {table: _policy(rules) for table in _TABLES if (rules := _rules(table)) is not None}
    path.write_text(json.dumps({"bridge": BRIDGE.exists(), "forwarding": FORWARDING.read_text(), "policies": policies}))


def restore(path: Path) -> None:
    """Remove what the engine added since `remember`, and only that: the rules of others stay as they are now."""
    if not path.exists():
        return
    before = json.loads(path.read_text())
    for table, policy in before["policies"].items():
        section, kept = "", []
        for line in (_rules(table) or "").splitlines():
            section = line if line.startswith("*") else section
            if section == "*filter" and line.startswith(":FORWARD "):
                kept.append(f":FORWARD {policy} [0:0]")
            elif "DOCKER" not in line and "docker0" not in line:
                kept.append(line)
        subprocess.run([f"{table}-restore"], input="\n".join([*kept, ""]), text=True, check=True)
    if not before["bridge"] and BRIDGE.exists():
        subprocess.run(["ip", "link", "delete", "docker0"], check=True)
    if FORWARDING.read_text() != before["forwarding"]:
        FORWARDING.write_text(before["forwarding"])
    path.unlink()


def _rules(table: str) -> str | None:
    """Return the rules as `iptables-save` prints them; None where it does not work."""
    try:
        saved = subprocess.run([f"{table}-save"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return saved.stdout if saved.returncode == 0 else None


def _policy(rules: str) -> str:
    """Return the policy of the filter table's FORWARD chain; a table that is not in use yet lets everything pass."""
    chains = rules.partition("*filter")[2].partition("COMMIT")[0]
    return next((line.split()[1] for line in chains.splitlines() if line.startswith(":FORWARD ")), "ACCEPT")
