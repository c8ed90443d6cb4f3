"""The interface of an executor, and the services that its workers share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from synthgen.errors import UserError
from synthgen.executor.exchange import Partition, scatter, scattered

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Services:
    """Settings and paths that all tasks share. There are none yet.

    The budget, the request rate and the cache of paid replies are not services. `synthgen.generation.sharing` keeps
    them in one process, which exchanges messages with the workers.
    """


class Executor(Protocol):
    """The interface of an executor; see the docstring of `synthgen.executor`."""

    services: Services

    def map(self, function: Callable[[Task, Services], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Run `function(task, services)` for each task. Results come in the order of the tasks.

        An exception that the function raises in a worker is raised again in the caller.
        """

    def exchange(self, tables: Sequence[Path], key: str, parts: int) -> list[Partition]:
        """Divide the rows of several Arrow files into `parts` partitions. Rows with equal values in the column `key`
        are in the same partition.

        A partition contains its rows of the first table, in the table's order, then its rows of the second table, and
        so on. The type of the column `key` is uint64, or binary with a fixed size of at least 8 bytes.
        """


def checked(workers: int | None) -> int | None:
    """Return `workers`. Raises UserError when there is less than one worker."""
    if workers is not None and workers < 1:
        raise UserError(f"{workers} workers cannot do any work", "give at least 1 worker, or leave the number out")
    return workers


def exchange_by(executor: Executor, tables: Sequence[Path], key: str, parts: int) -> list[Partition]:
    """The partitions of `Executor.exchange`. The executor writes a partitioned copy of each table in the table's
    folder. If a copy exists already, it is used again.
    """
    if parts == 1:
        return [Partition(tuple(tables), None)]
    missing = [(path, key, parts) for path in tables if not scattered(path, parts).exists()]
    for _ in executor.map(_scatter, missing):
        pass
    files = tuple(scattered(path, parts) for path in tables)
    return [Partition(files, number) for number in range(parts)]


def _scatter(task: tuple[Path, str, int], services: Services) -> Path:
    return scatter(*task)
