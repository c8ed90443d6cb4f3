"""Generation: seeds → RUN/generated. Resume is asking only for the shards that are not there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from synthgen import corpus, durable, logits
from synthgen.card import write_dataset_card
from synthgen.errors import CorpusError
from synthgen.generate import catalogue
from synthgen.generate.job import Jobs, answerers, cast, key, refuse_incapable, score_too, who
from synthgen.generate.rounds import Failure, Made, Row, ask_batch, lockstep
from synthgen.prompts import Prompt, load_prompt
from synthgen.recipe import Recipe
from synthgen.records import FAILURE_SCHEMA, to_table
from synthgen.seeds import fingerprint, load_seeds
from synthgen.teachers import Teacher, open_teacher
from synthgen.ui import UI

# What decides the rows. Of the seeds, their content decides (`seeds_sha256`), not where they lie.
SECTIONS = ("task", "strategy", "split", "teacher", "teachers", "mixture", "generate", "steps", "logits")


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
    seeds = load_seeds(recipe.seeds, recipe.split, catalogue.question(recipe, prompt))
    for _ in catalogue.first_requests(recipe, seeds, prompt):  # a template that does not fit a seed is said now
        pass
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
    # Row ids hold the teacher's revision, which only the loaded teacher knows; the number of jobs does not.
    teachers = {name: open_teacher(section) for name, section in cast(recipe).items()}
    jobs = Jobs(recipe, seeds, prompt, who(recipe, teachers))
    refuse_incapable(recipe, teachers, catalogue.needs(recipe, jobs.range(0, 1)[0]))
    shards = corpus.plan_shards(jobs.splits, recipe.generate.shard_size)
    spec = recipe.logits.spec() if recipe.logits and recipe.strategy != "classify" else None
    speakers = [*answerers(recipe), *(recipe.logits.score_by if recipe.logits else ())] if spec else []
    done = corpus.committed(folder, [f"logits/{name}" for name in speakers])
    with ui.progress("generate", len(jobs), "jobs" if catalogue.many(recipe) else "rows") as bar:
        for shard in shards:
            if shard.name in done:
                bar.advance(shard.stop - shard.start, resumed=True)
                continue
            ask = partial(ask_batch, teachers, spec, bar.tokens)
            some = jobs.range(shard.start, shard.stop)
            made = lockstep([catalogue.STRATEGIES[recipe.strategy].make(job) for job in some], ask)
            made = score_too(some, made, recipe.logits.score_by, ask) if spec and recipe.logits else made
            tables = _tables([one for several in made for one in several], teachers, spec, speakers)
            corpus.commit(folder, shard.name, tables)
            bar.advance(len(some), failed=tables["failures"].num_rows if "failures" in tables else 0)
    manifest = corpus.finish(folder, "generated", _facts(recipe, folder, prompt, teachers), [s.name for s in shards])
    write_dataset_card(folder, manifest, f"{recipe.task}: generated")
    return folder


def _tables(
    made: Sequence[Made], teachers: Mapping[str, Teacher], spec: dict[str, Any] | None, speakers: Sequence[str]
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


def _facts(recipe: Recipe, folder: Path, prompt: Prompt, teachers: Mapping[str, Teacher]) -> dict[str, Any]:
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
        "teachers": {name: teacher.identity for name, teacher in teachers.items()},
        "sources": [
            *({"role": "seed", "source": source, "licence": licence} for source, licence in sorted(terms)),
            *catalogue.roles(recipe),
        ],
        "counts": {**dict(sorted(rows.items())), "failures": failed},
    }
