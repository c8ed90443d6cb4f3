"""Measures the rates of `curate.select` with `by: spread` on one core: rows hashed a second, and the time of a choice.

OMP_NUM_THREADS=1 python benchmarks/selection.py

Each text has 100 words, drawn at random from 5,000 words, because the time does not depend on the words.
"""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa

from synthgen.curation.selection import kernels, spread

ROWS, BATCH, CHOSEN = 100_000, 2048, 500


def main() -> None:
    """Prints both rates."""
    draw = np.random.default_rng(0)
    words = np.array([f"w{number}" for number in range(5000)])
    texts = [" ".join(words[draw.integers(0, len(words), 100)]) for _ in range(BATCH)]
    batch = pa.record_batch({"prompt.said": pa.array(texts), "completion.said": pa.array([""] * BATCH)})
    spread.hashed(batch, "row")  # compiles the functions
    began = time.process_time()
    data = [spread.hashed(batch, "row").buffers()[1] for _ in range(20)]
    print(f"hashed: {20 * BATCH / (time.process_time() - began):,.0f} rows for each second of CPU time")
    vectors = np.frombuffer(b"".join(data), np.int8).reshape(-1, kernels.WIDTH)
    vectors = vectors[draw.integers(0, len(vectors), ROWS)]
    vectors = vectors + draw.integers(-2, 3, vectors.shape).astype(np.int8)
    size, key = np.ones(ROWS, np.int64), draw.integers(0, 1 << 62, ROWS).astype(np.uint64)
    spread.farthest(vectors, size, key, 2)
    began = time.process_time()
    taken, _, _, radius = spread.farthest(vectors, size, key, CHOSEN)
    spent = time.process_time() - began
    print(f"chosen: {spent / CHOSEN * 1000:.1f} ms of CPU time a row, for {taken.sum():,} of {ROWS:,} ({radius:.2f})")


if __name__ == "__main__":
    main()
