"""Corpora that are made without a teacher, for tests of the stages after generation.

run = corpus_of(tmp_path / "run", [row("nine", 0), row("ten", 1)])      # writes run/generated
recipe = curating(duplicates=False)                                    # a recipe with these keys under `curate`
synthgen.curate(recipe, run)
kept, rejected = parts(run)                                             # records by id
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from synthgen import corpus, durable
from synthgen.recipe import Recipe
from synthgen.records import SPLITS, Record, schema_with, to_table


def row(content: str, number: int = 0, **more: Any) -> Record:
    """A record. Records with different numbers have different questions, unless `prompt` is given."""
    values = {
        "id": f"r{number}",
        "seed_id": f"s{number}",
        "split": "train",
        "task": "t",
        "strategy": "answer",
        "prompt_version": "v",
        "prompt": [{"role": "user", "content": "question"}],
        "completion": [{"role": "assistant", "content": content}],
        "teacher": "t",
        "answer": content,
        "finish_reason": "stop",
        **more,
    }
    return Record(**values)


def corpus_of(run: Path, records: Sequence[Record], size: int = 3, own: pa.Schema | None = None) -> Path:
    """Writes `run`/generated with these records, in shards of `size` rows. Returns `run`."""
    folder = run / "generated"
    corpus.claim(folder, {"test": "corpus"}, "test")
    names = []
    for split in SPLITS:
        rows = [record for record in records if record.split == split]
        for start in range(0, len(rows), size):
            names.append(f"{split}-{start // size:05d}")
            table = to_table(rows[start : start + size], schema_with(own))
            corpus.commit(folder, names[-1], {"data": table})
    corpus.finish(
        folder,
        "generated",
        {
            "description": "made by a test",
            "task": "t",
            "strategy": "answer",
            "prompt_version": "v",
            "labels": [],
            "teachers": {},
            "sources": [{"role": "seed", "source": "tests", "license": "CC0-1.0"}],
            "counts": {"rows": len(records), "tokens": 0, "failures": 0},
        },
        names,
    )
    return run


def list_again(folder: Path) -> None:
    """Writes the manifest of a corpus again for its present files, as if the corpus had been made with these files."""
    found = corpus.manifest(folder)
    paths = [p for p in sorted(folder.glob("**/*.parquet")) if not p.name.startswith(".")]
    entries = {
        p.relative_to(folder).as_posix(): {
            "rows": pq.read_metadata(p).num_rows,
            "bytes": p.stat().st_size,
            "sha256": durable.sha256(p),
        }
        for p in paths
    }
    durable.write_json(folder / "manifest.json", {**found, "files": entries})


def curating(**rules: Any) -> Recipe:
    """A recipe with these keys under `curate`. Its teacher would replay a missing file, so the teacher cannot generate
    anything.
    """
    source = {"path": "none.jsonl", "source": "tests", "license": "CC0-1.0"}
    teacher = {"engine": "replay", "path": "none.jsonl", "license": "CC0-1.0"}
    return Recipe.model_validate({"task": "t", "seeds": [source], "teacher": teacher, "curate": rules})


def parts(run: Path, name: str = "curated") -> tuple[dict[str, Record], dict[str, Record]]:
    """(kept records, rejected records) of the curated corpus `run`/`name` by their ids, in the order of the corpus."""
    folder = run / name
    found = [
        {record.id: record for _, rows in corpus.records(folder, part) for record in rows}
        for part in ("data", "rejected")
    ]
    return found[0], found[1]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its name, except locks."""
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}
