"""Generation: seeds → RUN/generated. Resume is asking only for the shards that are not there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from synthgen import corpus, durable, logits
from synthgen.card import write_dataset_card
from synthgen.errors import CorpusError
from synthgen.generate.strategies import record, requests
from synthgen.prompts import Prompt, load_prompt
from synthgen.recipe import Recipe
from synthgen.records import FAILURE_SCHEMA, Request, to_table
from synthgen.seeds import fingerprint, load_seeds
from synthgen.teachers import Reply, Teacher, open_teacher
from synthgen.ui import UI

# What decides the rows. Of the seeds, their content decides (`seeds_sha256`), not where they lie.
SECTIONS = ("task", "strategy", "split", "teacher", "generate", "logits")


def generate(
    recipe: Recipe, run: str | Path, *, fresh: bool = False, repair: bool = False, ui: UI | None = None
) -> Path:
    """Ask the teacher for every row of the recipe that `run`/generated does not have yet; returns that folder.

    Raises RunChanged when the folder was begun with other inputs, CorpusError when a shard is damaged
    (`repair=True` makes just those again), RecipeError and TeacherError for what the recipe names.
    """
    ui = ui or UI(quiet=True)
    folder = Path(run) / "generated"
    prompt = load_prompt(recipe.prompts, recipe.task)
    seeds = load_seeds(recipe.seeds, recipe.split, prompt.question)
    inputs = {
        "recipe": {name: recipe.model_dump(mode="json")[name] for name in SECTIONS},
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
    if (folder / "manifest.json").exists():
        corpus.verify(folder)
        ui.note(f"{folder} is complete; nothing to do")
        return folder
    key = recipe.teacher.model.rsplit("/", 1)[-1].removeprefix("package:")
    # Row ids hold the teacher's revision, which only the loaded teacher knows; the number of rows does not.
    teacher = open_teacher(recipe.teacher, recipe.generate)
    asked = requests(recipe, seeds, prompt, f"{key}@{teacher.identity['revision'][:19]}")
    shards = corpus.plan_shards([r.split for r in asked], recipe.generate.shard_size)
    spec = recipe.logits.spec() if recipe.logits and recipe.strategy != "classify" else None
    done = corpus.committed(folder, [f"logits/{key}"] if spec else [])
    with closing(teacher), ui.progress("generate", len(asked), "rows") as bar:
        for shard in shards:
            batch = asked[shard.start : shard.stop]
            if shard.name in done:
                bar.advance(len(batch), resumed=True)
                continue
            if spec:
                replies = teacher.sample(batch, spec, bar.tokens)
            elif recipe.strategy == "classify":
                replies = teacher.classify(batch)
            else:
                replies = teacher.sample(batch, None, bar.tokens)
            tables = _tables(recipe, batch, replies, prompt, key, teacher, spec)
            corpus.commit(folder, shard.name, tables)
            bar.advance(len(batch), failed=tables["failures"].num_rows if "failures" in tables else 0)
    manifest = corpus.finish(
        folder, "generated", _facts(recipe, folder, prompt, key, teacher), [s.name for s in shards]
    )
    write_dataset_card(folder, manifest, f"{recipe.task}: generated")
    return folder


def _tables(
    recipe: Recipe,
    batch: Sequence[Request],
    replies: Sequence[Reply],
    prompt: Prompt,
    key: str,
    teacher: Teacher,
    spec: dict[str, Any] | None,
) -> dict[str, pa.Table]:
    """The files of one shard: data, and logits and failures where there are any."""
    good = [(q, r) for q, r in zip(batch, replies, strict=True) if r.failure is None]
    bad = [(q, r.failure) for q, r in zip(batch, replies, strict=True) if r.failure is not None]
    tables = {"data": to_table(record(recipe, q, r, prompt, key) for q, r in good)}
    if spec:
        who = teacher.identity
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


def _facts(recipe: Recipe, folder: Path, prompt: Prompt, key: str, teacher: Teacher) -> dict[str, Any]:
    """What the manifest says besides the files; the same for the same rows, however they came about."""
    rows: Counter[str] = Counter()
    ids: set[str] = set()
    for _, found in corpus.records(folder):
        for r in found:
            rows["rows"] += 1
            rows["tokens"] += len(r.token_ids or ())
            rows[f"{r.split} rows"] += 1
            ids.add(r.id)
    if len(ids) != rows["rows"]:
        raise CorpusError(f"{folder} has {rows['rows'] - len(ids)} rows twice", "a bug of ours: please report it")
    failed = sum(pq.read_metadata(path).num_rows for path in folder.glob("failures/*.parquet"))
    terms = {(s.source, s.licence) for s in recipe.seeds}
    return {
        "description": recipe.description,
        "task": recipe.task,
        "strategy": recipe.strategy,
        "prompt_version": prompt.version,
        "labels": list(recipe.generate.labels),
        "teachers": {key: teacher.identity},
        "sources": [
            *({"role": "seed", "source": source, "licence": licence} for source, licence in sorted(terms)),
            {"role": "generator", "source": recipe.teacher.model, "licence": recipe.teacher.licence},
        ],
        "counts": {**dict(sorted(rows.items())), "failures": failed},
    }
