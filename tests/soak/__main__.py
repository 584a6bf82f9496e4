"""`make soak`: a fleet on loopback, thousands of short evals, random faults, and an account at the end."""

from __future__ import annotations

import argparse
import sys

from tests.soak.run import Outcome, Plan, soak


def main() -> int:
    """Run one soak and print its figures; 1 when a promise was broken or something leaks."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--hosts", type=int, default=300)
    parser.add_argument("--evals", type=int, default=10, help="tasks per host")
    parser.add_argument("--minutes", type=float, default=15.0, help="at most")
    parser.add_argument("--seconds", type=float, default=2.0, help="of one eval")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two faults, on average")
    asked = parser.parse_args()
    plan = Plan(asked.hosts, asked.evals, min(asked.minutes, 30.0), asked.seconds, asked.seed, asked.every)
    print(f"OpenSSH sshd on {plan.hosts} loopback addresses, {plan.evals} evals of {plan.seconds:.0f} s each, seed {plan.seed}")
    done = soak(plan)
    for name, value in figures(done):
        print(f"{name:34} {value}")
    for line in [*done.wrong[:20], *leaks(done)]:
        print(f"WRONG: {line}")
    return 1 if done.wrong or leaks(done) else 0


def figures(done: Outcome) -> list[tuple[str, str]]:
    """Return the table of docs/guarantees.md."""
    states = ", ".join(f"{number} {state}" for state, number in done.account.states.most_common())
    faults = sum(done.faults.counts.values())
    watch = done.watch
    rows = [
        ("hosts × evals", f"{done.plan.hosts} × {done.plan.evals} = {done.plan.hosts * done.plan.evals} tasks"),
        ("time", f"{done.seconds:.0f} s"),
        ("tasks", states),
        ("evals started, new attempts ordered", f"{done.account.starts}, {done.account.orders}"),
        ("faults injected", str(faults)),
        *((f"  {name}", str(number)) for name, number in done.faults.counts.most_common()),
        ("controllers", f"{len(watch.by_pid)} lives; ended with {', '.join(map(str, done.codes)) or 'none'}"),
    ]
    for name, unit in (("rss_mb", " MB"), ("threads", ""), ("fds", "")):
        rows.append(
            (f"controller {name}", f"at most {watch.highest(name):.0f}{unit}, {watch.slope(name):+.2f}{unit} per minute")
        )
    return [*rows, ("broken promises, leftovers", str(len(done.wrong)))]


def leaks(done: Outcome) -> list[str]:
    """Return what grows in the longest life of a controller by more than a batch of this size explains.

    Each task leaves its state and its verdict in memory, so memory may grow with what ends; threads and descriptors may not.
    """
    watch, found = done.watch, []
    samples = watch.longest
    minutes = (samples[-1].at - samples[0].at) / 60 if samples else 0.0
    if minutes < 1:
        return found
    for name, allowed in (("rss_mb", 10 + 0.02 * done.plan.hosts * done.plan.evals), ("threads", 8.0), ("fds", 16.0)):
        grown = watch.slope(name) * minutes
        if grown > allowed:
            found.append(f"controller {name} grew by {grown:.1f} in {minutes:.1f} minutes, {allowed:.0f} are explained")
    return found


if __name__ == "__main__":
    sys.exit(main())
