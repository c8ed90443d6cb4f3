"""Near duplicates with semhash: python near_semhash.py IN.parquet OUT.parquet. semhash compares sentence vectors. Its
usual model is on a hub, so this program gives it a model of the same form and size (model2vec, 256 numbers for each
word) with random vectors. The measured time is valid for the usual model, but the kept rows are not those of the usual
model.
"""

import re
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from model2vec import StaticModel
from semhash import SemHash
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

table = pq.read_table(sys.argv[1])
texts = table["text"].to_pylist()
vocabulary = {"[UNK]": 0}
for text in texts:
    for word in re.findall(r"\w+|[^\w\s]+", text.lower()):
        vocabulary.setdefault(word, len(vocabulary))
tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
tokenizer.normalizer = normalizers.Lowercase()
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
vectors = np.random.default_rng(0).normal(size=(len(vocabulary), 256)).astype(np.float32)
records = [{"id": number, "text": text} for number, text in zip(table["id"].to_pylist(), texts, strict=True)]
index = SemHash.from_records(records, columns=["text"], model=StaticModel(vectors, tokenizer))
kept = index.self_deduplicate().selected
pq.write_table(pa.table({"id": sorted(row["id"] for row in kept)}), sys.argv[2])
