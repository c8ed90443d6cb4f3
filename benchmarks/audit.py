"""Times three parts of the license audit on a large corpus: the audit itself, the search for repairs and for the
smallest sets of sources that fail, and the option `--keep-allowed`.

    python benchmarks/audit.py [--rows 1000000] [--size 10000] [--workers 2]

The corpus is made first. A row has a prompt and a completion of about 400 characters together, and eight sources: a
seed, a template, two examples, a generator, a rewriter, a judge and the model that computed the row's distributions.
The sources are drawn with a fixed seed from 12 data sets, 10 models and 3 accounts. The licenses of these sources
allow, contest or forbid commercial use, are unknown, or contradict each other (BY-SA and BY-NC-SA; Gemma and the GPL).
Each example has its own id. Then each task runs in a separate process:

- CPU s: user and system time of the process and of the workers that it started. s: the time from its start to its end.
- MB: the peak resident memory of the largest of these processes (VmHWM). The operating system's figure for an ended
  process is not used, because it includes the memory of the process that made the corpus.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from synthgen import corpus
from synthgen.recipe import Recipe
from synthgen.records import SCHEMA, Record, to_table

TEMPLATES = 5000  # rows that are made one by one; all other rows are copies of these rows with other ids and examples
DATA = ("CC0-1.0", "MIT", "CC-BY-4.0", "cc-by-sa-4.0", "cc-by-nc-sa-4.0", "odbl", "CC-BY-NC-4.0", "unknown")
DATA += ("Apache-2.0", "gpl-3.0", "CDLA-Permissive-2.0", "CC-BY-ND-4.0")
MODELS = ("Apache-2.0", "MIT", "llama-3.1", "gemma", "openai", "anthropic", "mistral", "deepseek-api", "qwen-2024", "x")
ALLOWED = {"CC0-1.0", "MIT", "CC-BY-4.0", "Apache-2.0", "deepseek-api", "mistral"}
WORDS = "the audit of a corpus says which rows may go and why each of the others stays".split()  # noqa: SIM905
INTENT = {"use": "commercial", "competes": "no", "monthly_users": 1000, "yearly_revenue_usd": 1e5, "regions": ["US"]}
TASKS = ("audit", "audit and --keep-allowed")


def source(name: str, role: str, license: str, **more: object) -> dict[str, object]:
    """An entry of the column `sources`."""
    nothing = {"terms_date": None, "made_by": None, "account": None, "tools": []}
    return {"id": name, "role": role, "license": license, **nothing, **more}


def drawn(draw: random.Random) -> list[dict[str, object]]:
    """The sources of one row. Half of the rows have only sources that may be used for most purposes."""
    free = draw.random() < 0.5
    data = [n for n, license in enumerate(DATA) if not free or license in ALLOWED]
    models = [n for n, license in enumerate(MODELS) if not free or license in ALLOWED]

    def of_data(role: str, end: str = "") -> dict[str, object]:
        number = draw.choice(data)
        return source(f"org/questions-{number}{end}", role, DATA[number])

    def of_model(role: str) -> dict[str, object]:
        number = draw.choice(models)
        account = draw.choice(["ours", "third_party", None]) if not free else "ours"
        return source(f"org/model-{number}", role, MODELS[number], account=account)

    examples = [of_data("few_shot", f"#{draw.randrange(10**6)}") for _ in range(2)]
    models_of = [of_model(role) for role in ("generator", "rewriter", "judge", "logits")]
    return [of_data("seed"), source("t@1", "template", "CC0-1.0"), *examples, *models_of]


def make(folder: Path, rows: int, size: int) -> None:
    """Write a generated corpus of `rows` rows in shards of `size` rows."""
    draw = random.Random(1)
    text = " ".join(draw.choices(WORDS, k=2_000_000))
    records = [
        Record(
            id="",
            seed_id=f"s{n}",
            split="train",
            task="t",
            strategy="answer",
            prompt_version="t@1",
            prompt=[{"role": "user", "content": "?"}],
            completion=[],
            teacher="m",
            finish_reason="stop",
            sources=drawn(draw),  # type: ignore[arg-type]
        )
        for n in range(TEMPLATES)
    ]
    templates = to_table(records)
    corpus.claim(folder, {"benchmark": "audit"}, "benchmark")
    chosen, names = np.random.default_rng(1), []
    for start in range(0, rows, size):
        count = min(size, rows - start)
        table = templates.take(pa.array(chosen.integers(0, TEMPLATES, count)))
        table = table.set_column(0, SCHEMA.field(0), pa.array([f"r{start + n}" for n in range(count)]))
        for name, role, length in (("prompt", "user", 100), ("completion", "assistant", 300)):
            places = chosen.integers(0, len(text) - length, count).tolist()
            messages = [[{"role": role, "content": text[place : place + length]}] for place in places]
            column = SCHEMA.get_field_index(name)
            table = table.set_column(column, SCHEMA.field(name), pa.array(messages, SCHEMA.field(name).type))
        names.append(f"train-{start // size:05d}")
        corpus.commit(folder, names[-1], {"data": table})
    facts = {"description": "", "task": "t", "strategy": "answer", "prompt_version": "t@1", "labels": []}
    sources = [{"role": "seed", "source": "benchmark", "license": "CC0-1.0"}]
    counted = {"counts": {"rows": rows}, "teachers": {}, "sources": sources}
    corpus.finish(folder, "generated", {**facts, **counted}, names)  # type: ignore[typeddict-item]


def work(task: str, run: Path, workers: int) -> None:
    """Do one task, in this process."""
    from distill.cost import peak_rss
    from synthgen import audit, keep_allowed

    recipe = Recipe.model_validate(
        {"task": "t", "seeds": [{"path": "x", "source": "x", "license": "MIT"}], "audit": INTENT}
    )
    report = audit(recipe, run)
    blame = report.audits["license"].figures["blame"]
    found = f"{report.status}; {len(blame)} sets blamed; rows {dict(report.rows)}"
    if task != TASKS[0]:
        done = keep_allowed(recipe, run, run.parent / "allowed", workers=workers)
        found = f"{done.kept:,} rows kept; {done.report.status}"
    workers_peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(json.dumps({"found": found, "peak": max(peak_rss(), workers_peak)}), file=sys.stderr)


def measured(arguments: list[str]) -> tuple[float, float, float, str]:
    """Runs this program in a new process. Returns its CPU seconds, seconds and peak MB, and the text that it found."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, __file__, *arguments], stderr=subprocess.PIPE, text=True)
    assert process.stderr
    printed = process.stderr.read().strip()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(printed)
    result = json.loads(printed.splitlines()[-1])
    seconds = time.monotonic() - began
    return used.ru_utime + used.ru_stime, seconds, result["peak"] / 2**20, result["found"]


def main() -> None:
    """Make the corpus and run each task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=10_000, help="rows of a shard")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        work(given.task, given.run, given.workers)
        return
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        make(run / "generated", given.rows, given.size)
        size = sum(path.stat().st_size for path in run.rglob("*.parquet")) / 2**20
        print(f"{given.rows:,} rows in shards of {given.size:,}, {size:,.0f} MB, {os.cpu_count()} cores")
        print("| task | CPU s | s | MB | result |\n|---|---|---|---|---|")
        for task in TASKS:
            cpu, seconds, memory, printed = measured(
                ["--task", task, "--run", str(run), "--workers", str(given.workers)]
            )
            print(f"| {task} | {cpu:.1f} | {seconds:.1f} | {memory:.0f} | {printed} |", flush=True)


if __name__ == "__main__":
    main()
