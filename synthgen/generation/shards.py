"""Converts the outcomes of generation to the tables of a shard, and collects the facts that the manifest states."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from synthgen import corpus, logits
from synthgen.errors import CorpusError
from synthgen.generation import casting
from synthgen.generation.division import Shard
from synthgen.generation.inputs import Inputs
from synthgen.generation.rounds import Failure, Outcome, Row
from synthgen.manifest import Facts, SourceTerms
from synthgen.parquet import metadata
from synthgen.recipe import Recipe
from synthgen.records import FAILURE_SCHEMA, to_table
from synthgen.removed import NOTHING, Removed
from synthgen.sources import distinct, stated_sources, terms_of
from synthgen.tables.strategies import STRATEGIES


@dataclass(frozen=True)
class Layout:
    """Describes the files of every shard: a file with rows, and for each teacher named in `speakers` a file with this
    teacher's distributions. `speakers` is empty when no distributions are stored. `teachers` holds the opened teachers,
    by name. Rows that were derived from something `removed` are left out.
    """

    teachers: casting.Teachers
    spec: logits.LogitsSpec | None
    speakers: Sequence[str]
    removed: Removed = NOTHING

    @classmethod
    def of(cls, recipe: Recipe, teachers: casting.Teachers, removed: Removed = NOTHING) -> Layout:
        """The layout of a recipe's shards."""
        spec = casting.logits_spec(recipe)
        return cls(teachers, spec, [*casting.answerers(recipe), *casting.scorers(recipe)] if spec else [], removed)

    def commit(
        self, folder: Path, shard: Shard, outcomes: Sequence[Sequence[Outcome]], *, made_from: str | None = None
    ) -> None:
        """Write one shard. For `made_from`, see `corpus.commit`."""
        corpus.commit(folder, shard.name, self.tables([one for several in outcomes for one in several]), made_from)

    def tables(self, outcomes: Sequence[Outcome]) -> dict[str, pa.Table]:
        """The tables of a shard, by folder: rows, the stored distributions of each teacher in `speakers`, and failures
        if there are any.
        """
        rows = [one for one in outcomes if isinstance(one, Row)]
        if self.removed:  # a server may have answered with a model that was removed
            rows = _left(rows, self.removed)
        failures = [asdict(one) for one in outcomes if isinstance(one, Failure)]
        tables = {"data": to_table(row.record for row in rows)}
        for name in self.speakers:
            tables[f"logits/{name}"] = self._logits(name, rows)
        if failures:
            tables["failures"] = pa.Table.from_pylist(failures, schema=FAILURE_SCHEMA)
        return tables

    def _logits(self, name: str, rows: Sequence[Row]) -> pa.Table:
        assert self.spec is not None
        identity = self.teachers[name].identity
        teacher = f"{casting.short_name(identity['model'])}@{identity['revision']}"
        meta = logits.meta(self.spec, identity["vocab_size"], teacher, identity["tokenizer"])
        kept = [(row.record, row.targets[name]) for row in rows if name in row.targets]
        aligns = [
            logits.align(record.token_ids or (), meta["teacher"], meta["tokenizer"], meta["temperature"])
            for record, _ in kept
        ]
        return logits.to_table([record.id for record, _ in kept], aligns, [target for _, target in kept], meta)


def _left(rows: Sequence[Row], removed: Removed) -> list[Row]:
    """The rows that were not derived from anything that was removed. A group is kept or left out as a whole."""
    records = [row.record for row in rows]
    gone = [removed.has_row(one.id, one.seed_id, one.sources, one.parents) for one in records]
    groups = {one.group_id for one, left_out in zip(records, gone, strict=True) if left_out} - {None}
    pairs = zip(rows, gone, strict=True)
    return [row for row, left_out in pairs if not left_out and row.record.group_id not in groups]


def facts(inputs: Inputs, folder: Path, teachers: casting.Teachers) -> Facts:
    """The content of the manifest, except for the list of files. This content depends only on the rows and the inputs,
    not on how often the run was resumed.
    """
    recipe = inputs.recipe
    counts, cost = counts_of(folder)
    own = casting.prompt_sources(recipe, inputs.prompt)
    sources = [stated for stated in recipe.seeds if stated.source not in inputs.removed.sources]
    seeds = [one for stated in sources for one in stated_sources(stated, stated.source, "seed")]
    for place, license in inputs.seeds.licenses:
        if (file := inputs.seeds.sources[place]) in sources:
            seeds += stated_sources(file, file.source, "seed", license)
    known = {(one["role"], one["id"]) for one in (*own, *seeds)}
    known |= {("logits", version) for version in casting.versions(recipe, teachers).values()}
    paid = not all(casting.in_process(section) for section in casting.cast(recipe).values())
    stated: Facts = {
        "description": recipe.description,
        "notes": list(recipe.notes),
        "task": recipe.task,
        "strategy": recipe.strategy,
        "prompt_version": inputs.prompt.version,
        "labels": list(recipe.generate.labels),
        "teachers": {name: dict(teacher.identity) for name, teacher in teachers.items()},
        "sources": distinct(
            [
                *sorted(map(terms_of, seeds), key=lambda one: (one["source"], one["license"])),
                *map(terms_of, own),
                *casting.roles(recipe),
                *(_given(folder, known) if STRATEGIES[recipe.strategy].completions_given else ()),
            ]
        ),
        "counts": counts,
    }
    if paid:
        stated["cost_usd"] = None if cost is None else round(cost, 6)
    return stated


def _given(folder: Path, known: Collection[tuple[str, str]]) -> list[SourceTerms]:
    """The rows' sources whose pair (role, id) is not in `known`. These sources name who wrote the completions in the
    seeds, and the models that answered in place of the requested models.
    """
    found: list[SourceTerms] = []
    for _, batch in corpus.batches(folder, "data", ["sources"]):
        every = (one for sources in batch["sources"].to_pylist() for one in sources)
        others = [one for one in every if (one["role"], one["id"]) not in known]
        found = distinct([*found, *map(terms_of, others)])
    return sorted(found, key=lambda one: (one["role"], one["source"], one["license"]))


def counts_of(folder: Path) -> tuple[dict[str, int], float | None]:
    """Return (counts, cost in dollars) over all shards. The counts are the numbers of rows, tokens, rows of each split,
    and failures. The cost is None when the cost of any row is unknown. Raises CorpusError when a row occurs twice.
    """
    rows = tokens = unknown = 0
    splits: dict[str, int] = {}
    cost = 0.0
    ids: list[pa.Array] = []
    for shard in corpus.shards(folder):
        table = corpus.read_columns(folder / "data" / f"{shard}.parquet", ["id", "token_ids", "usage", "cost_usd"])
        lengths = pc.list_value_length(table["token_ids"])
        counted = pc.struct_field(table["usage"], "completion_tokens")
        rows += table.num_rows
        tokens += pc.sum(pc.max_element_wise(lengths, counted)).as_py() or 0
        name = f"rows_{shard.rsplit('-', 1)[0]}"
        splits[name] = splits.get(name, 0) + table.num_rows
        cost += pc.sum(table["cost_usd"]).as_py() or 0.0
        unknown += table["cost_usd"].null_count
        ids += table["id"].chunks
    distinct = pc.count_distinct(pa.chunked_array(ids, pa.string())).as_py()
    if distinct != rows:
        raise CorpusError(
            f"{rows - distinct} rows of {folder} occur twice", "this is a bug in synthgen; please report it"
        )
    failed = (folder / "failures" / f"{shard}.parquet" for shard in corpus.shards(folder, "failures"))
    failures = sum(metadata(path)[1] for path in failed)
    kept = {name: count for name, count in sorted(splits.items()) if count}  # a split without rows is left out
    return {"rows": rows, "tokens": tokens, **kept, "failures": failures}, None if unknown else cost
