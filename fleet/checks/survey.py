"""Ask every host once, in parallel, and judge the answers; a host that does not answer costs its own timeout, not the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fleet.checks.base import Authority, Expectation, Questions, Subject, shown
from fleet.checks.critical import expectation_of, paths_on_host
from fleet.checks.facts import FileFacts, HostFacts, read_facts
from fleet.checks.majority import is_decided, vote
from fleet.checks.parallel import as_they_come, on_each_host, with_client
from fleet.checks.reference import expectations
from fleet.checks.registry import AGENT, CHECKS
from fleet.errors import AgentError, FleetError, TransportError
from fleet.model.findings import Finding, HostReport, Mark
from fleet.model.hosts import Host
from fleet.model.names import plain
from fleet.model.pipeline import Pipeline
from fleet.model.states import Link

if TYPE_CHECKING:
    from fleet.transport import Connector


LINGER_S = 0.1
"""Reports that become final in one moment are told together: three hundred are one write of the journal."""
BASE_DEADLINE_S = 60.0
"""Docker and logind have deadlines of their own on the host; a readiness command may take as long as its pipeline allows."""


class PipelineSource(Protocol):
    """Where pipelines come from; fleet.inventory.pipelines.Pipelines is one."""

    def get(self, name: str) -> Pipeline:
        """Return the pipeline of that name."""

    def folder(self, name: str) -> Path:
        """Return the directory that holds its pipeline.yaml."""


@dataclass(frozen=True)
class Answer:
    """What came back from one host: facts, or why there are none."""

    facts: Any = None
    error: FleetError | None = None
    seconds: float = 0.0
    answered_at: float = 0.0


def questions_for(host: Host, pipeline: Pipeline) -> dict[str, Any]:
    """Return the one request that answers all checks of `pipeline` on `host`."""
    questions = Questions()
    for check in CHECKS:
        questions.add(check.asks(host, pipeline))
    return dict(questions)


def judge_host(
    host: Host,
    pipeline: Pipeline,
    facts: Any,
    seconds: float,
    reference: Mapping[str, Expectation],
    answered_at: float | None = None,
) -> HostReport:
    """Return the findings of all checks on one host's answer; `answered_at` defaults to now."""
    read = read_facts(facts)
    if isinstance(read, str):
        return _refused(host, f"the host's answer is not as agreed: {read}", "", seconds)
    now = time.time() if answered_at is None else answered_at
    subject = Subject(host, pipeline, read, seconds, now, reference)
    findings = [finding for check in CHECKS for finding in check.findings(subject)]
    uid = plain(read.host_uid)
    return HostReport(host=host.name, link=Link.OK, findings=tuple(findings), seconds=round(seconds, 3), host_uid=uid)


def check_hosts(
    hosts: Sequence[Host],
    connector: Connector,
    pipelines: PipelineSource,
    agent_source: bytes,
    in_flight: int = 64,
    *,
    reference: Path | None = None,
    on_answer: Callable[[Host, Answer], None] | None = None,
) -> list[HostReport]:
    """Return one report per host, in the order of `hosts`.

    What is wrong on this machine (an unknown pipeline, a missing reference) is raised before any host is asked.
    """
    panel = Panel(hosts, pipelines, reference)
    answers = on_each_host(hosts, lambda host: panel.ask(host, connector, agent_source), in_flight, on_answer)
    panel.answers = dict(zip((host.name for host in hosts), answers, strict=True))
    return panel.reports(hosts)


def check_as_they_answer(
    hosts: Sequence[Host], connector: Connector, pipelines: PipelineSource, agent_source: bytes, in_flight: int = 64
) -> Iterator[list[HostReport]]:
    """Yield the same reports in groups, each as soon as no answer that is still to come can change it."""
    panel = Panel(hosts, pipelines)
    told: set[str] = set()
    for group in as_they_come(hosts, lambda host: panel.ask(host, connector, agent_source), in_flight, LINGER_S):
        panel.answers |= {hosts[index].name: answer for index, answer in group}
        final = [host for host in hosts if host.name not in told and panel.is_final(host)]
        told.update(host.name for host in final)
        if final:
            yield panel.reports(final)


class Panel:
    """Hosts that are asked together, and their answers so far: on a file that nobody vouches for, the majority decides."""

    def __init__(self, hosts: Sequence[Host], pipelines: PipelineSource, reference: Path | None = None) -> None:
        self._hosts = hosts
        self._contracts = {name: pipelines.get(name) for name in dict.fromkeys(host.pipeline for host in hosts)}
        self._known = {
            name: expectations(pipeline, pipelines.folder(name), reference) for name, pipeline in self._contracts.items()
        }
        self._questions = {host.name: questions_for(host, self._contracts[host.pipeline]) for host in hosts}
        self.answers: dict[str, Answer] = {}

    def ask(self, host: Host, connector: Connector, agent_source: bytes) -> Answer:
        """Ask one host its questions."""
        return ask(host, connector, agent_source, self._questions[host.name])

    def reports(self, hosts: Sequence[Host]) -> list[HostReport]:
        """Return the reports of hosts that have answered, by what is known now."""
        voted = {name: self._known[name] | self._majority(name) for name in dict.fromkeys(host.pipeline for host in hosts)}
        return [_report(host, self.answers[host.name], self._contracts[host.pipeline], voted[host.pipeline]) for host in hosts]

    def is_final(self, host: Host) -> bool:
        """Tell whether the host has answered and the others cannot change its report.

        They can only through a vote: until, for every file that is voted on, more than half of all who may still have a
        say have the same, or everybody has answered.
        """
        answer = self.answers.get(host.name)
        if answer is None:
            return False
        if answer.error is not None:
            return True
        outstanding = sum(one.pipeline == host.pipeline and one.name not in self.answers for one in self._hosts)
        return not outstanding or all(is_decided(files, outstanding) for files in self._ballots(host.pipeline).values())

    def _majority(self, name: str) -> dict[str, Expectation]:
        return {key: vote(files) for key, files in self._ballots(name).items()}

    def _ballots(self, name: str) -> dict[str, dict[str, FileFacts]]:
        """Return file → host → what that host has, for the files that neither pipeline.yaml nor a reference vouches for."""
        pipeline, known = self._contracts[name], self._known[name]
        ballots: dict[str, dict[str, FileFacts]] = {
            file.path: {}
            for file in pipeline.critical
            if expectation_of(file, known.get(file.path)).authority is Authority.NOBODY
        }
        if not ballots:
            return {}
        for host in self._hosts:
            answer = self.answers.get(host.name)
            if host.pipeline != name or answer is None or answer.error is not None:
                continue
            facts = read_facts(answer.facts)
            if not isinstance(facts, HostFacts):
                continue
            paths = paths_on_host(host, pipeline)
            for key, files in ballots.items():
                if paths[key] in facts.files:
                    files[host.name] = facts.files[paths[key]]
        return ballots


def ask(host: Host, connector: Connector, agent_source: bytes, questions: dict[str, Any]) -> Answer:
    """Ask one host; what goes wrong on the way is part of the answer."""
    started = time.monotonic()
    deadline = BASE_DEADLINE_S + max((command["timeout_s"] for command in questions.get("commands", ())), default=0.0)
    try:
        facts = with_client(
            # Which machine this is belongs to the answer.
            connector,
            host,
            agent_source,
            "",
            lambda client: client.probe(questions, deadline_s=deadline),
        )
    except (TransportError, AgentError) as error:
        return Answer(error=error, seconds=time.monotonic() - started)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        # A hostile or broken host may answer anything; that is its own finding, not the end of the run.
        refusal = AgentError(f"the host's answer cannot be read: {error!r}", code="protocol", host=host.name)
        return Answer(error=refusal, seconds=time.monotonic() - started)
    return Answer(facts=facts, seconds=time.monotonic() - started, answered_at=time.time())


def no_link_report(host: Host, error: TransportError, seconds: float = 0.0) -> HostReport:
    """Return the report of a host that could not be asked."""
    return HostReport(
        host=host.name,
        link=Link(error.link),
        seconds=round(seconds, 3),
        error=plain(error.message, 500),
        fix=error.hint,
    )


def _report(host: Host, answer: Answer, pipeline: Pipeline, expected: Mapping[str, Expectation]) -> HostReport:
    if isinstance(answer.error, TransportError):
        return no_link_report(host, answer.error, answer.seconds)
    if answer.error is not None:
        return _refused(host, shown(answer.error.message, 500), answer.error.hint, answer.seconds)
    return judge_host(host, pipeline, answer.facts, answer.seconds, expected, answer.answered_at)


def _refused(host: Host, message: str, fix: str, seconds: float) -> HostReport:
    finding = Finding(check=AGENT, mark=Mark.FAIL, message=message, fix=fix or f"fleet check {host.name} --debug")
    return HostReport(host=host.name, link=Link.OK, findings=(finding,), seconds=round(seconds, 3))
