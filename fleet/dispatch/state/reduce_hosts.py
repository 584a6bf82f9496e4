"""What records about hosts do to a state: checked, reached or not, in quarantine or released."""

from __future__ import annotations

from dataclasses import replace

from fleet.dispatch.state.draft import Draft
from fleet.dispatch.state.views import HostView, Quarantine
from fleet.dispatch.state.waiting import unfit_state
from fleet.model.findings import HostReport
from fleet.model.records import HostChecked, HostQuarantined, HostReleased, LinkChanged, QuarantineTold
from fleet.model.states import HostState, Link


def host_checked(draft: Draft, record: HostChecked) -> None:
    report = record.report
    host = draft.hosts.get(report.host)
    if host is None:
        return
    state = HostState.READY if report.ready else unfit_state(report)
    since = host.link_since if host.link is report.link else record.t
    reason = "; ".join(report.problems)
    draft.hosts[host.name] = replace(
        host, report=report, link=report.link, link_since=since, state=state, reason=reason, trouble=""
    )
    _refuse_another_machine(draft, host, report)
    draft.settle_waiting()


def _refuse_another_machine(draft: Draft, before: HostView, report: HostReport) -> None:
    """Block a host behind whose name another machine answers: what is known of its attempts is not true of it."""
    if before.host_uid and report.host_uid and before.host_uid != report.host_uid:
        reason = "another machine answers under this name (its fleet host id changed)"
        draft.hosts[before.name] = replace(draft.hosts[before.name], link=Link.CHANGED, state=HostState.BLOCKED, reason=reason)
    elif report.host_uid:
        draft.hosts[before.name] = replace(draft.hosts[before.name], host_uid=report.host_uid)


def link_changed(draft: Draft, record: LinkChanged) -> None:
    host = draft.hosts.get(record.host)
    if host is None:
        return
    since = host.link_since if host.link is record.link else record.t
    draft.hosts[host.name] = replace(host, link=record.link, link_since=since, trouble=record.error)


def quarantined(draft: Draft, record: HostQuarantined) -> None:
    if record.host in draft.hosts and draft.hosts[record.host].quarantine is None:
        row = (draft.attempts[one].epoch for one in record.attempts if one in draft.attempts)
        epoch = max((one for one in row if one is not None), default=None)
        draft.set_host(record.host, quarantine=Quarantine(record.t, record.reason, record.attempts, epoch))
        draft.settle_waiting()


def quarantine_told(draft: Draft, record: QuarantineTold) -> None:
    host = draft.hosts.get(record.host)
    if host is not None and host.quarantine is not None:
        draft.set_host(record.host, quarantine=replace(host.quarantine, told=True), trouble=record.error or host.trouble)


def released(draft: Draft, record: HostReleased) -> None:
    draft.set_host(record.host, quarantine=None, row=(), state=HostState.UNCHECKED, reason="")
    draft.settle_waiting()
