"""A cluster whose workers are asyncio tasks in a thread of this process, so that tests of generation on a cluster need
no Ray.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import pickle
import threading
from collections.abc import Callable

from synthgen.executor.messages import Main, Post, WorkerDied


class NearWorker:
    """A worker. `die` ends the worker, as the death of its machine would. `count` is the number of messages that the
    worker has sent.
    """

    def __init__(self, cluster: NearCluster, main: Main, task: object) -> None:
        self.cluster, self.message = cluster, pickle.dumps((main, task))
        self.count = 0
        self.dead = threading.Event()
        self.coming: concurrent.futures.Future | None = None
        self.cluster.run(self._begin()).result()

    async def _begin(self) -> None:
        self.post = Post()
        self.running = asyncio.create_task(self.post.run(self.message))

    def put(self, message: object) -> None:
        if not self.dead.is_set():
            self.cluster.loop.call_soon_threadsafe(self.post.arrive, [pickle.loads(pickle.dumps(message))])

    async def get(self) -> list[object]:
        self.coming = self.coming or self.cluster.run(self.post.sent())
        while not self.coming.done():
            if self.dead.is_set():
                raise WorkerDied("the test ended it")
            await asyncio.sleep(0.001)
        done, value = pickle.loads(self.coming.result())
        self.coming = None
        if self.dead.is_set():
            raise WorkerDied("the test ended it")
        if not done:
            raise value
        self.count += len(value)
        self.cluster.heard(self, value)
        return value

    def die(self) -> None:
        self.dead.set()
        self.cluster.loop.call_soon_threadsafe(self.running.cancel)

    def close(self) -> None:
        self.die()
        self.cluster.closed += 1


class NearCluster:
    """The cluster. `heard` is called with each worker that has sent messages, and the messages."""

    gpus = 0

    def __init__(self, room: int, heard: Callable[[NearWorker, list[object]], None] = lambda worker, found: None):
        self.most, self.heard = room, heard
        self.workers: list[NearWorker] = []
        self.closed = 0

    def run(self, main) -> concurrent.futures.Future:
        return asyncio.run_coroutine_threadsafe(main, self.loop)

    def worker(self, main: Main, task: object, *, gpus: int = 0) -> NearWorker:
        self.workers.append(NearWorker(self, main, task))
        return self.workers[-1]

    def room(self, gpus: int = 0) -> int:
        return self.most

    def __enter__(self) -> NearCluster:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        async def ended() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.run(ended()).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
