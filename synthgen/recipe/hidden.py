"""Section `train.hidden`: the student's hidden states follow the teacher's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from synthgen.tables.section import Section


class Hidden(Section):
    """An additional loss on hidden states: after some layers, a learned projection of the student's hidden states
    should equal the teacher's at each token.
    """

    weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of this loss."""
    loss: Literal["mse", "cosine"] = "mse"
    """mse: mean squared difference of layer-normalized states. cosine: 1 − cosine."""
    layers: Literal["uniform"] | dict[int, int] = "uniform"
    """Student layer → teacher layer, counted from 0. uniform pairs every student layer with the teacher layer at the
    same relative depth."""
    projection: bool = True
    """Whether there is a learned projection. false needs a student as wide as the teacher."""
    stored: bool = False
    """Read the teacher's states from RUN/hidden. The teacher writes them there once, before training, at 2 bytes a
    number; later epochs and other students read them without the teacher."""
