"""`python -m tests.simulation --count N [--seed S] [--bug NAME]`: simulate, count, and show the first failing history."""

from __future__ import annotations

import argparse
import sys

from tests.simulation.bugs import Bug
from tests.simulation.campaign import campaign


def main() -> int:
    """Run the campaign that the command line asks for; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="how many histories")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--bug", choices=[bug.name for bug in Bug], default=Bug.NONE.name, help="plant a known bug")
    parser.add_argument("--show", action="store_true", help="print the history of the first seed, broken or not")
    asked = parser.parse_args()
    bug = Bug[asked.bug]
    figures = campaign(range(asked.seed, asked.seed + asked.count), bug)
    if asked.show and asked.count == 1 and not figures.broken:
        from tests.simulation.campaign import simulate

        print("\n".join(simulate(asked.seed, bug).told))
    for history in figures.broken[:1]:
        print("\n".join(history.told))
    for history in figures.broken:
        print(f"seed {history.seed}: {'; '.join(history.broken)}")
        planted = "" if bug is Bug.NONE else f" --bug {bug.name}"
        print(f"  again: python -m tests.simulation --count 1 --seed {history.seed}{planted}")
    print("troubles: " + ", ".join(f"{kind} {number}" for kind, number in figures.met.most_common()))
    last = asked.seed + figures.histories - 1
    print(
        f"seeds {asked.seed} to {last}: {figures.histories} histories, {figures.steps} steps, {figures.evals} evals, "
        f"{sum(figures.met.values())} troubles, {len(figures.states)} distinct states, "
        f"{len(figures.broken)} violations, {figures.seconds:.0f} s"
    )
    return 1 if figures.broken else 0


if __name__ == "__main__":
    sys.exit(main())
