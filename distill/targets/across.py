"""Translates the stored distributions of a teacher with another tokenizer to the student's tokens, on the same text.

Both tokenizations of a completion are cut into parts, at each byte where a token begins in both. If a part is one token
in each tokenization, both tokens have the same bytes and follow the same text. The teacher's kept ids are then mapped
to student ids with the same bytes. The probabilities of kept ids without such a student id are added to the residual
mass. The result is an ordinary `TopK`. The divergence is exact on the shared ids, and all other ids are one outcome.

In all other parts, the two tokenizations differ. By the chain rule, each model has one distribution for the part: the
distribution of the part's last token, multiplied by the probabilities of the part's earlier tokens. The loss of such a
part is ULD (arXiv 2402.12030), Σ_i |sort(p)_i − sort(q)_i|, where the shorter list is padded with zeros. Here p has the
teacher's kept probabilities and even shares of its residual mass, and q is the student's distribution. At the positions
of such a part, the whole vocabulary is one outcome of the `TopK` target, so every divergence from it is zero. ULD does
not say which token is right, so at these positions cross-entropy also gets the weight of the divergence.

Logits at a temperature other than 1 are refused, because the chain rule does not hold for their probabilities. Draws
are refused, because their sorted frequencies differ from the sorted probabilities.
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

from distill.data import Choice, Example, Part, TrainingSet, in_words, rows
from distill.output_layer import Head, logits_of
from distill.streaming.distributions import Shelf, folders
from synthgen import corpus, logits
from synthgen.errors import CorpusError, TeacherError
from synthgen.lm.files import find_weights
from synthgen.lm.sampling import with_end
from synthgen.lm.tokens import Tokens
from synthgen.logits import Bools, Ints, LogitsMeta
from synthgen.recipe import Across
from synthgen.records import COMPLETE, Record
from synthgen.results import training
from synthgen.teachers.server_tokens import TokenMap, pieces_of

_CHUNK_ELEMENTS = 1 << 23  # maximum number of logits in memory


@dataclass(frozen=True)
class Vocabulary:
    """The bytes of each token (None for ids without bytes, such as special tokens), and the token that ends a text."""

    pieces: list[bytes | None]
    end: int | None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, end: int | None = None) -> Vocabulary:
        """The vocabulary of a tokenizer. `end` is by default the tokenizer's end-of-text token."""
        special = set(tokenizer.all_special_ids)
        ids = pieces_of(tokenizer)
        pieces: list[bytes | None] = [None] * (max(ids.values()) + 1)
        for piece, token in ids.items():
            if token not in special and piece:
                pieces[token] = piece
        return cls(pieces, tokenizer.eos_token_id if end is None else end)


def shared(student: Vocabulary, teacher: Vocabulary, size: int) -> Ints:
    """Return, for each teacher id, the student id with the same bytes, or −1 when there is none.

    The result has at least `size` entries. The teacher's end token is mapped to the student's end token.
    """
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
    """Cut two tokenizations of one text into parts, at each byte where a token begins in both.

    Returns the parts as (slice of the student's tokens, slice of the teacher's tokens). Returns None when the texts
    differ, or when one of them has a special token before its last token. If both texts end in a special token, the two
    tokens form a part of their own. If only one text ends in a special token, this token is left out. The first part is
    left out when only one tokenizer puts a space before the text.
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
    """Remove the first space of `one` if the texts are then the same. Returns whether the space was removed."""
    own_space = bool(one) and one[0].startswith(b" ") and len(one[0]) > 1
    if own_space and b"".join(one) == b" " + b"".join(other):
        one[0] = one[0][1:]
        return True
    return False


@dataclass(frozen=True)
class Translation:
    """Translates a teacher's distributions to student ids. `ids` is the result of `shared`, `size` the student's
    vocabulary size, and `teacher_size` the width of the teacher's logits.
    """

    ids: Ints
    size: int
    teacher_size: int

    def translated(
        self, target: logits.TopK, teacher_ids: Sequence[int], parts: Sequence[tuple[slice, slice]], count: int
    ) -> tuple[logits.TopK, list[Part]]:
        """Translate the teacher's distributions for the tokens `teacher_ids`.

        `parts` is the result of `cuts`. Returns a top-k over student ids at the student's `count` positions, and the
        parts that are learned by ULD.
        """
        k = target.ids.shape[1]
        out_ids, out_logp = np.full((count, k), self.size, np.int32), np.full((count, k), -np.inf, np.float32)
        tail = np.zeros(count, np.float32)
        differently = []
        real_Tk = np.ones(target.ids.shape, bool)
        # in the top-k lists of an API, empty slots repeat the first id
        real_Tk[:, 1:] = target.ids[:, 1:] != target.ids[:, :1]
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
        """The teacher's log-probability of `token`, the token at position `place` of the teacher's tokens. If the top-k
        does not have the token, the token gets an even share of the residual mass.
        """
        hit = np.flatnonzero((target.ids[place] == token) & real_Tk[place])
        if len(hit):
            return float(target.logprobs[place][hit[0]])
        return float(target.log_tail[place]) - float(np.log(max(1, self.teacher_size - real_Tk[place].sum())))


def without_target(target: logits.Target) -> Bools:
    """Return a mask (T,) that is True at the positions of an aligned target where no token has a probability."""
    if not isinstance(target, logits.TopK):
        return np.zeros(len(target), bool)
    return np.asarray(~np.isfinite(target.logprobs).any(1))


def uld(states_ND: Tensor, head: Head | None, batch: Sequence[Example], vocabulary: int) -> Tensor:
    """Sum Σ_i |sort(p)_i − sort(q)_i| over the parts of all rows. For `states_ND` and `head`, see `through_head`.

    Gradients also flow through the probabilities of a part's earlier tokens. Parts are processed in chunks with at most
    2²³ logits. The logits are computed again in the backward pass.
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
"""(index of a row's first state in the batch, a part of this row, the student's tokens in the part)."""


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
    """The teacher's sorted probabilities: the kept probabilities, then even shares of the residual mass, then zeros."""
    p = torch.zeros(_width(part, q), dtype=q.dtype, device=q.device)
    p[: len(part.kept)] = torch.from_numpy(part.kept).to(q.device, q.dtype)
    p[len(part.kept) : len(part.kept) + part.others] = part.share
    return p


@dataclass(frozen=True)
class Scored:
    """The rows whose distributions come from a teacher with another tokenizer. The rows belong to the corpus itself, or
    to another run in which the teacher scored the corpus's texts.

    `records` maps the id of a row of the corpus to the row that was scored, which has the same text. `index` maps the
    id of a scored row to the place of its logits. `meta` is the metadata of the logits.
    """

    folder: Path
    records: dict[str, Record]
    index: dict[str, tuple[Path, logits.Shard, int]]
    meta: LogitsMeta

    @classmethod
    def open(cls, source: Path, run: str | None) -> Scored:
        """Open the distributions of `run`, or those of the corpus `source` when `run` is None. Raises CorpusError when
        none of the distributions can be used across tokenizers.
        """
        folder = source if run is None else corpus.resolve(Path(run), prefer=("generated", "curated"))
        [stored] = folders(folder, ())
        index = _index(stored)
        parts = ("data", "rejected") if run is None else ("data",)
        scored = [r for part in parts for _, batch in corpus.records(folder, part) for r in batch if r.id in index]
        records = {r.id if run is None else r.seed_id: r for r in scored}
        meta = next(iter(index.values()))[1].meta if index else None
        if not meta or meta["kind"] != "topk" or meta["temperature"] != 1.0:
            raise CorpusError(
                f"{folder}: learning across tokenizers needs top-k logits at temperature 1",
                "score the text again with logits: {kind: topk, temperature: 1.0}",
            )
        return cls(folder, records, index, meta)

    def tokens(self, tokenizer: str | None) -> TokenMap:
        """Open the tokenizer of the teacher that scored the texts, or the tokenizer with the given name.

        Raises CorpusError when the logits were made with another tokenizer.
        """
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
        """The distributions of `record`, which is one of the scored rows."""
        path, shard, row = self.index[record.id]
        logits.check_aligned(shard, row, record.id, record.token_ids or (), path)
        target = shard.target(row)
        assert isinstance(target, logits.TopK)
        return target


def _index(folder: Path) -> dict[str, tuple[Path, logits.Shard, int]]:
    """Map each record id to (path of the logits file, shard, row)."""
    index = {}
    for path in Shelf(folder).paths:
        shard = logits.read(path)
        for row, record_id in enumerate(shard.ids):
            index[record_id] = (path, shard, row)
    return index


def load_across(
    folder: Path, tokens: Tokens, section: Across, choice: Choice, tokenizer: str | None = None
) -> TrainingSet:
    """Load the examples of a curated corpus. The distributions are those of a teacher that has another tokenizer and
    scored the same texts.

    `tokens` belongs to the student. `tokenizer` is the name of the teacher's tokenizer, if the section does not name
    it. Raises CorpusError when the teacher has not scored these rows, or when there are no suitable logits.
    """
    scored = Scored.open(folder, section.run)
    theirs = scored.tokens(section.tokenizer or tokenizer)
    teacher, student = Vocabulary.of(theirs.tokenizer), Vocabulary.of(tokens.tokenizer, tokens.end)
    size, teacher_size = len(tokens.tokenizer), scored.meta["vocab_size"]
    translation = Translation(shared(student, teacher, teacher_size), size, teacher_size)
    left_out = {"too_long": 0, "not_scored": 0, "texts_differ": 0}
    examples: list[Example] = []
    for record, kept in rows(folder, choice.split, choice.share):
        other = scored.records.get(record.id)
        prompt, completion = _own_ids(tokens, record, of_teacher=section.run is None)
        if len(prompt) + len(completion) > choice.max_length:
            left_out["too_long"] += 1
            continue
        if other is None:
            left_out["not_scored"] += 1
            continue
        target, teacher_ids = _with_end(scored.target(other), other, teacher)
        parts = cuts(completion, student, teacher_ids, teacher)
        if not parts:
            left_out["texts_differ"] += 1
            continue
        topk, differently = translation.translated(target, teacher_ids, parts, len(completion))
        asked = () if section.run is None else tuple(record.prompt_token_ids or ())
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


def _with_end(target: logits.TopK, record: Record, teacher: Vocabulary) -> tuple[logits.TopK, list[int]]:
    """The distributions and the teacher's ids of a row. The end token of a finished reply is added here, because
    servers do not list it.
    """
    ids = list(record.token_ids or ())
    ended = not ids or ids[-1] >= len(teacher.pieces) or teacher.pieces[ids[-1]] is None
    if ended or record.finish_reason not in COMPLETE or teacher.end is None:
        return target, ids
    longer = with_end(target, teacher.end)
    assert isinstance(longer, logits.TopK)
    return longer, [*ids, teacher.end]


def _own_ids(tokens: Tokens, record: Record, *, of_teacher: bool) -> tuple[list[int], list[int]]:
    """The row's prompt and completion in the student's tokens. With `of_teacher`, the row's stored ids are those of the
    teacher with another tokenizer, so the completion's text is tokenized.
    """
    try:
        prompt = tokens.render(record.prompt, record.tools)
        if not of_teacher:
            return prompt, list(record.token_ids or ())
        return prompt, tokens.answer(record.prompt, record.completion, record.tools)
    except TeacherError as error:
        raise CorpusError(f"row {record.id}: {error.message}", error.hint) from None


def facts(data: TrainingSet, section: Across) -> training.Across:
    """Count the tokens learned by divergence, the tokens learned by ULD, and the tokens without a target."""
    assert data.meta is not None
    tokens = sum(len(e.completion) for e in data.examples)
    differently = sum(part.end - part.begin for e in data.examples for part in e.parts)
    silent = sum(int(without_target(e.target).sum()) for e in data.examples if e.target is not None)
    return training.Across(
        teacher=data.meta["teacher"].rpartition("@")[0],
        uld_weight=section.uld_weight,
        tokens_by_divergence=tokens - silent,
        tokens_by_uld=differently,
        tokens_without_target=silent - differently,
    )
