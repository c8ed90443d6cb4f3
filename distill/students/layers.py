"""Copies some layers of a teacher into a student of the same class, and checks that the student computes what these
layers compute in the teacher.

    student = from_layers(teacher, [0, 3])

The stack of layers is found by its length, because its name differs between architectures. The stack is the list of
modules whose length in the teacher is the teacher's depth, and whose length in the student is the number of kept
layers. Weights and buffers of a kept layer are copied with the layer. Values of the config that belong to single layers
(such as `layer_types`) are cut to the kept layers.

Architectures differ in too many ways to handle each of them here. The student is therefore compared with the teacher
while the teacher's other layers are skipped, and a student that computes other values is refused.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from distill.students.skipping import without_other_layers
from synthgen.errors import RecipeError

# Lists of config.json that name layers by their index. Lists that match neither this expression nor `_OTHER`, and whose
# length is the number of layers, have one value for each layer.
_INDEXES = re.compile(r"(mlp_only_layers|moe_layers|cross_attention_layers|.*layer_(idxs?|ids|indices|indexes))")
# Lists of config.json that have nothing to do with layers, even if their length is the number of layers.
_OTHER = re.compile(r".*(_token_ids?|_ids?|architectures|_section|_sizes|_kernel|_range|labels?)")
# Keys of config.json that say how many layers at the beginning are of another kind than the later layers. In the
# student's config, such a key gets the number of these layers that the student keeps. If the layers of that kind are
# not the student's first layers, the comparison with the teacher fails.
_FIRST = ("first_k_dense_replace", "max_window_layers", "moe_layer_start_index", "num_dense_layers", "num_hash_layers")
# Strings of config.json with one letter for each layer.
_LETTERS = ("hybrid_override_pattern", "layer_pattern")

_PROBE = 16  # number of tokens of a text on which student and teacher are compared
_LONG_PROBE = 256  # the texts exceed windows of up to this length; of longer windows, only lengths are compared
_TOLERANCE = 2e-4  # largest difference that is accepted, as a share of the largest output

_HINT = "use train.student.model with a smaller checkpoint, train.student.config, or keep other layers"


def from_layers(teacher: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """Build a float32 model of the teacher's class whose layer i is a copy of the teacher's layer `layers[i]`.

    Embeddings, norms and the output layer are copied unchanged. Raises RecipeError when the layers cannot be told
    apart, when a weight or buffer has no place in the student, or when the student computes other values than the
    teacher with these layers alone.
    """
    with torch.no_grad():
        student = _empty(teacher, layers)
        path = _stack(teacher, student, layers)
        _copy(teacher, student, path, layers)
        _check_settings(teacher, student, path, layers)
        _check_outputs(teacher, student, path, layers)
    if teacher.can_generate():
        student.generation_config = copy.deepcopy(teacher.generation_config)
    return student


def depth_of(config: PreTrainedConfig) -> int:
    """The number of layers of a decoder or encoder with this config."""
    return int(config.num_hidden_layers)


def _refusal(teacher: PreTrainedModel, layers: Sequence[int], what: str) -> RecipeError:
    shown = ", ".join(map(str, layers[:12])) + (", …" if len(layers) > 12 else "")
    return RecipeError(
        f"train.student.layers: layers {shown} of a {teacher.config.model_type} model cannot be kept: {what}", _HINT
    )


def _reason(error: BaseException) -> str:
    """The first line of the error's message. The kind of the error comes before a message of one word, such as a key
    that is missing.
    """
    line = next(iter(str(error).splitlines()), "")
    return line if " " in line else f"{type(error).__name__} {line}".strip()


def _empty(teacher: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """A model of the teacher's class with the config of the student, and with arbitrary weights."""
    try:
        config = type(teacher.config).from_dict(config_of(teacher.config, layers))
        student = type(teacher)(config)
    except Exception as error:  # a config of transformers runs code that can raise any error
        reason = _reason(error.__cause__ or error)
        raise _refusal(teacher, layers, f"no config describes a model of these layers ({reason})") from None
    student.eval()
    return student


def config_of(config: PreTrainedConfig, layers: Sequence[int]) -> dict[str, Any]:
    """The values of the student's config.json, if the student keeps these layers of a teacher with `config`."""
    depth, values = depth_of(config), config.to_dict()
    for key, value in values.items():
        changed = _kept_of(key, value, layers, depth)
        if changed is not None:
            values[key] = changed
    if values.get("attention_types") and hasattr(config, "attention_layers"):  # GPT-Neo: [[kinds, times], …]
        values["attention_types"] = [[[config.attention_layers[i]], 1] for i in layers]
    for key in (config.attribute_map.get("num_hidden_layers", "num_hidden_layers"), "decoder_layers"):
        if key in values:
            values[key] = len(layers)
    return values | {"dtype": "float32"}


def _kept_of(key: str, value: object, layers: Sequence[int], depth: int) -> Any:
    """The value of a key of config.json for the student. None when the key is not about single layers."""
    if isinstance(value, list | tuple) and not _OTHER.fullmatch(key):
        if _INDEXES.fullmatch(key):
            return [new for new, old in enumerate(layers) if old in value]
        return [value[i] for i in layers] if len(value) == depth else None
    if isinstance(value, str) and key in _LETTERS and len(value) == depth:
        return "".join(value[i] for i in layers)
    if isinstance(value, int) and key in _FIRST:
        return sum(i < value for i in layers)
    return None


def _stack(teacher: PreTrainedModel, student: PreTrainedModel, layers: Sequence[int]) -> str:
    """The name of the list of modules that holds the layers, such as "model.layers"."""
    there, depth = dict(teacher.named_modules()), depth_of(teacher.config)
    lists = [
        name
        for name, module in student.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential) and len(module) == len(layers)
    ]
    lists = [name for name in lists if isinstance(there.get(name), nn.ModuleList | nn.Sequential)]
    lists = [name for name in lists if len(there[name]) == depth]
    outer = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    if len(outer) != 1:
        found = (
            f"its layers are in several lists ({', '.join(outer)})" if outer else "it has no list of layers of its own"
        )
        raise _refusal(teacher, layers, found)
    return outer[0]


def _copy(teacher: PreTrainedModel, student: PreTrainedModel, path: str, layers: Sequence[int]) -> None:
    """Copy every weight and every stored buffer. Raises RecipeError when a weight or buffer has no origin in the
    teacher, or no place in the student.
    """
    source, used = teacher.state_dict(keep_vars=True), set()
    for name, value in student.state_dict(keep_vars=True).items():
        origin = _origin(name, path, layers)
        if origin not in source:
            origin = name  # T5: only the first layer has the table of relative positions, which all layers use
        if origin not in source:
            raise _refusal(teacher, layers, f"none of these layers has the student's '{name}'")
        given = _cut(source[origin], value, layers, depth_of(teacher.config))
        if given is None:
            shapes = f"{list(source[origin].shape)} in the teacher, {list(value.shape)} in the student"
            raise _refusal(teacher, layers, f"'{origin}' does not fit ({shapes})")
        if value.is_floating_point() != given.is_floating_point():
            raise _refusal(teacher, layers, f"'{origin}' is quantized")
        value.data.copy_(given)
        used.add(origin)
    kept = {f"{path}.{i}." for i in layers}
    for name in source:
        if name not in used and (not name.startswith(f"{path}.") or name.startswith(tuple(kept))):
            raise _refusal(teacher, layers, f"'{name}' of the teacher has no place in the student")


def _origin(name: str, path: str, layers: Sequence[int]) -> str:
    """The name that a weight of the student has in the teacher."""
    if not name.startswith(f"{path}."):
        return name
    number, _, rest = name[len(path) + 1 :].partition(".")
    return f"{path}.{layers[int(number)]}.{rest}"


def _cut(given: Tensor, wanted: Tensor, layers: Sequence[int], depth: int) -> Tensor | None:
    """`given`, cut to the kept layers if one dimension has a part for each layer, as in the per-layer embeddings of
    Gemma 3n and Gemma 4. None when the result does not have the shape of `wanted`.
    """
    if given.shape == wanted.shape:
        return given
    other = [d for d, (a, b) in enumerate(zip(given.shape, wanted.shape, strict=False)) if a != b]
    if given.ndim != wanted.ndim or len(other) != 1:
        return None
    (d,) = other
    size, rest = divmod(given.shape[d], depth)
    if rest or wanted.shape[d] != size * len(layers):
        return None
    parts = given.unflatten(d, (depth, size))
    return parts.index_select(d, torch.tensor(list(layers), device=given.device)).flatten(d, d + 1)


def _check_settings(teacher: PreTrainedModel, student: PreTrainedModel, path: str, layers: Sequence[int]) -> None:
    """Raise RecipeError when a layer has other modules, settings or computed buffers than the teacher's layer.

    A comparison of outputs would miss settings that matter only for long texts, such as the length of a window.
    """
    for new, old in enumerate(layers):
        ours = dict(student.get_submodule(f"{path}.{new}").named_modules())
        theirs = dict(teacher.get_submodule(f"{path}.{old}").named_modules())
        for name, module in theirs.items():
            where = f"layer {old} of the teacher would be layer {new} of the student"
            if name not in ours or type(ours[name]) is not type(module):
                what = type(ours[name]).__name__ if name in ours else "nothing"
                raise _refusal(teacher, layers, f"{where}, with {what} for '{name}' ({type(module).__name__})")
            for key, value in _settings(module).items():
                other = _settings(ours[name]).get(key)
                if not _same(value, other, (old, new), (layers, depth_of(teacher.config))):
                    raise _refusal(teacher, layers, f"{where}, with {other} for {key} ({value}) of '{name}'")
        _check_buffers(teacher, layers, (theirs, ours))


def _check_buffers(
    teacher: PreTrainedModel, layers: Sequence[int], modules: tuple[Mapping[str, nn.Module], Mapping[str, nn.Module]]
) -> None:
    """Compare buffers, including buffers that are not stored, such as masks and frequencies."""
    theirs, ours = modules
    for name, module in theirs.items():
        for key, value in module.named_buffers(recurse=False):
            other = ours[name].get_buffer(key)
            if value.shape != other.shape or not torch.allclose(value.cpu().double(), other.double(), atol=1e-6):
                raise _refusal(teacher, layers, f"the buffer '{key}' of '{name}' differs in the student")


def _settings(module: nn.Module) -> dict[str, object]:
    """The attributes of a module that are numbers, strings or flags, or lists of such values."""
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in vars(module).items()
        if not key.startswith("_") and key not in _IGNORED and _is_plain(value)
    }


# `has_relative_attention_bias` differs in T5, whose first block computes the position bias of all blocks. The
# comparison of outputs covers this setting.
_IGNORED = ("training", "has_relative_attention_bias")


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, int | float | str | None)


def _same(value: object, other: object, numbers: tuple[int, int], cut: tuple[Sequence[int], int]) -> bool:
    """Whether a setting of a layer of the teacher is the same in the student. `numbers` are the layer's number in the
    teacher and in the student. `cut` has the kept layers and the teacher's depth.
    """
    if value == other or (_is_number(value, numbers[0]) and _is_number(other, numbers[1])):
        return True
    layers, depth = cut
    return isinstance(value, tuple) and len(value) == depth and other == tuple(value[i] for i in layers)


def _is_number(value: object, layer: int) -> bool:
    """Whether a setting is the number of this layer, counted from 0 or 1."""
    return type(value) is int and value in (layer, layer + 1)


def _check_outputs(teacher: PreTrainedModel, student: PreTrainedModel, path: str, layers: Sequence[int]) -> None:
    """Raise RecipeError when the student's outputs differ from those of the teacher with these layers alone."""
    ids = _probe(teacher)
    try:
        found = without_other_layers(teacher, path, layers, lambda: outputs(teacher, ids))
        own = outputs(student, ids.cpu())
    except Exception as error:  # a model can raise any error, and what cannot be compared is refused
        raise _refusal(
            teacher, layers, f"these layers cannot be run and compared with the teacher ({_reason(error)})"
        ) from None
    if found is None:
        raise _refusal(teacher, layers, "the model does more than run its layers one after another")
    wanted = found.cpu()
    largest = float(wanted.abs().max())
    difference = float((own - wanted).abs().max()) if own.shape == wanted.shape else float("inf")
    if not difference <= _TOLERANCE * largest + 1e-6:
        raise _refusal(
            teacher,
            layers,
            f"the student computes other values than the teacher with these layers (difference {difference:.2g}, "
            f"largest value {largest:.2g})",
        )


def _probe(teacher: PreTrainedModel) -> Tensor:
    """Two texts (2, T) of token ids. The texts are longer than the attention window, if the window is short."""
    config, table = teacher.config, teacher.get_input_embeddings().weight
    window = max((w for key in _WINDOWS if isinstance(w := getattr(config, key, None), int)), default=0)
    length = window + _PROBE // 2 if _PROBE // 2 < window <= _LONG_PROBE else _PROBE
    room = getattr(config, "max_position_embeddings", None)
    length = min(length, room - 4) if isinstance(room, int) and room > 8 else min(length, _PROBE)
    ids = torch.arange(2 * length).view(2, length) * 7919 + 11
    return (ids % len(table)).to(table.device)


_WINDOWS = ("sliding_window", "window_size", "local_attention", "attention_chunk_size", "attention_window")


def outputs(model: nn.Module, ids_BT: Tensor) -> Tensor:
    """The logits (B, T, V) of a language model, or the last hidden states (B, T, D) of an encoder, in float32."""
    accepted = inspect.signature(model.forward).parameters.values()
    caches = any(a.name == "use_cache" or a.kind is inspect.Parameter.VAR_KEYWORD for a in accepted)
    more = {"use_cache": False} if caches and hasattr(model.config, "use_cache") else {}
    found = model(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), **more)
    value: Tensor = found.logits if getattr(found, "logits", None) is not None else found.last_hidden_state
    return value.float()
