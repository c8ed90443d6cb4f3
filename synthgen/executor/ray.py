"""An executor that runs tasks on a Ray cluster: https://docs.ray.io. Every node needs this package in the same version,
and must see the corpus under the same path, for example on a shared file system.

If a node or worker process dies before it finishes a task, the task runs again on another node or worker. Running a
task again is safe: tasks write whole files under temporary names, and a task that runs again writes the same bytes.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, TracebackType
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

from synthgen import durable, version
from synthgen.errors import UserError
from synthgen.executor.base import Services, checked, exchange_by
from synthgen.executor.exchange import Partition
from synthgen.executor.messages import Main, Post, WorkerDied
from synthgen.executor.worker import answer, failed

Task = TypeVar("Task")
Result = TypeVar("Result")

_RETRIES = 5  # how many times a task runs again after its worker or node died
_PATIENCE = 20.0  # how long to wait for a connection to a cluster, in seconds
_ROOM = 60.0  # how long a cluster may have no CPU core at all, in seconds
_QUEUED = 2  # number of tasks for each CPU core that are sent together, so that no core waits for its next task


class RayExecutor:
    """Runs tasks on a Ray cluster. Use the object in a `with` statement.

    `address` is the address of a cluster, such as `ray://head:10001`. Without an address, Ray uses the cluster at the
    address in the environment variable RAY_ADDRESS. If the variable is not set, Ray starts a cluster on this machine,
    and the cluster ends with this process. `workers` is the greatest number of tasks at the same time; by default all
    CPU cores of the cluster are used. Raises UserError when Ray is not installed or the cluster cannot be reached, and
    for less than one worker.
    """

    def __init__(
        self, address: str | None = None, workers: int | None = None, services: Services | None = None
    ) -> None:
        self.services, self._workers = services or Services(), checked(workers)
        self._ray = _ray()
        self._own = not self._ray.is_initialized()
        if self._own:
            _connect(self._ray, address, workers)
        found = self._ray.cluster_resources()
        self.cores, self.gpus = max(1, int(found.get("CPU", 1))), int(found.get("GPU", 0))
        self._most = workers or _QUEUED * self.cores
        options = {"num_cpus": 1, "max_retries": _RETRIES, "retry_exceptions": False}
        self._call = self._ray.remote(**options)(_call)

    def map(self, function: Callable[[Task, Services], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """See `Executor.map`. Raises UserError when the workers of a task died again and again, when no node can run a
        task, and when the connection to the cluster is lost.
        """
        home = _home()
        running: dict[object, int] = {}
        ready: dict[int, Result] = {}
        sent = following = 0
        try:
            while following < len(tasks):
                while sent < len(tasks) and len(running) < self._most:
                    message = pickle.dumps((function, tasks[sent]))
                    with self._connected():
                        running[self._call.remote(home, message, self.services)] = sent
                    sent += 1
                for reference in self._ended(list(running)):
                    done, value = pickle.loads(self._answer(reference))
                    if not done:
                        raise value
                    ready[running.pop(reference)] = value
                while following in ready:
                    yield ready.pop(following)
                    following += 1
        finally:
            with suppress(UserError), self._connected():
                for reference in running:  # after an error nobody needs these results
                    self._ray.cancel(reference, force=True)

    def exchange(self, tables: Sequence[Path], key: str, parts: int) -> list[Partition]:
        """See `Executor.exchange`. The partitioned copies lie beside the tables, as with the local executor."""
        return exchange_by(self, tables, key, parts)

    def worker(self, main: Main, task: object, *, gpus: int = 0) -> RayWorker:
        """See `synthgen.executor.messages.Cluster`. Workers are spread over the nodes."""
        options = {"num_cpus": 1, "num_gpus": gpus, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        with self._connected():
            actor = self._ray.remote(**options)(_Actor).remote(_home(), pickle.dumps((main, task)))
        died = self._ray.exceptions.RayError, self._ray.exceptions.RayTaskError
        return RayWorker(lambda: actor.pull.remote().future(), actor.push.remote, partial(self._kill, actor), died)

    def _kill(self, actor: object) -> None:
        with suppress(UserError), self._connected():  # without a connection, the actor ends by itself
            self._ray.kill(actor)

    def room(self, gpus: int = 0) -> int:
        """See `synthgen.executor.messages.Cluster`."""
        return max(1, self._workers or (self.gpus // gpus if gpus else self.cores))

    def close(self) -> None:
        """Disconnect. If this object started the cluster, the cluster ends."""
        if self._own:
            self._ray.shutdown()

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ended(self, running: list[object]) -> list[object]:
        """Wait until a task has ended. Returns the references of the tasks that have ended. Raises UserError when no
        node has a CPU core, because Ray would wait forever.
        """
        with self._connected():
            while not (ended := self._ray.wait(running, num_returns=1, timeout=_ROOM)[0]):
                if self._ray.cluster_resources().get("CPU", 0) < 1:
                    raise UserError(
                        f"for {_ROOM:.0f} s, the Ray cluster has had no CPU core",
                        "start a node with `ray start` and `--num-cpus`; the same command continues",
                    )
        return list(ended)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Raise UserError when the connection to the cluster is lost. Without this test, Ray would start a new cluster
        on this machine.
        """
        try:
            if not self._ray.is_initialized():
                raise ConnectionError("the cluster does not answer")
            yield
        except ConnectionError as error:
            raise _lost(error) from None

    def _answer(self, reference: object) -> bytes:
        """The answer of a finished task. Raises UserError when the cluster could not finish the task."""
        try:
            with self._connected():
                answered: bytes = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            raise UserError(
                f"a task on the Ray cluster was not finished: {_reason(error)}",
                "its workers may have run out of memory; the same command continues",
            ) from None
        return answered


class RayWorker:
    """A worker that runs as an actor of the cluster. See `synthgen.executor.messages.Worker`."""

    def __init__(
        self,
        pull: Callable[[], Future[bytes]],
        push: Callable[[bytes], object],
        end: Callable[[], None],
        errors: tuple[type[Exception], type[Exception]],
    ) -> None:
        """`pull`, `push` and `end` act on the actor. `errors` are the class of all errors of Ray, and the class of the
        errors that the code of the actor raises.
        """
        self._pull, self._send, self.close = pull, push, end
        self._died, self._raised = errors
        self._waiting: list[object] = []
        self._coming: Future[bytes] | None = None  # the future of the next messages

    def put(self, message: object) -> None:
        """Send a message. All messages that are put in one turn of the event loop are sent together."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._push)
        self._waiting.append(message)

    async def get(self) -> list[object]:
        """See `synthgen.executor.messages.Worker`."""
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        try:
            if self._coming is None:
                self._coming = self._pull()
            # The future itself is not awaited, because Ray prints a traceback when it completes a canceled future.
            self._coming.add_done_callback(lambda _: _tell(loop, arrived))
            await arrived.wait()
            answered = self._coming.result()
        except self._raised:  # this package's code raised an error; the actor is not dead
            raise
        except self._died as error:
            raise WorkerDied(_reason(error)) from None
        except ConnectionError as error:
            raise _lost(error) from None
        self._coming = None
        done, value = pickle.loads(answered)
        if not done:
            raise value
        return list(value)

    def _push(self) -> None:
        messages, self._waiting = self._waiting, []
        content = pickle.dumps(messages)
        with suppress(ConnectionError, self._died):  # `get` raises the error
            self._send(content)


class _Actor:
    """Runs a worker's main function in the cluster."""

    def __init__(self, home: _Home, message: bytes) -> None:
        self._refused = _begin(home)
        self._message = message
        self._post: Post | None = None

    async def push(self, messages: bytes) -> None:
        if self._refused is None:
            self._opened().arrive(pickle.loads(messages))

    async def pull(self) -> bytes:
        return self._refused or await self._opened().sent()

    def _opened(self) -> Post:
        """Start the main function if it does not run yet. The constructor cannot start it, because no event loop runs
        there.
        """
        if self._post is None:
            self._post = Post()
            self._running = asyncio.create_task(self._post.run(self._message))
        return self._post


def _lost(error: ConnectionError) -> UserError:
    return UserError(
        f"the connection to the Ray cluster was lost: {_reason(error)}",
        "finished work is kept; when the cluster runs again, the same command continues",
    )


def _tell(loop: asyncio.AbstractEventLoop, arrived: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the loop is closed, so nobody waits
        loop.call_soon_threadsafe(arrived.set)


class _Home(NamedTuple):
    """What a process of the cluster must know about the program that started it: where it finds modules, the hash of
    its code, and the versions of its packages.
    """

    path: list[str]
    code: str
    packages: Mapping[str, str]


def _home() -> _Home:
    # an empty entry of sys.path is the current folder
    path = [os.path.abspath(part) for part in sys.path]  # noqa: PTH100
    return _Home(path, version.code(), version.packages())


def _begin(home: _Home) -> bytes | None:
    """Prepare a process of the cluster. It finds the same modules as the program that started it, and its temporary
    files have names of their own. If the process has another version of this package, or of a package that may decide
    what a row says, returns the pickled error.
    """
    sys.path += [part for part in home.path if part not in sys.path]
    durable.attempt(os.urandom(4).hex())
    other = "another version of synthgen than this command"
    if version.code() == home.code:
        other = version.differing(home.packages)
    if not other:
        return None
    return failed(UserError(f"the node {socket.gethostname()} has {other}", "install the same version on every node"))


def _reason(error: Exception) -> str:
    """The first line of an error's text, and its second line if the first announces it."""
    first, second, *_ = *filter(None, map(str.strip, str(error).splitlines())), "", ""
    return f"{first} {second}" if first.endswith(":") and second else first or type(error).__name__


def _call(home: _Home, message: bytes, services: Services) -> bytes:
    """Run one pickled (function, task) in a worker of the cluster. Returns the pickled answer of `worker.answer`."""
    return _begin(home) or answer(message, services)


def _ray() -> ModuleType:
    if find_spec("ray") is None:
        raise UserError("the executor 'ray' needs ray, which is not installed", "pip install 'synthgen-distill[ray]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray sends no usage reports
    import ray

    return ray


def _connect(ray: ModuleType, address: str | None, workers: int | None) -> None:
    named = address or os.environ.get("RAY_ADDRESS")
    settings: dict[str, object] = {"address": address}
    if not named:  # with the address None, Ray would connect to a cluster that `ray start` has started on this machine
        settings = {"address": "local", "include_dashboard": False, "num_cpus": workers}
    try:
        if named and named != "auto":
            _reach(named)  # without this test, Ray tries for minutes
        _start(ray, {"logging_level": "ERROR", "log_to_driver": False, **settings})
    except Exception as error:  # Ray also raises exceptions that are not RayError
        raise UserError(
            f"the Ray cluster at {named or 'this machine'} cannot be used: {_reason(error)}",
            f"check the address, and that all nodes have the same versions of Python and Ray{_about_token(named)}",
        ) from None


def _about_token(named: str | None) -> str:
    """What to try when a cluster may want a token that Ray has not sent; "" when that is not the cause."""
    there = (Path.home() / ".ray" / "auth_token").exists() and "RAY_AUTH_MODE" not in os.environ
    return "; the cluster may ask for your token: set RAY_AUTH_MODE=token" if named and there else ""


def _start(ray: ModuleType, settings: dict[str, object]) -> None:
    """Connect. Try once more if a new cluster was not ready within the 30 seconds that Ray waits."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**settings)
    except Exception as error:
        if "timed out during startup" not in str(error):
            raise
        ray.shutdown()
        ray.init(**settings)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray has set a handler that ends the process without a message


def _reach(address: str) -> None:
    """Raise OSError when nothing listens at an address such as `ray://head:10001` or `head:6379`, and ValueError when
    the text is not an address.
    """
    parts = urlsplit(address if "://" in address else f"//{address}")
    if not parts.hostname or not parts.port:
        raise ValueError(f"'{address}' is not HOST:PORT")
    socket.create_connection((parts.hostname, parts.port), timeout=_PATIENCE).close()
