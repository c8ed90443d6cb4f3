"""Counts the good rows that the default checks of curation reject.

    python benchmarks/good_rows.py DATA              a table of the rejected rows, by check and set
    python benchmarks/good_rows.py DATA --show 3     also the first three rejected rows of each check and set
    python benchmarks/good_rows.py DATA --all        also the checks that are off by default
    python benchmarks/good_rows.py DATA --web        only the presets of `web_text`, with the completions as plain text
    python benchmarks/good_rows.py DATA --most 20    only the first 20 rows of each set

DATA is a folder with gsm8k/train.jsonl and gsm8k/model_solutions.jsonl (openai/grade-school-math), and with
self-instruct/seed_tasks.jsonl and self-instruct/user_oriented_instructions.jsonl (yizhongw/self-instruct). A missing
file is named in the output and left out. Two more sets need no file: functions of Python's standard library, and tables
in Markdown. The tables are drawn with a fixed seed. A row is good if a person wrote it, or if a model wrote it and its
answer is marked as right. So nearly every rejected row is a mistake of the check.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sysconfig
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

Row = tuple[str, str]
OTHERS = {"truncated": {"from_text": True}, "echo": True, "broken_text": True, "rationale": True, "language": ["en"]}
FUNCTIONS, TABLES = 2000, 500


def lines(path: Path) -> Iterator[dict[str, object]]:
    """The objects of a JSONL file."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def gsm8k(data: Path) -> Iterator[Row]:
    """Questions with the solutions that people wrote."""
    for row in lines(data / "gsm8k" / "train.jsonl"):
        yield str(row["question"]), str(row["answer"])


def right_solutions(data: Path) -> Iterator[Row]:
    """Questions with the models' solutions that are marked as right."""
    for row in lines(data / "gsm8k" / "model_solutions.jsonl"):
        for value in row.values():
            if isinstance(value, dict) and value.get("is_correct"):
                yield str(row["question"]), str(value["solution"])


def written_outputs(data: Path) -> Iterator[Row]:
    """Instructions with the outputs that people wrote."""
    for name in ("seed_tasks.jsonl", "user_oriented_instructions.jsonl"):
        for row in lines(data / "self-instruct" / name):
            for instance in row["instances"]:  # type: ignore[attr-defined]
                yield f"{row['instruction']}\n{instance['input']}", str(instance["output"])


def functions(data: Path) -> Iterator[Row]:
    """Functions of Python's standard library, from the modules that are first in the order of their paths."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    paths = sorted(
        path for path in folder.rglob("*.py") if "site-packages" not in path.parts and "test" not in path.parts
    )
    found = 0
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
            tree = ast.parse(text)
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in tree.body:
            code = ast.get_source_segment(text, node) if isinstance(node, ast.FunctionDef) else None
            if code:
                yield f"Write the function {node.name} of {path.stem}.", code  # type: ignore[attr-defined]
                found += 1
            if found == FUNCTIONS:
                return


def tables(data: Path) -> Iterator[Row]:
    """Tables in Markdown with 3 to 20 rows. Half of the tables have few different values in a column, as real tables
    have.
    """
    draw = random.Random(5)
    words = ["apple", "bread", "Oslo", "red", "north", "12", "3.5", "yes", "no", "2024-05-01", "n/a", "low", "-", "✓"]
    for _ in range(TABLES):
        columns, few = draw.randint(2, 6), draw.random() < 0.5
        choices = draw.sample(words, 4) if few else [*words, *(str(draw.randrange(10_000)) for _ in range(60))]
        head = [f"Column {letter}" for letter in "ABCDEF"[:columns]]
        body = [[f"Item {number}", *draw.choices(choices, k=columns - 1)] for number in range(1, draw.randint(4, 21))]
        table = [head, ["---"] * columns, *body]
        yield "Make a table.", "\n".join(f"| {' | '.join(row)} |" for row in table)


SETS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "GSM8K, written solutions": gsm8k,
    "GSM8K, right solutions of models": right_solutions,
    "self-instruct, written outputs": written_outputs,
    "functions of Python's library": functions,
    "tables in Markdown": tables,
}


def sets(data: Path, most: int | None) -> Iterator[tuple[str, list[Row]]]:
    """Yields each set with its first `most` rows. A set whose file is missing is named in the output and left out."""
    for title, read in SETS.items():
        try:
            yield title, list(islice(read(data), most))
        except FileNotFoundError as error:
            print(f"LEFT OUT: {title}, because there is no file {error.filename}")


def rejected(rows: list[Row], every: bool) -> dict[str, dict[int, str]]:
    """For each check: the rejected rows, with the reason of each. The check `answer` is left out, because the rows have
    no reference.
    """
    from synthgen.curation.columns import Columns
    from synthgen.executor import Services
    from synthgen.recipe import CurateSection
    from synthgen.records import Record, to_table
    from synthgen.tables.curation import CHECKS
    from synthgen.tables.reference import resolve

    records = [
        Record(
            id=f"r{number}",
            seed_id=f"s{number}",
            split="train",
            task="t",
            strategy=None,
            prompt_version="1",
            prompt=[{"role": "user", "content": prompt}],
            completion=[{"role": "assistant", "content": completion}],
            teacher="t",
        )
        for number, (prompt, completion) in enumerate(rows)
    ]
    (batch,) = to_table(records).combine_chunks().to_batches()
    columns, found = Columns(batch), {}
    section = CurateSection.model_validate(OTHERS if every else {})
    for name, entry in CHECKS.items():
        settings = section.settings(name)
        if name == "answer" or settings is None:
            continue
        verdicts = resolve(entry.run)(columns.select(entry.columns), settings, Services())
        found[name] = {row: rejection.reason for row, rejection in verdicts.rejected.items()}
    return found


def web(data: Path, most: int | None) -> None:
    """For each set and each preset of `web_text`, prints the share of completions that the preset rejects."""
    from synthgen.curation.web_text import PRESETS, Page

    print(f"| set | texts | {' | '.join(PRESETS)} |\n|---|---|{'---|' * len(PRESETS)}")
    for title, rows in sets(data, most):
        pages = [Page(completion) for _, completion in rows]
        counts = [sum(any(bound.broken(page) for bound in bounds) for page in pages) for bounds in PRESETS.values()]
        cells = [f"{count / len(pages):.1%}" for count in counts]
        print(f"| {title} | {len(pages):,} | {' | '.join(cells)} |")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--show", type=int, default=0)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--web", action="store_true")
    parser.add_argument("--most", type=int)
    options = parser.parse_args()
    if options.web:
        web(options.data, options.most)
        return
    shown: list[str] = []
    for title, rows in sets(options.data, options.most):
        found = rejected(rows, options.all)
        if not shown:
            print(f"| set | rows | {' | '.join(found)} | any |")
            print("|---|" + "---|" * (len(found) + 2))
        together = {row for part in found.values() for row in part}
        cells = [f"{len(part)} ({len(part) / len(rows):.2%})" for part in (*found.values(), together)]
        print(f"| {title} | {len(rows):,} | {' | '.join(cells)} |")
        shown.append(title)
        for name, part in found.items():
            for row, reason in list(part.items())[: options.show]:
                print(f"    {name}: {reason}\n      {rows[row][0][:150]!r}\n      {rows[row][1][:300]!r}")


if __name__ == "__main__":
    main()
