"""For every strategy, measures how many rows are kept and how new they are, with the demo's teacher. Compares both
figures with those of plain resampling.

    python benchmarks/strategies.py                         all shipped recipes
    python benchmarks/strategies.py --data FOLDER           also public sets: self-instruct, gsm8k, palm-rationales
    python benchmarks/strategies.py --only vote evolve --rows 3 [--limit 2]
    python benchmarks/strategies.py --only consensus disagreement --second FOLDER    with a local second teacher

The columns are:

- yield: the share of requested rows that curation kept. A failure counts as a row that was not kept.
- new 4-grams: the share of word 4-grams in kept rows (question and completion) that occur neither in a seed nor in an
  earlier row.
- new question: the share of kept rows whose question is new. A question is new if its ROUGE-L with the questions of all
  seeds and all earlier rows is below 0.7, as in the filter of Self-Instruct (Wang et al., 2022, section 2.1).
- plain (two columns): the figure of the column to its left, for plain resampling.

Plain resampling is the same recipe with strategy `answer`, or with strategy `rationale` if the recipe has an answer
marker. The same teacher answers the questions of the seeds and no new questions, and the number of rows is about the
same. There is no plain resampling if seeds are not questions (personas, magpie, extract).
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

import synthgen
from synthgen import corpus
from synthgen.errors import TeacherError
from synthgen.prompts import load_prompt
from synthgen.recipe import Recipe, load_recipe, shipped
from synthgen.records import Record
from synthgen.seeds import load_seeds

# These recipes are left out, because they train students.
STUDENTS = ("reasoning", "classify", "instruct", "healthcare", "legal", "finance", "customer_support")
NO_QUESTION = ("personas", "magpie", "extract")
SIMILAR = 0.7


def main() -> None:
    """Prints the table and, with --rows, some kept rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--second", help="a model's folder: the second teacher of recipes with two teachers")
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--rows", type=int, default=0, help="how many kept rows of each recipe to print")
    parser.add_argument("--limit", type=int, help="how many seeds of each recipe to use; default: all")
    options = parser.parse_args()
    print(f"{'recipe':18} {'made':>5} {'failed':>6} {'kept':>5} {'yield':>6} {'new 4-grams':>12} {'plain':>6} "
          f"{'new question':>12} {'plain':>6} {'seconds':>8}  reasons of rows not kept")  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        for name, path in recipes(options.data, Path(scratch)).items():
            if not options.only or name in options.only:
                try:
                    keys = [] if options.limit is None else [f"seeds.0.limit={options.limit}"]
                    line(name, with_second(load_recipe(path, keys), options.second), Path(scratch) / name, options.rows)
                except TeacherError as error:
                    print(f"{name:18} is skipped: {error.message}", flush=True)


def recipes(data: Path | None, scratch: Path) -> dict[str, Any]:
    """The path of each recipe by its name: the shipped recipes except those in STUDENTS. With `data`, three tasks on
    public data sets are added.
    """
    paths: dict[str, Any] = {
        path.parent.name: path
        for path in sorted(shipped("prompts").glob("*/recipe.yaml"))
        if path.parent.name not in STUDENTS
    }
    if data:
        paths["self_instruct 175"] = public(scratch, "self_instruct", self_instruct(data), {"num_generations": 1})
        paths["gsm8k"] = public(scratch, "reasoning", gsm8k(data), {"max_new_tokens": 128})
        paths["commonsense_qa"] = public(scratch, "reasoning", commonsense(data), {})
    return paths


def with_second(recipe: Recipe, model: str | None) -> Recipe:
    """Returns the recipe. If the recipe has two teachers and `model` is given, `model` replaces the second teacher's
    model.
    """
    if model is None or len(recipe.teachers) != 2:
        return recipe
    first, second = recipe.teachers.items()
    other = second[1].model_copy(update={"model": str(Path(model).resolve())})
    return recipe.model_copy(update={"teachers": {first[0]: first[1], second[0]: other}})


def public(scratch: Path, task: str, rows: Iterable[dict[str, Any]], generate: dict[str, Any]) -> Path:
    """Writes a copy of a shipped recipe with other seeds. Returns the path of the copy."""
    values = yaml.safe_load((shipped("prompts") / task / "recipe.yaml").read_text())
    seeds = scratch / f"{task}-{len(list(scratch.iterdir()))}"
    seeds.mkdir()
    rows = list(rows)
    (seeds / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = {"path": "seeds.jsonl", "source": "a public set", "license": "unknown", "id": "id"}
    values["seeds"] = [{**entry, **({"reference": "answer"} if "answer" in rows[0] else {})}]
    values["prompts"] = str(shipped("prompts") / task)
    values["generate"] |= generate
    values.pop("train", None)
    (seeds / "recipe.yaml").write_text(yaml.safe_dump(values))
    return seeds / "recipe.yaml"


def self_instruct(data: Path) -> Iterable[dict[str, Any]]:
    """The 175 seed tasks of Self-Instruct. Instruction and input are joined to one question."""
    for text in (data / "self-instruct/seed_tasks.jsonl").read_text().splitlines():
        row = json.loads(text)
        task_input = row["instances"][0]["input"]
        yield {"id": row["id"], "question": row["instruction"] + (f"\n{task_input}" if task_input else "")}


def gsm8k(data: Path, count: int = 64) -> Iterable[dict[str, Any]]:
    """The first training questions of GSM8K."""
    for number, text in enumerate((data / "gsm8k/train.jsonl").read_text().splitlines()[:count]):
        row = json.loads(text)
        yield {"id": f"gsm8k-{number}", "question": row["question"], "answer": row["answer"]}


def commonsense(data: Path, count: int = 64) -> Iterable[dict[str, Any]]:
    """The first training questions of CommonsenseQA with their choices."""
    for text in (data / "palm-rationales/commonsense_qa_train.jsonl").read_text().splitlines()[:count]:
        row = json.loads(text)
        choices = ", ".join(row["choices"])
        yield {"id": row["id"], "question": f"{row['question']} Choose one of: {choices}.", "answer": row["answer"]}


def line(name: str, recipe: Recipe, run: Path, show: int) -> None:
    """Runs one recipe, and plain resampling where that is possible. Prints one line of the table."""
    began = time.monotonic()
    kept, rows, failed, why = run_once(recipe, run)
    seconds = time.monotonic() - began
    known = questions(recipe) if recipe.strategy not in NO_QUESTION else []
    fresh, asked = novelty(kept, known)
    plain: tuple[float | None, float | None] = (None, None)
    if known and kept and recipe.strategy != "score":
        plain = novelty(run_once(resampled(recipe, rows), run / "plain")[0], known)
    reasons = ", ".join(f"{reason} {count}" for reason, count in why.most_common(5))
    print(
        f"{name:18} {rows:5} {failed:6} {len(kept):5} {len(kept) / max(1, rows + failed):6.0%} {part(fresh):>12} "
        f"{part(plain[0]):>6} {part(asked):>12} {part(plain[1]):>6} {seconds:8.1f}  {reasons}",
        flush=True,
    )
    for record in kept[:show]:
        print(f"    Q {record.prompt[-1]['content']!r}\n    A {record.text!r}")


def run_once(recipe: Recipe, run: Path) -> tuple[list[Record], int, int, Counter[str]]:
    """Returns (kept rows, number of rows made, number of failures, counts of reasons why rows were not kept)."""
    folder = synthgen.generate(recipe, run).folder
    curated = synthgen.curate(recipe, run).folder
    counts = corpus.manifest(folder)["counts"]
    why: Counter[str] = Counter(corpus.manifest(curated)["rejected_by"])
    for path in folder.glob("failures/*.parquet"):
        why.update(pq.read_table(path, columns=["kind"])["kind"].to_pylist())
    kept = [record for _, records in corpus.records(curated) for record in records]
    return kept, counts["rows"], counts["failures"], why


def resampled(recipe: Recipe, rows: int) -> Recipe:
    """The recipe for plain resampling: the teacher answers the seeds themselves, about `rows` times in all."""
    seeds = len(questions(recipe))
    strategy = "rationale" if recipe.generate.answer_marker else "answer"
    generate = recipe.generate.model_copy(update={"num_generations": max(1, -(-rows // max(1, seeds)))})
    one_teacher = {"teachers": {}, "mixture": {}} if recipe.teachers else {}
    return recipe.model_copy(update={"strategy": strategy, "generate": generate, **one_teacher})


def questions(recipe: Recipe) -> list[str]:
    """The questions of all seeds."""
    prompt = load_prompt(recipe.prompts, recipe.task)
    return [prompt.question(seed.fields) for seed in load_seeds(recipe.seeds, recipe.split, prompt.question)]


def novelty(records: list[Record], known: list[str]) -> tuple[float | None, float | None]:
    """Returns (share of new 4-grams, share of rows with a new question), or (None, None) if there are no rows."""
    if not records:
        return None, None
    seen = {gram for text in known for gram in grams(text)}
    asked = [words(text) for text in known]
    new = every = fresh = 0
    for record in records:
        question = record.prompt[-1]["content"]
        row_grams = grams(f"{question} {record.text}")
        every += len(row_grams)
        new += len(row_grams - seen)
        seen |= row_grams
        question_words = words(question)
        if all(rouge_l(question_words, other) < SIMILAR for other in asked):
            fresh += 1
        asked.append(question_words)
    return new / max(1, every), fresh / len(records)


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return re.findall(r"\w+", text.lower())


def grams(text: str, n: int = 4) -> set[tuple[str, ...]]:
    """The set of n-grams of a text's words."""
    sequence = words(text)
    return {tuple(sequence[i : i + n]) for i in range(len(sequence) - n + 1)}


def rouge_l(a: list[str], b: list[str]) -> float:
    """ROUGE-L (Lin 2004): the F1 of the longest common subsequence.

    An upper bound of the F1 is computed from the number of words that both texts contain. If the bound is below
    SIMILAR, the function returns the bound, because the exact F1 is slow to compute.
    """
    if not a or not b:
        return 0.0
    most = 2 * (Counter(a) & Counter(b)).total() / (len(a) + len(b))
    if most < SIMILAR:
        return most
    row = [0] * (len(b) + 1)
    for x in a:
        last = 0
        for j, y in enumerate(b):
            last, row[j + 1] = row[j + 1], last + 1 if x == y else max(row[j + 1], row[j])
    return 2 * row[-1] / (len(a) + len(b))


def part(value: float | None) -> str:
    """A share as a percentage, or a dash for None."""
    return "–" if value is None else f"{value:.0%}"


if __name__ == "__main__":
    main()
