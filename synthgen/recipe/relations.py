"""Section `train.relations`: the student learns the teacher's attention relations."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from synthgen.tables.section import Count, Section


class Relations(Section):
    """An additional loss, as in MiniLMv2 (arXiv 2012.15828): in one layer, the similarities between the tokens'
    queries, keys and values should equal the teacher's.
    """

    weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of this loss."""
    heads: Count | None = None
    """Number of heads into which queries, keys and values are divided, in both models. When left out, the teacher's
    number of key-value heads."""
    layer: Annotated[int, Field(ge=0)] | None = None
    """The teacher's layer, counted from 0; the last when left out. The student's layer is always its last."""
