"""Measure how fast the audit of privacy searches a corpus. The rows are random words. Some rows have an e-mail address,
and some copy a span of a private text. All shards of the corpus have the same rows.

python benchmarks/privacy_of_corpus.py --rows 1000000

CPU seconds are those of one process. Memory is the largest resident set size of this process up to that point.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from synthgen.privacy.copies import copies
from synthgen.privacy.origins import origins
from synthgen.privacy.seeds import Known
from synthgen.recipe.privacy import PrivacySection
from synthgen.records import Record, schema_with, to_table

WORDS = [f"word{n}" for n in range(5000)]
SHARD = 10_000


def rows(count: int, private: list[str], draw: random.Random) -> Iterator[Record]:
    """Rows with 100 words each. One row in 100 has an e-mail address, and one in 1,000 a span of 60 private words."""
    for number in range(count):
        text = " ".join(draw.choices(WORDS, k=100))
        prompt = " ".join(draw.choices(WORDS, k=30))
        if number % 100 == 0:
            text += f" Write to person{number}@example.org."
        if number % 1000 == 1:
            text += " " + " ".join(draw.choice(private).split()[10:70])
        yield Record(
            id=f"r{number}",
            seed_id=f"s{number}",
            split="train",
            task="t",
            strategy="answer",
            prompt_version="v",
            prompt=[{"role": "user", "content": prompt}],
            completion=[{"role": "assistant", "content": text}],
            teacher="t",
        )


def write(folder: Path, count: int, texts: list[str]) -> None:
    """Write a shard of rows, and copies of it, as the files of a corpus in `folder`."""
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.table({"text": texts}), folder / "private.parquet")
    made = to_table([*rows(min(count, SHARD), texts, random.Random(1))], schema_with(pa.schema([])))
    for shard in range(-(-count // SHARD)):
        pq.write_table(made, folder / "data" / f"train-{shard:05d}.parquet")


def main() -> None:
    """Print a table with a line for each part of the audit."""
    parser = argparse.ArgumentParser(description="Measure the audit of privacy of a corpus.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--private", type=int, default=10_000, help="number of private texts of 100 words")
    options = parser.parse_args()
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=100)) for _ in range(options.private)]
    # The spans that short texts need have different lengths.
    texts += [" ".join(draw.choices(WORDS, k=length)) for length in range(8, 56)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        writer = multiprocessing.get_context("spawn").Process(target=write, args=(folder, options.rows, texts))
        writer.start()
        writer.join()  # a separate process, so that its memory is not counted
        section = PrivacySection(private=(str(folder / "private.parquet"),))
        known = Known(None, "made here")
        print(f"{options.rows:,} rows, {len(texts):,} private texts")
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{memory:.0f} MB before the audit")
        print("| part | CPU seconds | rows a CPU second | memory, MB | found in rows |")
        print("|---|---|---|---|---|")
        for name in ("personal data", "private texts"):
            began = time.process_time()
            if name == "personal data":
                hits = sum(one.rows for one in origins(folder, known, section).groups.values())
            else:
                hits = sum(one.rows for one in copies(folder, known, section))
            seconds = time.process_time() - began
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"| {name} | {seconds:.1f} | {options.rows / seconds:,.0f} | {memory:.0f} | {hits:,} |")


if __name__ == "__main__":
    main()
