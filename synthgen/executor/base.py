"""The interface of an executor, and the services that its workers share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from synthgen.executor.exchange import Partition

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Services:
    """What workers share: the budget, the pace of requests, the cache of paid replies, a model. None of them yet.

    The object is sent to every worker, so it holds settings and paths alone. A service is opened by the worker that
    first uses it.
    """


class Executor(Protocol):
    """Runs functions on tasks; see the package."""

    services: Services

    def map(self, function: Callable[[Task, Services], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """`function(task, services)` for each task; results come in the order of the tasks.

        An exception of the function is raised here.
        """

    def exchange(self, tables: Sequence[Path], key: str, parts: int) -> list[Partition]:
        """Partitions of the rows of Arrow files: rows with equal values of `key` are in the same partition.

        In a partition, rows stand in the order of the tables and in the order that they have there. `key` is a column
        of uint64 numbers or of binary values of one size, 8 bytes at least.
        """
