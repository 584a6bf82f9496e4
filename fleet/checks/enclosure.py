"""An eval must outlive the SSH session that started it: logind can be set to kill everything at logout."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.checks.base import Check, Said, Subject, fail, ok


def judge(subject: Subject) -> Iterable[Said]:
    """Refuse only where logind kills and no system unit may be used instead."""
    logind = subject.facts.logind
    if logind is None or logind.kill_user_processes is None:
        yield ok("no logind that would end the eval at logout")
    elif logind.systemd_run:
        yield ok("evals run in a system unit of their own")
    elif not logind.kill_user_processes:
        yield ok("logind leaves processes alone at logout")
    else:
        user = subject.facts.user or "USER"
        yield fail(
            "logind kills the user's processes at logout (KillUserProcesses=yes), so an eval would die with the SSH session",
            f"on {subject.host.name}: set KillExcludeUsers=root {user} in /etc/systemd/logind.conf and "
            f"sudo systemctl restart systemd-logind; or allow {user} sudo -n systemd-run",
        )


CHECK = Check(
    "enclosure", "setup", "an eval survives the end of the SSH session", judge, lambda _host, _pipeline: {"logind": True}
)
