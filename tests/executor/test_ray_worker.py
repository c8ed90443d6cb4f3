"""How messages of a worker on a Ray cluster arrive, and how a cluster is reached. Only Ray itself is missing here;
`tests/ray` has tests with Ray.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import signal
import socket
import sys
from concurrent.futures import Future
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from synthgen import durable, version
from synthgen.errors import UserError
from synthgen.executor import ray
from synthgen.executor.messages import WorkerDied
from synthgen.executor.ray import RayWorker, _Actor, _begin, _connect, _home, _reach, _start


class Died(Exception):
    """The class of all errors of Ray."""


class Raised(Died):
    """An error that the code of an actor raised."""


def worker_with(answers: list[Future], sent: list[bytes]) -> RayWorker:
    def pull() -> Future:
        answers.append(Future())
        return answers[-1]

    return RayWorker(pull, sent.append, lambda: None, (Died, Raised))


def test_messages_of_one_turn_are_sent_together():
    async def talk() -> None:
        sent: list[bytes] = []
        worker = worker_with([], sent)
        for turn in (["a", "b"], ["c"]):
            for message in turn:
                worker.put(message)
            assert sent == []
            await asyncio.sleep(0)
            assert list(map(pickle.loads, sent)) == [turn]
            sent.clear()

    asyncio.run(talk())


def test_a_call_that_was_cancelled_loses_no_message():
    async def talk() -> None:
        answers: list[Future] = []
        worker = worker_with(answers, [])
        first = asyncio.create_task(worker.get())
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        answers[0].set_result(pickle.dumps((True, ["x", "y"])))
        assert await worker.get() == ["x", "y"]
        assert len(answers) == 1
        second = asyncio.create_task(worker.get())
        await asyncio.sleep(0)
        answers[1].set_result(pickle.dumps((False, UserError("ours", "mend it"))))
        with pytest.raises(UserError, match="ours"):
            await second

    asyncio.run(talk())


@pytest.mark.parametrize(
    ("error", "raised", "says"),
    [
        (Died("the machine is gone\nand more"), WorkerDied, "^the machine is gone$"),
        (Died(), WorkerDied, "^Died$"),
        (Raised("a bug"), Raised, "a bug"),
    ],
)
def test_a_worker_that_died_is_told_from_an_error_of_its_code(error, raised, says):
    async def talk() -> None:
        answers: list[Future] = []
        worker = worker_with(answers, [])
        for _ in range(2):  # also when it is asked again
            task = asyncio.create_task(worker.get())
            await asyncio.sleep(0)
            if not answers[0].done():
                answers[0].set_exception(error)
            with pytest.raises(raised, match=says):
                await task
        assert len(answers) == 1

    asyncio.run(talk())


async def echoes(task: str, post) -> None:
    """The main function of a worker: repeats messages, and fails at 'fail'."""
    post.put(task)
    while (message := await post.get()) != "fail":
        post.put(message)
    raise UserError("the worker has failed", "")


def test_an_actor_runs_its_main_function_once(monkeypatch):
    monkeypatch.setattr(durable, "_attempt", "")
    monkeypatch.setattr(sys, "path", [*sys.path])

    async def talk() -> None:
        actor = _Actor(_home(), pickle.dumps((echoes, "begun")))
        assert pickle.loads(await actor.pull()) == (True, ["begun"])
        await actor.push(pickle.dumps(["a", "b"]))
        await actor.push(pickle.dumps(["fail"]))
        assert pickle.loads(await actor.pull()) == (True, ["a", "b"]), "messages come before the error"
        done, error = pickle.loads(await actor.pull())
        assert (done, error.message) == (False, "the worker has failed")

    asyncio.run(talk())


def test_a_process_of_the_cluster_finds_the_same_modules_and_has_file_names_of_its_own(monkeypatch):
    monkeypatch.setattr(durable, "_attempt", "")
    monkeypatch.setattr(sys, "path", ["/a", "/b"])
    home = _home()
    assert _begin(home._replace(path=["/b", "/c"])) is None
    assert sys.path == ["/a", "/b", "/c"]
    names = set()
    for _ in range(2):
        names.add(durable._attempt)
        assert durable.ATTEMPT.match(durable._attempt)
        _begin(home._replace(path=[]))
    assert len(names) == 2
    monkeypatch.setattr(sys, "path", ["", "x"])
    assert _home().path == [str(Path.cwd()), str(Path.cwd() / "x")]


def test_a_worker_with_other_code_does_nothing(monkeypatch):
    monkeypatch.setattr(durable, "_attempt", "")
    monkeypatch.setattr(sys, "path", [*sys.path])

    async def talk() -> None:
        actor = _Actor(_home()._replace(code="other"), pickle.dumps((echoes, "begun")))
        await actor.push(pickle.dumps(["a"]))
        done, error = pickle.loads(await actor.pull())
        assert not done
        assert "has another version of synthgen than this command" in error.message

    asyncio.run(talk())


@pytest.mark.parametrize(
    ("name", "theirs", "says"),
    [
        ("numpy", "0.1", r"has numpy \d\S+, not 0\.1$"),
        ("math-verify", None, "has math-verify 0.9.0, not none$"),
        ("torch", "1.0", None),  # a package that only one of them has
        ("eldc", None, None),
    ],
)
def test_a_node_with_another_version_of_a_package_is_refused(monkeypatch, name, theirs, says):
    """Other rows would come from it silently. The head of a cluster may lack the packages of the other nodes."""
    monkeypatch.setattr(durable, "_attempt", "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    here = {**version.packages(), "math-verify": "0.9.0", "eldc": "0.4.0"}
    here.pop("torch", None)
    monkeypatch.setattr(version, "packages", lambda: here)
    there = {key: value for key, value in here.items() if key != name} | ({name: theirs} if theirs else {})
    refused = _begin(_home()._replace(packages=there))
    if says is None:
        assert refused is None
        return
    done, error = pickle.loads(refused)
    assert not done
    assert re.search(says, error.message)
    assert error.hint == "install the same version on every node"


def test_builds_of_a_package_are_one_version(monkeypatch):
    def known(name: str) -> str:
        if name != "torch":
            raise metadata.PackageNotFoundError(name)
        return "2.8.0+cpu"

    monkeypatch.setattr(metadata, "version", known)
    assert version.packages.__wrapped__() == {"torch": "2.8.0"}


def test_a_lost_connection_is_said_also_when_the_next_call_finds_it():
    """Ray's client raises the error at the call, not in the future."""

    def pull() -> Future:
        raise ConnectionError("the server is gone")

    def push(messages: bytes) -> None:
        raise ConnectionError("the server is gone")

    async def talk() -> None:
        printed = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: printed.append(context))
        worker = RayWorker(pull, push, lambda: None, (Died, Raised))
        worker.put("a")
        with pytest.raises(UserError, match="the connection to the Ray cluster was lost: the server is gone"):
            await worker.get()
        await asyncio.sleep(0)
        assert printed == []

    asyncio.run(talk())


class Panic(BaseException):
    """As packages that are written in Rust raise it."""


async def panics(task: str, post) -> None:
    await asyncio.sleep(0)
    raise Panic("index out of range")


def test_a_worker_that_fails_without_an_exception_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(durable, "_attempt", "")
    monkeypatch.setattr(sys, "path", [*sys.path])

    async def talk() -> None:
        actor = _Actor(_home(), pickle.dumps((panics, "")))
        done, error = pickle.loads(await asyncio.wait_for(actor.pull(), 5))
        assert not done
        assert (type(error), str(error)) == (RuntimeError, "Panic: index out of range")

    asyncio.run(talk())


def test_a_cluster_that_was_not_ready_is_started_once_more(monkeypatch):
    handler = signal.getsignal(signal.SIGTERM)
    for errors, calls in ((0, ["init"]), (1, ["init", "shutdown", "init"]), (2, ["init", "shutdown", "init"])):
        log: list[str] = []

        def init(**settings: object) -> None:
            log.append("init")  # noqa: B023
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray does
            if log.count("init") <= errors:  # noqa: B023
                raise RuntimeError("The node timed out during startup")

        module = SimpleNamespace(init=init, shutdown=lambda: log.append("shutdown"))  # noqa: B023
        if errors < 2:
            _start(module, {})
            assert signal.getsignal(signal.SIGTERM) is handler
        else:
            monkeypatch.delenv("RAY_ADDRESS", raising=False)
            with pytest.raises(UserError, match="the Ray cluster at this machine cannot be used: The node timed out"):
                _connect(module, None, 2)
            signal.signal(signal.SIGTERM, handler)
        assert log == calls


def test_an_address_at_which_nothing_listens_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        _reach(f"127.0.0.1:{port}")
        _reach(f"ray://127.0.0.1:{port}")
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(OSError):
            _reach(address)
        with pytest.raises(UserError, match=f"the Ray cluster at {address} cannot be used"):
            _connect(SimpleNamespace(), address, None)
    for address in ("head", "ray://head", ":6379", "ray://:10001"):
        with pytest.raises(ValueError, match="is not HOST:PORT"):
            _reach(address)


def test_without_ray_its_package_is_named(monkeypatch):
    monkeypatch.setattr(ray, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs ray, which is not installed") as caught:
        ray.RayExecutor()
    assert caught.value.hint == "pip install 'synthgen-distill[ray]'"
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    monkeypatch.setattr(ray, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    assert ray._ray() is sys.modules["ray"]
    assert os.environ.pop("RAY_USAGE_STATS_ENABLED") == "0"


def test_what_the_executor_asks_of_ray():
    log: list[object] = []

    def remote(**options: object):
        log.append(options)
        return lambda kind: SimpleNamespace(remote=lambda *values: SimpleNamespace(push=SimpleNamespace(remote=None)))

    executor = object.__new__(ray.RayExecutor)
    errors = SimpleNamespace(RayError=Died, RayTaskError=Raised)
    executor._ray = SimpleNamespace(
        is_initialized=lambda: True, remote=remote, kill=lambda actor: log.append("kill"), exceptions=errors,
        shutdown=lambda: log.append("shutdown"),
    )  # fmt: skip
    executor._workers, executor.cores, executor.gpus, executor._own = None, 12, 8, True
    assert (executor.room(), executor.room(2), executor.room(16)) == (12, 4, 1)
    worker = executor.worker(echoes, "", gpus=2)
    assert (log[0]["num_cpus"], log[0]["num_gpus"], log[0]["max_restarts"]) == (1, 2, 0)
    worker.close()
    with executor:
        pass
    assert log[1:] == ["kill", "shutdown"]
    executor._workers, executor._own = 3, False
    assert (executor.room(), executor.room(2)) == (3, 3)
    executor.close()
    assert log[1:] == ["kill", "shutdown"]
    executor._ray.is_initialized = lambda: False
    worker.close()  # the connection is lost, so the actor ends by itself


def test_tasks_whose_results_nobody_needs_are_ended_at_once():
    sent, canceled, most = [], [], []

    def wait(running: list, **more: object) -> tuple[list, list]:
        most.append(len(running))
        return running[:1], running[1:]

    executor = object.__new__(ray.RayExecutor)
    executor._ray = SimpleNamespace(
        is_initialized=lambda: True, wait=wait, exceptions=SimpleNamespace(RayError=Died),
        get=lambda reference: pickle.dumps((False, UserError("it failed"))),
        cancel=lambda reference, force: canceled.append((reference, force)),
    )  # fmt: skip
    executor._most, executor.services = 3, None
    executor._call = SimpleNamespace(remote=lambda *values: sent.append(values) or len(sent))
    with pytest.raises(UserError, match="it failed"):
        list(executor.map(_reach, range(9)))
    assert most == [3]
    assert canceled == [(1, True), (2, True), (3, True)]
