"""Measures how many planted test questions the check `decontamination` finds, and how many other rows it rejects. With
`--twins`, also measures the sweep `split_twins` on a data set.

    python benchmarks/decontamination.py FOLDER        FOLDER holds GSM8K: train.jsonl and model_solutions.jsonl
    python benchmarks/decontamination.py FOLDER --twins t0.jsonl.gz

The evaluation set is the 1,319 test questions of GSM8K with their worked solutions (`model_solutions.jsonl`). Each test
question is planted once for each kind of edit, as the prompt of a row whose completion is the solution of some row of
`train.jsonl`. Edits are drawn with a fixed seed:

    verbatim      the question as it is
    case          all letters in upper case
    punctuation   without punctuation, and with line feeds for some spaces
    prefix        an instruction before the question
    one word      another word for one word that is not a number
    light         one word, punctuation and prefix together
    in answer     the question as a part of the completion, under another prompt
    solution      the worked solution as the completion, under another prompt
    paraphrase    other names, other words for common words, and the last sentence first

The untouched rows are the 7,473 rows of `train.jsonl`. `--show` prints the rejected rows, each with the matched
question, so that a person can judge whether the row is a real leak. To measure the speed, the check's function judges
the rows of `train.jsonl` in memory five times, in one process with one thread. The fastest pass counts. The time to
make the index does not count.

`--twins` curates a data set with `split_twins`. Before and after curation, the option `--twins` counts the rows of
`test` whose prompt has a Jaccard similarity of at least 0.8 with a prompt of `train`. The count shares no code with the
sweep: it represents each row as a set of sequences of five words, and compares every pair of rows that have such a
sequence in common.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

import synthgen
from synthgen import corpus
from synthgen.curation.decontamination import decontamination
from synthgen.curation.verdicts import Rejection
from synthgen.datasets import source_of
from synthgen.executor import Services
from synthgen.pipeline import recipe_of_rows
from synthgen.records import Record, to_table
from synthgen.tables.curation_settings import Decontamination

PREFIX = "Solve the following problem. Think step by step and give the final number at the end.\n\n"
OTHER_WORDS = {
    "how many": "what number of",
    "how much": "what amount of",
    "buys": "purchases",
    "bought": "purchased",
    "gives": "hands",
    "gave": "handed",
    "each": "every",
    "has": "owns",
    "had": "owned",
    "total": "overall",
    "then": "afterwards",
    "makes": "produces",
    "made": "produced",
    "wants to": "would like to",
    "needs": "requires",
    "costs": "is priced at",
    "if": "supposing",
    "more": "additional",
    "per": "for every",
    "also": "in addition",
}
NAMES = ["Amara", "Bogdan", "Chiara", "Dmitri", "Eszter", "Farid", "Greta", "Hiroshi"]


def one_word(text: str, draw: random.Random) -> str:
    """The text in which one word without digits is replaced by another word."""
    words = text.split(" ")
    places = [place for place, word in enumerate(words) if word.isalpha()]
    words[draw.choice(places)] = draw.choice(["gadget", "purple", "slowly", "harbor"])
    return " ".join(words)


def without_punctuation(text: str, draw: random.Random) -> str:
    """The text without punctuation, except inside numbers, and with line feeds in place of some spaces."""
    text = re.sub(r"(?<!\d)[^\w\s$%]|[^\w\s$%](?!\d)", " ", text)
    return "".join(draw.choice("    \n") if letter == " " else letter for letter in text)


def paraphrase(text: str, draw: random.Random) -> str:
    """The text with its last sentence moved to the beginning, and with names and common words replaced by other names
    and words.
    """
    names = {name: draw.choice(NAMES) for name in sorted({*re.findall(r"(?<=[a-z,] )[A-Z][a-z]+", text)})}
    for old, new in names.items():
        text = re.sub(rf"\b{old}\b", new, text)
    for old, new in OTHER_WORDS.items():
        text = re.sub(rf"\b{old}\b", new, text, flags=re.IGNORECASE)
    sentences = re.split(r"(?<=[.?!]) ", text)
    return " ".join([sentences[-1], *sentences[:-1]])


Edit = Callable[[str, random.Random], str]
EDITS: dict[str, Edit] = {
    "verbatim": lambda text, draw: text,
    "case": lambda text, draw: text.upper(),
    "punctuation": without_punctuation,
    "prefix": lambda text, draw: PREFIX + text,
    "one word": one_word,
    "light": lambda text, draw: PREFIX + without_punctuation(one_word(text, draw), draw),
    "paraphrase": paraphrase,
}


def row(number: int, prompt: str, completion: str) -> Record:
    """A row of the split `train`."""
    return Record(
        id=f"r{number}",
        seed_id=f"r{number}",
        split="train",
        task="benchmark",
        strategy=None,
        prompt_version=None,
        prompt=[{"role": "user", "content": prompt}],
        completion=[{"role": "assistant", "content": completion}],
        teacher=None,
    )


def rejected(rows: list[Record], section: Decontamination) -> dict[int, Rejection]:
    """The rows that the check rejects, by their index."""
    found: dict[int, Rejection] = {}
    for start, batch in batches(rows):
        verdicts = decontamination(batch, section, Services())
        found |= {start + place: rejection for place, rejection in verdicts.rejected.items()}
    return found


def batches(rows: list[Record]) -> list[tuple[int, pa.RecordBatch]]:
    """The rows in batches of 1,024, each with the index of its first row."""
    table = to_table(rows).select(["prompt", "completion", "split"])
    slices = [(start, table.slice(start, 1024).combine_chunks()) for start in range(0, len(rows), 1024)]
    return [(start, batch) for start, part in slices for batch in part.to_batches()]


def planted(tests: list[dict[str, str]], trains: list[dict[str, str]]) -> dict[str, list[Record]]:
    """The rows with a planted question or solution, for each kind of edit."""
    draw = random.Random(7)
    others = [draw.choice(trains) for _ in tests]
    both = list(enumerate(zip(tests, others, strict=True)))
    rows = {
        kind: [row(n, edit(test["question"], draw), other["answer"]) for n, (test, other) in both]
        for kind, edit in EDITS.items()
    }
    task = "Write a word problem for the fourth grade."
    rows["in answer"] = [row(n, task, f"Here is one: {test['question']}") for n, (test, _) in both]
    rows["solution"] = [row(n, other["question"], test["answer"]) for n, (test, other) in both]
    return rows


def measure(tests: list[dict[str, str]], trains: list[dict[str, str]], section: Decontamination, show: bool) -> None:
    """Print recall, precision and speed for one setting."""
    print(f"n-grams of {section.ngram} words, min_share {section.min_share:g}")
    right: dict[str, int] = {}
    for kind, rows in planted(tests, trains).items():
        found = rejected(rows, section)
        right[kind] = sum(rejection.matched_id == str(place) for place, rejection in found.items())
        others = len(found) - right[kind]
        print(f"  {kind:<12} {right[kind]:5,} of {len(rows):,} ({right[kind] / len(rows):.3f}), {others} named wrongly")
    untouched = [row(number, one["question"], one["answer"]) for number, one in enumerate(trains)]
    found = rejected(untouched, section)
    precision = right["light"] / (right["light"] + len(found))
    print(
        f"  {'untouched':<12} {len(found):5,} of {len(untouched):,} rejected; with 'light', precision {precision:.4f}"
    )
    for place, rejection in found.items() if show else ():
        print(f"    {rejection.reason}\n      train: {trains[place]['question']}")
        print(f"      test:  {tests[int(rejection.matched_id or 0)]['question']}")
    ready = batches(untouched)
    seconds = min(seconds_of(ready, section) for _ in range(5))
    letters = sum(len(one["question"]) + len(one["answer"]) for one in trains)
    print(f"  {len(untouched) / seconds:,.0f} rows a CPU-second, {letters / seconds / 1e6:,.1f} million characters")


def seconds_of(ready: list[tuple[int, pa.RecordBatch]], section: Decontamination) -> float:
    """The CPU seconds of one pass over batches."""
    began = time.process_time()
    for _, batch in ready:
        decontamination(batch, section, Services())
    return time.process_time() - began


def with_twins(folder: Path) -> tuple[int, int, int]:
    """Count rows of a corpus. Returns (rows of `train`, rows of `test`, rows of `test` with a twin in `train`)."""
    sets = {
        split: [
            five_words("\n".join(message.get("content") or "" for message in record.prompt))
            for _, records in corpus.records(folder, "data", split)
            for record in records
        ]
        for split in ("train", "test")
    }
    where: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, found in enumerate(sets["train"]):
        for sequence in found:
            where[sequence].append(number)
    twins = 0
    for found in sets["test"]:
        common = Counter(number for sequence in found for number in where.get(sequence, ()))
        sizes = ((count, len(found) + len(sets["train"][number]) - count) for number, count in common.items())
        twins += any(count / together >= 0.8 for count, together in sizes)
    return len(sets["train"]), len(sets["test"]), twins


def five_words(text: str) -> set[tuple[str, ...]]:
    """The sequences of five words of a text."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + 5]) for at in range(max(len(words) - 4, 1))} if words else set()


def measure_twins(path: Path) -> None:
    """Print the twins of a data set's test rows before and after curation."""
    with tempfile.TemporaryDirectory() as scratch:
        source, run = source_of(path), Path(scratch) / "run"
        recipe = recipe_of_rows(source, ["curate.split_twins=true", "curate.length=false"])
        done = synthgen.curate_dataset(source, run, recipe, workers=1)
        print(f"{path.name}: rejected by {done.rejected_by}")
        for stage in ("generated", "curated"):
            train, test, twins = with_twins(run / stage)
            print(f"  {stage:<10} train {train:,}, test {test:,}, with a twin in train {twins:,} ({twins / test:.1%})")


def main() -> None:
    """Measure the check on the data in a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with train.jsonl and model_solutions.jsonl of GSM8K")
    parser.add_argument(
        "--min-share", type=float, nargs="+", default=[Decontamination.model_fields["min_share"].default]
    )
    parser.add_argument("--show", action="store_true", help="print the untouched rows that are rejected")
    parser.add_argument("--twins", type=Path, help="a data set for the sweep split_twins")
    options = parser.parse_args()
    trains = [json.loads(line) for line in (options.folder / "train.jsonl").read_text().splitlines()]
    lines = (options.folder / "model_solutions.jsonl").read_text().splitlines()
    tests = [{"question": one["question"], "answer": one["ground_truth"]} for one in map(json.loads, lines)]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "test.jsonl"
        path.write_text("".join(json.dumps({"id": str(n), **one}) + "\n" for n, one in enumerate(tests)))
        one = {"name": "gsm8k", "path": str(path), "question": "question", "answer": "answer"}
        for ngram in (13, 8):
            for share in options.min_share:
                section = Decontamination.model_validate({"sets": [one], "ngram": ngram, "min_share": share})
                measure(tests, trains, section, options.show)
    if options.twins:
        measure_twins(options.twins)


if __name__ == "__main__":
    main()
