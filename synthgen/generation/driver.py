"""Generation: seeds → RUN/generated. Resume is asking only for the shards that are not there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synthgen import corpus, durable, logits
from synthgen.errors import CorpusError, UserError
from synthgen.generation import strategies
from synthgen.generation.budget import Budget, prices
from synthgen.generation.cache import Cache
from synthgen.generation.jobs import Jobs, answerers, cast, key, refuse_incapable, score_too, who
from synthgen.generation.remote import Gate, Remotes, Write
from synthgen.generation.rounds import Failure, Made, Row, ask_batch, lockstep
from synthgen.generation.stream import stream
from synthgen.manifest import Facts
from synthgen.prompts import Prompt, load_prompt
from synthgen.recipe import Recipe, deciding
from synthgen.records import FAILURE_SCHEMA, to_table
from synthgen.requests import Request
from synthgen.seeds import fingerprint, load_seeds
from synthgen.tables.engines import LocalTeacher
from synthgen.teachers import open_remote, open_teacher
from synthgen.teachers.base import FAILURES, RemoteTeacher, Reply, StreamingTeacher, Teacher
from synthgen.ui import UI, Progress

# What decides the rows. Of the seeds, their content decides (`seeds_sha256`), not where they lie.
SECTIONS = ("task", "strategy", "split", "teacher", "teachers", "mixture", "generate", "steps", "logits")


def generate(
    recipe: Recipe,
    run: str | Path,
    *,
    fresh: bool = False,
    repair: bool = False,
    retry_failed: bool = False,
    part: tuple[int, int] = (1, 1),
    batch: bool = False,
    ui: UI | None = None,
) -> Path:
    """Ask the teacher for every row of the recipe that `run`/generated does not have yet; returns that folder.

    `retry_failed` makes shards with failures again (paid replies come from the cache); `part` (i, n) makes every
    n-th shard alone, and the manifest is written by whoever finds all shards there; `batch` sends what is missing
    through the provider's Batch API. Raises RunChanged when the folder was begun with other inputs, CorpusError when
    a shard is damaged (`repair=True` makes just those again), RecipeError and TeacherError for what the recipe names,
    BudgetReached, and GateDenied for too many failures.
    """
    ui = ui or UI(quiet=True)
    folder = Path(run) / "generated"
    prompt = load_prompt(recipe.prompts, recipe.task)
    seeds = load_seeds(recipe.seeds, recipe.split, strategies.question(recipe, prompt))
    for _ in strategies.first_requests(recipe, seeds, prompt):  # a template that does not fit a seed is said now
        pass
    decides = deciding(recipe)
    inputs = {
        "recipe": {name: decides[name] for name in SECTIONS},
        "prompt_version": prompt.version,
        "seeds_sha256": fingerprint(seeds),
    }
    if fresh:
        durable.remove(folder)
    durable.sweep(folder)
    corpus.claim(folder, inputs, "generate")
    if repair:
        for name in corpus.discard_damaged(folder):
            ui.note(f"{folder}: shard {name} was damaged and is made again")
    if retry_failed:
        corpus.discard(folder, corpus.failed(folder, FAILURES))
    if (folder / "manifest.json").exists():
        corpus.verify(folder)
        ui.note(f"{folder} is complete; nothing to do")
        return folder
    # Row ids hold the teachers' revisions, which only opened teachers know; the number of jobs does not.
    local, remote = _open(recipe, batch)
    teachers: dict[str, Teacher | RemoteTeacher] = {
        name: local[name] if name in local else remote[name] for name in cast(recipe)
    }
    jobs = Jobs(recipe, seeds, prompt, who(recipe, teachers))
    refuse_incapable(recipe, teachers, strategies.needs(recipe, jobs.range(0, 1)[0]))
    shards = corpus.plan_shards(jobs.splits, recipe.generate.shard_size)
    spec = recipe.logits.spec() if recipe.logits and recipe.strategy not in ("classify", "embed") else None
    speakers = [*answerers(recipe), *(recipe.logits.score_by if recipe.logits else ())] if spec else []
    done = corpus.committed(folder, [f"logits/{name}" for name in speakers])
    mine = [s for s in shards[part[0] - 1 :: part[1]] if s.name not in done]
    gate = Gate(recipe, len(jobs), sum(corpus.failed(folder, FAILURES).values()))

    def write(shard: corpus.Shard, made: Sequence[Sequence[Made]]) -> None:
        tables = _tables([one for several in made for one in several], teachers, spec, speakers)
        corpus.commit(folder, shard.name, tables)

    unit = "jobs" if strategies.many(recipe) else "rows"
    count = sum(s.stop - s.start for s in shards[part[0] - 1 :: part[1]])
    with ExitStack() as opened, ui.progress("generate", count, unit) as bar:
        for teacher in local.values():
            opened.callback(teacher.close)
        bar.advance(bar.total - sum(s.stop - s.start for s in mine), resumed=True)
        streaming = {name: teacher for name, teacher in local.items() if isinstance(teacher, StreamingTeacher)}
        if mine and len(streaming) == len(teachers) and not (recipe.logits and recipe.logits.score_by):
            stream(jobs, mine, streaming, spec, write, bar, gate)
        elif mine and not remote:
            _locally(jobs, mine, partial(ask_batch, local, spec, bar.tokens), spec, write, bar, gate)
        elif mine:
            first = _by_batch(recipe, folder, jobs, mine, remote, ui) if batch else None
            with closing(Remotes(recipe, folder, remote, bar, retry_failed=retry_failed, parts=part[1])) as remotes:
                if local:
                    ask = partial(_ask_all, partial(ask_batch, local, spec, bar.tokens), local, remotes)
                    _locally(jobs, mine, ask, spec, write, bar, gate)
                else:
                    remotes.fill(jobs, mine, write, gate, first)
    missing = {s.name for s in shards} - done - {s.name for s in mine}
    if missing:
        ui.note(f"{folder}: part {part[0]} of {part[1]} is done; {len(missing)} shards are left to the others")
        return folder
    names = [s.name for s in shards]
    corpus.finish(folder, "generated", _facts(recipe, folder, prompt, teachers), names)
    return folder


def _open(recipe: Recipe, batch: bool) -> tuple[dict[str, Teacher], dict[str, RemoteTeacher]]:
    """The recipe's teachers in this process, which know no `batch`, and those behind a wire, by name."""
    if batch and any(isinstance(section, LocalTeacher) for section in cast(recipe).values()):
        raise _no_batch(recipe)
    local: dict[str, Teacher] = {}
    remote: dict[str, RemoteTeacher] = {}
    for name, section in cast(recipe).items():
        if isinstance(section, LocalTeacher):
            local[name] = open_teacher(section, recipe.generate)
        else:
            remote[name] = open_remote(recipe, section)
    return local, remote


def _by_batch(
    recipe: Recipe,
    folder: Path,
    jobs: Jobs,
    shards: Sequence[corpus.Shard],
    teachers: Mapping[str, RemoteTeacher],
    ui: UI,
) -> Callable[[Cache, Budget, str], Awaitable[None]]:
    """What `fill` does first: bring the replies into the cache by batches. Raises UserError for other teachers."""
    from synthgen.generation.batch import Batches, ask
    from synthgen.teachers.openai import ApiModel

    teacher, *others = teachers.values()
    if others or not isinstance(teacher, ApiModel):
        raise _no_batch(recipe)

    async def first(cache: Cache, budget: Budget, run: str) -> None:
        journal = folder / "batches.json"
        found = Batches(teacher, cache, budget, prices(teacher.section), run, journal, ui, teacher.client())
        await ask(found, jobs, shards)

    return first


def _no_batch(recipe: Recipe) -> UserError:
    engines = ", ".join(f"'{section.engine}'" for section in cast(recipe).values())
    return UserError(f"--batch is for one teacher behind an API, not for {engines}", "leave it out")


def _ask_all(
    ask_local: Callable[[list[Request]], list[Reply]],
    local: Mapping[str, Teacher],
    remotes: Remotes,
    requests: list[Request],
) -> list[Reply]:
    """Replies in order, of local and remote teachers together."""
    places: dict[bool, list[int]] = {True: [], False: []}
    for place, request in enumerate(requests):
        places[request.teacher in local].append(place)
    replies: list[Reply] = [Reply()] * len(requests)
    for here, ask in ((True, ask_local), (False, remotes.ask)):
        if places[here]:
            for place, reply in zip(places[here], ask([requests[p] for p in places[here]]), strict=True):
                replies[place] = reply
    return replies


def _locally(
    jobs: Jobs,
    shards: Sequence[corpus.Shard],
    ask: Callable[[list[Request]], list[Reply]],
    spec: dict[str, Any] | None,
    write: Write,
    bar: Progress,
    gate: Gate,
) -> None:
    """A shard at a time, its jobs side by side."""
    recipe = jobs.recipe
    for shard in shards:
        some = jobs.range(shard.start, shard.stop)
        made = lockstep([strategies.STRATEGIES[recipe.strategy].make(job) for job in some], ask)
        made = score_too(some, made, recipe.logits.score_by, ask) if spec and recipe.logits else made
        write(shard, made)
        bar.advance(len(some), failed=sum(isinstance(one, Failure) for several in made for one in several))
        gate.count([one for several in made for one in several])


def _tables(
    made: Sequence[Made],
    teachers: Mapping[str, Teacher | RemoteTeacher],
    spec: dict[str, Any] | None,
    speakers: Sequence[str],
) -> dict[str, pa.Table]:
    """The files of one shard: data, logits of each of `speakers`, and failures where there are any."""
    rows = [one for one in made if isinstance(one, Row)]
    bad = [asdict(one) for one in made if isinstance(one, Failure)]
    tables = {"data": to_table(row.record for row in rows)}
    for name in speakers:
        said = teachers[name].identity
        meta = logits.meta(
            spec or {}, said["vocab_size"], f"{key(said['model'])}@{said['revision']}", said["tokenizer"]
        )
        spoken = [(row.record, row.targets[name]) for row in rows if name in row.targets]
        tables[f"logits/{name}"] = logits.to_table(
            [record.id for record, _ in spoken],
            [
                logits.align(record.token_ids or (), meta["teacher"], meta["tokenizer"], meta["temperature"])
                for record, _ in spoken
            ],
            [target for _, target in spoken],
            meta,
        )
    if bad:
        tables["failures"] = pa.Table.from_pylist(bad, schema=FAILURE_SCHEMA)
    return tables


def _facts(
    recipe: Recipe, folder: Path, prompt: Prompt, teachers: Mapping[str, Teacher | RemoteTeacher]
) -> Facts:
    """What the manifest says besides the files; the same for the same rows, however they came about."""
    rows: Counter[str] = Counter()
    cost = 0.0
    ids: list[pa.ChunkedArray] = []
    for path in sorted(p for p in folder.glob("data/*.parquet") if not p.name.startswith(".")):
        table = pq.read_table(path, columns=["id", "token_ids", "usage", "cost_usd"])
        lengths = pc.list_value_length(table["token_ids"])
        counted = pc.struct_field(table["usage"], "completion_tokens")
        rows["rows"] += table.num_rows
        rows["tokens"] += pc.sum(pc.max_element_wise(lengths, counted)).as_py() or 0
        rows[f"rows_{path.stem.rsplit('-', 1)[0]}"] += table.num_rows
        cost += pc.sum(table["cost_usd"]).as_py() or 0.0
        ids.append(table["id"])
    distinct = pc.count_distinct(pa.chunked_array([c for a in ids for c in a.chunks], pa.string())).as_py()
    if distinct != rows["rows"]:
        raise CorpusError(f"{folder} has {rows['rows'] - distinct} rows twice", "a bug of ours: please report it")
    # A shard without rows counts nothing.
    rows = Counter({name: count for name, count in rows.items() if count or name in ("rows", "tokens")})
    failed = sum(pq.read_metadata(path).num_rows for path in folder.glob("failures/*.parquet"))
    terms = [("seed", *pair) for pair in sorted({(s.source, s.license) for s in recipe.seeds})]
    terms += [(role["role"], role["source"], role["license"]) for role in strategies.roles(recipe)]
    facts: Facts = {
        "description": recipe.description,
        "task": recipe.task,
        "strategy": recipe.strategy,
        "prompt_version": prompt.version,
        "labels": list(recipe.generate.labels),
        "teachers": {name: teacher.identity for name, teacher in teachers.items()},
        "sources": [{"role": role, "source": source, "license": license} for role, source, license in terms],
        "counts": {**dict(sorted(rows.items())), "failures": failed},
    }
    if not all(isinstance(t, LocalTeacher) for t in cast(recipe).values()):
        facts["cost_usd"] = round(cost, 6)
    return facts
