"""Builds untrained students: from some of a teacher's layers, from a changed config, with random weights, with LoRA."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from distill.arms import StudentModel
from synthgen.errors import RecipeError, missing_extra, nearest
from synthgen.tables.students import Lora

Config = dict[str, object]
"""Keys and values of a config.json."""


def from_config(
    teacher: PreTrainedConfig, changes: Config, seed: int, auto_class: type = AutoModelForCausalLM
) -> PreTrainedModel:
    """Build a float32 model with random weights. The model's config is the teacher's config with `changes`.

    Raises RecipeError when `changes` has an unknown key, or when no such model can be built.
    """
    values = teacher.to_dict() | {"layer_types": None, "dtype": "float32", "quantization_config": None}
    unknown = sorted(set(changes) - set(values))
    if unknown:
        raise RecipeError(
            f"train.student.config: {teacher.model_type} configs have no key '{unknown[0]}'",
            "use the keys of the teacher's config.json",
        )
    values = {key: value for key, value in (values | changes).items() if value is not None or key in changes}
    torch.manual_seed(seed)
    try:
        return _auto(auto_class).from_config(
            type(teacher).from_dict(values), dtype=torch.float32, trust_remote_code=False
        )
    except (ValueError, RuntimeError, TypeError, StrictDataclassError) as error:
        what = str(error.__cause__ or error).splitlines()[0]
        raise RecipeError(
            f"train.student.config: this model cannot be made: {what}", "change the sizes in train.student.config"
        ) from None


def _auto(auto_class: type) -> type[AutoModelForCausalLM]:
    """Return `auto_class` with a type that has `from_config`, for type checkers."""
    return auto_class


def with_adapter(
    model: PreTrainedModel, lora: Lora, seed: int, base: tuple[str, str | None] | None = None
) -> StudentModel:
    """Freeze `model` and add low-rank adapters to its linear layers (LoRA, arXiv 2106.09685). `base` is the name and
    revision of the checkpoint whose weights `model` has, if there is such a checkpoint.

    Raises RecipeError when `lora.target_modules` does not fit the model.
    """
    try:
        import peft
    except ImportError:
        raise missing_extra("peft", "train") from None
    _check_targets(model, lora)
    torch.manual_seed(seed)
    config = peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=list(lora.target_modules) if lora.target_modules else "all-linear",
        task_type="CAUSAL_LM",
    )
    try:
        adapter = peft.get_peft_model(model, config)
    except (ValueError, TypeError, NotImplementedError, AttributeError) as error:
        raise RecipeError(f"train.student.lora: {_reason(error)}", "change target_modules") from None
    return StudentModel(adapter.base_model.model, adapter, base)


def _reason(error: Exception) -> str:
    """The error's message as one line. peft writes whole modules, in many lines, in the middle of a sentence."""
    text = re.sub(r"\(\n.*\n\)", "(…)", str(error), flags=re.DOTALL)
    return " ".join(text.split()) or type(error).__name__


def _check_targets(model: PreTrainedModel, lora: Lora) -> None:
    """Raise RecipeError when a target does not exist, or when it shares its weights with another layer.

    An adapter is merged into the weight of its layer. If another layer uses the same weight, that layer would change
    too, although it had no adapter in training. An example is the output layer of a model with tied embeddings.
    """
    modules = dict(model.named_modules())
    users: dict[int, list[str]] = {}
    for name, module in modules.items():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.nn.Parameter):
            users.setdefault(id(weight), []).append(name)
    for target in lora.target_modules:
        found = [name for name in modules if name == target or name.endswith(f".{target}")]
        if not found:
            names = {name.rpartition(".")[2] for name, module in modules.items() if not any(module.children())}
            raise RecipeError(
                f"train.student.lora.target_modules: the student has no module '{target}'"
                f"{nearest(target, {name for name in names if not name.isdigit()})}",
                "name modules of the student",
            )
        for name in found:
            shared = [other for other in users.get(id(getattr(modules[name], "weight", None)), []) if other != name]
            if shared:
                raise RecipeError(
                    f"train.student.lora.target_modules: '{name}' shares its weights with '{shared[0]}', which an "
                    f"adapter of '{name}' would change too when it is merged",
                    f"leave out '{target}'",
                )


def layer_map(layers: Sequence[int] | int, depth: int) -> list[int]:
    """Return, for each student layer, the teacher layer that it is copied from.

    An integer `layers` keeps that many layers, spread evenly from the first to the last. Raises RecipeError when the
    teacher, which has `depth` layers, does not have these layers.
    """
    if isinstance(layers, int):
        if not 1 <= layers <= depth:
            raise RecipeError(
                f"train.student.layers is {layers}; the teacher has {depth} layers", "lower train.student.layers"
            )
        return [round(i * (depth - 1) / max(1, layers - 1)) for i in range(layers)]
    if not layers or any(not 0 <= i < depth for i in layers):
        raise RecipeError(
            f"train.student.layers is {list(layers)}; the teacher has layers 0 to {depth - 1}",
            "name layers that the teacher has",
        )
    return list(layers)


def random_weights(
    auto_class: type, given: Config, tokenizer: PreTrainedTokenizerBase, defaults: Config
) -> PreTrainedModel:
    """Build a float32 model with random weights. The model has the tokenizer's vocabulary size and special tokens.

    `given` is the recipe's train.student.config. Keys in `given` take precedence over `defaults`. Raises RecipeError
    when a key is unknown, or when no such model can be built.
    """
    values = dict(given)
    name = str(values.pop("model_type"))
    try:
        known = AutoConfig.for_model(name)
    except ValueError:
        raise RecipeError(
            f"train.student.config: transformers does not know the model_type '{name}'",
            "give a known type, such as bert or t5",
        ) from None
    allowed = set(known.to_dict()) | set(known.attribute_map)
    unknown = sorted(set(values) - allowed)
    if unknown:
        raise RecipeError(
            f"train.student.config: {name} configs have no key '{unknown[0]}'",
            "use the keys of the model's config.json",
        )
    special = {key: getattr(tokenizer, key) for key in ("pad_token_id", "bos_token_id", "eos_token_id")}
    try:
        config = AutoConfig.for_model(name, **{"vocab_size": len(tokenizer), **special, **defaults, **values})
        return _auto(auto_class).from_config(config, dtype=torch.float32, trust_remote_code=False)
    except (ValueError, RuntimeError, TypeError, AssertionError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise RecipeError(
            f"train.student.config: this model cannot be made: {reason}", "change the keys of train.student.config"
        ) from None


def in_words(config: Config) -> str:
    """Return the keys and values of a config as text, for the model card."""
    return ", ".join(f"{key} {value}" for key, value in config.items())
