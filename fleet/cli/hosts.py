"""`fleet hosts`: the inventory as resolved from hosts.yaml and ssh_config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fleet.cli.options import Context, fleet_command
from fleet.cli.output import Style, table

if TYPE_CHECKING:
    from fleet.model.hosts import Hop, Host

SCHEMA = "fleet.hosts/1"


@fleet_command("hosts", example="fleet hosts\nfleet hosts @eval '!eval3' --json")
@click.argument("patterns", nargs=-1, metavar="[HOST]...")
def hosts(ctx: Context, patterns: tuple[str, ...]) -> int:
    """Show the hosts as resolved from hosts.yaml and ssh_config; no host is contacted.

    HOST is a name, eval*, eval[1-6], @group or !exclusion; none means all. The last column tells whether a host key is
    pinned; if not, `fleet trust HOST` shows and pins it. A pipeline that is nowhere and a group that looks like a slip of
    the pen are pointed out.
    """
    from fleet.inventory.doubts import doubts

    inventory = ctx.inventory()
    chosen = inventory.select(patterns)
    names = {host.name for host in chosen}
    groups = {group: [name for name in members if name in names] for group, members in inventory.groups.items()}
    documents = [_document(host) for host in chosen]
    found = [doubt._asdict() for doubt in doubts(inventory, ctx.pipelines()) if doubt.host in names]
    body = {
        "hosts": documents,
        "groups": {group: members for group, members in groups.items() if members},
        "doubts": found,
    }
    ctx.emit_text(SCHEMA, body, lambda: render(documents, found, ctx.style()))
    return 0


def _document(host: Host) -> dict[str, Any]:
    from fleet.transport.known_hosts import lookup, names_of

    hop = host.hop
    pins = lookup(host.known_hosts, names_of(hop.host_key_alias, hop.address, hop.port))
    return {
        "name": host.name,
        "address": hop.address,
        "port": hop.port,
        "user": hop.user,
        "jumps": [_endpoint(jump) for jump in host.jumps],
        "groups": list(host.groups),
        "pipeline": host.pipeline,
        "workdir": host.workdir,
        "identity_files": [str(path) for path in hop.identity_files],
        "host_key_alias": hop.host_key_alias,
        "host_key": "accept-new" if host.accept_new_key else "strict",
        "pinned": [{"type": key.type, "fingerprint": key.fingerprint} for key in pins.keys],
        "origin": host.origin,
    }


def _endpoint(hop: Hop) -> str:
    address = f"[{hop.address}]" if ":" in hop.address else hop.address
    return f"{hop.user}@{address}" + (f":{hop.port}" if hop.port != 22 else "")


def render(documents: list[dict[str, Any]], found: list[dict[str, Any]], style: Style) -> str:
    """Return the table of hosts, and below it what to look at."""
    rows = []
    for host in documents:
        port = f":{host['port']}" if host["port"] != 22 else ""
        pinned = ", ".join(key["type"].removeprefix("ssh-") for key in host["pinned"])
        rows.append(
            [
                host["name"],
                f"{host['user']}@{host['address']}{port}",
                " → ".join(host["jumps"]) or style.dim("-"),
                host["pipeline"],
                " ".join(host["groups"]) or style.dim("-"),
                pinned or (style.yellow("on first sight") if host["host_key"] == "accept-new" else style.red("not pinned")),
            ]
        )
    shown = table(["host", "reached as", "through", "pipeline", "groups", "host key"], rows, style)
    return "\n".join([shown, *(f"⚠ {doubt['host']}: {doubt['message']}" for doubt in found)])
