"""The operator's orders in an old journal, and where each belongs among the attempts of its task.

An order of a new attempt names the attempt that it follows, and holds after that one only. A cancel of a task that waits
holds for that wait: it is the last word only if nothing was ordered or begun since.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence

from fleet.model.failures import FailureClass
from fleet.model.records import AnyRecord, AttemptIntended, CancelOrdered, RetryOrdered


class Orders:
    """Orders by task, with their places in the old journal."""

    def __init__(self, records: Sequence[AnyRecord]) -> None:
        self._waiting: dict[str, list[tuple[int, CancelOrdered | RetryOrdered]]] = defaultdict(list)
        self._following: dict[tuple[str, str], RetryOrdered] = {}
        self._latest: dict[str, int] = defaultdict(lambda: -1)
        """Task → the place of the last attempt or order of one."""
        for index, record in enumerate(records):
            if isinstance(record, AttemptIntended):
                self._latest[record.task] = index
            elif isinstance(record, RetryOrdered):
                self._latest[record.task] = index
                if record.after is None:
                    self._waiting[record.task].append((index, record))
                else:
                    self._following[record.task, record.after] = record
            elif isinstance(record, CancelOrdered) and record.attempt is None:
                self._waiting[record.task].append((index, record))

    def by_policy(self, task: str, failures: Container[FailureClass]) -> int:
        """Return how many orders after one of `failures` are the policy's."""
        own = (order for (label, _), order in self._following.items() if label == task)
        return sum(order.by == "policy" and order.failure in failures for order in own)

    def add(self, order: RetryOrdered) -> None:
        """Count an order that the old journal has lost."""
        self._following[order.task, order.after or ""] = order

    def before(self, task: str) -> list[AnyRecord]:
        """Return the orders that were given before anything of the task had begun."""
        return [record for index, record in self._waiting[task] if index <= self._latest[task]]

    def following(self, task: str, attempt: str) -> list[AnyRecord]:
        """Return the order of another attempt after this one."""
        order = self._following.get((task, attempt))
        return [] if order is None else [order]

    def after(self, task: str) -> list[AnyRecord]:
        """Return the cancels that came after everything else."""
        return [record for index, record in self._waiting[task] if index > self._latest[task]]
