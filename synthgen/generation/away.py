"""What a worker of a cluster does for generation. `synthgen.generation.crew` starts the workers.

A worker reads the recipe's templates and seeds, and opens the teachers. Then it makes the shards that it is given, in
one of two ways:

- `alone`: the worker makes one shard at a time, as generation on one machine does. This way is for teachers whose
  replies cost nothing.
- `together`: the worker builds the requests of its shards, and sends them to the program that started it. That program
  decides when each request is sent to the teacher, and tells any worker to send it. The program also passes each reply
  to the worker that built its request. The worker makes rows from the replies and commits its shards. Budget, pace,
  ledger and cache are in that program alone.
"""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

from synthgen import corpus, durable
from synthgen.errors import UserError
from synthgen.executor.messages import Post
from synthgen.generation import casting
from synthgen.generation.division import Shard
from synthgen.generation.filling import Filling, Gate, Output
from synthgen.generation.inputs import read_inputs
from synthgen.generation.jobs import Jobs
from synthgen.generation.making import Assignment, make, open_all
from synthgen.generation.rounds import Failure, Outcome
from synthgen.generation.shards import Layout
from synthgen.generation.work import Item
from synthgen.recipe import Recipe
from synthgen.removed import Removed
from synthgen.requests import Request
from synthgen.teachers.base import Call, Identity, Refused, RemoteTeacher, Reply
from synthgen.ui import UI, Progress

_VISIBLE = 60.0
"""A file that one node has written may become visible on another node only after so many seconds."""


@dataclass(frozen=True)
class Task:
    """What a worker gets when it starts. `folder` is the path of RUN/generated. `seeds` and `prompt` are hashes of the
    seeds and the templates, and `recordings` are the hashes of the files of recorded replies, by path. The worker
    refuses to work when what it reads has other hashes. `removed` is what was removed from the run. The worker does not
    read it, because its node may see the file of the removals later.
    """

    recipe: Recipe
    folder: Path
    seeds: str
    prompt: str
    recordings: Mapping[str, str]
    removed: Removed


class Begun(NamedTuple):
    """The worker's process has started."""


class Ready(NamedTuple):
    """The worker can make shards. `identities` are the identities of its teachers, by name."""

    identities: dict[str, Identity]


class Requests(NamedTuple):
    """Requests of a shard that can be sent now: (number, teacher, request, call) each. `held` is the size in bytes of
    the rows that the worker holds in memory.
    """

    shard: str
    requests: list[tuple[int, str, Request, Call]]
    held: int


class Sent(NamedTuple):
    """The body that a teacher's server sent for a request, and the reply in it."""

    number: int
    body: bytes
    reply: Reply


class NotSent(NamedTuple):
    """The attributes of the `Refused` that an attempt to send a request raised."""

    number: int
    refused: dict[str, object]


class Alive(NamedTuple):
    """Whether a teacher's server responds."""

    number: int
    alive: bool


class Failed(NamedTuple):
    """Failures among the outcomes of a shard."""

    shard: str
    failures: list[Failure]


class Advanced(NamedTuple):
    """Jobs that are finished, and the failures among their outcomes."""

    jobs: int
    failed: int


class Tokens(NamedTuple):
    """Tokens that a local teacher has generated since the last message."""

    number: int


class Done(NamedTuple):
    """The shard is committed."""

    shard: str


class Make(NamedTuple):
    """Make this shard. `made_from` is the hash of the inputs for which the command has claimed the folder."""

    shard: Shard
    made_from: str


class Send(NamedTuple):
    """Send the pickled (request, call) to the teacher. The worker answers with `Sent` or `NotSent`."""

    number: int
    teacher: str
    content: bytes


class Probe(NamedTuple):
    """Test whether the teacher's server responds. The worker answers with `Alive`."""

    number: int
    teacher: str


class Replied(NamedTuple):
    """The reply to a request of this worker's shards."""

    number: int
    reply: Reply


class _Bar(Progress):
    """Sends progress to the program that started the worker."""

    def __init__(self, post: Post) -> None:
        super().__init__("", 0, "")
        self._post = post

    def advance(self, count: int, *, failed: int = 0, resumed: bool = False) -> None:
        self._post.put(Advanced(count, failed))

    def tokens(self, count: int) -> None:
        self._post.put(Tokens(count))


class _Gate(Gate):
    """Sends failures to the program that started the worker, which counts the failures of all workers."""

    def __init__(self, post: Post, shard: str) -> None:
        self._post, self._shard = post, shard

    def count(self, outcomes: Sequence[Outcome]) -> None:
        failures = [one for one in outcomes if isinstance(one, Failure)]
        if failures:
            self._post.put(Failed(self._shard, failures))


@dataclass(frozen=True)
class _Opened:
    """What a worker has opened."""

    folder: Path
    jobs: Jobs
    layout: Layout

    def output(self, post: Post, order: Make) -> Output:
        """The receivers of the outcomes of a shard."""
        write = partial(self.layout.commit, self.folder, made_from=order.made_from)
        return Output(write, _Bar(post), _Gate(post, order.shard.name))


def _open(task: Task, opened: ExitStack) -> _Opened:
    """Read the inputs and open the teachers. Raises UserError when the inputs differ from those of the program that
    started the worker.
    """
    recipe, folder = task.recipe, task.folder
    inputs = replace(read_inputs(recipe), removed=task.removed)
    for what, ours, theirs in (
        ("seeds", inputs.seeds.fingerprint, task.seeds),
        ("templates", inputs.prompt.version, task.prompt),
    ):
        if ours != theirs:
            raise UserError(
                f"the {what} are not those that the command has read",
                "every node must see the same files under the same paths",
            )
    teachers = open_all(recipe, opened)
    if recordings(recipe) != task.recordings:
        raise UserError(
            "the recorded replies are not those that the command has read",
            "every node must see the same files under the same paths",
        )
    casting.refuse_incapable(recipe, teachers)
    jobs = inputs.jobs(casting.versions(recipe, teachers))
    return _Opened(folder, jobs, Layout.of(recipe, teachers, inputs.removed))


def recordings(recipe: Recipe) -> dict[str, str]:
    """The hash of each file of recorded replies, by path. A file that does not exist is left out."""
    paths = [Path(section.path) for section in casting.cast(recipe).values() if hasattr(section, "path")]
    return {str(path): durable.sha256(path) for path in paths if path.is_file()}


def _identities(opened: _Opened) -> dict[str, Identity]:
    return {name: teacher.identity for name, teacher in opened.layout.teachers.items()}


async def visible(path: Path, made_from: str | None = None) -> None:
    """Wait until a file that another node has written is visible here. With `made_from`, the file is an inputs.json,
    and must have this hash: until then, this node sees an older version. Raises UserError when it stays invisible.
    """
    end = time.monotonic() + _VISIBLE
    while not path.exists() or (made_from and made_from != corpus.inputs_hash(path.parent)):
        if time.monotonic() > end:
            raise UserError(
                f"{path} is not visible on every node of the cluster",
                "every node must see the folder of the run under the same path; if the run is in a store, this is the "
                "folder SYNTHGEN_CACHE (see docs/scale.md)",
            )
        await asyncio.sleep(0.1)


async def alone(task: Task, post: Post) -> None:
    """A worker's main function: makes one shard at a time."""
    post.put(Begun())
    with ExitStack() as opening:
        opened = await asyncio.to_thread(_open, task, opening)
        post.put(Ready(_identities(opened)))
        while True:
            message = await post.get()
            assert isinstance(message, Make)
            shard = message.shard
            await visible(task.folder / "inputs.json", message.made_from)
            work = Assignment(task.folder, opened.jobs, [shard], opened.layout)
            output, ui = opened.output(post, message), UI(quiet=True)
            await asyncio.to_thread(make, work, output, batch=False, retry_failed=False, part=(1, 1), ui=ui)
            post.put(Done(shard.name))


async def together(task: Task, post: Post) -> None:
    """A worker's main function: makes shards, while the program that started the worker schedules the requests."""
    post.put(Begun())
    with ExitStack() as opening:
        opened = await asyncio.to_thread(_open, task, opening)
        post.put(Ready(_identities(opened)))
        sharing = _Sharing(opened, post)
        try:
            while True:
                sharing.take(await post.get())
        finally:
            for teacher in sharing.teachers.values():
                await teacher.close()


class _Sharing:
    """The shards and requests of one worker."""

    def __init__(self, opened: _Opened, post: Post) -> None:
        self.opened, self.post = opened, post
        self.teachers = {name: cast(RemoteTeacher, one) for name, one in opened.layout.teachers.items()}
        self.fillings: dict[str, Filling] = {}
        # The requests of this worker's shards that have no reply yet, by number: the shard's filling, the item, and a
        # function that continues the shard.
        self.items: dict[int, tuple[Filling, Item, Callable[[], None]]] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.count = 0

    def take(self, message: object) -> None:
        """Handle a message. Raises the error of an earlier message, such as that of a shard that cannot be written."""
        if isinstance(message, BaseException):
            raise message
        if isinstance(message, Replied):
            filling, item, go_on = self.items.pop(message.number)
            filling.deliver(item, message.reply)
            go_on()
        elif isinstance(message, Send):
            self._start(self._send(message))
        elif isinstance(message, Probe):
            self._start(self._probe(message))
        elif isinstance(message, Make):
            self._start(self._make(message))

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.post.arrive([error])

    async def _make(self, order: Make) -> None:
        await visible(self.opened.folder / "inputs.json", order.made_from)
        news, shard = asyncio.Event(), order.shard
        filling = Filling(self.opened.jobs, [shard], self.teachers, self.opened.output(self.post, order))
        filling.wake = news.set
        self.fillings[shard.name] = filling
        while True:
            self._hand_out(shard.name, filling, news.set)
            if filling.finished and not filling.commits:
                break
            news.clear()
            await news.wait()
        await filling.committed()
        del self.fillings[shard.name]
        self.post.put(Done(shard.name))

    def _hand_out(self, shard: str, filling: Filling, go_on: Callable[[], None]) -> None:
        """Send the requests of a shard that can be sent now."""
        found: list[tuple[int, str, Request, Call]] = []
        for name in self.teachers:
            while (item := filling.take(name)) is not None:
                self.count += 1
                self.items[self.count] = (filling, item, go_on)
                found.append((self.count, name, item.request, item.call))
        if found:
            self.post.put(Requests(shard, found, sum(one.held for one in self.fillings.values())))

    async def _send(self, message: Send) -> None:
        teacher = self.teachers[message.teacher]
        request, call = pickle.loads(message.content)
        try:
            body = await teacher.send(call)
        except Refused as problem:
            self.post.put(NotSent(message.number, vars(problem)))
            return
        self.post.put(Sent(message.number, body, teacher.read(request, body)))

    async def _probe(self, message: Probe) -> None:
        self.post.put(Alive(message.number, await self.teachers[message.teacher].alive()))
