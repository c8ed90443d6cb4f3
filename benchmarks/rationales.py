"""Measures the checks `rationale` and `arithmetic` on public solutions that are marked as right or wrong.

    python benchmarks/rationales.py DATA

DATA is a folder with gsm8k/train.jsonl and gsm8k/model_solutions.jsonl (openai/grade-school-math), and with
palm-rationales/commonsense_qa_train.jsonl and palm-rationales/svamp_train.jsonl, whose teachers saw no hint.

The first table counts the solutions whose end contradicts their answer. In the rows "planted", the answers in the
solutions that people wrote are replaced. The new answer is 1, 2, 3, 5 or 10 larger, is two, three or ten times as
large, or is another number of the solution. The second table counts the rationales with a phrase that names a hint or a
given answer. The rationales were written without a hint, so each such phrase is a false alarm. The third table says how
many of the solutions with equations have only right equations. The third table also says how often a right solution has
a higher score than a wrong solution (AUC; ties count one half).
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from synthgen.curation.hints import leak
from synthgen.verify.conclusions import contradiction
from synthgen.verify.equations import equations

NEXT_QUESTION = re.compile(r"\n+Q:?.*", re.DOTALL)
NUMBER = re.compile(r"\d+(?:\.\d+)?")
Pair = tuple[str, str]


def lines(path: Path) -> Iterator[dict[str, object]]:
    """The objects of a JSONL file."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def written(data: Path) -> list[Pair]:
    """The solutions that people wrote, each as (rationale, answer)."""
    found = []
    for row in lines(data / "gsm8k" / "train.jsonl"):
        before, _, answer = str(row["answer"]).rpartition("####")
        found.append((before, answer.strip()))
    return found


def solutions(data: Path, right: bool) -> list[str]:
    """The solutions of models that are marked as right, or as wrong."""
    rows = [value for row in lines(data / "gsm8k" / "model_solutions.jsonl") for value in row.values()]
    return [str(row["solution"]) for row in rows if isinstance(row, dict) and row["is_correct"] is right]


def planted(pairs: list[Pair]) -> dict[str, list[Pair]]:
    """Maps each way of changing answers to the solutions whose answers were changed in this way."""
    draw = random.Random(3)
    found: dict[str, list[Pair]] = {"larger": [], "multiple": [], "another number of the solution": []}
    for rationale, answer in pairs:
        value = float(answer.replace(",", ""))
        others = [float(text) for text in NUMBER.findall(rationale) if abs(float(text) - value) > 1]
        changed = [value + draw.choice([1, 2, 3, 5, 10]), value * draw.choice([2, 3, 10])]
        changed += [draw.choice(others)] if others else []
        for way, other in zip(found, changed, strict=False):
            if other != value:
                found[way].append((rationale, f"{other:g}"))
    return found


def rationales(data: Path) -> dict[str, list[Pair]]:
    """(question, rationale) of rationales that were written without a hint."""
    found = {"GSM8K, written": [(str(r["question"]), str(r["answer"])) for r in lines(data / "gsm8k" / "train.jsonl")]}
    for name in ("commonsense_qa", "svamp"):
        rows = lines(data / "palm-rationales" / f"{name}_train.jsonl")
        found[f"PaLM, {name}"] = [
            (str(row["question"]), NEXT_QUESTION.sub("", str(row["teacher_output"]))) for row in rows
        ]
    return found


def shares(texts: list[str]) -> np.ndarray:
    """The share of right equations of each text that has equations."""
    found = [equations(text) for text in texts]
    return np.array([np.mean([one.right for one in each]) for each in found if each])


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    gold = written(data)
    right, wrong = solutions(data, True), solutions(data, False)
    sets = {"written by people": gold}
    for title, texts in (("by models, right", right), ("by models, wrong", wrong)):
        sets[title] = [(text.rpartition("\n")[0], text.rpartition("\n")[2]) for text in texts]
    print("| solutions | rows | the end contradicts the answer |\n|---|---|---|")
    for title, pairs in (sets | {f"planted: {way}": pairs for way, pairs in planted(gold).items()}).items():
        count = sum(contradiction(*pair) is not None for pair in pairs)
        print(f"| {title} | {len(pairs):,} | {count:,} ({count / len(pairs):.2%}) |")
    print("\n| rationales without a hint | rows | with a phrase |\n|---|---|---|")
    for title, pairs in rationales(data).items():
        count = sum(leak(rationale, question) is not None for question, rationale in pairs)
        print(f"| {title} | {len(pairs):,} | {count} |")
    print("\n| solutions | with equations | all of them right |\n|---|---|---|")
    scores = {"written by people": shares([pair[0] for pair in gold])}
    scores |= {"by models, right": shares(right), "by models, wrong": shares(wrong)}
    for title, found in scores.items():
        print(f"| {title} | {len(found):,} | {(found == 1).mean():.2%} |")
    good, bad = scores["by models, right"][:, None], scores["by models, wrong"]
    print(f"\nAUC {(good > bad).mean() + (good == bad).mean() / 2:.3f}")


if __name__ == "__main__":
    main()
