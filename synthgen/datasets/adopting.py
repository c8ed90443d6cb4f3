"""Writes the rows of a data set as the generated corpus of a run. After that, every command that takes a run can use
these rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from synthgen import corpus, durable, outputs
from synthgen.datasets.reading import Dataset, records
from synthgen.datasets.store import store
from synthgen.errors import CorpusError, RecipeError
from synthgen.files import is_regular
from synthgen.manifest import Facts
from synthgen.recipe import Recipe, SeedSource
from synthgen.records import UNUSABLE, Record
from synthgen.removed import Removed, read_removed, refuse_half
from synthgen.sources import stated_sources, terms_of
from synthgen.stores.address import url_of
from synthgen.values import is_blank


def adopt(dataset: Dataset, recipe: Recipe, run: Path, *, fresh: bool = False, repair: bool = False) -> Path:
    """Write all rows of a data set, including equal rows, to `run`/generated, and return that folder. A row that a
    record cannot hold, such as a row without a completion, is written to the failures with its reason. If the folder
    already holds the rows, it is not changed. With `repair`, rows in damaged files are written again. Rows that
    `synthgen remove` took out of the run are left out.

    Raises the errors of `records`, and RunChanged when the folder holds rows other than those of this data set, unless
    `fresh` is true, which replaces them.
    """
    folder, source = run / "generated", dataset.source
    inputs = {
        "dataset": {**source.model_dump(mode="json", exclude={"private"}), "path": url_of(str(source.path))},
        "split": recipe.split.model_dump(mode="json"),
        "seeds_sha256": content_hash(Path(str(source.path))),
    }
    refuse_half(run)
    outputs.check(folder, outputs.GENERATED, fresh)
    if fresh:
        outputs.discard(folder, outputs.GENERATED)
    outputs.sweep(folder, outputs.GENERATED)
    corpus.claim(folder, inputs, "curate")
    if repair:
        corpus.discard_damaged(folder)
    if (folder / "manifest.json").exists():
        corpus.verify(folder)
        return folder
    counts: Counter[str] = Counter()
    failures: list[dict[str, str]] = []
    rows = _counted(dataset, recipe, counts, failures, read_removed(run))
    store(folder, "generated", rows, dataset.own, facts_of(source, recipe, counts), failures)
    return folder


def _counted(
    dataset: Dataset, recipe: Recipe, counts: Counter[str], failures: list[dict[str, str]], removed: Removed
) -> Iterator[Record | str]:
    """The records of a data set. Counts the records, and appends rows that a record cannot hold to `failures`. For a
    row that was removed from the run, yields only its split.
    """

    def refused(row: Mapping[str, object], split: str | None, error: RecipeError) -> None:
        own = row.get(dataset.source.id or "id")
        name = durable.digest([dict(row), counts["failures"] + 1])[:32] if is_blank(own) else str(own)
        if removed.has_row(name, name, ()) or dataset.source.source in removed.sources:
            return
        counts["failures"] += 1
        failures.append(
            {"id": name, "seed_id": name, "split": split or "train", "kind": UNUSABLE, "reason": error.message}
        )

    for _, record in records(dataset, recipe.task, recipe.split, refused):
        if removed and removed.has_row(record.id, record.seed_id, record.sources, record.parents):
            yield str(record.split)
            continue
        counts["rows"] += 1
        yield record


def content_hash(path: Path) -> str:
    """A hash of the names and bytes of all files of a data set. Raises CorpusError when the path does not exist."""
    if path.is_file():
        return durable.sha256(path)
    if not path.exists():
        raise CorpusError(f"no file or folder '{path}'", "check the path")
    names = [name for name in outputs.files_in(path) if is_regular(path / name)]
    return durable.digest([[name, durable.sha256(path / name)] for name in names])


def facts_of(source: SeedSource, recipe: Recipe, counts: dict[str, int]) -> Facts:
    """The facts for the manifest of a corpus that holds a data set's rows. The rows' teacher is unknown."""
    return {
        "description": f"Rows of {source.source}",
        "notes": list(recipe.notes),
        "task": recipe.task,
        "strategy": "",
        "prompt_version": "",
        "labels": [],
        "teachers": {},
        "sources": [terms_of(one) for one in stated_sources(source, source.source, "dataset")],
        "counts": counts,
    }
