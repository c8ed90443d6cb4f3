"""Cuts token ids and stored distributions where an edit cut the text.

An edit such as `next_turn` often leaves only the beginning of a completion. If this beginning ends where one of the
teacher's tokens ends, the row keeps the ids of its first tokens, and their distributions. Otherwise the row loses its
token ids, because they would spell another text.

The tokenizer of the teacher decides where a token ends. The tokenizer is used only if its hash is the hash that the
corpus states for this teacher.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synthgen import logits
from synthgen.curation.lists import lengths
from synthgen.errors import TeacherError
from synthgen.manifest import Manifest
from synthgen.recipe import Recipe
from synthgen.tables.engines import ENGINES, AnyTeacher
from synthgen.ui import UI

if TYPE_CHECKING:
    from synthgen.lm.tokens import Tokens

_PART = 4  # a decoder shows an incomplete character, one with bytes in several tokens, as at most 4 characters
CUT = b"synthgen.cut"
"""The metadata key of a file of edited columns in which at least one row keeps the beginning of its token ids."""


@dataclass(frozen=True)
class Tokenizer:
    """The name of a teacher's tokenizer, and its hash. `local` is false for the tokenizer of a teacher behind a
    server. `revision` is the revision on the hub.
    """

    name: str
    revision: str | None
    local: bool
    hash: str = ""


def tokenizers(recipe: Recipe, manifest: Manifest, ui: UI) -> dict[str, Tokenizer]:
    """The tokenizers of a corpus's teachers, by the teacher's name. A tokenizer is left out, with a note, if it cannot
    be opened, or if it is not the tokenizer that wrote the corpus.
    """
    hashes = {name: teacher.get("tokenizer") for name, teacher in manifest["teachers"].items()}
    sections = dict(recipe.teachers) or dict.fromkeys(hashes, recipe.teacher)
    found = {}
    for name in hashes:
        named = _named(sections.get(name)) if hashes[name] else None
        if named is None:
            continue
        try:
            own = _opened(named).hash
            why = "" if own == hashes[name] else "the tokenizer of this teacher has changed"
        except (TeacherError, ModuleNotFoundError) as error:
            why = str(error)
        if why:
            ui.note(f"edited rows of teacher '{name}' lose their token ids: {why}")
        else:
            found[name] = Tokenizer(named.name, named.revision, named.local, own)
    return found


def _named(section: AnyTeacher | None) -> Tokenizer | None:
    """The tokenizer that a teacher's section names; None if it names none."""
    if section is None:
        return None
    weights = ENGINES[section.engine].weights
    if weights is not None:
        local = weights(section)
        return Tokenizer(local.model, local.revision, True)
    name = getattr(section, "tokenizer", None)
    return Tokenizer(name, None, False) if name else None


@lru_cache(maxsize=8)
def _opened(tokenizer: Tokenizer) -> Tokens:
    from synthgen.lm.load import load_tokenizer
    from synthgen.lm.tokens import Tokens

    if tokenizer.local:
        return Tokens.open(tokenizer.name, tokenizer.revision, any_template=True)
    return Tokens.of(load_tokenizer(tokenizer.name), None)


def shortened(
    before: pa.RecordBatch, after: pa.RecordBatch, rows: npt.NDArray[np.int64], tokenizers: Mapping[str, Tokenizer]
) -> tuple[pa.Array, int]:
    """Return (the column `token_ids` after all edits, number of rows that keep the beginning of their ids).

    `before` has the columns `completion`, `token_ids` and `teacher` of a batch before all edits, and `after` has
    `completion` and `token_ids` after them. `rows` are the indexes of the rows whose completions an edit changed.
    """
    ids = after["token_ids"]
    rows = rows[(lengths(before["token_ids"])[rows] > 0) & ids.is_null().to_numpy(zero_copy_only=False)[rows]]
    if not len(rows):
        return ids, 0
    values, count = ids.to_pylist(), 0
    chosen = pa.array(rows)
    parts = [before[name].take(chosen).to_pylist() for name in ("completion", "token_ids", "teacher")]
    parts.append(after["completion"].take(chosen).to_pylist())
    for row, was, tokens, teacher, now in zip(rows.tolist(), *parts, strict=True):
        tokenizer = tokenizers.get(teacher)
        text, left = _only_text(was), _only_text(now)
        if tokenizer is None or text is None or left is None or not text.startswith(left):
            continue
        end = boundary(_opened(tokenizer), tokens, text, left)
        if end:
            values[row] = tokens[:end]
            count += 1
    return pa.array(values, ids.type), count


def _only_text(completion: Sequence[Mapping[str, object]]) -> str | None:
    """The text of a completion that is one message with only a text. None for any other completion."""
    if len(completion) != 1 or completion[0].get("reasoning_content") or completion[0].get("tool_calls"):
        return None
    content = completion[0].get("content")
    return content if isinstance(content, str) and content else None


def boundary(tokens: Tokens, ids: Sequence[int], text: str, left: str) -> int:
    """How many tokens at the beginning of `ids` spell `left`, which is the beginning of `text`. 0 if `left` does not
    end where a token ends, or if `ids` do not spell `text`.
    """
    if tokens.decode(ids) != text:
        return 0
    likely = bisect_left(range(len(ids)), len(left) - _PART, key=lambda count: len(tokens.decode(ids[:count])))
    for end in range(likely, len(ids)):
        spelled = tokens.decode(ids[:end])
        if spelled == left:
            return end
        if len(spelled) > len(left) + _PART:
            break
    return 0


def distributions(source: Path, shard: str, before: pa.Table, after: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Yield (folder in the corpus, table) for the distributions of each teacher in one shard. A row whose token ids
    were cut has as many distributions as token ids are left. A row that lost its token ids has no distributions.

    `before` and `after` have the columns `id` and `token_ids` of the shard before and after all edits. Raises
    CorpusError when distributions belong to other tokens than those of `before`.
    """
    ids = before["id"].to_pylist()
    pairs = zip(before["token_ids"].to_pylist(), after["token_ids"].to_pylist(), strict=True)
    tokens = dict(zip(ids, pairs, strict=True))
    for folder in folders(source):
        path = folder / f"{shard}.parquet"
        if path.exists():
            yield f"logits/{folder.name}", _cut(logits.read(path), tokens, path)


def folders(source: Path) -> list[Path]:
    """The folders with the distributions of a corpus, one for each teacher. A curated corpus may have its own folders;
    otherwise the folders are those of the generated corpus.
    """
    root = next((p for p in (source / "logits", source.parent / "generated" / "logits") if p.is_dir()), None)
    return sorted(path for path in root.iterdir() if path.is_dir()) if root else []


def _cut(shard: logits.Shard, tokens: Mapping[str, tuple[list[int] | None, list[int] | None]], path: Path) -> pa.Table:
    about = shard.meta
    ids, aligns, counts, rows = [], [], [], []
    for place, record_id in enumerate(shard.ids):
        whole, held = tokens.get(record_id, (None, None))
        if not whole or not held:
            continue
        logits.check_aligned(shard, place, record_id, whole, path)
        row = shard.encoded(place)
        if len(held) < len(whole):
            row = logits.encode(logits.cut(logits.decode(row, about), len(held)), about)
        ids.append(record_id)
        aligns.append(logits.align(held, about["teacher"], about["tokenizer"], about["temperature"]))
        counts.append(len(held))
        rows.append(row)
    return logits.encoded_table(ids, aligns, counts, rows, about)
