"""Near duplicates with Daft: python near_daft.py IN.parquet OUT.parquet. Daft computes the sketches and finds equal
bands. Daft has no step that verifies pairs, so a row is dropped if an earlier row has a band in common with it.
"""

import sys

import daft
import pyarrow as pa
import pyarrow.parquet as pq
from daft import col
from daft.functions import minhash, regexp_replace
from daft.functions import slice as part_of

BANDS, SIZE = 16, 8
words = regexp_replace(col("text").lower(), r"\W+", " ")
rows = daft.read_parquet(sys.argv[1]).select(col("id"), minhash(words, num_hashes=128, ngram_size=5, seed=42))
rows = rows.select("id", rows.columns[1].alias("sketch")).collect()
dropped: set[int] = set()
for band in range(BANDS):
    key = part_of(col("sketch").cast(daft.DataType.list(daft.DataType.uint32())), band * SIZE, (band + 1) * SIZE).hash()
    keys = rows.select("id", key.alias("key"))
    first = keys.groupby("key").agg(col("id").min().alias("first"))
    twins = keys.join(first, on="key").where(col("id") > col("first"))
    dropped.update(twins.select("id").to_arrow()["id"].to_pylist())
ids = pq.read_table(sys.argv[1], columns=["id"])["id"].to_pylist()
pq.write_table(pa.table({"id": [number for number in ids if number not in dropped]}), sys.argv[2])
