"""`fleet trust`: shows the key that a host presents and pins it when a person says so."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click

from fleet.cli.options import Context, fleet_command
from fleet.errors import FleetError, InputError
from fleet.model.exitcodes import Exit

if TYPE_CHECKING:
    from fleet.model.hosts import Host
    from fleet.transport.ssh import SshConnector
    from fleet.transport.trust import Candidate

SCHEMA = "fleet.trust/1"


@fleet_command("trust", example="fleet trust eval7\nfleet trust eval7 --fingerprint SHA256:vTf…\nfleet trust 'eval*' --yes")
@click.argument("patterns", nargs=-1, required=True, metavar="HOST...")
@click.option("--yes", is_flag=True, help="Pin without asking; the fingerprints are still shown.")
@click.option("--fingerprint", metavar="SHA256:…", help="Pin only if the key has this fingerprint; for one host.")
@click.option("--replace", is_flag=True, help="Also pin where another key is pinned: the machine was replaced on purpose.")
def trust(ctx: Context, patterns: tuple[str, ...], yes: bool, fingerprint: str | None, replace: bool) -> int:
    """Show the key that each HOST presents, and pin it after a confirmation; nothing is accepted silently.

    No login is tried at a host whose key is not pinned. Jump hosts come first: the way to the others leads through them.
    Compare the fingerprint with one that reached you another way, for example on the machine's own console by
    `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`. Exit code: 16 a key was refused or differs, 4 a host gave no answer.
    """
    from fleet.transport.ssh import SshConnector

    inventory = ctx.inventory()
    hosts = inventory.select(patterns)
    if fingerprint is not None and len(hosts) != 1:
        raise InputError("--fingerprint is for exactly one host", hint="name one host")
    run = _Run(ctx, yes=yes, fingerprint=fingerprint, replace=replace)
    with SshConnector(inventory.defaults) as connector:
        for host in hosts:
            for depth in range(len(host.jumps)):
                run.jump(connector, host, depth)
        run.hosts(connector, hosts)
    ctx.emit_text(SCHEMA, {"results": run.results}, run.summary)
    return int(run.code)


class _Run:
    """One invocation: what was decided, and the exit code that it adds up to."""

    def __init__(self, ctx: Context, *, yes: bool, fingerprint: str | None, replace: bool) -> None:
        self.ctx = ctx
        self.yes = yes
        self.fingerprint = fingerprint
        self.replace = replace
        self.results: list[dict[str, Any]] = []
        self.code = Exit.OK
        self._jumps: set[str] = set()

    def jump(self, connector: SshConnector, host: Host, depth: int) -> None:
        """Settle one jump host, once however many hosts go through it; a pinned one needs no question."""
        from fleet.transport.identity import pins_of

        hop = host.jumps[depth]
        if hop.host_key_alias in self._jumps:
            return
        self._jumps.add(hop.host_key_alias)
        if not pins_of(host, hop).keys or self.replace:
            self._settle(_examine(connector, host, depth), host, is_jump=True)

    def hosts(self, connector: SshConnector, hosts: tuple[Host, ...]) -> None:
        """Look at all hosts at once, then ask about one after the other."""
        with ThreadPoolExecutor(max_workers=min(64, len(hosts))) as pool:
            found = list(pool.map(lambda host: _examine(connector, host, len(host.jumps)), hosts))
        for host, candidate in zip(hosts, found, strict=True):
            self._settle(candidate, host, is_jump=False)

    def _settle(self, found: Candidate | FleetError, host: Host, *, is_jump: bool) -> None:
        from fleet.transport.trust import accept

        if isinstance(found, FleetError):
            self.code |= found.bit
            self.ctx.talk(f"{found.message}\n  → {found.hint}")
            self.results.append({"host": host.name, "state": "error", "message": found.message})
            return
        where = f"jump host {found.hop.address}" if is_jump else f"{host.name} ({found.hop.address} port {found.hop.port})"
        self.ctx.talk(f"{where} presents {found.key.shown}")
        state, message = self._decide(found, is_jump=is_jump)
        if state in ("pinned", "replaced"):
            accept(found)
            message = f"in {found.file}"
        elif state == "refused":
            self.code |= Exit.SAFETY
        self.ctx.talk(f"  {state}{': ' + message if message else ''}")
        if state == "refused":
            self.ctx.talk(f"  → {self._instead(found)}")
        self.results.append(
            {
                "host": host.name,
                "alias": found.hop.host_key_alias,
                "jump": is_jump,
                "type": found.key.type,
                "fingerprint": found.key.fingerprint,
                "pinned_before": [key.fingerprint for key in found.pinned],
                "state": state,
                "message": message,
            }
        )

    def _decide(self, found: Candidate, *, is_jump: bool) -> tuple[str, str]:
        wanted = None if is_jump else self.fingerprint
        if wanted is not None and wanted.rstrip("=") != found.key.fingerprint:
            return "refused", f"the fingerprint is not {wanted}"
        if found.state == "known":
            return "already pinned", ""
        if found.state == "changed":
            before = ", ".join(key.shown for key in found.pinned)
            if not self.replace:
                return "refused", f"{before} is pinned"
            self.ctx.talk(f"  pinned until now: {before}")
        if not (self.yes or wanted is not None) and not self._confirmed(found, is_jump=is_jump):
            return "refused", "not confirmed"
        return ("replaced" if found.state == "changed" else "pinned"), ""

    def _instead(self, found: Candidate) -> str:
        if found.state == "changed" and not self.replace:
            return f"if the machine was replaced on purpose: fleet trust {found.host.name} --replace"
        kind = "ecdsa" if found.key.type.startswith("ecdsa") else found.key.type.removeprefix("ssh-")
        return f"compare on the machine's own console: ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub"

    def _confirmed(self, found: Candidate, *, is_jump: bool) -> bool:
        if not self.ctx.interactive:
            name = found.host.name
            compared = "" if is_jump else f"fleet trust {name} --fingerprint SHA256:…, or "
            raise InputError(
                f"{name}: nobody is here to confirm that {found.hop.address} has {found.key.shown}",
                hint=f"{compared}fleet trust {name} --yes after comparing it",
            )
        return click.confirm("  Is that the fingerprint of your machine? Pin it?", err=True, default=False)

    def summary(self) -> str:
        """Return one line that sums up."""
        counts: dict[str, int] = {}
        for result in self.results:
            counts[result["state"]] = counts.get(result["state"], 0) + 1
        return ", ".join(f"{number} {state}" for state, number in counts.items()) or "nothing to do"


def _examine(connector: SshConnector, host: Host, depth: int) -> Candidate | FleetError:
    from fleet.transport.trust import examine

    try:
        return examine(connector, host, depth)
    except FleetError as error:
        return error
