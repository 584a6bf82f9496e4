"""Judge many result directories, with several processes when there are enough of them to be worth it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from fleet.model.pipeline import Quality
from fleet.model.verdict import Verdict
from fleet.quality.evidence import Expected
from fleet.quality.judge import judge_source
from fleet.quality.sources import Source

WORTH_IT = 50
"""Starting the processes costs about as much as judging this many results."""

Work = tuple[Source, Expected | None, Quality]


def judge_many(work: Sequence[Work], *, processes: int | None = None) -> Iterator[list[Verdict]]:
    """Yield the verdicts of each source of `work` in its order; `processes` defaults to the CPUs that this process may use."""
    count = processes or len(os.sched_getaffinity(0))
    if len(work) <= WORTH_IT or count == 1:
        yield from map(_one, work)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=count, mp_context=context) as pool:
        yield from pool.map(_one, work, chunksize=8)


def _one(work: Work) -> list[Verdict]:
    return judge_source(*work)
