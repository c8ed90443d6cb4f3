"""Section `train.hidden`: the student learns the teacher's hidden states."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from synthgen.tables.section import Section


class Hidden(Section):
    """An additional loss on hidden states: after some layers, a learned projection of the student's hidden states
    should equal the teacher's hidden states at each token.
    """

    weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of this loss."""
    loss: Literal["mse", "cosine"] = "mse"
    """Distance between the states. mse: the mean squared difference of layer-normalized states. cosine: 1 − cosine."""
    layers: Literal["uniform"] | dict[int, int] = "uniform"
    """Student layer → teacher layer, counted from 0. uniform pairs every student layer with the teacher layer at the
    same relative depth."""
    projection: bool = True
    """Whether the student's states are projected. If false, the student must be as wide as the teacher."""
    stored: bool = False
    """Read the teacher's states from RUN/hidden. The states are computed and written there once, before training, with
    2 bytes for each number. Later epochs and other students then need no forward pass of the teacher.
    """
