"""Finds the files of a data set, and the split of each file.

A path is a file, a folder of files, a folder that `datasets.save_to_disk` wrote, or a copy of a dataset repository of
the Hugging Face hub. A folder is read as a whole or not at all. If a file may hold rows and cannot be read, an error is
raised.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

import yaml

from synthgen.errors import RecipeError
from synthgen.files import read_object
from synthgen.seeds import SUFFIXES
from synthgen.seeds.files import is_document, suffixes, walk

KINDS = (*SUFFIXES, ".json", ".arrow")
"""Endings of the names of files that are read. All files except Parquet and Arrow files may be compressed."""

_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}  # words of a file's name that mean a split; the library `datasets` uses the same words
_UNPACKED = (".parquet", ".arrow")
_METADATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
_NAMED = 5  # a message names at most this many files
_AGAIN = "save the data set again, or copy the whole folder"


@dataclass(frozen=True)
class DataFile:
    """A file of rows. `split` is null when neither the file's name nor its folder says which split the rows are in."""

    path: Path
    split: str | None = None


def kind_of(path: Path) -> str:
    """The suffix in KINDS that says how a file is read, or '' for a file that cannot be read."""
    kind, packed = suffixes(path.name)
    return kind if kind in KINDS and not (packed and kind in _UNPACKED) and path.name not in _METADATA else ""


def has_rows(path: Path) -> bool:
    """Whether the path is a file of rows, or a folder that has a file of rows at any depth."""
    return bool(path.is_file() and kind_of(path)) or (path.is_dir() and any(map(kind_of, walk(path))))


def data_files(path: Path, config: str | None = None) -> list[DataFile]:
    """The files of the data set at `path`, in the order in which they are read. `config` is the name of a configuration
    of a hub repository.

    The files keep their splits only if at least one file is in `validation` or `test`. Otherwise every split becomes
    null, because no row would be left for evaluation if all rows were in `train`. Raises RecipeError when a file is
    missing or cannot be read, or when the folder has several configurations and `config` names none of them.
    """
    if path.is_dir():
        files = _in_folder(path, config)
        if not files:
            raise RecipeError(f"there are no rows in folder '{path}'", f"it must hold files of {', '.join(KINDS)}")
        return files if {file.split for file in files} - {None, "train"} else [DataFile(file.path) for file in files]
    if not path.exists():
        raise RecipeError(f"'{path}' does not exist", "give a file or a folder of rows")
    if not path.is_file():
        raise RecipeError(f"'{path}' is not a file or a folder", "give a regular file: it is read more than once")
    if not kind_of(path):
        raise RecipeError(f"'{path}' has an unknown format", f"use one of {', '.join(KINDS)}")
    return [DataFile(path)]


def _in_folder(folder: Path, config: str | None) -> list[DataFile]:
    if (folder / "dataset_dict.json").is_file():
        splits = read_object(folder / "dataset_dict.json", _AGAIN).get("splits")
        if not isinstance(splits, list) or not all(isinstance(split, str) and _is_name(split) for split in splits):
            raise RecipeError(f"{folder}/dataset_dict.json names no splits", _AGAIN)
        files = [DataFile(file, split_of(split)) for split in splits for file in _saved(folder / split)]
        return _all_of(folder, files)
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        return _all_of(folder, [DataFile(file) for file in _saved(folder)])
    configs = _configs(folder)
    if configs:
        chosen = _chosen(folder, configs, config)
        read = {file.path for files in configs.values() for file in files}
        _all_of(folder, [DataFile(file) for file in read])
        return configs[chosen]
    return _by_name(folder, _all_of(folder, [DataFile(file) for file in sorted(walk(folder)) if kind_of(file)]))


def _all_of(folder: Path, files: list[DataFile]) -> list[DataFile]:
    """Return `files`. Raises RecipeError when the folder has a file that is not in `files` but may hold rows, or when a
    file cannot be read.
    """
    read = {file.path for file in files if file.path.is_file()}
    others = [path for path in walk(folder) if path not in read]
    unread = sorted(path for path in others if not (path.is_file() and (is_document(path) or _is_beside(path))))
    if unread:
        names = ", ".join(str(path.relative_to(folder)) for path in unread[:_NAMED])
        more = f" and {len(unread) - _NAMED} more" if len(unread) > _NAMED else ""
        raise RecipeError(
            f"folder '{folder}' has files that are not read: {names}{more}",
            f"move them to another folder, or convert them to one of {', '.join(KINDS)}",
        )
    return files


def _is_beside(path: Path) -> bool:
    """Whether the library `datasets` writes a file of this name beside the rows: metadata, or a copy of rows."""
    return path.name in _METADATA or (path.suffix == ".arrow" and path.name.startswith("cache-"))


def _is_name(name: str) -> bool:
    return PurePath(name).name == name and name not in (".", "..")


def _saved(folder: Path) -> list[Path]:
    """The Arrow files of one split, as `datasets.save_to_disk` wrote them."""
    state = read_object(folder / "state.json", _AGAIN)
    entries = state.get("_data_files")
    names = [entry.get("filename") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    if state.get("_indices_data_files") or not all(isinstance(name, str) and _is_name(name) for name in names):
        raise RecipeError(f"{folder}/state.json names files that cannot be read", _AGAIN)
    files = [folder / str(name) for name in names]
    missing = next((file for file in files if not file.is_file()), None)
    if missing or not files:
        raise RecipeError(f"{missing or folder} is missing, and {folder}/state.json names it", _AGAIN)
    return files


def split_of(name: str) -> str | None:
    """The split that a name means, such as `train` for "train-00000-of-00002". Null if the name means no split or
    several.
    """
    parts = re.split(r"[^a-z]+", name.lower())
    meant = {split for split, words in _WORDS.items() if any(word in parts for word in words)}
    return meant.pop() if len(meant) == 1 else None


def _by_name(folder: Path, files: list[DataFile]) -> list[DataFile]:
    """The files with their splits. The split comes from the file's name or, if that means no split, from the nearest
    folder whose name means a split.
    """
    named = []
    for file in files:
        parts = file.path.relative_to(folder).parts
        splits = (split_of(part) for part in reversed(parts))
        named.append(DataFile(file.path, next(filter(None, splits), None)))
    return named


def _configs(folder: Path) -> dict[str, list[DataFile]]:
    """The configurations in the header of README.md and their files. Empty if the header has no configurations."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    header = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    try:
        values = yaml.safe_load(header[1]) if header else None
        configs = values.get("configs") if isinstance(values, dict) else None
        return {
            str(config["config_name"]): list(_files_of(folder, config))
            for config in configs or ()
            if "data_files" in config or "data_dir" in config
        }
    except (yaml.YAMLError, TypeError, KeyError, AttributeError):
        raise RecipeError(
            f"the header of {folder}/README.md has configurations that cannot be read", "correct it, or move it away"
        ) from None


def _files_of(folder: Path, config: dict[str, object]) -> Iterator[DataFile]:
    """The files of one configuration, in the forms that the hub documents."""
    below = folder / _inside(folder, str(config.get("data_dir") or "."))
    entries = config.get("data_files")
    if entries is None:
        files = [DataFile(path) for path in sorted(walk(below)) if kind_of(path)]
        yield from _by_name(below, files)
        return
    if isinstance(entries, dict):
        entries = [{"split": split, "path": path} for split, path in entries.items()]
    for entry in [entries] if isinstance(entries, str) else list(entries):  # type: ignore[call-overload]
        if isinstance(entry, dict):
            paths, split = entry["path"], split_of(str(entry["split"]))
        else:
            paths, split = entry, None
        for pattern in [paths] if isinstance(paths, str) else paths:
            files = [DataFile(path, split) for path in _matches(below, _inside(folder, pattern))]
            if not files:
                raise RecipeError(f"{folder}/README.md names '{pattern}', which is not there", _AGAIN)
            yield from files if split else _by_name(below, files)


def _inside(folder: Path, pattern: str) -> str:
    if "://" in pattern or PurePath(pattern).is_absolute() or ".." in PurePath(pattern).parts:
        raise RecipeError(f"{folder}/README.md names '{pattern}', which is not in this folder", _AGAIN)
    return pattern


def _matches(folder: Path, pattern: str) -> Iterable[Path]:
    exact = folder / pattern
    if exact.is_file():
        return [exact]
    below = walk(exact) if exact.is_dir() else (path for path in folder.glob(pattern) if path.is_file())
    return sorted(path for path in below if kind_of(path))


def _chosen(folder: Path, configs: dict[str, list[DataFile]], config: str | None) -> str:
    names = [config] if config else [name for name in configs if len(configs) == 1 or name == "default"]
    if names and names[0] in configs:
        return names[0]
    some = next((files[0].path.parent for files in configs.values() if files), folder)
    raise RecipeError(
        f"'{folder}' has {f'no configuration {config!r}' if config else 'several configurations'}: "
        f"{', '.join(sorted(configs))}",
        f"name one of them with `config` in the recipe's `seeds`, or give a folder of its files, such as {some}",
    )
