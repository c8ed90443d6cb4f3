"""The training rows of a corpus as a list, read as training reads them.

data = load(run / "curated", tokens.render, Choice(512))
data.examples, data.meta, data.left_out
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from distill.data import Choice, Render, Shape, TrainingSet
from distill.streaming.conversations import _COLUMNS
from distill.streaming.stream import open_stream
from distill.streaming.tokencache import Reader, Turn
from synthgen import corpus


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
