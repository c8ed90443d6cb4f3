"""Stores hidden states of a teacher. The states are computed once, and later epochs and other students read the stored
states.

    states = States(run / "hidden", teacher.weights)
    states.make(teacher.weights, [9, 19, 29], texts, batch_size=8)     # missing states; texts: (prompt, completion)
    h_TD = states.read(9, prompt, completion)      # float32; row t is the position that predicts completion[t]

The states are in Parquet files below `hidden/<teacher>/layer-NN`, with one row for each text. The key of a row is a
hash of all tokens that the teacher read, the teacher's revision and its dtype. States of other tokens or other weights
are therefore never used.

For each position, the root mean square is stored as float32. The numbers of a position are divided by its root mean
square, and stored as float16 in two byte planes. The relative error of a number is at most 2⁻¹¹. For numbers below 6e-5
of the root mean square, the error is at most 3e-8 of the root mean square. Raw states could exceed the range of
float16: the states of a 135M Llama reach 24,827. Most loss terms normalize the states, but the scale must still be
stored, because layer normalization adds an ε to the variance.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from distill.data import Example
from distill.targets.layer_outputs import NO_HEAD, see
from synthgen import durable
from synthgen.errors import CorpusError, TeacherError
from synthgen.files import check_regular
from synthgen.lm.forward import batches
from synthgen.lm.weights import Weights
from synthgen.logits import Floats
from synthgen.ui import UI

FORMAT = b"hidden-v1"
_AGAIN = "delete the file; the states are then computed again"
_PART = 256  # maximum number of texts in a file
_PART_NUMBERS = 1 << 27  # a file is written when this many values, over all layers, are in memory (256 MiB)
_GROUP_BYTES = 1 << 16  # size in bytes of a row group; a whole row group is read and decompressed to read one text
_OPEN = 64  # maximum number of open files

_UNREADABLE = (OSError, pa.ArrowException, KeyError, ValueError)  # KeyError: a damaged footer may lack a column

Text = tuple[Sequence[int], Sequence[int]]
"""The token ids of a prompt and of its completion."""


class States:
    """The hidden states of one teacher, stored in `folder`. Reading states does not load the weights.

    Raises TeacherError when the exact revision of the weights is not known.
    """

    def __init__(self, folder: Path, teacher: Weights) -> None:
        config = teacher.config.get_text_config()
        self.width, self.depth = int(config.hidden_size), int(config.num_hidden_layers)
        revision = teacher.revision
        if not re.fullmatch("sha256:.+|[0-9a-f]{40}", revision):
            raise TeacherError(
                f"train.hidden.stored: the exact weights of '{teacher.name}' are not known (revision "
                f"{revision}), and stored states are valid only for the same weights",
                "set teacher.revision to a commit",
            )
        self.folder = folder / Path(teacher.name.removeprefix("package:")).name
        self._who = json.dumps([FORMAT.decode(), revision, teacher.dtype]).encode()
        self._there: dict[int, dict[bytes, tuple[Path, int]]] = {}

    def missing(self, layer: int, texts: Sequence[Text]) -> list[Text]:
        """Return the texts whose states after `layer` are not stored. Layers are counted from 0.

        Raises CorpusError when a file is damaged.
        """
        there = self._index(layer)
        return [text for text in texts if self._key(*text) not in there]

    def complete(self, layers: Sequence[int], texts: Sequence[Text]) -> bool:
        """Whether the states of all `texts` after all `layers` are stored."""
        indices = [self._index(layer) for layer in set(layers)]
        return all(self._key(*text) in index for text in texts for index in indices)

    def make(
        self,
        teacher: Weights,
        layers: Sequence[int],
        texts: Sequence[Text],
        batch_size: int,
        tick: Callable[[int], None] = lambda texts: None,
    ) -> None:
        """Compute and store the missing states, `batch_size` texts at a time. `tick` is called with the number of
        finished texts.

        Each file is written completely or not at all. The division into files depends only on `texts` and the number of
        layers, so a run that was killed and resumed writes the same bytes. Raises TeacherError when states are not
        finite.
        """
        depth = len(set(layers))
        for members in _parts(texts, depth * self.width):
            part = list(dict.fromkeys((tuple(p), tuple(c)) for p, c in members))
            wanted: dict[tuple[Text, ...], list[int]] = {}
            for layer in sorted(set(layers)):
                wanted.setdefault(tuple(self.missing(layer, part)), []).append(layer)
            for missing, depths in wanted.items():
                if missing:
                    self._write(depths, missing, _states_of(teacher, depths, missing, batch_size))
            tick(len(members))

    def read(self, layer: int, prompt: Sequence[int], completion: Sequence[int]) -> Tensor:
        """Read the states (T, D) after `layer` at the T positions that predict the completion's tokens.

        Raises CorpusError when the states are not stored, or their file is damaged.
        """
        place = self._index(layer).get(self._key(prompt, completion))
        if place is None:
            raise CorpusError(
                f"{self.folder} has no states of layer {layer} for a row", "train again, which computes the states"
            )
        path, row = place
        try:
            file = _opened(path)
            size = file.metadata.row_group(0).num_rows  # all row groups except the last have this size
            table = file.read_row_group(row // size, ["scale", "low", "high"]).slice(row % size, 1)
            h_TD = _decode({name: table[name][0].as_py() for name in table.column_names}, self.width)
        except _UNREADABLE as error:
            raise _damaged(path, error) from None
        return torch.from_numpy(h_TD)

    def look_again(self) -> None:
        """Forget the index, so that files that another process wrote are found."""
        self._there.clear()

    def _key(self, prompt: Sequence[int], completion: Sequence[int]) -> bytes:
        tokens = np.asarray([len(prompt), *prompt, *completion], np.int32)
        return hashlib.blake2b(self._who + tokens.tobytes(), digest_size=16).digest()

    def _place(self, layer: int) -> Path:
        return self.folder / f"layer-{layer:02d}"

    def _index(self, layer: int) -> dict[bytes, tuple[Path, int]]:
        if layer not in self._there:
            index: dict[bytes, tuple[Path, int]] = {}
            for path in sorted(self._place(layer).glob("*.parquet")):
                if not path.name.startswith("."):
                    self._note(index, path)
            self._there[layer] = index
        return self._there[layer]

    def _note(self, there: dict[bytes, tuple[Path, int]], path: Path) -> None:
        try:
            file = _opened(path)
            if FORMAT not in (file.schema_arrow.metadata or {}):
                raise pa.ArrowInvalid("it holds no hidden states")
            keys = file.read(["key"])["key"].to_pylist()
        except _UNREADABLE as error:
            raise _damaged(path, error) from None
        for row, key in enumerate(keys):
            there.setdefault(key, (path, row))

    def _write(self, depths: Sequence[int], texts: Sequence[Text], blobs: Sequence[Sequence[dict[str, bytes]]]) -> None:
        keys = [self._key(*text) for text in texts]
        name = hashlib.blake2b(b"".join(keys), digest_size=8).hexdigest()
        for n, layer in enumerate(depths):
            rows = [each[n] for each in blobs]
            columns = {"key": pa.array(keys, pa.binary()), "tokens": pa.array([len(c) for _, c in texts], pa.int32())}
            columns |= {key: pa.array([row[key] for row in rows], pa.large_binary()) for key in rows[0]}
            about = {"layer": layer, "width": self.width, "layout": "low and high bytes of float16, times scale f32"}
            table = pa.table(columns).replace_schema_metadata({FORMAT: json.dumps(about)})
            sink = pa.BufferOutputStream()
            pq.write_table(
                table,
                sink,
                compression="zstd",
                compression_level=3,
                use_dictionary=False,
                row_group_size=max(1, _GROUP_BYTES * len(rows) // max(1, table.nbytes)),
                write_page_checksum=True,
            )
            path = self._place(layer) / f"{name}.parquet"
            durable.write_bytes(path, sink.getvalue().to_pybytes())
            self._note(self._index(layer), path)


def store(
    states: States, teacher: Weights, layers: Sequence[int], rows: Sequence[Example], batch_size: int, ui: UI
) -> None:
    """Make sure that `states` has the states of `layers` for all `rows`.

    The process that writes files computes missing states, and the other processes wait until all states exist.
    """
    texts = _Texts(rows)
    if states.complete(layers, texts):
        return
    if not durable.writes():
        while not states.complete(layers, texts):
            time.sleep(0.5)
            states.look_again()
        return
    with durable.lock(states.folder):  # another student of this run may write to the same folder
        durable.sweep(states.folder, lambda path: path.suffix == ".parquet" and path.parent.name.startswith("layer-"))
        states.look_again()
        with ui.progress("hidden states", len(texts), "rows") as bar:
            states.make(teacher, layers, texts, batch_size, bar.advance)
    tokens = sum(len(completion) for _, completion in texts)
    ui.note(f"train: {states.folder} has the hidden states of {tokens:,} tokens after {len(set(layers))} layers")


class _Texts(Sequence[Text]):
    """The texts of some rows, as the teacher reads them. A text is read from its row only when it is needed."""

    def __init__(self, rows: Sequence[Example]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, key: int) -> Text: ...

    @overload
    def __getitem__(self, key: slice) -> list[Text]: ...

    def __getitem__(self, key: int | slice) -> Text | list[Text]:
        if isinstance(key, slice):
            return [_text(row) for row in self._rows[key]]
        return _text(self._rows[key])


def _text(row: Example) -> Text:
    return tuple(row.teacher_prompt) or tuple(row.prompt), tuple(row.completion)


def _opened(path: Path) -> pq.ParquetFile:
    check_regular(path, _AGAIN)
    return _opened_then(path, path.stat().st_mtime_ns)


@lru_cache(_OPEN)
def _opened_then(path: Path, changed: int) -> pq.ParquetFile:
    return pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)


def _damaged(path: Path, error: Exception) -> CorpusError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return CorpusError(f"{path} is damaged: {reason}", _AGAIN)


def _parts(texts: Sequence[Text], numbers: int) -> Iterator[Sequence[Text]]:
    """Cut `texts` into parts of at most `_PART` texts and `_PART_NUMBERS` numbers. Each completion token counts as
    `numbers` numbers.

    A text with more than `_PART_NUMBERS` numbers is a part of its own.
    """
    begin = held = 0
    for n, (_, completion) in enumerate(texts):
        if n > begin and (n - begin == _PART or held + len(completion) * numbers > _PART_NUMBERS):
            yield texts[begin:n]
            begin, held = n, 0
        held += len(completion) * numbers
    if texts:
        yield texts[begin:]


def _states_of(
    teacher: Weights, depths: Sequence[int], texts: Sequence[Text], batch_size: int
) -> list[list[dict[str, bytes]]]:
    """Return, for each text, the encoded states of the teacher after each layer of `depths`.

    Raises TeacherError when states are not finite.
    """
    blobs: list[list[dict[str, bytes]]] = [[] for _ in texts]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i][0]) + len(texts[i][1]))
    for batch in batches(order, [len(c) for _, c in texts], batch_size):
        with torch.no_grad():
            _, rows = see(teacher.model, NO_HEAD, [texts[i][0] for i in batch], [texts[i][1] for i in batch], depths)
        for i, row in zip(batch, rows, strict=True):
            states = [h_TD.float().cpu().numpy() for h_TD in row]
            if not all(np.isfinite(h_TD).all() for h_TD in states):
                raise TeacherError("the teacher's hidden states are not finite", "set teacher.dtype to float32")
            blobs[i] = [_encode(h_TD) for h_TD in states]
    return blobs


def _encode(h_TD: Floats) -> dict[str, bytes]:
    """Encode the states (T, D) of one text as bytes, one value for each column of the file."""
    scale_T = np.sqrt(np.square(h_TD, dtype=np.float64).mean(-1)).astype(np.float32)
    scale_T[scale_T == 0] = 1
    planes = (h_TD / scale_T[:, None]).astype("<f2").view(np.uint8).reshape(-1, 2)
    return {"scale": scale_T.astype("<f4").tobytes(), "low": planes[:, 0].tobytes(), "high": planes[:, 1].tobytes()}


def _decode(blobs: dict[str, bytes], width: int) -> Floats:
    """Return the states (T, width) in float32. This is the inverse of `_encode`, except for the rounding of float16."""
    planes = np.stack([np.frombuffer(blobs[name], np.uint8) for name in ("low", "high")], -1)
    return planes.view("<f2").reshape(-1, width).astype(np.float32) * np.frombuffer(blobs["scale"], "<f4")[:, None]
