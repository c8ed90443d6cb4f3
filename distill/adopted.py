"""Turns any dataset that has the columns `prompt` and `completion` into a corpus to train on.

    source = adopt(Path("my-dataset"), recipe, Path("students/mine/corpus"), tokens)

A run or corpus of synthgen does not need this module. The rows of a dataset are written once as a curated corpus in the
student's folder. They are tokenized with the teacher's tokenizer, and assigned to splits in the same way as seeds.
Functions that read a corpus can then read the dataset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from jinja2 import TemplateError

from distill.outputs import ADOPTED
from synthgen import corpus, durable, outputs
from synthgen.datasets import Dataset, is_dataset, open_dataset, records, store
from synthgen.errors import CorpusError, TeacherError
from synthgen.lm.tokens import Tokens
from synthgen.manifest import Facts
from synthgen.recipe import Recipe, SeedSource
from synthgen.records import Record

__all__ = ["adopt", "is_dataset"]


def adopt(path: Path, recipe: Recipe, folder: Path, tokens: Tokens) -> Path:
    """Write a dataset's rows as a curated corpus in `folder`, without duplicate rows. Returns `folder`.

    If an entry of the recipe's `seeds` has the dataset's path, the rows get the license of that entry, otherwise
    "unknown". Raises CorpusError when a completion is not a single text message.
    """
    named = next((s for s in recipe.seeds if s.path and Path(s.path).resolve() == path.resolve()), None)
    source = named or SeedSource(path=str(path.resolve()), license="unknown", source=path.name, fields={})
    inputs = {
        "dataset": str(path.resolve()),
        "split": recipe.split.model_dump(mode="json"),
        "tokenizer": tokens.hash,
    }
    outputs.check(folder, ADOPTED, fresh=False)
    outputs.sweep(folder, ADOPTED)
    corpus.claim(folder, inputs, "train")
    if (folder / "manifest.json").exists():
        corpus.verify(folder)
        return folder
    dataset = open_dataset(source)
    counts: Counter[str] = Counter()
    facts: Facts = {
        "description": f"Rows of {source.source}",
        "task": recipe.task,
        "strategy": "",
        "prompt_version": "",
        "labels": [],
        "teachers": {},
        "sources": [{"role": "dataset", "source": source.source, "license": source.license}],
        "counts": counts,
        "rejected_by": {},
        "thresholds": {},
    }
    store(folder, "curated", _tokenized(dataset, recipe, tokens, counts), dataset.own, facts)
    return folder


def _tokenized(dataset: Dataset, recipe: Recipe, tokens: Tokens, counts: Counter[str]) -> Iterator[Record]:
    """Yield the dataset's records, tokenized with the teacher's tokenizer. Skips a row that equals an earlier row, and
    updates `counts`.
    """
    seen: set[str] = set()
    for where, record in records(dataset, recipe.task, recipe.split):
        key = durable.digest([record.prompt, record.completion])[:32]
        if key in seen:
            counts["copies_left_out"] += 1
            continue
        seen.add(key)
        text = record.completion[0].get("content")
        if len(record.completion) != 1 or not text or record.completion[0].get("tool_calls"):
            raise CorpusError(
                f"{where}: the completion is not one message of text",
                "each row needs a completion of exactly one text message",
            )
        try:
            record.prompt_token_ids = tokens.render(record.prompt)
        except (TeacherError, TemplateError, TypeError, ValueError) as error:  # what the template is not made for
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise CorpusError(
                f"{where}: the chat template of the teacher cannot show the prompt ({first})",
                "correct the row, or use a teacher whose template has such messages",
            ) from None
        record.token_ids = tokens.completion(text)
        counts["kept"] += 1
        counts["tokens_kept"] += len(record.token_ids)
        yield record
