"""Teacher distributions beside the rows: what is stored, in how many bytes, and with what error.

Two kinds, for a row of T completion tokens (entry t is the distribution that `token_ids[t]` was drawn from):

- `Sampled`: N draws a position from softmax(logits / temperature), as unique ids and counts. counts / N is an
  unbiased estimate of every probability, so the gradient of the cross-entropy against it is that of the full
  KL in expectation (random-sampling distillation, ACL 2025). Exact as stored.
- `TopK`: the K largest log-probabilities at temperature 1; and, at the training temperature, the log of the
  mass left out and the log-normalizer, without which a cached top-k cannot be re-tempered.
  Log-probabilities are fixed point in steps of 1/512 nat: error at most `STORAGE_ERROR` down to `FLOOR`.

A shard is a Parquet file, one row a record, one binary blob an array or a byte plane of one (bytes of one
significance lie together in a column, and compress for themselves); dtypes, shapes and layout are in the file's
metadata. Nothing here loops over tokens in Python. Every row carries `align`, a hash over token ids,
teacher, tokenizer and temperature: a row that is laid beside the wrong tokens fails instead of teaches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synthgen.errors import CorpusError

FORMAT = "logits-v2"
_STEP = 1 / 512
STORAGE_ERROR = _STEP / 2  # nats, for log-probabilities above FLOOR
FLOOR = -32.0  # nats: a probability of 1e-14; smaller ones are stored as this
_ROW_GROUP_BYTES = 64 << 20

Ints = np.ndarray[Any, np.dtype[Any]]
Floats = np.ndarray[Any, np.dtype[Any]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Sampled:
    """Draws from the teacher: flat `ids` and `counts` (position by position, ids ascending), `uniques` (T,)."""

    ids: Ints
    counts: Ints
    uniques: Ints

    def __len__(self) -> int:
        return len(self.uniques)


@dataclass(frozen=True)
class TopK:
    """`ids` and `logprobs` (T, K), largest first, at temperature 1. At the training temperature: `log_tail` (T,),
    log of the mass left out (-inf when K is the vocabulary), and `log_z` (T,) = logsumexp(log p / temperature)
    over the whole vocabulary."""

    ids: Ints
    logprobs: Floats
    log_tail: Floats
    log_z: Floats

    def __len__(self) -> int:
        return len(self.ids)


Target = Sampled | TopK


@dataclass(frozen=True)
class LogitsSpec:
    """Which part of each distribution is kept: `draws` of kind "sampled", or the `k` likeliest of kind "topk"; at
    `temperature`."""

    kind: Literal["sampled", "topk"]
    temperature: float = 1.0
    _: KW_ONLY
    draws: int = 0
    k: int = 0


class LogitsMeta(TypedDict):
    """What a shard says of itself: what is kept (`draws` or `k`, at which `temperature`), of which teacher
    ("name@revision") and tokenizer (its hash), over how many ids, and how the arrays are laid out.

    Of merged distributions `teachers` are those that were merged, and of a teacher with another tokenizer
    `teacher_vocab_size` is the width of its own logits. "dense" stands for a live teacher's whole distributions.
    """

    kind: Literal["sampled", "topk", "dense"]
    temperature: float
    vocab_size: int
    draws: NotRequired[int]
    k: NotRequired[int]
    teacher: NotRequired[str]
    tokenizer: NotRequired[str]
    format: NotRequired[str]
    id_bytes: NotRequired[int]
    layout: NotRequired[str]
    logprob_step: NotRequired[float]
    teachers: NotRequired[list[str]]
    teacher_vocab_size: NotRequired[int]


def count_draws(draws_TN: Ints) -> Sampled:
    """Unique ids and their counts for each row of N draws."""
    positions, n = draws_TN.shape
    if positions == 0:
        return Sampled(np.zeros(0, np.int32), np.zeros(0, np.uint16), np.zeros(0, np.uint16))
    ordered = np.sort(draws_TN, axis=1)
    first = np.ones(ordered.shape, bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    starts = np.flatnonzero(first.ravel())
    ends = np.append(starts[1:], positions * n)  # a run never crosses a row: each row begins one
    return Sampled(
        ordered.ravel()[starts].astype(np.int32),
        (ends - starts).astype(np.uint16),
        first.sum(axis=1).astype(np.uint16),
    )


def align(token_ids: Sequence[int], teacher: str, tokenizer: str, temperature: float) -> bytes:
    """16 bytes that change when tokens, teacher, tokenizer or temperature do."""
    head = json.dumps([FORMAT, teacher, tokenizer, float(temperature)]).encode()
    return hashlib.blake2b(head + np.asarray(token_ids, np.int32).tobytes(), digest_size=16).digest()


def meta(spec: LogitsSpec, vocab_size: int, teacher: str, tokenizer: str) -> LogitsMeta:
    """What a shard says of itself."""
    kept: LogitsMeta = {"kind": spec.kind, "temperature": spec.temperature, "vocab_size": vocab_size}
    if spec.kind == "sampled":
        kept["draws"] = spec.draws
    else:
        kept["k"] = spec.k
    return {
        **kept,
        "format": FORMAT,
        "id_bytes": 2 if vocab_size <= 1 << 16 else 3 if vocab_size <= 1 << 24 else 4,
        "layout": {
            "sampled": "NAME_0, NAME_1, …: byte planes, lowest first; ids: difference to the id before it in the "
            "position; counts, uniques: u8 or u16",
            "topk": "NAME_0, NAME_1, …: byte planes, lowest first; slot-major; logprobs: steps below zero, differences "
            "down the slots; log_tail: steps below zero; log_z: f32",
        }[spec.kind],
        "logprob_step": _STEP,
        "teacher": teacher,
        "tokenizer": tokenizer,
    }


def _planes(name: str, values: Ints, width: int) -> dict[str, bytes]:
    """Unsigned integers as byte planes, lowest byte first."""
    planes = values.astype("<u4").reshape(-1, 1).view(np.uint8)[:, :width].T
    return {f"{name}_{byte}": plane.tobytes() for byte, plane in enumerate(planes)}


def _from_planes(blobs: dict[str, bytes], name: str, width: int) -> Ints:
    out = np.zeros((len(blobs[f"{name}_0"]), 4), np.uint8)
    for byte in range(width):
        out[:, byte] = np.frombuffer(blobs[f"{name}_{byte}"], np.uint8)
    return out.view("<u4").ravel().astype(np.int64)


def _quantize(logprobs: Floats) -> Ints:
    """Log-probabilities (<= 0) as steps below zero; -inf becomes the floor."""
    return np.clip(np.rint(np.maximum(-logprobs, 0) / _STEP), 0, -FLOOR / _STEP).astype(np.int64)


def encode(target: Target, meta: LogitsMeta) -> dict[str, bytes]:
    """The blobs of one row."""
    width = int(meta["id_bytes"])
    if isinstance(target, Sampled):
        ids = target.ids.astype(np.int64)
        starts = np.cumsum(target.uniques, dtype=np.int64) - target.uniques
        deltas = np.diff(ids, prepend=0)
        deltas[starts] = ids[starts]
        small = "u1" if meta["draws"] < 256 else "<u2"
        return {
            **_planes("ids", deltas, width),
            "counts": target.counts.astype(small).tobytes(),
            "uniques": target.uniques.astype(small).tobytes(),
        }
    steps_KT = _quantize(target.logprobs).T
    steps_KT = np.diff(steps_KT, axis=0, prepend=0)
    if (steps_KT < 0).any():
        raise ValueError("top-k log-probabilities must be sorted, largest first")
    return {
        **_planes("ids", target.ids.T.ravel(), width),
        **_planes("logprobs", steps_KT.ravel(), 2),
        **_planes("log_tail", _quantize(target.log_tail), 2),
        "log_z": target.log_z.astype("<f4").tobytes(),
    }


def decode(blobs: dict[str, bytes], meta: LogitsMeta) -> Target:
    """The arrays of one row; the inverse of `encode` (top-k: to within `STORAGE_ERROR`)."""
    width = int(meta["id_bytes"])
    if meta["kind"] == "sampled":
        small = "u1" if meta["draws"] < 256 else "<u2"
        uniques = np.frombuffer(blobs["uniques"], small).astype(np.int64)
        sums = np.cumsum(_from_planes(blobs, "ids", width))
        starts = np.cumsum(uniques) - uniques
        before = np.where(starts > 0, sums[starts - 1], 0) if len(starts) else starts
        return Sampled(
            (sums - np.repeat(before, uniques)).astype(np.int32),
            np.frombuffer(blobs["counts"], small).astype(np.uint16),
            uniques.astype(np.uint16),
        )
    k = int(meta["k"])
    steps = np.cumsum(_from_planes(blobs, "logprobs", 2).reshape(k, -1), axis=0).T
    tail = _from_planes(blobs, "log_tail", 2).astype(np.float32) * -np.float32(_STEP)
    if k == meta["vocab_size"]:
        tail = np.full_like(tail, -np.inf)
    return TopK(
        _from_planes(blobs, "ids", width).reshape(k, -1).T.astype(np.int32),
        steps.astype(np.float32) * -np.float32(_STEP),
        tail,
        np.frombuffer(blobs["log_z"], "<f4"),
    )


def to_table(ids: Sequence[str], aligns: Sequence[bytes], targets: Sequence[Target], meta: LogitsMeta) -> pa.Table:
    """One shard's rows as a table; write it with `corpus`."""
    rows = [encode(target, meta) for target in targets]
    names = list(rows[0] if rows else encode(_nothing(meta), meta))
    columns: dict[str, pa.Array] = {
        "id": pa.array(ids, pa.string()),
        "align": pa.array(aligns, pa.binary()),
        "tokens": pa.array([len(target) for target in targets], pa.int32()),
    }
    columns |= {name: pa.array([row[name] for row in rows], pa.large_binary()) for name in names}
    return pa.table(columns).replace_schema_metadata({FORMAT: json.dumps(meta)})


def _nothing(meta: LogitsMeta) -> Target:
    """A row without tokens: what a shard without rows has columns for."""
    ids, floats = np.zeros(0, np.int32), np.zeros(0, np.float32)
    if meta["kind"] == "sampled":
        return Sampled(ids, ids, ids)
    k = int(meta["k"])
    return TopK(ids.reshape(0, k), floats.reshape(0, k), floats, floats)


def compression_level(table: pa.Table) -> int:
    """zstd's level for a shard of whatever rows. Beside 9, 15 saves 3% of twenty log-probabilities and of
    draws; of 64 it saves 2%, of 128 nothing, and takes more time than all else that is done to them."""
    found = json.loads((table.schema.metadata or {}).get(FORMAT.encode(), b"{}"))
    return 9 if found.get("k", 0) > 32 else 15


def row_group_rows(table: pa.Table) -> int:
    """Rows a row group may hold so that it stays under 64 MiB."""
    return max(1, int(_ROW_GROUP_BYTES / max(1.0, table.nbytes / max(1, table.num_rows))))


@dataclass(frozen=True)
class Shard:
    """A shard in memory: `meta`, and rows by position. `target(row)` decodes one."""

    meta: LogitsMeta
    ids: list[str]
    aligns: list[bytes]
    columns: dict[str, list[bytes]]

    def target(self, row: int) -> Target:
        """The arrays of row `row`."""
        return decode({name: column[row] for name, column in self.columns.items()}, self.meta)

    def __len__(self) -> int:
        return len(self.ids)


def read(path: Path) -> Shard:
    """Open a shard. Raises CorpusError for a file that is not one."""
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
        found = json.loads((table.schema.metadata or {})[FORMAT.encode()])
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise CorpusError(
            f"{path}: not a {FORMAT} shard ({error})", "make it again: `synthgen generate --repair`"
        ) from None
    names = [name for name in table.column_names if name not in ("id", "align", "tokens")]
    return Shard(
        found,
        table["id"].to_pylist(),
        table["align"].to_pylist(),
        {name: table[name].to_pylist() for name in names},
    )


def check_aligned(shard: Shard, row: int, record_id: str, token_ids: Sequence[int], where: Path) -> None:
    """Raise CorpusError unless logits row `row` was made for exactly this record."""
    expected = align(token_ids, shard.meta["teacher"], shard.meta["tokenizer"], shard.meta["temperature"])
    if row >= len(shard) or shard.ids[row] != record_id or shard.aligns[row] != expected:
        raise CorpusError(
            f"{where}: logits row {row} does not belong to record {record_id}",
            "the logits folder does not match its rows; make it again: `synthgen generate --repair`",
        )
