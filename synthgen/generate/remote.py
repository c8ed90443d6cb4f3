"""Generation over a wire: shards opened in order, filled as replies come, committed as they are complete.

Requests are made when their shard is opened, and a shard is forgotten when it is committed: memory holds the
open shards, never the corpus. Committing (compressing, writing, fsync) runs in a thread beside the loop.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from synthgen import corpus, durable
from synthgen.errors import CorpusError, GateDenied
from synthgen.generate.budget import Budget, open_budget, prices
from synthgen.generate.cache import Cache, Spent
from synthgen.generate.scheduler import Item, Live, Scheduler
from synthgen.generate.strategies import in_order, of_seed, per_seed
from synthgen.prompts import Prompt
from synthgen.recipe import Recipe
from synthgen.records import Request
from synthgen.seeds import Seed
from synthgen.teachers import RemoteTeacher, Reply
from synthgen.ui import Progress

_HELD_BYTES = 256 << 20  # replies that wait for the rest of their shard
_OPEN_SHARDS = 64
_COMMITTING = 4  # shards that wait for the disk
_LOOK = 0.5  # seconds between looks of the live view
_RUN_ID = ".run-id"


class Asked:
    """The requests of a recipe by position, made when asked for; `splits` of all of them."""

    def __init__(self, recipe: Recipe, seeds: Sequence[Seed], prompt: Prompt, teacher: str) -> None:
        self.recipe, self.prompt, self.teacher = recipe, prompt, teacher
        self.seeds = in_order(seeds)
        self.each = per_seed(recipe)

    def __len__(self) -> int:
        return len(self.seeds) * self.each

    @property
    def splits(self) -> list[str]:
        """The split of every request, in order."""
        return [seed.split for seed in self.seeds for _ in range(self.each)]

    def range(self, start: int, stop: int) -> list[Request]:
        """Requests `start` to `stop`."""
        return list(self.one_by_one(start, stop))

    def one_by_one(self, start: int, stop: int) -> Iterator[Request]:
        """The same, a seed's requests at a time."""
        place = start - start % self.each
        for seed in self.seeds[start // self.each : -(-stop // self.each)]:
            for request in of_seed(self.recipe, seed, self.prompt, self.teacher):
                if start <= place < stop:
                    yield request
                place += 1


@dataclass
class _Open:
    """A shard whose replies are coming in."""

    shard: corpus.Shard
    requests: list[Request]
    replies: list[Reply | None]
    missing: int
    held: int = 0


class Filling:
    """The open shards of one run: hands out items, takes replies, commits what is complete."""

    def __init__(
        self,
        asked: Asked,
        shards: Sequence[corpus.Shard],
        teacher: RemoteTeacher,
        write: Callable[[corpus.Shard, list[Request], list[Reply]], int],
        bar: Progress,
        most_failures: float,
        failed: int,
    ) -> None:
        self.asked, self.shards, self.teacher, self.write, self.bar = asked, shards, teacher, write, bar
        self.most_failures, self.failed = most_failures, failed
        self.open: dict[int, _Open] = {}
        self.held = 0
        self.commits: set[asyncio.Task[None]] = set()
        self.turn = asyncio.Semaphore(1)
        self.wake: Callable[[], None] = lambda: None
        self.error: Exception | None = None

    def items(self) -> Iterator[Item]:
        """Every request of the shards in order, each made when it is wanted."""
        for number, shard in enumerate(self.shards):
            size = shard.stop - shard.start
            place = self.open[number] = _Open(shard, [], [None] * size, size)
            for row, request in enumerate(self.asked.one_by_one(shard.start, shard.stop)):
                place.requests.append(request)
                yield Item(number, row, request, self.teacher.call(request))

    def room(self) -> bool:
        """Whether another request may begin. Raises what a commit raised."""
        if self.error is not None:
            raise self.error
        return self.held < _HELD_BYTES and len(self.open) < _OPEN_SHARDS and len(self.commits) < _COMMITTING

    def deliver(self, item: Item, reply: Reply) -> None:
        """Put a reply in its place; the last one of a shard starts its commit. Raises GateDenied."""
        place = self.open[item.shard]
        if place.replies[item.row] is not None:
            raise CorpusError(f"request {item.request.id} was answered twice", "a bug of ours: please report it")
        place.replies[item.row] = reply
        place.missing -= 1
        size = _size(reply)
        place.held += size
        self.held += size
        if reply.failure is not None:
            self.failed += 1
            if self.failed > self.most_failures:
                raise too_many_failures(self.failed, reply.failure)
        if not place.missing:
            task = asyncio.get_running_loop().create_task(self._commit(item.shard))
            self.commits.add(task)
            task.add_done_callback(self._committed)

    async def _commit(self, number: int) -> None:
        place = self.open.pop(number)
        async with self.turn:  # one at a time: a second thread would only contend for the interpreter
            replies = [reply for reply in place.replies if reply is not None]
            failed = await asyncio.to_thread(self.write, place.shard, place.requests, replies)
        self.held -= place.held
        self.bar.advance(len(replies), failed=failed)

    def _committed(self, task: asyncio.Task[None]) -> None:
        self.commits.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.error = error if isinstance(error, Exception) else RuntimeError(str(error))
        self.wake()


def fill(
    recipe: Recipe,
    folder: Path,
    asked: Asked,
    shards: Sequence[corpus.Shard],
    teacher: RemoteTeacher,
    write: Callable[[corpus.Shard, list[Request], list[Reply]], int],
    bar: Progress,
    *,
    retry_failed: bool = False,
    parts: int = 1,
    failed: int = 0,
    first: Callable[[Cache, Budget, str], Awaitable[None]] | None = None,
) -> Live:
    """Make `shards` (those that are not there yet); `write` commits one and says how many of its rows failed.

    `failed` have failed in the shards that are there; `first` may fill the cache before anything is asked. Raises
    BudgetReached, GateDenied, TeacherError.
    """
    cache = Cache(durable.cache_folder() / "replies.sqlite", retry_failed=retry_failed) if teacher.paid else None
    try:
        name = _run_id(folder)
        budget = open_budget(recipe, cache.spent(name) if cache else Spent(), parts)
        section = recipe.teacher
        most = most_failures(recipe.generate.max_failures, len(asked))

        async def main() -> Live:
            if first is not None and cache is not None:
                await first(cache, budget, name)
            filling = Filling(asked, shards, teacher, write, bar, most, failed)
            scheduler = Scheduler(
                teacher,
                cache,
                run=name,
                budget=budget,
                prices=prices(section),
                deliver=filling.deliver,
                room=filling.room,
                max_in_flight=getattr(section, "max_in_flight", 64),
                rpm=getattr(section, "rpm", None),
                tpm=getattr(section, "tpm", None),
                timeout=getattr(section, "timeout", 300.0),
                attempts=getattr(section, "attempts", 5),
            )
            filling.wake = scheduler.wake
            view = asyncio.create_task(_view(scheduler.live, bar))
            try:
                await scheduler.run(filling.items())
            finally:
                if filling.commits:
                    await asyncio.wait(set(filling.commits))
                view.cancel()
                await teacher.close()
            if filling.error is not None:
                raise filling.error
            _look(scheduler.live, bar)
            return scheduler.live

        return asyncio.run(main())
    finally:
        if cache is not None:
            cache.close()


def most_failures(wanted: str | int | None, total: int) -> float:
    """The number of failures that is still allowed."""
    if wanted is None:
        return float("inf")
    text = str(wanted)
    return float(text[:-1]) / 100 * total if text.endswith("%") else float(text)


def too_many_failures(count: int, last: tuple[str, str]) -> GateDenied:
    """The error for more failures than the recipe allows."""
    return GateDenied(
        f"{count:,} requests failed, more than generate.max_failures allows; last: {last[0]}: {last[1]}",
        "mend the cause and ask again with --retry-failed, or go on with a higher --max-failures",
    )


async def _view(live: Live, bar: Progress) -> None:
    while True:
        _look(live, bar)
        await asyncio.sleep(_LOOK)


def _look(live: Live, bar: Progress) -> None:
    bar.tokens(live.made - bar.made_tokens)
    bar.remote(live.in_flight, live.limit, live.idle, live.usd)


def _run_id(folder: Path) -> str:
    """The ledger's name for this corpus: made once, gone with the corpus."""
    path = folder / _RUN_ID
    if not path.exists():
        durable.write_text(path, secrets.token_hex(16))
    return path.read_text().strip()


def _size(reply: Reply) -> int:
    """About how many bytes a reply holds."""
    target = reply.target
    arrays = 0 if target is None else sum(value.nbytes for value in vars(target).values())
    return 1024 + len(reply.text) + 32 * len(reply.token_ids) + arrays
