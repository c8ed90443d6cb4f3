"""Generation: seeds → RUN/generated. Resume is asking only for the shards that are not there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synthgen import corpus, durable, logits
from synthgen.card import write_dataset_card
from synthgen.errors import CorpusError, UserError
from synthgen.generate.budget import Budget, prices
from synthgen.generate.cache import Cache
from synthgen.generate.remote import Asked, fill, most_failures, too_many_failures
from synthgen.generate.strategies import record
from synthgen.prompts import Prompt, load_prompt
from synthgen.recipe import Recipe, deciding, local_teacher
from synthgen.records import FAILURE_SCHEMA, Request, to_table
from synthgen.seeds import fingerprint, load_seeds
from synthgen.teachers import RemoteTeacher, Reply, Teacher, open_remote, open_teacher
from synthgen.ui import UI, Progress

# What decides the rows. Of the seeds, their content decides (`seeds_sha256`), not where they lie.
SECTIONS = ("task", "strategy", "split", "teacher", "generate", "logits")


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
    seeds = load_seeds(recipe.seeds, recipe.split, prompt.question)
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
        corpus.discard(folder, corpus.failed(folder))
    if (folder / "manifest.json").exists():
        corpus.verify(folder)
        ui.note(f"{folder} is complete; nothing to do")
        return folder
    key = recipe.teacher.model.rsplit("/", 1)[-1].removeprefix("package:")
    # Row ids hold the teacher's revision, which only the loaded teacher knows; the number of rows does not.
    remote = open_remote(recipe)
    local: Teacher | None = None
    if remote is None:
        local = open_teacher(local_teacher(recipe))
        who = local.identity
    else:
        who = remote.identity
    asked = Asked(recipe, seeds, prompt, f"{key}@{who['revision'][:19]}")
    shards = corpus.plan_shards(asked.splits, recipe.generate.shard_size)
    spec = recipe.logits.spec() if recipe.logits and recipe.strategy != "classify" else None
    done = corpus.committed(folder, [f"logits/{key}"] if spec else [])
    mine = [s for s in shards[part[0] - 1 :: part[1]] if s.name not in done]
    failed = sum(corpus.failed(folder).values())

    def write(shard: corpus.Shard, batch: Sequence[Request], replies: Sequence[Reply]) -> int:
        tables = _tables(recipe, batch, replies, prompt, key, who, spec)
        corpus.commit(folder, shard.name, tables)
        return tables["failures"].num_rows if "failures" in tables else 0

    with ui.progress("generate", sum(s.stop - s.start for s in shards[part[0] - 1 :: part[1]]), "rows") as bar:
        bar.advance(bar.total - sum(s.stop - s.start for s in mine), resumed=True)
        if local is not None:
            _locally(recipe, asked, mine, local, spec, write, bar, failed)
        elif remote is not None and mine:
            first = _by_batch(recipe, folder, asked, mine, remote, ui) if batch else None
            fill(
                recipe,
                folder,
                asked,
                mine,
                remote,
                write,
                bar,
                retry_failed=retry_failed,
                parts=part[1],
                failed=failed,
                first=first,
            )
    missing = {s.name for s in shards} - done - {s.name for s in mine}
    if missing:
        ui.note(f"{folder}: part {part[0]} of {part[1]} is done; {len(missing)} shards are left to the others")
        return folder
    names = [s.name for s in shards]
    manifest = corpus.finish(folder, "generated", _facts(recipe, folder, prompt, key, who), names)
    write_dataset_card(folder, manifest, f"{recipe.task}: generated")
    return folder


def _by_batch(
    recipe: Recipe, folder: Path, asked: Asked, shards: Sequence[corpus.Shard], teacher: RemoteTeacher, ui: UI
) -> Callable[[Cache, Budget, str], Awaitable[None]]:
    """What `fill` does first: bring the replies into the cache by batches. Raises UserError for another teacher."""
    from synthgen.generate.batch import Batches, ask
    from synthgen.teachers.openai import ApiModel

    if not isinstance(teacher, ApiModel):
        raise UserError(f"--batch is for teachers behind an API, not for '{recipe.teacher.engine}'", "leave it out")

    async def first(cache: Cache, budget: Budget, run: str) -> None:
        journal = folder / "batches.json"
        found = Batches(teacher, cache, budget, prices(recipe.teacher), run, journal, ui, teacher.client())
        await ask(found, asked, shards)

    return first


def _locally(
    recipe: Recipe,
    asked: Asked,
    shards: Sequence[corpus.Shard],
    teacher: Teacher,
    spec: dict[str, Any] | None,
    write: Callable[[corpus.Shard, Sequence[Request], Sequence[Reply]], int],
    bar: Progress,
    failed: int,
) -> None:
    """A local engine answers a shard at a time."""
    most = most_failures(recipe.generate.max_failures, len(asked))
    for shard in shards:
        batch = asked.range(shard.start, shard.stop)
        if spec:
            replies = teacher.sample(batch, spec, bar.tokens)
        elif recipe.strategy == "classify":
            replies = teacher.classify(batch)
        else:
            replies = teacher.sample(batch, None, bar.tokens)
        bad = write(shard, batch, replies)
        bar.advance(len(batch), failed=bad)
        failed += bad
        if failed > most:
            raise too_many_failures(failed, next(r.failure for r in replies if r.failure))


def _tables(
    recipe: Recipe,
    batch: Sequence[Request],
    replies: Sequence[Reply],
    prompt: Prompt,
    key: str,
    who: dict[str, Any],
    spec: dict[str, Any] | None,
) -> dict[str, pa.Table]:
    """The files of one shard: data, and logits and failures where there are any."""
    good = [(q, r) for q, r in zip(batch, replies, strict=True) if r.failure is None]
    bad = [(q, r.failure) for q, r in zip(batch, replies, strict=True) if r.failure is not None]
    tables = {"data": to_table(record(recipe, q, r, prompt, key) for q, r in good)}
    if spec:
        meta = logits.meta(spec, who["vocab_size"], f"{key}@{who['revision']}", who["tokenizer"])
        tables[f"logits/{key}"] = logits.to_table(
            [q.id for q, _ in good],
            [logits.align(r.token_ids, meta["teacher"], meta["tokenizer"], meta["temperature"]) for _, r in good],
            [r.target for _, r in good if r.target is not None],
            meta,
        )
    if bad:
        tables["failures"] = pa.Table.from_pylist(
            [
                {"id": q.id, "seed_id": q.seed_id, "split": q.split, "kind": failure[0], "reason": failure[1]}
                for q, failure in bad
            ],
            schema=FAILURE_SCHEMA,
        )
    return tables


def _facts(recipe: Recipe, folder: Path, prompt: Prompt, key: str, who: dict[str, Any]) -> dict[str, Any]:
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
        rows[f"{path.stem.rsplit('-', 1)[0]} rows"] += table.num_rows
        cost += pc.sum(table["cost_usd"]).as_py() or 0.0
        ids.append(table["id"])
    distinct = pc.count_distinct(pa.chunked_array([c for a in ids for c in a.chunks], pa.string())).as_py()
    if distinct != rows["rows"]:
        raise CorpusError(f"{folder} has {rows['rows'] - distinct} rows twice", "a bug of ours: please report it")
    # A shard without rows counts nothing.
    rows = Counter({name: count for name, count in rows.items() if count or name in ("rows", "tokens")})
    failed = sum(pq.read_metadata(path).num_rows for path in folder.glob("failures/*.parquet"))
    terms = {(s.source, s.licence) for s in recipe.seeds}
    return {
        "description": recipe.description,
        "task": recipe.task,
        "strategy": recipe.strategy,
        "prompt_version": prompt.version,
        "labels": list(recipe.generate.labels),
        "teachers": {key: who},
        "sources": [
            *({"role": "seed", "source": source, "licence": licence} for source, licence in sorted(terms)),
            {"role": "generator", "source": recipe.teacher.model, "licence": recipe.teacher.licence},
        ],
        "counts": {**dict(sorted(rows.items())), "failures": failed},
        **({} if who["engine"] == "transformers" else {"cost_usd": round(cost, 6)}),
    }
