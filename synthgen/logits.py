"""Teacher distributions that are stored with the rows: their content, size and error.

A row with T completion tokens has T distributions. Entry t is the distribution that `token_ids[t]` was drawn from.
There are two kinds of storage:

- `Sampled`: at each position, N draws from softmax(logits / temperature), stored as unique ids and their counts.
  counts / N is an unbiased estimate of every probability. With these estimates as targets, the expected gradient of the
  cross-entropy is the gradient of the full KL (random-sampling distillation, ACL 2025). The counts are stored exactly.
- `TopK`: at each position, the K largest log-probabilities at temperature 1. Training may use another temperature. For
  the temperature of training, the log of the residual mass and the log-normalizer are stored too, because they depend
  on all tokens. Log-probabilities are stored as multiples of 1/512 nat. The error of a value above `FLOOR` is at most
  `STORAGE_ERROR`.

A shard is a Parquet file with one row for each record. Each array of a record is stored in one binary column, or in one
column for each byte plane. A byte plane holds one byte of each number of the array, such as the lowest byte. Bytes of
the same significance compress well together. The file's metadata holds dtypes, shapes and layout. No function in this
module loops over tokens in Python. Every row has `align`, a hash of token ids, teacher, tokenizer and temperature. So
training fails, instead of learning from the wrong tokens, if a row is paired with other tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synthgen.errors import CorpusError
from synthgen.files import check_regular

FORMAT = "logits-v2"
_AGAIN = "make the logits again: `synthgen generate --repair`"
_STEP = 1 / 512
STORAGE_ERROR = _STEP / 2  # largest error of a log-probability above FLOOR, in nats
FLOOR = -32.0  # nats, a probability of about 1e-14; smaller log-probabilities are stored as this value
_ROW_GROUP_BYTES = 64 << 20
_BESIDE = ("id", "align", "tokens")  # columns of a shard that do not belong to the distributions

Ints = np.ndarray[Any, np.dtype[Any]]
Floats = np.ndarray[Any, np.dtype[Any]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Sampled:
    """The token ids that were drawn from the teacher's distributions at T positions. `uniques` (T,) is the number of
    distinct ids at each position.

    `ids` and `counts` are flat: position by position, and ids ascending within a position.
    """

    ids: Ints
    counts: Ints
    uniques: Ints

    def __len__(self) -> int:
        return len(self.uniques)


@dataclass(frozen=True)
class TopK:
    """The K most probable tokens at T positions.

    `ids` and `logprobs` (T, K) are ordered by probability, largest first; `logprobs` are at temperature 1. `log_tail`
    and `log_z` (T,) are at the temperature that training uses in the loss. `log_tail` is the log of the residual mass
    (-inf when K is the vocabulary size). `log_z` is logsumexp(log p / temperature) over the whole vocabulary.
    """

    ids: Ints
    logprobs: Floats
    log_tail: Floats
    log_z: Floats

    def __len__(self) -> int:
        return len(self.ids)


Target = Sampled | TopK


@dataclass(frozen=True)
class LogitsSpec:
    """The settings of stored distributions. Kind "sampled" stores `draws` draws of each distribution, and kind "topk"
    the `k` most probable tokens. `temperature` is the temperature of the loss.
    """

    kind: Literal["sampled", "topk"]
    temperature: float = 1.0
    _: KW_ONLY
    draws: int = 0
    k: int = 0


class LogitsMeta(TypedDict):
    """The metadata of a shard.

    The metadata have the settings of `LogitsSpec`, the `teacher` ("name@revision"), the hash of the `tokenizer`, the
    vocabulary size, and the layout of the arrays.

    For merged distributions, `teachers` are the merged teachers. For a teacher with another tokenizer,
    `teacher_vocab_size` is the width of that teacher's own logits. Kind "dense" is for the full distributions of a live
    teacher.
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
    """Find the unique ids and their counts at each of T positions, from the N ids that were drawn there."""
    positions, n = draws_TN.shape
    if positions == 0:
        return Sampled(np.zeros(0, np.int32), np.zeros(0, np.uint16), np.zeros(0, np.uint16))
    ordered = np.sort(draws_TN, axis=1)
    first = np.ones(ordered.shape, bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    starts = np.flatnonzero(first.ravel())
    # `first` is True in column 0 of each row, so no sequence of equal ids reaches into the next row
    ends = np.append(starts[1:], positions * n)
    return Sampled(
        ordered.ravel()[starts].astype(np.int32),
        (ends - starts).astype(np.uint16),
        first.sum(axis=1).astype(np.uint16),
    )


def align(token_ids: Sequence[int], teacher: str, tokenizer: str, temperature: float) -> bytes:
    """A 16-byte hash of token ids, teacher, tokenizer and temperature."""
    head = json.dumps([FORMAT, teacher, tokenizer, float(temperature)]).encode()
    return hashlib.blake2b(head + np.asarray(token_ids, np.int32).tobytes(), digest_size=16).digest()


def meta(spec: LogitsSpec, vocab_size: int, teacher: str, tokenizer: str) -> LogitsMeta:
    """The metadata of a shard."""
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
    """Convert each log-probability (<= 0) to an integer: its distance from zero in steps of 1/512 nat. Values below
    `FLOOR`, such as -inf, become `FLOOR`.
    """
    return np.clip(np.rint(np.maximum(-logprobs, 0) / _STEP), 0, -FLOOR / _STEP).astype(np.int64)


def encode(target: Target, meta: LogitsMeta) -> dict[str, bytes]:
    """Encode the distributions of one row (`target`) as binary columns."""
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
    """Decode the binary columns of one row. `decode` is the inverse of `encode`, except that the log-probabilities of a
    top-k were rounded, with an error of at most `STORAGE_ERROR`, and log-probabilities below `FLOOR` became `FLOOR`.
    """
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


def cut(target: Target, length: int) -> Target:
    """The first `length` positions of a target."""
    if isinstance(target, TopK):
        return TopK(*(part[:length] for part in (target.ids, target.logprobs, target.log_tail, target.log_z)))
    end = int(target.uniques[:length].sum())
    return Sampled(target.ids[:end], target.counts[:end], target.uniques[:length])


def to_table(ids: Sequence[str], aligns: Sequence[bytes], targets: Sequence[Target], meta: LogitsMeta) -> pa.Table:
    """Make the table that `corpus.commit` writes for one shard."""
    rows = [encode(target, meta) for target in targets]
    return encoded_table(ids, aligns, [len(target) for target in targets], rows, meta)


def encoded_table(
    ids: Sequence[str],
    aligns: Sequence[bytes],
    tokens: Sequence[int],
    rows: Sequence[dict[str, bytes]],
    meta: LogitsMeta,
) -> pa.Table:
    """Make the table that `to_table` makes, from targets that `encode` encoded. `tokens` holds the number of positions
    of each target.
    """
    names = list(rows[0] if rows else encode(_nothing(meta), meta))
    columns: dict[str, pa.Array] = {
        "id": pa.array(ids, pa.string()),
        "align": pa.array(aligns, pa.binary()),
        "tokens": pa.array(tokens, pa.int32()),
    }
    columns |= {name: pa.array([row[name] for row in rows], pa.large_binary()) for name in names}
    return pa.table(columns).replace_schema_metadata({FORMAT: json.dumps(meta)})


def _nothing(meta: LogitsMeta) -> Target:
    """A target with zero positions. `to_table` encodes this target to get the column names of a shard without rows."""
    ids, floats = np.zeros(0, np.int32), np.zeros(0, np.float32)
    if meta["kind"] == "sampled":
        return Sampled(ids, ids, ids)
    k = int(meta["k"])
    return TopK(ids.reshape(0, k), floats.reshape(0, k), floats, floats)


def compression_level(table: pa.Table) -> int:
    """The zstd level for a shard of distributions.

    Compared with level 9, level 15 makes a shard of draws or of top-20 distributions 3% smaller, and a shard of top-64
    distributions 2% smaller. A shard of top-128 distributions has the same size at both levels. For a large k, level 15
    would also take more time than all other work on the distributions.
    """
    found = json.loads((table.schema.metadata or {}).get(FORMAT.encode(), b"{}"))
    return 9 if found.get("k", 0) > 32 else 15


def row_group_rows(table: pa.Table) -> int:
    """The number of rows in each row group, chosen so that a row group stays under 64 MiB."""
    return max(1, int(_ROW_GROUP_BYTES / max(1.0, table.nbytes / max(1, table.num_rows))))


@dataclass(frozen=True)
class Shard:
    """A shard in memory. Entry i of `ids`, `aligns` and each column belongs to row i, which `target(i)` decodes."""

    meta: LogitsMeta
    ids: list[str]
    aligns: list[bytes]
    columns: dict[str, list[bytes]]

    def encoded(self, row: int) -> dict[str, bytes]:
        """The binary columns of row `row`, as `encode` returned them."""
        return {name: column[row] for name, column in self.columns.items()}

    def target(self, row: int) -> Target:
        """The arrays of row `row`."""
        return decode(self.encoded(row), self.meta)

    def __len__(self) -> int:
        return len(self.ids)


def read(path: Path) -> Shard:
    """Read a shard of distributions. Raises CorpusError when the file is not a shard of distributions."""
    check_regular(path, _AGAIN)
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
        found = json.loads((table.schema.metadata or {})[FORMAT.encode()])
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise _not_logits(path, error) from None
    names = [name for name in table.column_names if name not in _BESIDE]
    return Shard(
        found,
        table["id"].to_pylist(),
        table["align"].to_pylist(),
        {name: table[name].to_pylist() for name in names},
    )


def pieces(path: Path, rows: int = 64) -> Iterator[Shard]:
    """Read a shard of distributions in pieces of at most `rows` rows. Raises the errors of `read`."""
    check_regular(path, _AGAIN)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
            meta = json.loads((file.schema_arrow.metadata or {})[FORMAT.encode()])
            names = [name for name in file.schema_arrow.names if name not in _BESIDE]
            for batch in file.iter_batches(rows, use_threads=False):
                columns = {name: batch[name].to_pylist() for name in names}
                yield Shard(meta, batch["id"].to_pylist(), batch["align"].to_pylist(), columns)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise _not_logits(path, error) from None


def _not_logits(path: Path, error: Exception) -> CorpusError:
    return CorpusError(f"{path}: not a {FORMAT} shard ({error})", _AGAIN)


def check_aligned(shard: Shard, row: int, record_id: str, token_ids: Sequence[int], where: Path) -> None:
    """Raise CorpusError unless row `row` of the shard was made for exactly this record with these tokens."""
    expected = align(token_ids, shard.meta["teacher"], shard.meta["tokenizer"], shard.meta["temperature"])
    if row >= len(shard) or shard.ids[row] != record_id or shard.aligns[row] != expected:
        raise CorpusError(
            f"{where}: logits row {row} does not belong to record {record_id}",
            "the files in logits/ do not match the corpus; make the logits again: `synthgen generate --repair`",
        )
