"""A teacher with another tokenizer: its stored distributions of the same text, in the student's tokens.

Both completions are cut at the bytes where both tokenizers begin a token. A part that is one token in each is the same
token after the same text: the teacher's kept ids become the student's where both vocabularies have the same bytes, and
what it gave to others joins what it left out. That is a `TopK` like any other: the divergence is exact on the shared
ids, and all the rest is one outcome on both sides.

A part that is cut differently has one distribution a side, by the chain rule: that of its last token, times the
probabilities of the tokens before it. Their distance is ULD (arXiv 2402.12030), Σ_i |sort(p)_i − sort(q)_i| with the
shorter padded with zeros, where the teacher's p is its kept probabilities and even shares of what it left out. At its
positions the target is one outcome that holds everything, from which every divergence is zero.

Probabilities of the text at another temperature than 1 are no chain rule's, and the sorted probabilities of draws are
not those of the distribution: both are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from distill.data import Example, TrainingSet, rows, stored
from distill.output_layer import Head, logits_of
from synthgen import corpus, logits
from synthgen.errors import CorpusError
from synthgen.lm.load import find_weights, tokenizer_hash
from synthgen.recipe import Across
from synthgen.records import Message, Record
from synthgen.teachers.server_tokens import TokenMap, pieces_of

Ints = logits.Ints
_CHUNK_ELEMENTS = 1 << 23  # logits at once


@dataclass(frozen=True)
class Part:
    """A part of a completion that is cut differently: the student's positions [begin, end), and the teacher's merged
    probabilities, largest first (k,), with the even share of each of the `others` ids it left out."""

    begin: int
    end: int
    kept: logits.Floats
    share: float
    others: int


@dataclass(frozen=True)
class Vocabulary:
    """Bytes of each token (None: special, or none), and the token that ends a completion."""

    pieces: list[bytes | None]
    end: int | None

    @classmethod
    def of(cls, tokenizer: Any, end: int | None = None) -> Vocabulary:
        """Of a tokenizer; `end` is its end-of-text token unless given."""
        special = set(tokenizer.all_special_ids)
        found = pieces_of(tokenizer)
        pieces: list[bytes | None] = [None] * (max(found.values()) + 1)
        for piece, token in found.items():
            if token not in special and piece:
                pieces[token] = piece
        return cls(pieces, tokenizer.eos_token_id if end is None else end)


def shared(student: Vocabulary, teacher: Vocabulary, size: int) -> Ints:
    """For each of the teacher's ids the student's id of the same bytes, or −1. Ends of completions are the same."""
    mine = {piece: token for token, piece in reversed(list(enumerate(student.pieces))) if piece is not None}
    found = np.full(max(size, len(teacher.pieces)), -1, np.int64)
    for token, piece in enumerate(teacher.pieces):
        if piece is not None:
            found[token] = mine.get(piece, -1)
    if student.end is not None and teacher.end is not None:
        found[teacher.end] = student.end
    return found


def cuts(
    mine: Sequence[int], student: Vocabulary, its: Sequence[int], teacher: Vocabulary
) -> list[tuple[slice, slice]] | None:
    """Parts of two tokenizations of one text, between the bytes where both begin a token: (mine, its).

    A special token at the end is a part of its own where both have one, and is left out where one has; so is the first
    part where one tokenizer begins a text with a space of its own. None when the texts differ."""
    a, b = ([v.pieces[i] if i < len(v.pieces) else None for i in t] for t, v in ((mine, student), (its, teacher)))
    ends = [bool(side) and side[-1] is None for side in (a, b)]
    a, b = a[: len(a) - ends[0]], b[: len(b) - ends[1]]
    if None in a or None in b:
        return None
    x, y = [piece or b"" for piece in a], [piece or b"" for piece in b]
    spaced = b"".join(x) != b"".join(y)
    if spaced:
        for one, other in ((x, y), (y, x)):
            if one and one[0].startswith(b" ") and b"".join(one) == b" " + b"".join(other) and len(one[0]) > 1:
                one[0] = one[0][1:]
                break
        else:
            return None
    places = [{int(place): n + 1 for n, place in enumerate(np.cumsum([len(p) for p in side]))} for side in (x, y)]
    found, i, j = [], 0, 0
    for place in sorted(places[0].keys() & places[1].keys()):
        found.append((slice(i, places[0][place]), slice(j, places[1][place])))
        i, j = places[0][place], places[1][place]
    found = found[1:] if spaced else found
    if all(ends):
        i, j = len(x), len(y)
        found.append((slice(i, i + 1), slice(j, j + 1)))
    return found


def translated(
    target: logits.TopK, its: Sequence[int], parts: Sequence[tuple[slice, slice]], count: int, ids: Ints, meta: Any
) -> tuple[logits.TopK, list[Part]]:
    """The teacher's distributions as a top-k over the student's ids at `count` positions, and the parts for ULD.

    `ids` is what `shared` gives, `meta` has the student's `vocab_size` and the teacher's as `its_size`."""
    size, its_size, k = meta["vocab_size"], meta["its_size"], target.ids.shape[1]
    out_ids, out_logp = np.full((count, k), size, np.int32), np.full((count, k), -np.inf, np.float32)
    tail = np.zeros(count, np.float32)
    ulds = []
    real_Tk = np.ones(target.ids.shape, bool)
    real_Tk[:, 1:] = target.ids[:, 1:] != target.ids[:, :1]  # an API's empty slot repeats the first id
    for mine, theirs in parts:
        last = theirs.stop - 1
        kept, logp = target.ids[last][real_Tk[last]], target.logprobs[last][real_Tk[last]].astype(np.float64)
        others = its_size - len(kept)
        if mine.stop - mine.start == theirs.stop - theirs.start == 1:
            to = ids[kept]
            there = (to >= 0) & (to < size)
            out_ids[mine.start, : there.sum()] = to[there]
            out_logp[mine.start, : there.sum()] = logp[there]
            rest = np.append(logp[~there], target.log_tail[last])
            top = rest.max()
            tail[mine.start] = top + np.log(np.exp(rest - top).sum()) if np.isfinite(top) else -np.inf
            continue
        before = sum(_said(target, real_Tk, place, its[place], its_size) for place in range(theirs.start, last))
        share = float(np.exp(before + target.log_tail[last])) / max(1, others)
        ulds.append(Part(mine.start, mine.stop, np.exp(before + logp).astype(np.float32), share, max(0, others)))
    return logits.TopK(out_ids, out_logp, tail, np.zeros(count, np.float32)), ulds


def _said(target: logits.TopK, real_Tk: Ints, place: int, token: int, size: int) -> float:
    """log p of the teacher's own token at one position: as stored, or its share of what was left out."""
    hit = np.flatnonzero((target.ids[place] == token) & real_Tk[place])
    if len(hit):
        return float(target.logprobs[place][hit[0]])
    return float(target.log_tail[place]) - float(np.log(max(1, size - real_Tk[place].sum())))


def uld(states_ND: Tensor, head: Head | None, batch: Sequence[Example], vocabulary: int) -> Tensor:
    """Σ over the parts of all rows of Σ_i |sort(p)_i − sort(q)_i|; states and head as `through_head` takes them.

    Gradients reach the probabilities of a part's earlier tokens too. Logits are made for as many parts at a time as
    make 2²³ of them, and again in the backward pass."""
    total = torch.zeros((), device=states_ND.device)
    some: list[tuple[int, Part, list[int]]] = []
    start = 0
    for e in batch:
        some += [(start, part, e.completion[part.begin : part.end]) for part in e.parts]
        start += len(e.completion)
    chunk: list[tuple[int, Part, list[int]]] = []
    for one in some:
        if chunk and sum(p.end - p.begin for _, p, _ in [*chunk, one]) * vocabulary > _CHUNK_ELEMENTS:
            total = total + _uld_of(states_ND, head, chunk, vocabulary)
            chunk = []
        chunk.append(one)
    return total + _uld_of(states_ND, head, chunk, vocabulary) if chunk else total


def _uld_of(states_ND: Tensor, head: Head | None, chunk: list[tuple[int, Part, list[int]]], vocabulary: int) -> Tensor:
    places = [start + n for start, part, _ in chunk for n in range(part.begin, part.end)]

    def distance(states: Tensor) -> Tensor:
        z = states if head is None else logits_of(states, head)
        z = z[:, :vocabulary]
        logq = (z if z.dtype == torch.float64 else z.float()).log_softmax(-1)
        out, at = torch.zeros((), device=z.device, dtype=logq.dtype), 0
        for _, part, tokens in chunk:
            here = logq[at : at + len(tokens)]
            at += len(tokens)
            before = sum((here[n, token] for n, token in enumerate(tokens[:-1])), torch.zeros((), device=z.device))
            q = (here[-1] + before).exp().sort(descending=True).values
            out = out + (_padded(part, q) - torch.nn.functional.pad(q, (0, _width(part, q) - len(q)))).abs().sum()
        return out

    taken = states_ND[torch.tensor(places, device=states_ND.device)]
    return checkpoint(distance, taken, use_reentrant=False) if taken.requires_grad else distance(taken)


def _width(part: Part, q: Tensor) -> int:
    return max(len(part.kept) + part.others, len(q))


def _padded(part: Part, q: Tensor) -> Tensor:
    """The teacher's sorted probabilities: those kept, even shares, zeros."""
    p = torch.zeros(_width(part, q), dtype=q.dtype, device=q.device)
    p[: len(part.kept)] = torch.from_numpy(part.kept).to(q.device, q.dtype)
    p[len(part.kept) : len(part.kept) + part.others] = part.share
    return p


def load_across(
    folder: Path,
    render: Callable[[Sequence[Message]], list[int]],
    max_length: int,
    section: Across,
    tokenizer: Any,
    split: str = "train",
) -> TrainingSet:
    """The examples of a curated corpus with the distributions that another run's teacher gave along their text.

    `tokenizer` is the student's. Raises CorpusError when that run does not know these rows or has no such logits.
    """
    other = corpus.resolve(Path(section.run), prefer=("generated", "curated"))
    [index] = stored(other, ())
    scored: dict[str, Record] = {r.seed_id: r for _, some in corpus.records(other) for r in some if r.id in index}
    its_meta = next(iter(index.values()))[1].meta if index else {}
    if not its_meta or its_meta["kind"] != "topk" or its_meta["temperature"] != 1.0:
        raise CorpusError(
            f"{other}: across tokenizers, logits must be a top-k at temperature 1",
            "score the text again with logits: {kind: topk, temperature: 1.0}",
        )
    said = next(iter(corpus.manifest(other)["teachers"].values()))
    name = section.tokenizer or str(find_weights(said["model"])[0] or said["model"])
    its_tokens = TokenMap.open(name)
    if its_tokens.hash != its_meta["tokenizer"]:
        raise CorpusError(
            f"{other}: its logits were made with another tokenizer than that of '{name}'",
            "name the right one in train.across.tokenizer",
        )
    teacher, student = Vocabulary.of(its_tokens.tokenizer), Vocabulary.of(tokenizer)
    meta: dict[str, Any] = {
        **{key: its_meta[key] for key in ("kind", "k", "temperature", "teacher")},
        "vocab_size": len(tokenizer),
        "its_size": int(its_meta["vocab_size"]),
        "tokenizer": tokenizer_hash(tokenizer),
    }
    ids = shared(student, teacher, meta["its_size"])
    left_out = {"longer than max_length": 0, "not scored by the other teacher": 0, "texts differ": 0}
    examples: list[Example] = []
    for record, kept in rows(folder, split):
        prompt, completion = render(record.prompt), list(record.token_ids or ())
        its = scored.get(record.id)
        if len(prompt) + len(completion) > max_length:
            left_out["longer than max_length"] += 1
            continue
        if its is None:
            left_out["not scored by the other teacher"] += 1
            continue
        path, shard, row = index[its.id]
        tokens = list(its.token_ids or ())
        logits.check_aligned(shard, row, its.id, tokens, path)
        parts = cuts(completion, student, tokens, teacher)
        if not parts:
            left_out["texts differ"] += 1
            continue
        target: Any = shard.target(row)
        topk, ulds = translated(target, tokens, parts, len(completion), ids, meta)
        asked = tuple(record.prompt_token_ids or ())
        examples.append(Example(record.id, prompt, completion, topk, kept, asked, parts=tuple(ulds)))
    if not examples:
        raise CorpusError(
            f"{other} has scored no rows of {folder}: " + ", ".join(f"{n} {why}" for why, n in left_out.items() if n),
            "score this corpus: strategy score, seeds with path: RUN/generated/data and id: id",
        )
    return TrainingSet(examples, meta, left_out)


def facts(data: TrainingSet, section: Across) -> dict[str, Any]:
    """What training.json says: how many tokens are learned which way."""
    tokens = sum(len(e.completion) for e in data.examples)
    apart = sum(part.end - part.begin for e in data.examples for part in e.parts)
    silent = sum(
        int((e.target.log_tail == 0).sum()) for e in data.examples if isinstance(e.target, logits.TopK)
    )  # one outcome
    return {
        "teacher": data.meta["teacher"].rpartition("@")[0],
        "uld_weight": section.uld_weight,
        "tokens by divergence": tokens - silent,
        "tokens by ULD": apart,
        "tokens without a target": silent - apart,
    }
