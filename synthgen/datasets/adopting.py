"""Writes the rows of a data set as the generated corpus of a run. Every command that takes a run then takes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from synthgen import corpus, durable, outputs
from synthgen.datasets.reading import Dataset, records
from synthgen.datasets.store import store
from synthgen.errors import CorpusError
from synthgen.files import is_regular
from synthgen.manifest import Facts
from synthgen.recipe import Recipe, SeedSource
from synthgen.records import Record


def adopt(dataset: Dataset, recipe: Recipe, run: Path, *, fresh: bool = False, repair: bool = False) -> Path:
    """Write all rows of a data set to `run`/generated, equal rows too, and return that folder. A folder that holds the
    rows already stays as it is. With `repair`, rows in damaged files are written again.

    Raises the errors of `records`, and RunChanged when the folder holds other rows. With `fresh`, such rows are
    replaced.
    """
    folder, source = run / "generated", dataset.source
    inputs = {
        "dataset": source.model_dump(mode="json"),
        "split": recipe.split.model_dump(mode="json"),
        "seeds_sha256": content_hash(Path(str(source.path))),
    }
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
    store(folder, "generated", _counted(dataset, recipe, counts), dataset.own, facts_of(source, recipe, counts))
    return folder


def _counted(dataset: Dataset, recipe: Recipe, counts: Counter[str]) -> Iterator[Record]:
    for _, record in records(dataset, recipe.task, recipe.split):
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
    """The facts for the manifest of a corpus that holds a data set's rows. Nothing is known about their teacher."""
    return {
        "description": f"Rows of {source.source}",
        "task": recipe.task,
        "strategy": "",
        "prompt_version": "",
        "labels": [],
        "teachers": {},
        "sources": [{"role": "dataset", "source": source.source, "license": source.license}],
        "counts": counts,
    }
