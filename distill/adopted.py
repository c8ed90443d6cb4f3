"""Turns the rows of any data set into a corpus to train on.

    source = adopt(Path("my-dataset"), recipe, Path("students/mine/corpus"))

A run or corpus of synthgen does not need this module. The rows of a data set are written once as a curated corpus in
the student's folder, and assigned to splits in the same way as seeds. Functions that read a corpus can then read the
data set. The rows are not tokenized here: each student reads them with its own tokenizer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from distill.outputs import ADOPTED
from synthgen import corpus, durable, outputs
from synthgen.datasets import Dataset, is_dataset, open_dataset, records, source_of, store
from synthgen.datasets.adopting import content_hash, facts_of
from synthgen.errors import CorpusError
from synthgen.manifest import Facts
from synthgen.recipe import Recipe, SeedSource, differences, recipe_of_values
from synthgen.records import Record
from synthgen.stores.address import url_of
from synthgen.ui import UI

__all__ = ["adopt", "is_dataset", "recipe_of_dataset"]


def recipe_of_dataset(source: SeedSource, student: str) -> Recipe:
    """The recipe that trains the checkpoint `student` on the rows of the data set `source`. All other settings have
    their defaults. Raises RecipeError.
    """
    values = {"task": source.source, "seeds": [source.model_dump()], "train": {"student": {"model": student}}}
    return recipe_of_values(values)


def adopt(path: Path, recipe: Recipe, folder: Path, ui: UI | None = None, *, fresh: bool = False) -> Path:
    """Write a data set's rows as a curated corpus in `folder`, without duplicate rows. Returns `folder`. A note says
    in which format the rows were read, and which columns are the user's own.

    If `folder` already has rows, they are written again when the data set's files, its entry in `seeds` or the recipe's
    `split` have changed since. But if the training of a student on these rows has begun, RunChanged is raised, unless
    `fresh` is true.

    If an entry of the recipe's `seeds` has the data set's path, the rows get the license of that entry, otherwise
    "unknown". Raises the errors of `synthgen.datasets.open_dataset` and `records`.
    """
    path = path.resolve()
    url = url_of(path)
    named = next((s for s in recipe.seeds if s.path and (s.path == url or Path(s.path).resolve() == path)), None)
    source = named or source_of(path)
    if source.path == url:
        source = source.model_copy(update={"path": str(path)})
    inputs = {
        "dataset": {**source.model_dump(mode="json", exclude={"private"}), "path": url_of(str(source.path))},
        "split": recipe.split.model_dump(mode="json"),
        "sha256": content_hash(path),
    }
    outputs.check(folder, ADOPTED, fresh=False)
    outputs.sweep(folder, ADOPTED)
    begun = folder / "inputs.json"
    may_change = fresh or not (folder.parent / "inputs.json").exists()
    if may_change and begun.exists() and differences(corpus.load_json(begun), inputs):
        outputs.discard(folder, ADOPTED)
    corpus.claim(folder, inputs, "train")
    if (folder / "manifest.json").exists():
        corpus.verify(folder)
        return folder
    dataset = open_dataset(source)
    (ui or UI(quiet=True)).note(f"train: {dataset.text()}")
    counts: Counter[str] = Counter()
    facts: Facts = {**facts_of(source, recipe, counts), "rejected_by": {}, "thresholds": {}}
    store(folder, "curated", _distinct(dataset, recipe, counts), dataset.own, facts)
    return folder


def _distinct(dataset: Dataset, recipe: Recipe, counts: Counter[str]) -> Iterator[Record]:
    """Yield the data set's records. Skips a row that equals an earlier row, and updates `counts`."""
    seen: set[bytes] = set()
    for where, record in records(dataset, recipe.task, recipe.split):
        if not any(message.get("content") or message.get("tool_calls") for message in record.completion):
            raise CorpusError(f"{where}: the completion is empty", "leave the row out, or give it a completion")
        content = [record.prompt, record.completion, record.tools, record.pair_role]
        key = bytes.fromhex(durable.digest(content)[:32])
        if key in seen:
            counts["copies_left_out"] += 1
            continue
        seen.add(key)
        counts["kept"] += 1
        yield record
