"""Any folder of rows with `prompt` and `completion` as a corpus to train on, with logits or without.

    source = adopt(Path("my-dataset"), recipe, Path("students/mine/corpus"), tokens)

A run or a corpus made here is taken as it is. The rows of another folder (JSONL, CSV, Parquet) are written once as a
curated corpus beside the student, in the teacher's tokens and split like seeds, so they are read like any corpus.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from synthgen import corpus, durable
from synthgen.errors import CorpusError, RecipeError
from synthgen.lm.tokens import Tokens
from synthgen.recipe import Recipe, SeedSource
from synthgen.records import Message, Record, to_table
from synthgen.seeds import SUFFIXES, accepted, mask, read_rows, side

_SHARD = 1024


def is_dataset(path: Path) -> bool:
    """Whether this is a folder (or file) of rows, and no run or corpus. A run without a corpus yet has its recipe."""
    if (path / "recipe.yaml").exists() or not (path.is_file() or any(p.suffix in SUFFIXES for p in path.rglob("*"))):
        return False
    places = (path, path / "curated", path / "generated")
    return not any((place / name).exists() for place in places for name in ("manifest.json", "inputs.json"))


def adopt(path: Path, recipe: Recipe, folder: Path, tokens: Tokens) -> Path:
    """Write a dataset's rows as a curated corpus in `folder`, in these tokens. `prompt` and `completion` are text or
    messages."""
    named = next((s for s in recipe.seeds if s.path and Path(s.path).resolve() == path.resolve()), None)
    source = named or SeedSource(path=str(path.resolve()), license="unknown", source=path.name, fields={})
    inputs = {"dataset": str(path.resolve()), "split": recipe.split.model_dump(mode="json")}
    inputs["tokenizer"] = tokens.hash
    durable.sweep(folder)
    corpus.claim(folder, inputs, "train")
    if (folder / "manifest.json").exists():
        corpus.verify(folder)
        return folder
    found: dict[str, list[Record]] = {}
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    for where, row in read_rows(source):
        record = _record(str(where), row, source, recipe, tokens)
        if record.id in seen:
            counts["copies_left_out"] += 1
            continue
        seen.add(record.id)
        found.setdefault(record.split, []).append(record)
        counts["kept"] += 1
        counts["tokens_kept"] += len(record.token_ids or ())
    if not found:
        raise CorpusError(f"there are no rows in '{path}'", "give a folder of JSONL, CSV or Parquet files")
    names = []
    for part, records in sorted(found.items()):
        for number, begin in enumerate(range(0, len(records), _SHARD)):
            names.append(f"{part}-{number:05d}")
            some = records[begin : begin + _SHARD]
            corpus.commit(folder, names[-1], {"rejected": to_table([]), "data": to_table(some)})
    facts = {
        **{"description": f"Rows of {source.source}", "task": recipe.task, "strategy": "given", "prompt_version": ""},
        **{"labels": [], "teachers": {}, "rejected_by": {}, "thresholds": {}},
        "sources": [{"role": "seed", "source": source.source, "license": source.license}],
        "counts": dict(sorted(counts.items())),
    }
    corpus.finish(folder, "curated", facts, names)
    return folder


def _record(where: str, row: dict[str, Any], source: SeedSource, recipe: Recipe, tokens: Tokens) -> Record:
    prompt, completion = (_messages(where, row, key, role) for key, role in (("prompt", "user"), ("completion", "")))
    text = completion[0].get("content")
    if len(completion) != 1 or not isinstance(text, str) or not text or completion[0].get("tool_calls"):
        raise CorpusError(f"{where}: the completion is not one message of text", "a student learns one answer a row")
    identifier = durable.digest([prompt, completion])[:32]
    split = row.get("split") if row.get("split") in ("train", "validation", "test") else None
    return Record(
        id=identifier,
        seed_id=str(row.get("seed_id") or identifier),
        split=str(split or side(mask(str(prompt[-1].get("content"))), recipe.split)),
        task=recipe.task,
        strategy="given",
        prompt_version="",
        prompt=prompt,
        completion=completion,
        teacher="",
        rationale=_text(row.get("rationale")),
        answer=_text(row.get("answer")),
        reference=accepted(row.get(source.reference or "reference")),
        prompt_token_ids=tokens.render(prompt),
        token_ids=tokens.completion(text),
        sources=[
            {
                "id": source.source,
                "role": "seed",
                "license": source.license,
                "terms_date": None,
                "made_by": None,
                "account": None,
                "tools": [],
            }
        ],
    )


def _messages(where: str, row: dict[str, Any], key: str, role: str) -> list[Message]:
    value = row.get(key)
    if isinstance(value, str) and value:
        return [{"role": role or "assistant", "content": value}]
    if isinstance(value, list) and value and all(isinstance(m, dict) and "role" in m for m in value):
        return [{k: v for k, v in message.items() if v is not None} for message in value]
    has = ", ".join(sorted(row)) or "nothing"
    raise RecipeError(
        f"{where}: no {key} (text, or messages with roles); the row has {has}",
        "rows need `prompt` and `completion`; TRL's and Hugging Face's prompt-completion sets have both",
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
