"""Students made from a teacher: a stock `transformers` model with some of the teacher's own layers."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from synthgen.errors import RecipeError

_LAYER = re.compile(r"^(.*\blayers\.)(\d+)(\..*)$")


def layer_map(layers: Sequence[int] | int, depth: int) -> list[int]:
    """Teacher layer of each student layer. A number keeps that many, evenly spread, first and last included."""
    if isinstance(layers, int):
        if not 1 <= layers <= depth:
            raise RecipeError(f"train.student.layers is {layers}; the teacher has {depth} layers", "ask for fewer")
        return [round(i * (depth - 1) / max(1, layers - 1)) for i in range(layers)]
    if not layers or any(not 0 <= i < depth for i in layers):
        raise RecipeError(
            f"train.student.layers is {list(layers)}; the teacher has layers 0 to {depth - 1}", "name layers it has"
        )
    return list(layers)


def from_layers(teacher: Any, layers: Sequence[int]) -> Any:
    """A float32 model of the teacher's class whose layer i is a copy of the teacher's layer `layers[i]`.

    Everything else (embeddings, norms, output) is copied as it is.
    """
    config = copy.deepcopy(teacher.config)
    config.num_hidden_layers = len(layers)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[i] for i in layers]
    student = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    source = dict(teacher.named_parameters())
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            found = _LAYER.match(name)
            origin = f"{found[1]}{layers[int(found[2])]}{found[3]}" if found else name
            parameter.copy_(source[origin])
    student.generation_config = copy.deepcopy(teacher.generation_config)
    return student
