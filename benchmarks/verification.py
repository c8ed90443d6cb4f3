"""Compares the verifier's results with labels of public data sets, and measures the verifier's speed.

    python benchmarks/verification.py DATA

DATA is a folder with these files of public data sets, which are not part of the project:

- gsm8k/model_solutions.jsonl: solutions of GSM8K by four models, each with the label `is_correct`
- palm-rationales/svamp_train.jsonl, palm-rationales/commonsense_qa_train.jsonl: answers of PaLM 540B, each with its
  reference. PaLM continues its answers with invented questions, so each answer is cut at the next question.

A label of SVAMP says whether the expression after "The answer is" has the value of the reference. Python's own parser
computes this value. A label of CommonsenseQA says whether the last sentence names exactly one choice, and whether this
choice is the reference.

Prints for each set the agreement with the labels, every disagreement in full, and the rows for each second of CPU time.
The exit code is 1 if the agreement is below 99.5% or if the cheap rules compare fewer than 20,000 rows a second.
"""

from __future__ import annotations

import argparse
import ast
import json
import operator
import re
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from synthgen.verify import answers, matches, mathematics

AGREEMENT = 0.995
RATE = 20_000
ROUNDS = 5
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
NEXT_QUESTION = re.compile(r"\n+Q:?.*", re.DOTALL)
EXPRESSION = re.compile(r"answer is ([-+*/().\d\s]+?)\.?\s*$")
CHOICES = re.compile(r"\(([a-e])\)")
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


class Row(NamedTuple):
    """An answer, its reference, and whether the label says that the answer is right."""

    answer: str
    reference: str
    right: bool


def gsm8k(data: Path) -> Iterator[Row]:
    """The labeled solutions. The references are worked solutions, as in the file."""
    for row in lines(data / "gsm8k" / "model_solutions.jsonl"):
        for model in MODELS:
            yield Row(row[model]["solution"], row["ground_truth"], row[model]["is_correct"])


def svamp(data: Path) -> Iterator[Row]:
    for row in lines(data / "palm-rationales" / "svamp_train.jsonl"):
        answer = NEXT_QUESTION.sub("", row["teacher_output"])
        said = EXPRESSION.search(answer)
        value = value_of(said[1]) if said else None
        yield Row(answer, row["answer"], value is not None and value == value_of(row["answer"]))


def commonsense_qa(data: Path) -> Iterator[Row]:
    for row in lines(data / "palm-rationales" / "commonsense_qa_train.jsonl"):
        answer = NEXT_QUESTION.sub("", row["teacher_output"])
        named = CHOICES.findall(answer.rpartition("answer is")[2])
        right = len(named) == 1 and row["choices"]["abcde".index(named[0])] == row["answer"]
        yield Row(answer, row["answer"], right)


def lines(path: Path) -> Iterator[dict]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def value_of(expression: str) -> Fraction | None:
    """The exact value of an expression by Python's parser, or None if the text is not an expression, or divides by
    zero.
    """
    try:
        return evaluated(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, KeyError, ZeroDivisionError):
        return None


def evaluated(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -evaluated(node.operand)
    if isinstance(node, ast.BinOp):
        return OPERATORS[type(node.op)](evaluated(node.left), evaluated(node.right))
    raise KeyError(ast.dump(node))


def compared(name: str, rows: list[Row]) -> float:
    """Print one set's disagreements, and return the share of rows that agree."""
    verdicts = [matches(row.answer, row.reference) for row in rows]
    wrong = [(verdict, row) for verdict, row in zip(verdicts, rows, strict=True) if verdict != row.right]
    accepts = sum(verdict for verdict, _ in wrong)
    agreement = 1 - len(wrong) / len(rows)
    print(f"{name}: {len(rows)} rows, {sum(row.right for row in rows)} right by their labels")
    print(f"  agreement {agreement:.2%}; accepted against the label: {accepts}; rejected: {len(wrong) - accepts}")
    for verdict, row in wrong:
        ending = row.answer.strip()[-200:]
        print(f"  {'accepted' if verdict else 'rejected'}: {ending!r}\n    reference {row.reference[-100:]!r}")
    return agreement


def rate(rows: list[Row]) -> float:
    """Rows for each second of CPU time, the fastest of several rounds. Every round parses each reference again."""
    best = 0.0
    for _ in range(ROUNDS):
        answers.read.cache_clear()
        began = time.process_time()
        for row in rows:
            matches(row.answer, row.reference)
        best = max(best, len(rows) / (time.process_time() - began))
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of the data sets")
    data = parser.parse_args().data
    sets: dict[str, Callable[[Path], Iterator[Row]]] = {"GSM8K": gsm8k, "SVAMP": svamp, "CommonsenseQA": commonsense_qa}
    rows = {name: list(read(data)) for name, read in sets.items()}
    agreed = [compared(name, found) for name, found in rows.items()]
    print(f"rows sent to math-verify: {mathematics.decide.cache_info().currsize}")
    for name, found in rows.items():
        print(f"{name}: {rate(found):,.0f} rows a second on one core")
    overall = rate([row for found in rows.values() for row in found])
    print(f"all: {overall:,.0f} rows a second on one core")
    return int(min(agreed) < AGREEMENT or overall < RATE)


if __name__ == "__main__":
    raise SystemExit(main())
