"""Ask every host once, in parallel, and judge the answers; a host that does not answer costs its own timeout, not the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fleet.checks.base import Authority, Expectation, Questions, Subject, shown
from fleet.checks.critical import expectation_of, paths_on_host
from fleet.checks.facts import HostFacts, read_facts
from fleet.checks.majority import vote
from fleet.checks.parallel import on_each_host, with_client
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
    contracts = {name: pipelines.get(name) for name in dict.fromkeys(host.pipeline for host in hosts)}
    known = {name: expectations(pipeline, pipelines.folder(name), reference) for name, pipeline in contracts.items()}
    questions = {host.name: questions_for(host, contracts[host.pipeline]) for host in hosts}
    answers = on_each_host(hosts, lambda host: ask(host, connector, agent_source, questions[host.name]), in_flight, on_answer)
    asked = list(zip(hosts, answers, strict=True))
    for name, pipeline in contracts.items():
        known[name] |= _majority(pipeline, known[name], [pair for pair in asked if pair[0].pipeline == name])
    return [_report(host, answer, contracts[host.pipeline], known[host.pipeline]) for host, answer in asked]


def ask(host: Host, connector: Connector, agent_source: bytes, questions: dict[str, Any]) -> Answer:
    """Ask one host; what goes wrong on the way is part of the answer."""
    started = time.monotonic()
    deadline = BASE_DEADLINE_S + max((command["timeout_s"] for command in questions.get("commands", ())), default=0.0)
    try:
        facts = with_client(connector, host, agent_source, lambda client: client.probe(questions, deadline_s=deadline))
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


def _majority(
    pipeline: Pipeline, known: Mapping[str, Expectation], asked: Sequence[tuple[Host, Answer]]
) -> dict[str, Expectation]:
    """Let the hosts of one pipeline vote on the critical files that neither pipeline.yaml nor a reference vouches for."""
    open_keys = [
        file.path for file in pipeline.critical if expectation_of(file, known.get(file.path)).authority is Authority.NOBODY
    ]
    if not open_keys:
        return {}
    ballots: list[tuple[Host, HostFacts]] = []
    for host, answer in asked:
        facts = read_facts(answer.facts) if answer.error is None else ""
        if isinstance(facts, HostFacts):
            ballots.append((host, facts))
    return {
        key: vote(
            {
                host.name: facts.files[path]
                for host, facts in ballots
                if (path := paths_on_host(host, pipeline)[key]) in facts.files
            }
        )
        for key in open_keys
    }
