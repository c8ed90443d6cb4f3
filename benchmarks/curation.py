"""Measures how many rows curation judges in a second and how much memory it needs, and compares both with the figures
of an older version.

    python benchmarks/curation.py                                     20,000 rows; each check; against 199c186
    python benchmarks/curation.py --rows 100000 1000000 --against ""  this version alone, with peak memory
    python benchmarks/curation.py --text rows.jsonl.gz                rows of {"prompt", "completion"} of your own
    python benchmarks/curation.py --rows 100000 1000000 --everything  with near duplicates, languages and so on

Prompts and completions are random combinations of sentences from the project's own texts, drawn with a fixed seed.
Prompts have about 1,000 characters and completions about 150. Of the rows, 20% are copies of other rows, 2% are
refusals, 2% repeat their text and 2% are cut off. Half of the rows have a reference.

In the output, "all checks" measures the whole command with its default checks and the sweep for duplicates: it reads,
judges and writes Parquet in one process. A small corpus is curated first, so that the time to load modules does not
count. `--everything` also switches on the rules for near duplicates, languages, broken text, personal data and
decontamination, and prints the disk space of the curated corpus. The evaluation set for decontamination is the
project's reasoning questions. The line of a check shows the rate of the check's function alone, on rows in memory with
the columns that the check declares. The check `function` is left out, because it runs the user's own code. The line
"default checks" shows the rate of the default checks together on each batch, as curation runs them: a derived column
that several checks read is computed once. The code of the older version is read with `git archive`.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_SHARD = 1024
EVALUATION = ROOT / "data" / "reasoning.jsonl"  # this file is not part of the corpus
OTHERS = {  # settings of the rules that cannot run with defaults
    "language": ["en"],
    "pattern": {"reject": [r"\d{3}-\d{4}"]},
    "decontamination": {"sets": [{"name": "reasoning", "path": str(EVALUATION), "question": "question"}]},
}


def sentences() -> list[str]:
    """Sentences from the project's pages and data, without the evaluation set."""
    texts = [path.read_text(encoding="utf-8") for path in [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"]]
    for path in sorted({*(ROOT / "data").glob("*.jsonl")} - {EVALUATION}):
        texts += [" ".join(map(str, json.loads(line).values())) for line in path.read_text().splitlines()]
    parts = {" ".join(part.split()) for text in texts for part in text.replace("\n\n", ". ").split(". ")}
    return sorted(part for part in parts if 20 < len(part) < 200)


def texts_of(count: int, path: str | None) -> Iterator[tuple[str, str]]:
    """Yields (prompt, completion) for `count` rows."""
    draw = random.Random(7)
    if path:
        data = Path(path).read_bytes()
        lines = (gzip.decompress(data) if path.endswith(".gz") else data).splitlines()
        rows = [json.loads(line) for line in lines]
        for number in range(count):
            row = rows[number % len(rows)]
            fresh = "" if number < len(rows) else f" {number}"  # otherwise curation would reject the row as a copy
            yield row["prompt"] + fresh, row["completion"]
        return
    parts = sentences()
    before: list[tuple[str, str]] = []
    for _ in range(count):
        kind = draw.random()
        if before and kind < 0.2:
            yield before[draw.randrange(len(before))]
            continue
        prompt = ". ".join(draw.choice(parts) for _ in range(11))
        completion = ". ".join(draw.choice(parts) for _ in range(draw.choice((1, 2, 2))))
        if kind < 0.22:
            completion = f"I'm sorry, but I can't help with that. {completion}"
        elif kind < 0.24:
            completion = " ".join([completion] * 4)
        before.append((prompt, completion))
        del before[:-5000]
        yield prompt, completion


def make(folder: Path, count: int, text: str | None) -> None:
    """Writes a generated corpus with the imported version of synthgen, which may be the older version."""
    from synthgen import corpus
    from synthgen.records import Record, to_table

    listed = "list" in str(Record.__dataclass_fields__["reference"].type)
    corpus.claim(folder, {"benchmark": count}, "benchmark")
    draw = random.Random(8)
    rows: list[Record] = []
    names: list[str] = []

    def flush() -> None:
        names.append(f"train-{len(names):05d}")
        corpus.commit(folder, names[-1], {"data": to_table(rows)})
        rows.clear()

    for number, (prompt, completion) in enumerate(texts_of(count, text)):
        answer, right = str(draw.randrange(1000)), draw.random() < 0.8
        reference = answer if right else str(draw.randrange(1000))
        rows.append(
            Record(
                id=f"{number:032x}",
                seed_id=str(number),
                split="train",
                task="benchmark",
                strategy="answer",
                prompt_version="1",
                prompt=[{"role": "user", "content": prompt}],
                completion=[{"role": "assistant", "content": completion}],
                teacher="benchmark",
                answer=f"It is {answer}.",
                reference=([reference] if listed else reference) if number % 2 else None,  # type: ignore[arg-type]
                finish_reason="length" if draw.random() < 0.02 else "stop",
                token_ids=list(range(len(completion) // 4)),
            )
        )
        if len(rows) == _SHARD:
            flush()
    if rows:
        flush()
    facts = {"description": "", "task": "benchmark", "strategy": "answer", "prompt_version": "1", "labels": []}
    facts |= {"teachers": {}, "sources": [], "counts": {"rows": count}}
    corpus.finish(folder, "generated", facts, names)  # type: ignore[arg-type]


def recipe(curate: dict[str, object]) -> object:
    """A recipe with the default checks and the section `curate`, for the imported version of synthgen."""
    from synthgen.recipe import Recipe

    for word in ("license", "licence"):
        source = {"path": "none.jsonl", "source": "benchmark", word: "CC0-1.0"}
        teacher = {"engine": "replay", "path": "none.jsonl", word: "CC0-1.0"}
        try:
            return Recipe.model_validate({"task": "benchmark", "seeds": [source], "teacher": teacher, "curate": curate})
        except ValueError as error:
            problem = error
    raise problem


EVERYTHING = {"near_duplicates": True, "broken_text": True, "personal_data": True} | {
    name: OTHERS[name] for name in ("language", "decontamination")
}


def whole(run: Path, count: int, workers: int, more: bool) -> None:
    """Curates a corpus, and prints the rows for each second of CPU time and the peak memory of the process."""
    import inspect

    import synthgen

    chosen = recipe(EVERYTHING if more else {})
    options = {"workers": workers} if "workers" in inspect.signature(synthgen.curate).parameters else {}
    make(run / "small" / "generated", 100, None)
    synthgen.curate(chosen, run / "small", **options)  # type: ignore[arg-type]  # loads what is loaded once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    began, wall = _cpu(), time.monotonic()
    synthgen.curate(chosen, run, **options)  # type: ignore[arg-type]
    cpu, wall = _cpu() - began, time.monotonic() - wall
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1e3
    print(
        f"  {'everything' if more else 'all checks':<15} {count / cpu:9,.0f} rows a CPU-second "
        f"({cpu:.1f} s CPU, {wall:.1f} s, {workers} worker), "
        f"peak {peak:,.0f} MB ({before:,.0f} MB before), {_megabytes(run / 'generated'):,.0f} MB read, "
        f"{_megabytes(run / 'curated'):,.0f} MB written"
    )


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def each(run: Path) -> None:
    """Prints the rate of the function of each check alone, on at most 20,000 rows in memory."""
    try:
        from synthgen.tables import curation
    except ImportError:
        _each_of_records(run)
        return
    from synthgen import corpus
    from synthgen.curation.columns import Columns, stored
    from synthgen.executor import Services
    from synthgen.recipe import CurateSection
    from synthgen.tables.reference import resolve

    rules = [
        (name, entry, entry.run)
        for name, entry in curation.CHECKS.items()
        if name not in ("function", "confidence", "web_text")
    ]
    rules += [(name, entry, entry.signature) for name, entry in curation.SWEEPS.items()]  # type: ignore[misc]
    values: dict[str, object] = {name: True for name, entry, _ in rules if not entry.on}
    values |= {name: value for name, value in OTHERS.items() if name in values}
    section, services = CurateSection.model_validate(values), Services()
    _together(run)
    for name, entry, function in rules:
        if entry.needs and importlib.util.find_spec(entry.needs) is None:
            print(f"  {name:<15} LEFT OUT, because {entry.needs} is not installed")
            continue
        settings = section.settings(name)
        if settings is None:  # a rule that is off by default, and may need settings
            continue
        batches = [batch for _, batch in corpus.batches(run / "generated", "data", stored(entry.columns))][:10]
        wanted = [batch.append_column("row", _numbers(len(batch))) for batch in batches]
        extra = ("row",) if name in curation.SWEEPS else ()
        began = time.process_time()
        for batch in wanted:
            resolve(function)(Columns(batch).select([*entry.columns, *extra]), settings, services)
        _line(name, sum(map(len, batches)), time.process_time() - began)


def _together(run: Path) -> None:
    """Prints the rate of all default checks together, with and without `answer`. The first pass over the first batch is
    not measured, because it loads modules.
    """
    from synthgen import corpus
    from synthgen.curation.columns import Columns, stored
    from synthgen.executor import Services
    from synthgen.recipe import CurateSection
    from synthgen.tables import curation
    from synthgen.tables.reference import resolve

    section = CurateSection()
    for without in ((), ("answer",)):
        chosen = {name: entry for name, entry in curation.CHECKS.items() if entry.on and name not in without}
        wanted = stored(column for entry in chosen.values() for column in entry.columns)
        first, *others = (batch for _, batch in corpus.batches(run / "generated", "data", wanted))
        measured = others or [first]
        for number, batch in enumerate((first, *measured)):
            if number == 1:
                began = time.process_time()
            columns = Columns(batch)
            for name, entry in chosen.items():
                resolve(entry.run)(columns.select(entry.columns), section.settings(name), Services())
        rows, seconds = sum(map(len, measured)), time.process_time() - began
        print(f"  default checks{' but answer' if without else ''}: {rows / seconds:,.0f} rows a CPU-second together")


def _numbers(count: int) -> object:
    import pyarrow as pa

    return pa.array(range(count), pa.int64())


def _each_of_records(run: Path) -> None:
    """Prints the same rates for an older version, in which the argument of a check is a list of records."""
    from synthgen.curate import CHECKS, dedup

    from synthgen import corpus
    from synthgen.recipe import CurateSection

    section = CurateSection()
    rows = [record for _, shard in corpus.records(run / "generated") for record in shard][:20000]
    for name, check in CHECKS.items():
        began = time.process_time()
        check(rows, section)
        _line(name, len(rows), time.process_time() - began)
    began = time.process_time()
    dedup.duplicates(rows)
    _line("duplicates", len(rows), time.process_time() - began)


def _line(name: str, rows: int, seconds: float) -> None:
    print(f"  {name:<15} {rows / max(seconds, 1e-9):9,.0f} rows a CPU-second")


def child(tree: Path, *command: object) -> None:
    """Runs a part of this program in a new process, which has one thread and imports synthgen from `tree`."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}
    subprocess.run([sys.executable, __file__, *map(str, command)], env=environment, check=True)


def main() -> None:
    """Writes a corpus for each version, and measures both versions."""
    if len(sys.argv) > 1 and sys.argv[1].startswith("_"):
        name, run, *rest = sys.argv[1:]
        if name == "_make":
            make(Path(run) / "generated", int(rest[0]), rest[1] or None)
        elif name == "_whole":
            whole(Path(run), int(rest[0]), int(rest[1]), rest[2] == "True")
        else:
            each(Path(run))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20000])
    parser.add_argument("--text", default="", help="JSONL of {prompt, completion}")
    parser.add_argument("--against", default="199c186", help="commit of an older version, or ''")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--everything", action="store_true", help="switch on more rules; only this version")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        trees = {"this version": ROOT}
        if options.against and not options.everything:
            old = Path(scratch) / "old"
            old.mkdir()
            archive = subprocess.run(["git", "archive", options.against], cwd=ROOT, stdout=subprocess.PIPE, check=True)
            subprocess.run(["tar", "-x", "-C", old], input=archive.stdout, check=True)
            trees[options.against] = old
        for count in options.rows:
            for name, tree in trees.items():
                print(f"{name}, {count:,} rows:", flush=True)
                run = Path(scratch) / f"run-{count}-{name.replace(' ', '-')}"
                child(tree, "_make", run, count, options.text)
                child(tree, "_whole", run, count, options.workers, options.everything)
                if count == options.rows[0] and not options.everything:
                    child(tree, "_each", run)


if __name__ == "__main__":
    main()
