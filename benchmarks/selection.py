"""Measures the rates of `curate.select` with `by: spread` on one core: rows hashed a second, and the time of a choice.

OMP_NUM_THREADS=1 python benchmarks/selection.py [--rows 100000] [--chosen 500]

Each text has 100 words, drawn at random from 5,000 words, because the time does not depend on the words.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pyarrow as pa

from synthgen.curation.selection import kernels, spread

BATCH = 2048


def main() -> None:
    """Prints both rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="number of rows from which rows are chosen")
    parser.add_argument("--chosen", type=int, default=500, help="number of rows that are chosen")
    options = parser.parse_args()
    draw = np.random.default_rng(0)
    words = np.array([f"w{number}" for number in range(5000)])
    texts = [" ".join(words[draw.integers(0, len(words), 100)]) for _ in range(BATCH)]
    batch = pa.record_batch({"prompt.said": pa.array(texts), "completion.said": pa.array([""] * BATCH)})
    spread.hashed(batch, "row")  # compiles the functions
    began = time.process_time()
    data = [spread.hashed(batch, "row").buffers()[1] for _ in range(20)]
    print(f"hashed: {20 * BATCH / (time.process_time() - began):,.0f} rows for each second of CPU time")
    vectors = np.frombuffer(b"".join(data), np.int8).reshape(-1, kernels.WIDTH)
    vectors = vectors[draw.integers(0, len(vectors), options.rows)]
    vectors = vectors + draw.integers(-2, 3, vectors.shape).astype(np.int8)
    size, key = np.ones(options.rows, np.int64), draw.integers(0, 1 << 62, options.rows).astype(np.uint64)
    spread.farthest(vectors, size, key, 2)
    began = time.process_time()
    taken, _, _, radius = spread.farthest(vectors, size, key, options.chosen)
    spent = time.process_time() - began
    print(
        f"chosen: {spent / options.chosen * 1000:.1f} ms of CPU time a row, "
        f"for {taken.sum():,} of {options.rows:,} ({radius:.2f})"
    )


if __name__ == "__main__":
    main()
