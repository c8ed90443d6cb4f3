"""A teacher with another tokenizer: its stored distributions of the same text, in the student's tokens.

Both completions are cut at the bytes where both tokenizers begin a token. A part that is one token in each is the same
token after the same text: the teacher's kept ids become the student's where both vocabularies have the same bytes, and
the probabilities of its other ids join the mass that it left out. The result is an ordinary `TopK`: the divergence is
exact on the shared ids, and all other ids are one outcome on both sides.

A part that is cut differently has one distribution on each side, by the chain rule: that of its last token, times the
probabilities of the tokens before it. Their distance is ULD (arXiv 2402.12030), Σ_i |sort(p)_i − sort(q)_i| with the
shorter one padded with zeros, where the teacher's p is its kept probabilities and even shares of what it left out. At
the positions of such a part the target is one outcome with all the mass, from which every divergence is zero.

Two inputs are refused: at another temperature than 1 the chain rule does not hold for the stored probabilities, and the
sorted probabilities of draws are not those of the distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedTokenizerBase

from distill.data import Choice, Example, Part, TrainingSet, in_words, rows, stored
from distill.output_layer import Head, logits_of
from synthgen import corpus, logits
from synthgen.errors import CorpusError
from synthgen.lm.files import find_weights
from synthgen.lm.tokens import Tokens
from synthgen.logits import Ints, LogitsMeta
from synthgen.recipe import Across
from synthgen.records import Record
from synthgen.results import training
from synthgen.teachers.server_tokens import TokenMap, pieces_of

_CHUNK_ELEMENTS = 1 << 23  # logits at once


@dataclass(frozen=True)
class Vocabulary:
    """Bytes of each token (None: special, or none), and the token that ends a completion."""

    pieces: list[bytes | None]
    end: int | None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, end: int | None = None) -> Vocabulary:
        """Of a tokenizer; `end` is its end-of-text token unless given."""
        special = set(tokenizer.all_special_ids)
        ids = pieces_of(tokenizer)
        pieces: list[bytes | None] = [None] * (max(ids.values()) + 1)
        for piece, token in ids.items():
            if token not in special and piece:
                pieces[token] = piece
        return cls(pieces, tokenizer.eos_token_id if end is None else end)


def shared(student: Vocabulary, teacher: Vocabulary, size: int) -> Ints:
    """For each of the teacher's ids, at least `size` of them, the student's id of the same bytes, or −1. The ends of
    completions are the same."""
    ids = {piece: token for token, piece in reversed(list(enumerate(student.pieces))) if piece is not None}
    mapping = np.full(max(size, len(teacher.pieces)), -1, np.int64)
    for token, piece in enumerate(teacher.pieces):
        if piece is not None:
            mapping[token] = ids.get(piece, -1)
    if student.end is not None and teacher.end is not None:
        mapping[teacher.end] = student.end
    return mapping


def cuts(
    student_ids: Sequence[int], student: Vocabulary, teacher_ids: Sequence[int], teacher: Vocabulary
) -> list[tuple[slice, slice]] | None:
    """Parts of two tokenizations of one text, between the bytes where both begin a token: (student's, teacher's).

    A special token at the end is a part of its own where both have one, and is left out where one has; so is the first
    part where one tokenizer begins a text with a space of its own. None when the texts differ.
    """
    a, b = _pieces(student_ids, student), _pieces(teacher_ids, teacher)
    ends = [bool(side) and side[-1] is None for side in (a, b)]
    a, b = a[: len(a) - ends[0]], b[: len(b) - ends[1]]
    if None in a or None in b:
        return None
    x, y = [piece or b"" for piece in a], [piece or b"" for piece in b]
    spaced = b"".join(x) != b"".join(y)
    if spaced and not (_strip_space(x, y) or _strip_space(y, x)):
        return None
    places = [{int(place): n + 1 for n, place in enumerate(np.cumsum([len(p) for p in side]))} for side in (x, y)]
    parts, i, j = [], 0, 0
    for place in sorted(places[0].keys() & places[1].keys()):
        parts.append((slice(i, places[0][place]), slice(j, places[1][place])))
        i, j = places[0][place], places[1][place]
    parts = parts[1:] if spaced else parts
    if all(ends):
        i, j = len(x), len(y)
        parts.append((slice(i, i + 1), slice(j, j + 1)))
    return parts


def _pieces(ids: Sequence[int], vocabulary: Vocabulary) -> list[bytes | None]:
    return [vocabulary.pieces[i] if i < len(vocabulary.pieces) else None for i in ids]


def _strip_space(one: list[bytes], other: list[bytes]) -> bool:
    """Take the space away that `one` begins with and `other` does not; whether the texts are then the same."""
    own_space = bool(one) and one[0].startswith(b" ") and len(one[0]) > 1
    if own_space and b"".join(one) == b" " + b"".join(other):
        one[0] = one[0][1:]
        return True
    return False


@dataclass(frozen=True)
class Translation:
    """From a teacher's distributions to a student's ids: `ids` is what `shared` gives, `size` the student's vocabulary,
    `teacher_size` the width of the teacher's logits."""

    ids: Ints
    size: int
    teacher_size: int

    def translated(
        self, target: logits.TopK, teacher_ids: Sequence[int], parts: Sequence[tuple[slice, slice]], count: int
    ) -> tuple[logits.TopK, list[Part]]:
        """The teacher's distributions along `teacher_ids` as a top-k over the student's ids at `count` positions, and
        the parts for ULD."""
        k = target.ids.shape[1]
        out_ids, out_logp = np.full((count, k), self.size, np.int32), np.full((count, k), -np.inf, np.float32)
        tail = np.zeros(count, np.float32)
        differently = []
        real_Tk = np.ones(target.ids.shape, bool)
        real_Tk[:, 1:] = target.ids[:, 1:] != target.ids[:, :1]  # an API's empty slot repeats the first id
        for own, theirs in parts:
            last = theirs.stop - 1
            kept, logp = target.ids[last][real_Tk[last]], target.logprobs[last][real_Tk[last]].astype(np.float64)
            if own.stop - own.start == theirs.stop - theirs.start == 1:
                to = self.ids[kept]
                there = (to >= 0) & (to < self.size)
                out_ids[own.start, : there.sum()] = to[there]
                out_logp[own.start, : there.sum()] = logp[there]
                rest = np.append(logp[~there], target.log_tail[last])
                top = rest.max()
                tail[own.start] = top + np.log(np.exp(rest - top).sum()) if np.isfinite(top) else -np.inf
                continue
            others = self.teacher_size - len(kept)
            places = range(theirs.start, last)
            before = sum(self._logprob(target, real_Tk, place, teacher_ids[place]) for place in places)
            even = float(np.exp(before + target.log_tail[last])) / max(1, others)
            probabilities = np.exp(before + logp).astype(np.float32)
            differently.append(Part(own.start, own.stop, probabilities, even, max(0, others)))
        return logits.TopK(out_ids, out_logp, tail, np.zeros(count, np.float32)), differently

    def _logprob(self, target: logits.TopK, real_Tk: Ints, place: int, token: int) -> float:
        """log p of the teacher's own token at one position: as stored, or its share of what was left out."""
        hit = np.flatnonzero((target.ids[place] == token) & real_Tk[place])
        if len(hit):
            return float(target.logprobs[place][hit[0]])
        return float(target.log_tail[place]) - float(np.log(max(1, self.teacher_size - real_Tk[place].sum())))


def uld(states_ND: Tensor, head: Head | None, batch: Sequence[Example], vocabulary: int) -> Tensor:
    """Σ over the parts of all rows of Σ_i |sort(p)_i − sort(q)_i|; states and head as `through_head` takes them.

    Gradients reach the probabilities of a part's earlier tokens too. Logits are computed for as many parts at a time as
    have 2²³ of them, and again in the backward pass.
    """
    total = torch.zeros((), device=states_ND.device)
    located: list[Located] = []
    start = 0
    for e in batch:
        located += [(start, part, e.completion[part.begin : part.end]) for part in e.parts]
        start += len(e.completion)
    chunk: list[Located] = []
    for one in located:
        if chunk and sum(p.end - p.begin for _, p, _ in [*chunk, one]) * vocabulary > _CHUNK_ELEMENTS:
            total = total + _uld_of(states_ND, head, chunk, vocabulary)
            chunk = []
        chunk.append(one)
    return total + _uld_of(states_ND, head, chunk, vocabulary) if chunk else total


Located = tuple[int, Part, list[int]]
"""Where a part's row begins among the states of a batch, the part, and the student's tokens of it."""


def _uld_of(states_ND: Tensor, head: Head | None, chunk: list[Located], vocabulary: int) -> Tensor:
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


@dataclass(frozen=True)
class Scored:
    """What a teacher with another tokenizer gave along a corpus's texts, in a run of its own: its rows by the id of the
    corpus's row, where their logits lie, and what these logits say of themselves."""

    folder: Path
    records: dict[str, Record]
    index: dict[str, tuple[Path, logits.Shard, int]]
    meta: LogitsMeta

    @classmethod
    def open(cls, run: Path) -> Scored:
        """Raises CorpusError when the run has no logits that can be used across tokenizers."""
        folder = corpus.resolve(run, prefer=("generated", "curated"))
        [index] = stored(folder, ())
        records = {r.seed_id: r for _, batch in corpus.records(folder) for r in batch if r.id in index}
        meta = next(iter(index.values()))[1].meta if index else None
        if not meta or meta["kind"] != "topk" or meta["temperature"] != 1.0:
            raise CorpusError(
                f"{folder}: learning across tokenizers needs top-k logits at temperature 1",
                "score the text again with logits: {kind: topk, temperature: 1.0}",
            )
        return cls(folder, records, index, meta)

    def tokens(self, tokenizer: str | None) -> TokenMap:
        """The tokenizer that scored, or the named one. Raises CorpusError for one that did not make these logits."""
        teacher = next(iter(corpus.manifest(self.folder)["teachers"].values()))
        name = tokenizer or str(find_weights(teacher["model"])[0] or teacher["model"])
        found = TokenMap.open(name)
        if found.hash != self.meta["tokenizer"]:
            raise CorpusError(
                f"{self.folder}: its logits were not made with the tokenizer of '{name}'",
                "name the right tokenizer in train.across.tokenizer",
            )
        return found

    def target(self, record: Record) -> logits.TopK:
        """The distributions along one of the run's rows."""
        path, shard, row = self.index[record.id]
        logits.check_aligned(shard, row, record.id, record.token_ids or (), path)
        target = shard.target(row)
        assert isinstance(target, logits.TopK)
        return target


def load_across(folder: Path, tokens: Tokens, section: Across, choice: Choice) -> TrainingSet:
    """The examples of a curated corpus with the distributions that another run's teacher gave along their text.

    `tokens` are the student's. Raises CorpusError when that run does not know these rows or has no such logits.
    """
    scored = Scored.open(Path(section.run))
    teacher, student = Vocabulary.of(scored.tokens(section.tokenizer).tokenizer), Vocabulary.of(tokens.tokenizer)
    size, teacher_size = len(tokens.tokenizer), scored.meta["vocab_size"]
    translation = Translation(shared(student, teacher, teacher_size), size, teacher_size)
    left_out = {"too_long": 0, "not_scored": 0, "texts_differ": 0}
    examples: list[Example] = []
    for record, kept in rows(folder, choice.split):
        prompt, completion = tokens.render(record.prompt), list(record.token_ids or ())
        other = scored.records.get(record.id)
        if len(prompt) + len(completion) > choice.max_length:
            left_out["too_long"] += 1
            continue
        if other is None:
            left_out["not_scored"] += 1
            continue
        target, teacher_ids = scored.target(other), list(other.token_ids or ())
        parts = cuts(completion, student, teacher_ids, teacher)
        if not parts:
            left_out["texts_differ"] += 1
            continue
        topk, differently = translation.translated(target, teacher_ids, parts, len(completion))
        asked = tuple(record.prompt_token_ids or ())
        examples.append(Example(record.id, prompt, completion, topk, kept, asked, parts=tuple(differently)))
    if not examples:
        raise CorpusError(
            f"{scored.folder} has no scores for rows of {folder}: {in_words(left_out)}",
            "score this corpus with strategy: score, and with path: RUN/generated/data and id: id under seeds",
        )
    meta: LogitsMeta = {
        "kind": "topk",
        "k": scored.meta["k"],
        "temperature": scored.meta["temperature"],
        "teacher": scored.meta["teacher"],
        "vocab_size": size,
        "teacher_vocab_size": teacher_size,
        "tokenizer": tokens.hash,
    }
    return TrainingSet(examples, meta, left_out)


def facts(data: TrainingSet, section: Across) -> training.Across:
    """How many tokens are learned which way."""
    assert data.meta is not None
    tokens = sum(len(e.completion) for e in data.examples)
    differently = sum(part.end - part.begin for e in data.examples for part in e.parts)
    # One outcome with all the mass: the divergence says nothing there.
    silent = sum(int((e.target.log_tail == 0).sum()) for e in data.examples if isinstance(e.target, logits.TopK))
    return training.Across(
        teacher=data.meta["teacher"].rpartition("@")[0],
        uld_weight=section.uld_weight,
        tokens_by_divergence=tokens - silent,
        tokens_by_uld=differently,
        tokens_without_target=silent - differently,
    )
