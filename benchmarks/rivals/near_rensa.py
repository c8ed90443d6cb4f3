"""Near duplicates with rensa: python near_rensa.py IN.parquet OUT.parquet. rensa's deduplicator keeps a row unless a
kept row has an estimated similarity of at least 0.8.
"""

import re
import sys

import pyarrow as pa
import pyarrow.parquet as pq
from rensa import RMinHash, RMinHashDeduplicator

table = pq.read_table(sys.argv[1])
deduplicator = RMinHashDeduplicator(0.8, 128, True, 16, 42)
word = re.compile(r"\w+")
kept = []
for start in range(0, len(table), 10_000):
    part = table.slice(start, 10_000)
    sets = []
    for text in part["text"].to_pylist():
        words = word.findall(text.lower())
        sets.append([" ".join(words[n : n + 5]) for n in range(max(1, len(words) - 4))])
    pairs = zip(part["id"].to_pylist(), RMinHash.from_token_sets(sets, 128, 42), strict=True)
    kept += deduplicator.add_pairs([(str(number), sketch) for number, sketch in pairs])
pq.write_table(pa.table({"id": table["id"].filter(pa.array(kept))}), sys.argv[2])
