"""Near duplicates with datasketch: python near_datasketch.py IN.parquet OUT.parquet. A row is kept unless the tool's
index of kept rows (MinHashLSH, 16 bands of 8 hashes) finds a row with an estimated similarity of at least 0.8.
"""

import re
import sys

import pyarrow as pa
import pyarrow.parquet as pq
from datasketch import MinHash, MinHashLSH

table = pq.read_table(sys.argv[1])
index = MinHashLSH(num_perm=128, params=(16, 8))
word = re.compile(r"\w+")
kept, sketches = [], {}
for number, text in zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True):
    words = word.findall(text.lower())
    sketch = MinHash(num_perm=128, seed=42)
    sketch.update_batch([" ".join(words[n : n + 5]).encode() for n in range(max(1, len(words) - 4))])
    candidates = index.query(sketch)
    if any(sketches[other].jaccard(sketch) >= 0.8 for other in candidates):
        continue
    index.insert(number, sketch)
    sketches[number] = sketch
    kept.append(number)
pq.write_table(pa.table({"id": kept}), sys.argv[2])
