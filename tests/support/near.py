"""A cluster whose workers are asyncio tasks of this process, so that tests of generation on a cluster need no Ray."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable

from synthgen.executor.messages import Main, Post, WorkerDied


class NearWorker:
    """A worker. `die` ends it as the death of its machine would. `count` is the number of messages it has sent."""

    def __init__(self, cluster: NearCluster, main: Main, task: object) -> None:
        self.cluster = cluster
        self.message = pickle.dumps((main, task))
        self.post: Post | None = None
        self.dead = asyncio.Event()
        self.count = 0

    def begin(self) -> Post:
        if self.post is None:
            self.post = Post()
            self.running = asyncio.create_task(self.post.run(self.message))
        return self.post

    def put(self, message: object) -> None:
        self.begin().arrive([pickle.loads(pickle.dumps(message))])

    async def get(self) -> list[object]:
        waiting = [asyncio.create_task(self.begin().sent()), asyncio.create_task(self.dead.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if self.dead.is_set():
                raise WorkerDied("the test ended it")
            done, value = pickle.loads(waiting[0].result())
        finally:
            for one in waiting:
                one.cancel()
        if not done:
            raise value
        self.count += len(value)
        self.cluster.heard(self, value)
        return value

    def die(self) -> None:
        self.running.cancel()
        self.dead.set()

    def close(self) -> None:
        self.cluster.closed += 1


class NearCluster:
    """The cluster. `heard` is called with each worker that has sent messages, and the messages."""

    gpus = 0

    def __init__(self, room: int, heard: Callable[[NearWorker, list[object]], None] = lambda worker, found: None):
        self.most, self.heard = room, heard
        self.workers: list[NearWorker] = []
        self.closed = 0

    def worker(self, main: Main, task: object, *, gpus: int = 0) -> NearWorker:
        self.workers.append(NearWorker(self, main, task))
        return self.workers[-1]

    def room(self, gpus: int = 0) -> int:
        return self.most

    def __enter__(self) -> NearCluster:
        return self

    def __exit__(self, *error: object) -> None: ...
