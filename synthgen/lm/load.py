"""Loading weights with transformers, at one exact revision, and choosing the device that they compute on.

Weights are safetensors or GGUF only; code from a model's repository is never run.
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
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from synthgen.errors import TeacherError
from synthgen.lm.files import ModelFiles, cannot_load, first_line
from synthgen.tables.engines import TeacherSection

T = TypeVar("T")

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def pick_device(name: str) -> torch.device:
    """The device that a recipe names; 'auto' is the first accelerator there is, else the CPU.

    Of the processes that `torchrun` or `accelerate launch` starts side by side, each has a GPU of its own. Raises
    TeacherError for a device that this machine does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if (name == "cuda" and not torch.cuda.is_available()) or (name == "mps" and not torch.backends.mps.is_available()):
        raise TeacherError(f"teacher.device is '{name}', and this machine has none", "use device: auto")
    if name != "cuda":
        return torch.device(name)
    return torch.device(name, int(os.environ.get("LOCAL_RANK", 0)) % max(1, torch.cuda.device_count()))


def load_weights(
    section: TeacherSection, auto_class: type = AutoModelForCausalLM, **changes: object
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str]:
    """(model in eval mode, tokenizer, exact revision).

    `auto_class` is the class of transformers that loads the model, with `changes` to its config. Raises TeacherError
    with one line that says what is wrong.
    """
    files = ModelFiles.find(section.model, section.revision)
    name, arguments = files.whole()
    tokenizer = loaded(name, lambda: AutoTokenizer.from_pretrained(name, trust_remote_code=False, **arguments))
    return load_model(files, section.dtype, auto_class, **changes), tokenizer, files.revision


def load_model(
    files: ModelFiles, dtype: str, auto_class: type = AutoModelForCausalLM, **changes: object
) -> PreTrainedModel:
    """The weights in `dtype`, in eval mode; see `load_weights`."""
    name, arguments = files.whole()
    auto: type[AutoModelForCausalLM] = auto_class
    more = {**arguments, **changes}
    model = loaded(
        name,
        lambda: auto.from_pretrained(
            name, dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False, **more
        ),
    )
    return model.eval()


def load_configs(files: ModelFiles) -> tuple[PreTrainedConfig, GenerationConfig | None]:
    """The config and the generation config that the causal language model of `files` has once it is loaded.

    No weights are read. Of a composite checkpoint it is the config of the text model. Raises TeacherError.
    """
    name, arguments = files.description()

    def describe() -> tuple[PreTrainedConfig, GenerationConfig | None]:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                AutoConfig.from_pretrained(name, trust_remote_code=False, **arguments), trust_remote_code=False
            )
        with suppress(OSError):  # without such a file the model keeps what its config says of generation
            model.generation_config = GenerationConfig.from_pretrained(name, **arguments)
        return model.config, model.generation_config

    return loaded(name, describe)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model that is named like a teacher, or one in a folder of its own. Raises TeacherError."""
    inside_file = name.startswith("package:") or name.endswith(".gguf")
    path, arguments = ModelFiles.find(name).description() if inside_file else (name, {})
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False, **arguments)
    except Exception as error:  # the hub client and tokenizers raise kinds of their own
        raise TeacherError(
            f"the tokenizer of '{name}' cannot be loaded: {first_line(error)}", "check the name and the network"
        ) from None


def checkpoint_activations(model: nn.Module) -> None:
    """Let the backward pass compute activations again."""
    # transformers has had the first name for a few releases, and will have the second for a few more.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()


def is_classifier(section: TeacherSection) -> bool:
    """Whether the model's config says that it has a classification head."""
    return any(name.endswith("ForSequenceClassification") for name in _architectures(section))


def is_embedder(section: TeacherSection) -> bool:
    """Whether the model's config says that it ends with its last hidden states."""
    names = _architectures(section)
    return bool(names) and all(name.endswith("Model") and "Head" not in name for name in names)


def _architectures(section: TeacherSection) -> list[str]:
    """Classes that a model's config names; none where it cannot be read: loading the weights says why."""
    if section.model.startswith("package:") or section.model.endswith(".gguf"):
        return []
    try:
        return list(
            AutoConfig.from_pretrained(section.model, revision=section.revision, trust_remote_code=False).architectures
            or ()
        )
    except Exception:  # the hub client raises kinds of its own
        return []


def loaded(name: str, load: Callable[[], T]) -> T:
    """What `load` gives. Raises TeacherError with one line where it fails."""
    try:
        return load()
    except TeacherError:
        raise
    except Exception as error:  # the hub client, safetensors and tokenizers raise kinds of their own
        raise cannot_load(name, error) from None
