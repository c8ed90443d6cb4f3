"""Small files in the forms of the public data sets that benchmarks read. All texts are made here.

folder = write_public_sets(tmp_path / "data")      # the folders gsm8k, palm-rationales and self-instruct

The file rows.jsonl is a data set of prompts and completions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
PEOPLE = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana")
GOODS = ("pears", "stamps", "candles", "marbles", "tickets", "ribbons", "postcards", "plums")


def write_public_sets(folder: Path) -> Path:
    """Writes the files, with a few rows each, and returns the folder."""
    tests, trains = ([_problem(n) for n in numbers] for numbers in (range(8), range(8, 24)))
    solved = [{"question": q, "ground_truth": f"{why}\nA: {answer}", **_solutions(n)} for n, q, why, answer in tests]
    _write(folder / "gsm8k" / "model_solutions.jsonl", solved)
    _write(folder / "gsm8k" / "train.jsonl", ({"question": q, "answer": f"{w}\n#### {a}"} for _, q, w, a in trains))
    _write(folder / "palm-rationales" / "svamp_train.jsonl", map(_svamp, range(8)))
    _write(folder / "palm-rationales" / "commonsense_qa_train.jsonl", map(_choice, range(8)))
    for name in ("seed_tasks", "user_oriented_instructions"):
        _write(folder / "self-instruct" / f"{name}.jsonl", (_instruction(name, n) for n in range(6)))
    _write(folder / "rows.jsonl", ({"prompt": q, "completion": why} for _, q, why, _ in map(_problem, range(40))))
    return folder


def _write(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _problem(number: int) -> tuple[int, str, str, int]:
    """(number, question, worked solution without its last line, answer)."""
    who, what = PEOPLE[number % 8], GOODS[(number * 3) % 8]
    a, b, c = 10 + number, 2 + number % 5, 3 + number % 7
    question = (
        f"{who} has {a} boxes with {b} {what} in each of them. On the way to market number {number}, "
        f"a friend of {who} adds {c} more {what} that nobody wanted. How many {what} does {who} have now?"
    )
    solution = (
        f"The boxes hold {a} * {b} = <<{a}*{b}={a * b}>>{a * b} {what}.\n"
        f"With those of the friend, {who} has {a * b} + {c} = <<{a * b}+{c}={a * b + c}>>{a * b + c} {what}."
    )
    return number, question, solution, a * b + c


def _solutions(number: int) -> dict[str, object]:
    """The solution of each model. The first two models are right, the others compute a wrong sum."""
    _, _, why, answer = _problem(number)
    right = {"is_correct": True, "solution": f"{why}\nA: {answer}"}
    other = f"{why.replace(str(answer), str(answer + 1))}\nA: {answer + 1}"
    return {model: right if model.startswith("6b") else {"is_correct": False, "solution": other} for model in MODELS}


def _svamp(number: int) -> dict[str, object]:
    """A row in which the model continues with an invented question. Every fourth answer is wrong."""
    whole, part = 24 + 2 * number, 2
    said = f"({whole} / {part})" if number % 4 else f"({whole} * {part})"
    return {
        "id": f"svamp-train-{number}",
        "question": f"{PEOPLE[number]} put {whole} {GOODS[number]} on {part} shelves.\nHow many are on each shelf?",
        "answer": f"( {whole}.0 / {part}.0 )",
        "teacher_output": f"There are {whole} on {part} shelves. The answer is {said}.\n\nQ: What is next?\nA: The",
    }


def _choice(number: int) -> dict[str, object]:
    """A question with five choices. Every fourth answer is wrong."""
    choices, right = ["cellar", "harbor", "orchard", "library", "station"], number % 5
    named = right if number % 4 else (right + 1) % 5
    return {
        "id": f"choice-{number}",
        "question": f"Where does {PEOPLE[number]} look for {GOODS[number]}?",
        "choices": choices,
        "answer": choices[right],
        "teacher_output": f"It must be a place with {GOODS[number]}. So the answer is ({'abcde'[named]}) "
        f"{choices[named]}.\n\nQ: Where next?\nA: The answer",
    }


def _instruction(name: str, number: int) -> dict[str, object]:
    """An instruction with one instance. Every second instance has an input."""
    output = f"{PEOPLE[number]} sells {GOODS[number]} on the first day of each month, and goes home by train."
    shown = f"{PEOPLE[number]} is a merchant who sells {GOODS[number]}." if number % 2 else ""
    task = f"Write one sentence about what {PEOPLE[number]} does with {GOODS[number]}."
    return {"id": f"{name}_{number}", "instruction": task, "instances": [{"input": shown, "output": output}]}
