"""Finding and loading local weights: a hub id, a folder, a GGUF file, or the GGUF inside an installed package.

Dequantizing a GGUF takes many seconds, so the result is kept in the user's cache folder under the hash of the
file. Weights are safetensors or GGUF only; code from a model's repository is never run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils.hub import cached_file, extract_commit_hash

from synthgen import durable
from synthgen.durable import cache_folder
from synthgen.errors import TeacherError, missing_extra
from synthgen.recipe import gguf_in_package
from synthgen.tables.engines import TeacherSection

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def pick_device(name: str) -> torch.device:
    """'auto' is the first accelerator there is, else the CPU. Raises TeacherError for one that is not there.

    Of the processes that `torchrun` or `accelerate launch` starts side by side, each has a GPU of its own."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if (name == "cuda" and not torch.cuda.is_available()) or (name == "mps" and not torch.backends.mps.is_available()):
        raise TeacherError(f"teacher.device is '{name}', and this machine has none", "use device: auto")
    if name != "cuda":
        return torch.device(name)
    return torch.device(name, int(os.environ.get("LOCAL_RANK", 0)) % max(1, torch.cuda.device_count()))


def load_weights(section: TeacherSection, kind: Any = AutoModelForCausalLM, **changes: Any) -> tuple[Any, Any, str]:
    """(model in eval mode, tokenizer, exact revision); `kind` is the transformers class that loads the model, with
    `changes` to its config.

    Raises TeacherError with one line on what is wrong.
    """
    name, more, revision = _place(section)
    model, tokenizer = _from_pretrained(name, getattr(torch, section.dtype), more, kind, changes)
    return model, tokenizer, revision


def load_description(section: TeacherSection) -> tuple[Any, Any, str, Callable[[], Any]]:
    """(a causal language model without weights, tokenizer, exact revision, what loads the same revision with them).

    The first has `config` and `generation_config`, and can do nothing. Raises TeacherError.
    """
    name, more, revision = _place(section)

    def describe() -> tuple[Any, Any]:
        tokenizer = AutoTokenizer.from_pretrained(name, **more)
        with torch.device("meta"):  # of a composite checkpoint it is the text model, as when weights are loaded
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(name, **more))
        with suppress(OSError):  # it has none, and keeps what its config says of generation
            model.generation_config = GenerationConfig.from_pretrained(name, **more)
        return model, tokenizer

    model, tokenizer = _loaded(name, describe)
    _check_template(name, tokenizer)

    def load() -> Any:
        return _from_pretrained(name, getattr(torch, section.dtype), more, AutoModelForCausalLM, {})[0]

    return model, tokenizer, revision, load


def _place(section: TeacherSection) -> tuple[str, dict[str, Any], str]:
    """(what transformers loads, with which arguments, exact revision)."""
    folder, revision = find_weights(section.model)
    if folder is not None:
        return str(folder), {}, revision
    asked = section.revision
    try:
        config = cached_file(section.model, "config.json", revision=asked)
        found = extract_commit_hash(config, None)
    except Exception as error:
        raise _cannot_load(section.model, error) from None
    # What a branch points to may change between two loads: whatever is loaded is this commit.
    return section.model, {"revision": found or asked}, found or asked or "unknown"


def checkpoint_activations(model: Any) -> None:
    """Let the backward pass compute activations again."""
    # transformers has had the first name for a few releases, and will have the second for a few more.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a model that is named like a teacher, or one that lies in a folder of its own.

    Raises TeacherError.
    """
    folder = Path(name) if Path(name).is_dir() else find_weights(name)[0]
    try:
        return AutoTokenizer.from_pretrained(str(folder or name))
    except Exception as error:
        raise TeacherError(
            f"the tokenizer of '{name}' cannot be loaded: {_first_line(error)}", "check the name and the network"
        ) from None


def find_weights(name: str) -> tuple[Path | None, str]:
    """(folder of weights that any engine can read, exact revision) of a folder or GGUF; (None, "") for a hub id.

    Raises TeacherError for a file or folder that is missing or incomplete.
    """
    path = gguf_in_package(name) if name.startswith("package:") else Path(name)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise TeacherError(f"model file '{path}' does not exist", "mend teacher.model in the recipe")
        digest = durable.sha256(path)
        folder = cache_folder() / "gguf" / f"{digest[:32]}-float32"
        if not (folder / "config.json").exists():
            _dequantize(path, folder)
        return folder, f"sha256:{digest}"
    if path.is_dir():
        return path, _folder_revision(path)
    if name.startswith(("/", ".")):
        raise TeacherError(f"model folder '{path}' does not exist", "mend teacher.model in the recipe")
    return None, ""


def is_classifier(section: TeacherSection) -> bool:
    """Whether the model says that it has a classification head. What cannot be read is left to `load_weights`."""
    return any(name.endswith("ForSequenceClassification") for name in _architectures(section))


def is_embedder(section: TeacherSection) -> bool:
    """Whether the model says that it ends with its last hidden states."""
    named = _architectures(section)
    return bool(named) and all(name.endswith("Model") and "Head" not in name for name in named)


def _architectures(section: TeacherSection) -> list[str]:
    if section.model.startswith("package:") or section.model.endswith(".gguf"):
        return []
    try:
        return list(AutoConfig.from_pretrained(section.model, revision=section.revision).architectures or ())
    except Exception:  # it will be said where the weights are loaded
        return []


def tokenizer_hash(tokenizer: Any) -> str:
    """Hash of vocabulary, merges, normalizer and chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    body = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(f"{body}\0{tokenizer.chat_template}".encode()).hexdigest()[:32]


def _dequantize(path: Path, folder: Path) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise missing_extra("gguf", "train")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
        model = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise TeacherError(f"'{path}' cannot be read as GGUF: {_first_line(error)}", "check the file") from None
    # The tensors are plain float32 now; what says otherwise would stop save_pretrained.
    model.hf_quantizer, model.is_quantized = None, False
    for owner, name in ((model.config, "quantization_config"), (model, "quantization_method")):
        if hasattr(owner, name):
            delattr(owner, name)
    temporary = folder.with_name(f"{durable.TEMPORARY}{folder.name}-{os.getpid()}")
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        if not folder.exists():  # another process may have been first; both made the same bytes
            durable.publish(temporary, folder)
    finally:
        durable.remove(temporary)


def _folder_revision(path: Path) -> str:
    """Hash of configuration and weights. Raises TeacherError for a folder that is not a whole model."""
    if not (path / "config.json").is_file():
        raise TeacherError(f"'{path}' is not a model folder (no config.json)", "mend teacher.model in the recipe")
    if not any((path / name).is_file() for name in _TOKENIZER_FILES):
        raise TeacherError(
            f"model folder '{path}' has no tokenizer",
            "copy the tokenizer's files (tokenizer.json, …) beside the weights",
        )
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        raise TeacherError(f"model folder '{path}' has no .safetensors weights", "convert them; pickles are not loaded")
    hasher = hashlib.sha256()
    for file in [path / "config.json", *weights]:
        hasher.update(f"{file.name}\0{durable.sha256(file)}\0".encode())
    return f"sha256:{hasher.hexdigest()}"


def _from_pretrained(
    name: str, dtype: torch.dtype, more: dict[str, Any], kind: Any, changes: dict[str, Any]
) -> tuple[Any, Any]:
    def load() -> tuple[Any, Any]:
        tokenizer = AutoTokenizer.from_pretrained(name, **more)
        return kind.from_pretrained(name, dtype=dtype, use_safetensors=True, **more, **changes), tokenizer

    model, tokenizer = _loaded(name, load)
    if kind is AutoModelForCausalLM:
        _check_template(name, tokenizer)
    return model.eval(), tokenizer


def _loaded(name: str, load: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
    try:
        return load()
    except Exception as error:  # the hub client, safetensors and tokenizers each raise their own kinds
        raise _cannot_load(name, error) from None


def _cannot_load(name: str, error: Exception) -> TeacherError:
    return TeacherError(
        f"model '{name}' cannot be loaded: {_first_line(error)}",
        "check the name and the network; a local folder or GGUF file works offline",
    )


def _check_template(name: str, tokenizer: Any) -> None:
    if tokenizer.chat_template is None:
        raise TeacherError(f"the tokenizer of '{name}' has no chat template", "use an instruction-tuned model")


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
