"""Runs vLLM's engine, keeps it busy, and restarts it when it dies.

A separate thread has an event loop that calls the engine, so plain functions and other event loops can use the engine.
The number of requests in flight is at most 10% larger than the number that the engine processes at a time. A waiting
request is sent as soon as another request is answered.

When the engine dies, every request in flight is a suspect. A new engine is started, and the suspects are retried. Each
time the engine dies again, the suspects are divided into halves, until the request that kills the engine runs alone.
This request fails with `Poison`, and the other suspects are answered. Then the waiting requests are sent.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import itertools
import math
import os
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

# Only warnings are logged and no telemetry is sent, unless the user sets these variables. vLLM reads them on import.
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from synthgen.errors import TeacherError
from synthgen.logits import Floats, LogitsSpec, Sampled
from synthgen.teachers.vllm.draws import ARGUMENT, Collector
from synthgen.teachers.vllm.flat import positions
from synthgen.teachers.vllm.parent import children_follow
from synthgen.teachers.vllm.probe import known, missing, version

# The number of requests in flight, as a multiple of the number that the engine can process at a time. The multiple is
# larger than 1, so that the engine never waits for the next request.
_FILL = 1.1
_GIVE_UP = 3  # when this many consecutive requests have killed the engine, the cause must be something else

Result = TypeVar("Result")


class Poison(Exception):
    """Raised for a request that kills the engine. The engine died twice during the request. The second time, no other
    request was in flight.
    """


@dataclass(eq=False)
class Job:
    """One request to the engine: the token ids of the prompt, and vLLM's SamplingParams. When tokens must be drawn at
    every position of the completion, `draws` is (seed, spec). Otherwise `draws` is None.
    """

    tokens: list[int]
    params: Any
    draws: tuple[str, LogitsSpec] | None = None
    answer: asyncio.Future[tuple[Any, Sampled | None]] | None = None


class Engine:
    """vLLM's engine. `arguments` are the arguments of `AsyncEngineArgs`. The engine starts at the first request, and it
    answers each request with a finished `RequestOutput`.
    """

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        self.deaths = 0
        self._llm: Any = None
        self._collector: Collector | None = None
        self._slots: asyncio.Semaphore | None = None
        self._most = 0
        self._starting = asyncio.Lock()
        self._flying: set[Job] = set()
        self._suspects: list[Job] = []
        self._recovery: asyncio.Task[None] | None = None
        self._poisoned = 0
        self._numbers = itertools.count()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="synthgen-vllm", daemon=True).start()
        atexit.register(self.close)

    def call(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine on the engine's event loop and wait for its result. This method is for callers in other
        threads.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def ask(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine on the engine's event loop and wait for its result. This method is for callers on other event
        loops.
        """
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def close(self) -> None:
        """Stop the engine and its processes. The next request starts a new engine."""
        atexit.unregister(self.close)
        if self._loop.is_running():
            self.call(self._stop())

    async def ready(self) -> int:
        """Start the engine if it is not running. Returns the maximum number of requests in flight. Raises
        TeacherError.
        """
        async with self._starting:
            if self._llm is None:
                self._start()
        return self._most

    async def run(self, job: Job) -> tuple[Any, Sampled | None]:
        """Send the request. Returns (finished RequestOutput, drawn tokens). The drawn tokens are None if `job.draws` is
        None.

        Call this only on the engine's event loop. Raises Poison, TeacherError, or vLLM's own error when vLLM rejects
        the request.
        """
        await self.ready()
        assert self._slots is not None
        async with self._slots:
            while self._recovery is not None:
                await asyncio.wait([self._recovery])
            self._flying.add(job)
            try:
                return await self._fly(job)
            except EngineDeadError:
                job.answer = self._loop.create_future()
                self._suspects.append(job)
                if self._recovery is None:
                    self._recovery = self._loop.create_task(self._recover())
            finally:
                self._flying.discard(job)
            return await job.answer

    async def _fly(self, job: Job) -> tuple[Any, Sampled | None]:
        """Send a request once. Raises EngineDeadError when the engine dies before the answer is complete."""
        if self._llm is None:
            raise EngineDeadError
        number = str(next(self._numbers))
        if job.draws and self._collector:
            job.params.extra_args = {ARGUMENT: self._collector.expect(number, *job.draws)}
        found = None
        try:
            async for output in self._llm.generate(_prompt(job.tokens), job.params, number):
                found = output
            if found is None:
                raise TeacherError("vLLM ended a request without an output", "report this with the version of vLLM")
            drawn = None
            if job.draws and self._collector:
                drawn = await self._collector.take(number, largest(found.outputs[0].logprobs))
        except (EngineGenerateError, TeacherError) as error:
            if self._llm is None or self._llm.errored:
                raise EngineDeadError from error
            raise (error.__cause__ or error) from None
        finally:
            if job.draws and self._collector:
                self._collector.forget(number)
        self._poisoned = 0
        return found, drawn

    async def _recover(self) -> None:
        """Start a new engine and find the suspect that kills it."""
        while self._flying:  # wait until every request in flight has received the error
            await asyncio.sleep(0.01)
        suspects, self._suspects = self._suspects, []
        try:
            self._restart()
            for part in _halves(suspects):
                await self._try(part)
        except BaseException as error:
            for job in suspects:
                if job.answer and not job.answer.done():
                    job.answer.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
            if not isinstance(error, Exception):
                raise
        finally:
            self._recovery = None

    async def _try(self, group: list[Job]) -> None:
        """Answer every job of the group. When the engine dies, divide the unanswered jobs into halves, and retry."""
        results = await asyncio.gather(*(self._fly(job) for job in group), return_exceptions=True)
        dead = []
        for job, result in zip(group, results, strict=True):
            assert job.answer is not None
            if isinstance(result, EngineDeadError):
                dead.append(job)
            elif job.answer.cancelled():
                continue
            elif isinstance(result, BaseException):
                job.answer.set_exception(result)
            else:
                job.answer.set_result(result)
        if not dead:
            return
        self._restart()
        if len(group) == 1:
            self._poisoned += 1
            assert group[0].answer is not None
            group[0].answer.set_exception(Poison())
            if self._poisoned >= _GIVE_UP:
                raise TeacherError(
                    f"vLLM {version()} crashed on {self._poisoned} requests in a row, each sent alone",
                    "vLLM's messages above say why; a smaller gpu_memory_utilization, max_model_len or max_num_seqs "
                    "may help",
                )
            return
        for part in _halves(dead):
            await self._try(part)

    def _start(self) -> None:
        try:
            config = AsyncEngineArgs(**known(self.arguments, AsyncEngineArgs)).create_engine_config()
            if not missing("sampled"):  # vLLM's two model runners need different logits processors
                name = "SlotDraws" if getattr(config, "use_v2_model_runner", False) else "BatchDraws"
                config.model_config.logits_processors = [f"{Collector.__module__}:{name}"]
            with children_follow(config):
                self._llm = AsyncLLM.from_vllm_config(config, disable_log_stats=True)
        except Exception as error:  # vLLM, torch and the model's code raise their own exceptions
            raise TeacherError(
                f"vLLM {version()} does not start with '{self.arguments['model']}': {str(error).strip()[:300]}",
                "vLLM's messages above say why; VLLM_LOGGING_LEVEL=INFO shows more",
            ) from None
        if self._slots is None:
            at_once = config.scheduler_config.max_num_seqs * config.parallel_config.data_parallel_size
            self._most = math.ceil(_FILL * at_once)
            self._slots = asyncio.Semaphore(self._most)
        if self._collector is None:
            self._collector = Collector()

    def _restart(self) -> None:
        self.deaths += 1
        self._shutdown()
        self._start()

    def _shutdown(self) -> None:
        llm, self._llm = self._llm, None
        if llm is not None:
            with contextlib.suppress(Exception):  # the engine may already be dead
                llm.shutdown()

    async def _stop(self) -> None:
        self._shutdown()
        if self._collector:
            self._collector.close()
            self._collector = None


def _halves(jobs: list[Job]) -> list[list[Job]]:
    half = (len(jobs) + 1) // 2
    return [part for part in (jobs[:half], jobs[half:]) if part]


def largest(flat: Any) -> Floats:
    """The largest log-probability at every position of a reply. The request must have asked for at least one
    log-probability.
    """
    return positions(flat)[1][:, 1]


def _prompt(tokens: list[int]) -> Any:
    """Token ids in a form that the installed vLLM accepts as a prompt. If vLLM has the function `tokens_input`, its
    result is used. vLLM does not process this result again in another thread, which saves time.
    """
    try:
        from vllm.inputs import tokens_input
    except ImportError:
        return {"prompt_token_ids": tokens}
    return tokens_input(tokens)
