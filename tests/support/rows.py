"""The training rows of a corpus as a list, read as training reads them.

data = load(run / "curated", tokens.render, Choice(512))
data.examples, data.meta, data.left_out
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from distill.adopted import recipe_of_dataset
from distill.data import Choice, Render, Shape, TrainingSet
from distill.streaming.conversations import _COLUMNS
from distill.streaming.stream import open_stream
from distill.streaming.tokencache import Reader, Turn
from synthgen import corpus
from synthgen.datasets import source_of
from synthgen.recipe import Recipe, with_values


def load(folder: Path, render: Render, choice: Choice, shape: Shape | None = None) -> TrainingSet:
    """Reads all rows of the curated corpus `folder`, with a temporary token cache."""
    with tempfile.TemporaryDirectory() as cache:
        own = frozenset(corpus.manifest(folder)["teachers"])
        reader = Reader(
            "test",
            _COLUMNS,
            turns=lambda rows: [[Turn(render(row.prompt), list(row.token_ids))] for row in rows],
            own=own,
            shape=shape,
        )
        stream = open_stream(folder, reader, Path(cache), choice)
        return TrainingSet(list(stream), stream.meta, stream.left_out)


def dataset_of(folder: Path, rows: list[dict], student: Path, **settings: Any) -> tuple[Recipe, Path]:
    """Writes rows as a data set. Returns (recipe that trains the checkpoint `student` on it in 3 steps, its path)."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = recipe_of_dataset(source_of(path), str(student))
    few = {"train.batch_size": 4, "train.max_steps": 3, "train.baseline": False, **settings}
    return with_values(recipe, few), path
