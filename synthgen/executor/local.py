"""An executor that runs tasks on this machine. With one worker, tasks run in this process. With several workers, tasks
run in child processes, which end when this process ends.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from synthgen.errors import UserError
from synthgen.executor.base import Services, checked, exchange_by
from synthgen.executor.exchange import Partition

Task = TypeVar("Task")
Result = TypeVar("Result")

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from synthgen.executor.worker import main; "
    "main(int(sys.argv[2]), int(sys.argv[3]))"
)
_PATIENCE = 5.0  # how long `close` waits for a worker to end before it kills the worker, in seconds


def cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection


class LocalExecutor:
    """Runs tasks in `workers` processes, which start when they are first needed. Use the object in a `with` statement.

    A worker imports the modules that define the function and the tasks. A worker does not run the program's main module
    again. When this process ends for any reason, the workers end too. Raises UserError for less than one worker.
    """

    def __init__(self, workers: int = 1, services: Services | None = None) -> None:
        self.services = services or Services()
        self._count = checked(workers) or 1
        self._workers: list[_Worker] = []
        # (read end, write end) of a pipe. When this process ends, the write end closes, and this tells the workers to
        # end.
        self._life: tuple[int, int] | None = None

    def map(self, function: Callable[[Task, Services], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """See `Executor.map`. A single task runs in this process."""
        if self._count == 1 or len(tasks) < 2:
            for task in tasks:
                yield function(task, self.services)
            return
        try:
            while len(self._workers) < min(self._count, len(tasks)):
                self._workers.append(self._started())
            yield from self._mapped(function, tasks)
        except BaseException:  # nobody needs the results of the current tasks, so the workers are killed
            self.close(at_once=True)
            raise

    def exchange(self, tables: Sequence[Path], key: str, parts: int) -> list[Partition]:
        """See `Executor.exchange`."""
        return exchange_by(self, tables, key, parts)

    def close(self, *, at_once: bool = False) -> None:
        """End the workers. With `at_once`, workers are killed even if they are running a task."""
        for worker in self._workers:
            worker.connection.close()  # an idle worker ends when its connection closes
            if at_once:
                worker.process.kill()
        for worker in self._workers:
            try:
                worker.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self._workers = []
        for end in self._life or ():
            os.close(end)
        self._life = None

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(at_once=error is not None)

    def _mapped(self, function: Callable[[Task, Services], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        waiting = list(enumerate(tasks))[::-1]
        idle = list(self._workers)
        busy: dict[Connection, tuple[_Worker, int]] = {}
        ready: dict[int, Result] = {}
        following = 0
        while following < len(tasks):
            while idle and waiting:
                number, task = waiting.pop()
                worker = idle.pop()
                worker.connection.send_bytes(pickle.dumps((function, task)))
                busy[worker.connection] = (worker, number)
            answered = wait(list(busy))
            for worker, number in [busy.pop(connection) for connection in list(busy) if connection in answered]:
                ready[number] = _received(worker.connection)
                idle.append(worker)
            while following in ready:
                yield ready.pop(following)
                following += 1

    def _started(self) -> _Worker:
        """Start a worker. The worker's numerical libraries use one thread, because workers already run in parallel."""
        self._life = self._life or os.pipe()
        ours, theirs = Pipe()
        channel, life = theirs.fileno(), self._life[0]
        process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path), str(channel), str(life)],
            pass_fds=(channel, life),
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        theirs.close()
        ours.send_bytes(pickle.dumps(self.services))
        return _Worker(process, ours)


def _received(connection: Connection) -> Any:
    """Receive the result of a worker's task. Raises the exception that the task raised, or UserError when the worker
    has died.
    """
    try:
        done, value = pickle.loads(connection.recv_bytes())
    except (EOFError, OSError):
        raise UserError(
            "a worker process ended before its work was done", "it may have run out of memory: give --workers 1"
        ) from None
    if not done:
        raise value
    return value
