"""Generation with a provider's Batch API. Requests whose replies are not in the cache are sent as files. The provider
answers these requests within a day at half the price. The replies are stored in the cache.

Each action is recorded in the journal `generated/batches.json` before the next action begins. The metadata of a batch
contain a hash of the batch's requests. When the process is killed right after it has created a batch, the next process
finds the batch by this hash, so the batch is not paid twice. All answers of a batch are used, even when the batch
expired. Requests without an answer are sent again in the next batch.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from synthgen import durable
from synthgen.errors import CorpusError, TeacherError, UserError
from synthgen.files import read_json, read_text
from synthgen.generation.account import Account
from synthgen.generation.batch_output import Output
from synthgen.generation.batching import Batching
from synthgen.generation.budget import Budget
from synthgen.generation.cache import Cache
from synthgen.generation.inputs import most_requests, runner
from synthgen.generation.jobs import Job
from synthgen.generation.ledger import Ledger, Spent
from synthgen.generation.prices import prices
from synthgen.generation.work import BudgetReached
from synthgen.requests import Request
from synthgen.teachers.base import Call, Reply
from synthgen.teachers.openai import ApiModel
from synthgen.ui import UI

if TYPE_CHECKING:
    from openai import AsyncOpenAI

# The maximum number of requests and bytes in one file. Providers allow 50,000 requests and 200 MB.
_MOST_REQUESTS, _MOST_BYTES = 50_000, 100 << 20
_RUN_ID = ".run-id"
_AGAIN = "restore the file from a copy, because batches that were sent would be paid again without it"
_ROUNDS = 3
_FIRST_LOOK, _LAST_LOOK = 1.0, 60.0  # shortest and longest wait between two requests for a batch's status, in seconds
_ENDED = ("completed", "expired", "failed", "cancelled")
_ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"


@dataclass
class Batches:
    """The state that the functions of this module share."""

    teacher: ApiModel
    wanted: Batching
    _: KW_ONLY
    cache: Cache
    account: Account
    ledger: Ledger
    salt: str
    path: Path
    client: AsyncOpenAI
    held: set[str] = field(default_factory=set)
    """Digests of the batches whose cost this process has reserved in `budget`."""
    expected: dict[bytes, Spent] = field(default_factory=dict)
    """The maximum cost of each request in the open batches, by the key of the request. The maximum cost assumes that
    the server counts tokens correctly. Empty until the first batch is sent or found.
    """

    @property
    def budget(self) -> Budget:
        """The budget of the run."""
        return self.account.budget

    @property
    def ui(self) -> UI:
        """The command's output to the user."""
        return self.wanted.ui

    def load(self) -> list[dict[str, Any]]:
        """Read the journal. The journal has one entry for each batch."""
        found = read_json(self.path, _AGAIN) if self.path.exists() else []
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise CorpusError(f"{self.path} is damaged: it is not a list of batches", _AGAIN)
        return found

    def save(self, entries: list[dict[str, Any]]) -> None:
        """Write the journal durably."""
        durable.write_json(self.path, entries)


def _run_id(folder: Path) -> str:
    """A name of the run. The name distinguishes the batches of this run from the batches of another run with the same
    requests. The name is created once, and deleted with the corpus.
    """
    path = folder / _RUN_ID
    if not path.exists():
        durable.write_text(path, secrets.token_hex(16))
    return read_text(path, _AGAIN).strip()


async def fill_cache(teacher: ApiModel, wanted: Batching, cache: Cache, budget: Budget, ledger: Ledger) -> None:
    """Put the reply to every request of the shards into the cache. For a strategy whose jobs have several rounds of
    requests, the batches of one round are sent when the batches of the previous round have ended.

    Raises BudgetReached when the budget allows no further request. Raises UserError when requests have no answer after
    the last round, and TeacherError when the provider does not accept a batch.
    """
    journal, usual = wanted.folder / "batches.json", prices(teacher.section)
    batches = Batches(
        teacher, wanted, cache=cache, ledger=ledger, salt=_run_id(wanted.folder), path=journal, client=teacher.client(),
        account=Account(teacher, cache, budget=budget, prices=usual and usual.in_batch(), ledger=ledger),
    )  # fmt: skip
    try:
        await _recover(batches)
        most = _ROUNDS - 1 + most_requests(wanted.jobs.setting.recipe)
        rounds = 0
        while rounds < most:
            sent, short = await _submit(batches)
            if not sent:
                return
            answered = await _wait(batches)
            # If the budget allowed only a part of the requests, and some of these were answered, `rounds` is not
            # increased. The answers cost less than the reserved amount, so some of the budget is left for another
            # round.
            rounds += not (short and answered)
        left = sum(1 for _ in _missing(batches))
        if left:
            raise UserError(
                f"{left:,} requests are unanswered after {most} rounds of batches",
                "give the same command to try again, or leave out --batch to send them one by one",
            )
    except Exception as error:
        raise _translated(batches, error) from None
    finally:
        await batches.client.close()


def _translated(batches: Batches, error: Exception) -> Exception:
    import openai

    if not isinstance(error, openai.OpenAIError):
        return error
    reason = batches.teacher.clean(str(error).splitlines()[0])
    return TeacherError(
        f"batches at {batches.teacher.identity['base_url']}: {reason}",
        "give the same command again: batches.json lists the batches that were sent, and no batch is paid twice",
    )


def _missing(batches: Batches) -> Iterator[Call]:
    """Yield each distinct call whose reply is needed next and is not in the cache. The calls of a job's later rounds
    are known only when the replies of its earlier rounds are in the cache.
    """
    seen: set[bytes] = set()
    for shard in batches.wanted.shards:
        for job in batches.wanted.jobs.one_by_one(shard.start, shard.stop):
            for call in _next_calls(batches, job):
                if call.key not in seen:
                    seen.add(call.key)
                    yield call


def _next_calls(batches: Batches, job: Job) -> list[Call]:
    """Find the first round of the job for which replies are missing in the cache. Returns the calls of this round whose
    replies are missing. Empty when the cache has the replies of all rounds.
    """
    rounds = runner(job.recipe)(job)
    try:
        wanted = next(rounds)
        while True:
            calls = [batches.teacher.call(query.request) for query in wanted]
            kept = [_reply(batches, query.request, call) for query, call in zip(wanted, calls, strict=True)]
            lacking = [call for call, reply in zip(calls, kept, strict=True) if reply is None]
            if lacking:
                rounds.close()
                return lacking
            wanted = rounds.send([reply for reply in kept if reply is not None])
    except StopIteration:
        return []


def _reply(batches: Batches, request: Request, call: Call) -> Reply | None:
    """The cached reply to a request. None when the cache has no reply, or when the request failed and is to be sent
    again.
    """
    entry = batches.cache.get(call.key)
    if entry is None or entry.failure is not None:
        return None if entry is None else Reply(failure=entry.failure)
    reply = batches.teacher.read(request, entry.body or b"")
    return None if reply.failure and batches.cache.repeats(call.key) else reply


async def _submit(batches: Batches) -> tuple[bool, bool]:
    """Send the requests whose replies are missing, as far as the budget allows. Returns (whether a request was sent,
    whether the budget was too small for all requests).
    """
    lines: list[bytes] = []
    size, most, some, short = 0, Spent(), False, False
    for call in _missing(batches):
        line = _line(call)
        more = batches.account.most(call)
        both = most + more
        if not batches.budget.fits(both):
            short = True
            break
        if len(lines) == _MOST_REQUESTS or size + len(line) > _MOST_BYTES:
            await _create(batches, lines, most)
            lines, size, both, some = [], 0, more, True
        batches.expected[call.key] = batches.account.expected(call)
        lines.append(line)
        size, most = size + len(line), both
    if lines:
        await _create(batches, lines, most)
        some = True
    if short and not some:
        raise BudgetReached(batches.budget.text())
    return some, short


def _line(call: Call) -> bytes:
    head = json.dumps({"custom_id": call.key.hex(), "method": "POST", "url": _ENDPOINT})
    return head[:-1].encode() + b', "body": ' + call.payload + b"}\n"


async def _create(batches: Batches, lines: list[bytes], most: Spent) -> None:
    """Upload the requests of one batch and create the batch. `lines` are the requests, and `most` is their maximum
    cost. Each action is recorded in the journal before the next action begins.
    """
    content = b"".join(lines)
    entries = batches.load()
    # The number of earlier batches is part of the digest, because a later round may send the same requests again.
    digest = hashlib.sha256(f"{batches.salt} {len(entries)} ".encode() + content).hexdigest()[:32]
    entry: dict[str, Any] = {
        "digest": digest,
        "requests": len(lines),
        "reserved": [most.usd, most.tokens],
        "ledger": batches.ledger.path.name,
        "excess": batches.budget.excess,
    }
    batches.budget.hold(most)
    batches.held.add(digest)
    # In the ledger, the maximum cost counts as spent until the answers arrive.
    await batches.ledger.add(most)
    batches.save([*entries, entry])
    uploaded = await batches.client.files.create(file=(f"{digest}.jsonl", content), purpose="batch")
    entry["file"] = uploaded.id
    batches.save([*entries, entry])
    made = await batches.client.batches.create(
        input_file_id=uploaded.id, endpoint=_ENDPOINT, completion_window="24h", metadata={"synthgen": digest}
    )
    entry["batch"] = made.id
    batches.save([*entries, entry])
    batches.ui.note(f"batch {made.id}: {len(lines):,} requests sent; replies may take a day; Ctrl-C loses nothing")


async def _recover(batches: Batches) -> None:
    """Continue the work of an earlier process, which may have been killed. Find the batches that the earlier process
    created but did not record in the journal, record them, and wait for all batches.
    """
    entries = batches.load()
    lost = [entry for entry in entries if "batch" not in entry]
    if lost:
        known, back = {}, Spent()
        async for batch in batches.client.with_options(max_retries=5).batches.list(limit=100):
            if batch.metadata and "synthgen" in batch.metadata:
                known[batch.metadata["synthgen"]] = batch.id
        for entry in lost:
            if entry["digest"] in known:
                entry["batch"] = known[entry["digest"]]
            else:  # the batch was never created, so nothing can be billed
                unused = Spent(-entry["reserved"][0], -entry["reserved"][1])
                batches.budget.settle(Spent(), unused)
                back += unused
        entries = [entry for entry in entries if "batch" in entry]
        batches.save(entries)
        await batches.ledger.add(back)
    batches.budget.excess = max([batches.budget.excess, *(float(entry.get("excess", 1.0)) for entry in entries)])
    if any(not entry.get("done") for entry in entries):
        batches.expected = {call.key: batches.account.expected(call) for call in _missing(batches)}
    await _wait(batches)


async def _wait(batches: Batches) -> int:
    """Wait until every batch in the journal has ended. Returns the number of answers that were put into the cache."""
    look, answered = _FIRST_LOOK, 0
    while open_ := [entry for entry in batches.load() if not entry.get("done")]:
        for entry in open_:
            batch = await batches.client.with_options(max_retries=5).batches.retrieve(entry["batch"])
            if batch.status in _ENDED:
                answered += await _collect(batches, entry, batch)
                look = _FIRST_LOOK
        if any(not entry.get("done") for entry in batches.load()):
            await asyncio.sleep(look)
            look = min(_LAST_LOOK, look * 1.5)
    return answered


async def _collect(batches: Batches, entry: dict[str, Any], batch: Any) -> int:
    """Put the answers of an ended batch into the cache. In the ledger, replace the batch's maximum cost by its actual
    cost. Returns the number of answers. Raises TeacherError when the provider did not accept the batch, or when the
    cost of replies has no known limit although the recipe has a budget.
    """
    output = Output(batches.teacher, batches.account, entry, batches.expected)
    for file in (batch.output_file_id, batch.error_file_id):
        if file:
            content = await batches.client.with_options(max_retries=5).files.content(file)
            for line in content.content.splitlines():
                output.add(line)
    output.end(batch.status)
    counted = (batches.ledger.folder / str(entry.get("ledger"))).is_file()  # False when the ledger file was deleted
    difference = output.spent - (output.reserved if counted else Spent())
    model, answered = str(batches.teacher.identity["model"]), len(output.answers)
    if output.answers:
        await batches.cache.commit([batches.cache.put(key, kept, model) for key, kept in output.answers])
    if entry["digest"] in batches.held:
        batches.budget.settle(output.reserved, output.spent)
    else:
        batches.budget.settle(Spent(), difference)
    entries = batches.load()
    for other in entries:
        if other["digest"] == entry["digest"]:
            other |= {"done": True, "status": batch.status, "answered": answered, "excess": batches.budget.excess}
    batches.save(entries)
    # If the process is killed here, the batch's maximum cost still counts as spent. The journal is changed before the
    # ledger. In the opposite order, a kill between the two changes would make the next process take the difference from
    # the ledger a second time.
    await batches.ledger.add(difference)
    if batch.status == "failed":
        problems = batch.errors.data if batch.errors and batch.errors.data else []
        raise TeacherError(
            f"batch {batch.id} was not accepted: {problems[0].message if problems else 'no reason given'}",
            "correct the recipe, or leave out --batch",
        )
    if output.problem is not None:
        raise output.problem
    batches.ui.note(f"batch {batch.id} {batch.status}: {answered:,} of {entry['requests']:,} answered")
    return answered
