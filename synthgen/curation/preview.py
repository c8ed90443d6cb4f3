"""Says what each rule would reject or change in a sample of rows. Nothing is written."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from synthgen import corpus
from synthgen.curation import curate
from synthgen.errors import one_line
from synthgen.manifest import Facts
from synthgen.recipe import Recipe
from synthgen.recipe.curate import rules
from synthgen.records import Record
from synthgen.tables.curation_settings import Select

ROWS = 2000
"""The largest number of rows of a sample."""
_EXAMPLES = 5
_SHOWN = 100  # number of characters of a completion that are shown


@dataclass(frozen=True)
class Example:
    """A row that a rule rejects or changes: its id, the reason or the text that is cut, and its completion."""

    id: str
    reason: str
    completion: str


@dataclass(frozen=True)
class Effect:
    """What one rule does to the sample: how many rows it rejects or changes, and the first of them. A row that several
    rules reject counts for each of these rules.
    """

    rule: str
    about: str
    count: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Preview:
    """The result of `preview`. `rows` is the number of rows of the sample, and `kept` is the number of these rows that
    curation would keep. `of` is the number of all rows, or None when the sample is the beginning of a data set that has
    more rows. `unusable` is the number of further rows of a data set that cannot be used. `note` says how curating a
    sample differs from curating all rows.
    """

    rows: int
    of: int | None
    kept: int
    effects: tuple[Effect, ...]
    unusable: int = 0
    note: str = ""

    def text(self) -> str:
        """For people."""
        sample = f"The first {self.rows:,}" if self.of is None else f"A sample of {self.rows:,} of {self.of:,}"
        lines = [f"{sample} rows: {self.kept:,} would be kept. Nothing was written."]
        if self.unusable:
            lines.append(f"{self.unusable:,} more cannot be used, such as rows without a completion: failures.")
        lines += [self.note] if self.note else []
        for effect in self.effects:
            lines += ["", f"{effect.rule}: {effect.count:,} rows ({effect.count / self.rows:.1%}). {effect.about}"]
            for one in effect.examples:
                lines += [f"  {one.id}: {one.reason}", f"      {one.completion}"]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)


def preview(recipe: Recipe, source: Path, *, partial: bool = False) -> Preview:
    """Curate some shards of the finished corpus `source`, evenly spaced, in a temporary folder. Duplicates are found
    only within the sample. `partial` says that `source` holds only the beginning of a data set that has more rows.

    Raises the errors of `curate`.
    """
    manifest = corpus.manifest(source)
    names = corpus.shards(source)
    counts = {name: manifest["files"][f"data/{name}.parquet"]["rows"] for name in names}
    whole = sum(counts.values())
    many = min(len(names), -(-ROWS * len(names) // max(whole, 1)))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "generated"
        corpus.claim(folder, corpus.load_json(source / "inputs.json"), "curate")
        chosen, left = [], ROWS
        for name in [names[number * len(names) // many] for number in range(many)]:
            table = corpus.read_shard(corpus.check_file(source, manifest, f"data/{name}.parquet")).slice(0, left)
            corpus.commit(folder, name, {"data": table})
            chosen.append(name)
            left -= table.num_rows
        facts = cast(Facts, {key: value for key, value in manifest.items() if key in Facts.__annotations__})
        corpus.finish(folder, "generated", facts, chosen)
        recipe, note = _in_proportion(recipe, ROWS - left, None if partial else whole)
        done = curate(recipe, scratch, workers=1)
        records = [
            one for part in ("data", "rejected") for _, each in corpus.records(done.folder, part) for one in each
        ]
    unusable = manifest["counts"].get("failures", 0) if not manifest["strategy"] else 0
    of = None if partial else whole
    return Preview(len(records), of, done.counts["kept"], tuple(_effects(records)), unusable, note)


def _in_proportion(recipe: Recipe, rows: int, whole: int | None) -> tuple[Recipe, str]:
    """The recipe for a sample of `rows` rows, and a note. If the recipe selects a number of rows, this number is
    reduced in proportion to the size of the sample. If the number of all rows is not known (None), nothing is selected.
    """
    section = recipe.curate.settings("select")
    if not isinstance(section, Select) or section.rows is None or rows == whole:
        return recipe, ""
    part, note = (
        None,
        "select was left out, because the number of all rows is not known. Give `select.share` to see it.",
    )
    if whole is not None:
        number = max(1, round(section.rows * rows / whole))
        part = section.model_copy(update={"rows": number})
        note = f"select keeps {number:,} rows of `train` in the sample, in proportion to {section.rows:,} of all rows."
    curated = recipe.curate.model_copy(update={"select": part})
    return recipe.model_copy(update={"curate": curated}), note


def _effects(records: Iterable[Record]) -> Iterable[Effect]:
    found: dict[str, list[Example]] = defaultdict(list)
    for record in records:
        text = one_line(record.text)[:_SHOWN]
        for edit in record.edits:
            size = (edit["end"] or 0) - (edit["start"] or 0)
            found[edit["edit"]].append(Example(record.id, f"changes {size:,} characters", text))
        for verdict in record.verdicts:
            found[verdict["check"]].append(Example(record.id, verdict["reason"], text))
    order = [*rules(), *(name for name in found if name not in rules())]
    for name in order:
        if name in found:
            about = rules()[name].about if name in rules() else "Reject rows whose group has a rejected row."
            ids = {one.id for one in found[name]}
            yield Effect(name, about, len(ids), tuple(found[name][:_EXAMPLES]))
