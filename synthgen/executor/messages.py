"""Workers that exchange messages with the program that started them. A worker runs one function, the worker's main
function, in a separate process. The process keeps what the function has opened, such as a model.

    worker = cluster.worker(main, task)        # runs main(task, post) somewhere on the cluster
    worker.put(message)                        # the worker receives it with `await post.get()`
    messages = await worker.get()              # what the worker has sent with `post.put(message)`

Messages are small objects that can be pickled. They arrive in the order in which they were sent.
"""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Callable, Coroutine
from typing import Protocol

from synthgen.executor.worker import failed


class WorkerDied(Exception):
    """Raised when the process or the machine of a worker has ended. The text says what is known about the reason."""


class Post:
    """The worker's end of the messages. Create the object in the worker's event loop."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[object] = asyncio.Queue()
        self._sent: list[object] = []
        self._error: BaseException | None = None
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    async def get(self) -> object:
        """The next message of the program that started the worker."""
        return await self._arrived.get()

    def put(self, message: object) -> None:
        """Send a message. May be called from any thread."""
        if threading.get_ident() == self._thread:
            self._sent.append(message)
            self._news.set()
        else:
            self._loop.call_soon_threadsafe(self.put, message)

    def arrive(self, messages: list[object]) -> None:
        """Take messages of the program that started the worker."""
        for message in messages:
            self._arrived.put_nowait(message)

    async def run(self, message: bytes) -> None:
        """Run the pickled (main function, task). If the main function raises an error, the error is sent after all
        earlier messages. Packages that are written in Rust raise errors that are no `Exception`.
        """
        try:
            main, task = pickle.loads(message)
            await main(task, self)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._error = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
            self._news.set()

    async def sent(self) -> bytes:
        """Wait until there is something to send. Returns the pickled (True, list of messages). When the worker's main
        function has raised an error and all earlier messages were taken, returns the pickled (False, error).
        """
        while not self._sent and self._error is None:
            self._news.clear()
            await self._news.wait()
        if self._sent:
            messages, self._sent = self._sent, []
            return pickle.dumps((True, messages))
        assert self._error is not None
        return failed(self._error)


Main = Callable[..., Coroutine[object, object, None]]
"""A worker's main function. It gets the worker's task and a `Post`, and runs until the worker is closed."""


class Worker(Protocol):
    """The program that started a worker exchanges messages with the worker through this object. Use it in one event
    loop at a time.
    """

    def put(self, message: object) -> None:
        """Send a message. It is lost when the worker has died."""

    async def get(self) -> list[object]:
        """Wait for messages of the worker. A call that was cancelled loses no message. Raises WorkerDied when the
        worker has died. When the worker's main function has raised an error, raises this error.
        """

    def close(self) -> None:
        """End the worker at once."""


class Cluster(Protocol):
    """Machines on which workers run. `synthgen.executor.ray.RayExecutor` implements it."""

    def worker(self, main: Main, task: object, *, gpus: int = 0) -> Worker:
        """Start a worker, which uses one CPU core and `gpus` GPUs. The worker begins when a machine has room for it."""

    def room(self, gpus: int = 0) -> int:
        """The number of workers that can run at the same time, at least 1."""

    @property
    def gpus(self) -> int:
        """The number of GPUs of all machines."""
