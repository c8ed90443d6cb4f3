"""Loads weights with transformers at one exact revision, and chooses the device.

Weights are loaded only from safetensors or GGUF files, and code from a model's repository is never run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch
import transformers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from synthgen.errors import TeacherError
from synthgen.lm.files import ModelFiles, cannot_load, first_line, refuse_pipes
from synthgen.tables.engines import TeacherSection

T = TypeVar("T")

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def pick_device(name: str) -> torch.device:
    """The device that a recipe names. 'auto' is a CUDA GPU, or the CPU when there is no such GPU.

    Each process that `torchrun` or `accelerate launch` starts gets its own GPU. Raises TeacherError when this machine
    does not have the device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if (name == "cuda" and not torch.cuda.is_available()) or (name == "mps" and not torch.backends.mps.is_available()):
        raise TeacherError(f"teacher.device is '{name}', which this machine does not have", "use device: auto")
    if name != "cuda":
        return torch.device(name)
    return torch.device(name, int(os.environ.get("LOCAL_RANK", 0)) % max(1, torch.cuda.device_count()))


def load_weights(
    section: TeacherSection, auto_class: type = AutoModelForCausalLM, **changes: object
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str]:
    """Load the model that `section` names. Returns (model in eval mode, tokenizer, exact revision).

    `auto_class` is the transformers class that loads the model. `changes` are further keyword arguments of its
    `from_pretrained`, such as config values. Raises TeacherError with a message of one line.
    """
    files = ModelFiles.find(section.model, section.revision)
    name, arguments = files.whole()
    tokenizer = loaded(name, lambda: AutoTokenizer.from_pretrained(name, trust_remote_code=False, **arguments))
    return load_model(files, section.dtype, auto_class, **changes), tokenizer, files.revision


def load_model(
    files: ModelFiles, dtype: str, auto_class: type = AutoModelForCausalLM, **changes: object
) -> PreTrainedModel:
    """The model in eval mode, with weights of type `dtype`. See `load_weights`."""
    name, arguments = files.whole()
    return load_whole(name, dtype, auto_class, **arguments, **changes).eval()


def load_whole(name: str, dtype: str, auto_class: type, **arguments: object) -> PreTrainedModel:
    """Load a model by its folder or hub id, with the weights of all its modules. `arguments` are further keyword
    arguments of `from_pretrained`. With `ignore_mismatched_sizes`, a new classification head has random weights.

    Raises TeacherError, also when weights are missing, because transformers would replace missing weights by random
    weights.
    """
    auto: type[AutoModelForCausalLM] = auto_class
    model, found = loaded(
        name,
        lambda: auto.from_pretrained(
            name,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **arguments,
        ),
    )
    body = f"{model.base_model_prefix}." if arguments.get("ignore_mismatched_sizes") else ""
    unused = body or auto_class is AutoModel  # the output of a pooler is not used
    missing = [
        key
        for key in sorted(found["missing_keys"])
        if key.startswith(body) and not (unused and "pooler" in key.split("."))
    ]
    if missing:
        raise TeacherError(
            f"model '{name}' cannot be loaded: {len(missing)} of its weights are missing, such as '{missing[0]}'",
            "check that config.json and the weights belong to the same model",
        )
    return model


def load_configs(files: ModelFiles) -> tuple[PreTrainedConfig, GenerationConfig | None]:
    """The config and generation config that the causal language model in `files` will have when it is loaded.

    No weights are read. For a checkpoint with several models, such as text and vision, the config is that of the text
    model. Raises TeacherError.
    """
    name, arguments = files.description()

    def describe() -> tuple[PreTrainedConfig, GenerationConfig | None]:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                AutoConfig.from_pretrained(name, trust_remote_code=False, **arguments), trust_remote_code=False
            )
        with suppress(OSError):  # a model without generation_config.json takes the settings from its config
            model.generation_config = GenerationConfig.from_pretrained(name, **arguments)
        return model.config, model.generation_config

    return loaded(name, describe)


def load_generation_config(files: ModelFiles) -> GenerationConfig:
    """The generation config of a model of any class. The generation config is read from generation_config.json, or else
    made from the model's config. No weights are read. Raises TeacherError.
    """
    name, arguments = files.description()

    def describe() -> GenerationConfig:
        with suppress(OSError):
            return GenerationConfig.from_pretrained(name, **arguments)
        config = AutoConfig.from_pretrained(name, trust_remote_code=False, **arguments)
        return GenerationConfig.from_model_config(config)

    return loaded(name, describe)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer. `name` is a model's name as in a teacher's section, or a folder with only a tokenizer. Raises
    TeacherError.
    """
    inside_file = name.startswith("package:") or name.endswith(".gguf")
    path, arguments = ModelFiles.find(name).description() if inside_file else (name, {})
    refuse_pipes(path)
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False, **arguments)
    except Exception as error:  # the hub client and tokenizers raise several kinds of error
        raise TeacherError(
            f"the tokenizer of '{name}' cannot be loaded: {first_line(error)}", "check the name and the network"
        ) from None


def checkpoint_activations(model: nn.Module) -> None:
    """Turn on activation checkpointing: the backward pass computes activations again instead of keeping them."""
    # transformers renamed the method; `gradient_checkpointing_enable` is its older name.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()


def is_classifier(section: TeacherSection) -> bool:
    """Whether the model's config lists a class for sequence classification."""
    return any(name.endswith("ForSequenceClassification") for name in _architectures(section))


def is_embedder(section: TeacherSection) -> bool:
    """Whether the model's config lists only classes without a head, such as `BertModel`, which return hidden states."""
    names = _architectures(section)
    return bool(names) and all(name.endswith("Model") and "Head" not in name for name in names)


def _architectures(section: TeacherSection) -> list[str]:
    """The model classes that the model's config lists under `architectures`. Empty for a GGUF file. Also empty when the
    config cannot be read; the reason is reported later, when the weights are loaded.
    """
    if section.model.startswith("package:") or section.model.endswith(".gguf"):
        return []
    try:
        refuse_pipes(section.model)
        return list(
            AutoConfig.from_pretrained(section.model, revision=section.revision, trust_remote_code=False).architectures
            or ()
        )
    except Exception:  # the hub client raises several kinds of error
        return []


def loaded(name: str, load: Callable[[], T]) -> T:
    """Call `load` and return its result. When `load` fails, raises TeacherError with a message of one line."""
    refuse_pipes(name)
    try:
        return load()
    except TeacherError:
        raise
    except Exception as error:  # the hub client, safetensors and tokenizers raise several kinds of error
        raise cannot_load(name, error) from None
