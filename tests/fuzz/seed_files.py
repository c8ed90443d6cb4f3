"""Makes odd seed files at random, and counts the rows of a file without the code of synthgen.

    task = write_task(tmp_path, number)     # the same number makes the same task
    rows_in(task.seeds)                     # the rows that a person sees there

A file is first written without faults: rows with values of every type, as JSONL, CSV, TSV or Parquet. Then some of the
file's bytes, its encoding, its name or its folder are changed.
"""

from __future__ import annotations

import bz2
import csv
import datetime
import gzip
import io
import json
import lzma
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TEXTS = (
    *("How far is it?", "What is 3 + 4?", "a,b;c\td", 'say "hi"', "two\nlines", "nul\0", "été 日本語 🙂", "\u202eback"),
    *("nan", "None", "[1, 2]", "", "  ", "\u2028", "x" * 500, "'", '"', "\ufeff", "-", "{{ question }}", "{% if %}"),
)
VALUES = (
    *(None, True, False, 0, -1, 7, 2**53 + 1, 2**64, 10**30, 0.1, -0.0, 1e300, 7.0, float("nan"), float("inf")),
    *([], {}, ["7", "seven"], [None], [7, None, ""], [["x"]], {"value": 7}, [{"a": [{}]}]),
)
# Pieces of JSON that no writer makes from Python values.
JSON_PIECES = (
    *(b"1e999", b"-1e-999", b"NaN", b"-Infinity", b"9" * 4000, b"9" * 5000, b"01", b"'x'", b"undefined", b"\\ud83d"),
    *(b'"\\ud83d"', b'"\\udc00\\ud83d"', b'"\\u0000"', b"[" * 50 + b"]" * 50, b"[" * 5000, b'{"a":' * 3000 + b"1"),
    *(b"[" * 990 + b"]" * 990, b'{"x":1,"x":2}', b"\xff", b"\xed\xa0\x80", b"/* */ 1", b"1.0E+2", b"+1", b"\t"),
)
TEMPLATES = (
    *("{{ question }}", "{{ question }}", "Think.\n{{ question }}\n{{ answer }}", "{{ question|upper }}"),
    *("{% if answer %}{{ answer }}{% endif %} {{ question }}", "{% for part in question %}{{ part }}{% endfor %}"),
)
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: bytes(pa.Codec("zstd").compress(data)),
}
OPEN = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
ENDINGS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".JSONL", ".Csv")
OTHER_ENDINGS = (".json", ".txt", "", ".jsonl.part", ".zip", ".csv.bak", ".parquet.gz", ".md", ".arrow", ".csv.gz.gz")

Rows = list[dict[str, object]]


@dataclass(frozen=True)
class Task:
    """A recipe, the path of its seeds, and the template of its questions."""

    recipe: Path
    seeds: Path
    template: str


def write_task(folder: Path, number: int) -> Task:
    """Write the recipe, the template and the seed files of the task with this number."""
    draw = random.Random(number)
    folder.mkdir()
    if draw.random() < 0.2:
        seeds = folder / "seeds"
        _folder(seeds, draw)
    else:
        seeds = folder / f"seeds{_ending(draw)}"
        _file(seeds, draw)
    source: dict[str, object] = {"path": seeds.name, "source": "fuzz"}
    for key, share in (("id", 0.1), ("group", 0.1), ("reference", 0.5)):
        if draw.random() < share:
            source[key] = "id" if key == "id" else draw.choice(["answer", "answer", "other"])
    template = draw.choice(TEMPLATES)
    (folder / "user.j2").write_text(template)
    recipe = {"task": "t", "license": "MIT", "seeds": [source], "teacher": {"model": "org/model", "license": "MIT"}}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return Task(folder / "recipe.yaml", seeds, template)


def _ending(draw: random.Random) -> str:
    ending = draw.choice(ENDINGS if draw.random() < 0.9 else OTHER_ENDINGS)
    packed = draw.random() < 0.15 and ending.lower() != ".parquet"
    return ending + (draw.choice(list(COMPRESS)) if packed else "")


def _folder(folder: Path, draw: random.Random) -> None:
    folder.mkdir(parents=True)
    for number in range(draw.randint(0, 3)):
        name = draw.choice(["{}", "sub/{}", ".hidden/{}", ".{}", "x.csv/{}", "é{}"]).format(number)
        _file(folder / f"{name}{_ending(draw)}", draw, change=draw.random() < 0.3)
    if draw.random() < 0.3:
        path = folder / f"odd{draw.choice(ENDINGS)}"
        kind = draw.randrange(5)
        if kind == 0:
            os.mkfifo(path)
        elif kind == 1:
            path.symlink_to(folder)
        elif kind == 2:
            path.symlink_to(draw.choice([path.name, "missing.jsonl", "/dev/zero"]))
        elif kind == 3:
            path.mkdir()
        else:
            path.write_bytes(b"")


def _file(path: Path, draw: random.Random, change: bool = True) -> None:
    ending, packed = ending_of(path)
    columns = ["question", *draw.sample(["answer", "id", "other"], draw.choice([2, 3, 3]))]
    count = draw.choice([1, 2, 3, 3, 20, 0] if draw.random() < 0.5 else [1, 2, 3, 20])
    plain = draw.random() < 0.3

    def value(name: str, number: int) -> object:
        if plain or draw.random() < 0.98:
            return f"How far is {number}?" if name == "question" else number if name == "id" else str(number % 3)
        return draw.choice(TEXTS if draw.random() < 0.5 else VALUES)

    rows: Rows = [{name: value(name, number) for name in columns} for number in range(count)]
    if rows and draw.random() < 0.2:
        rows += draw.choices(rows, k=2)
    data = _parquet(rows, columns, draw) if ending == ".parquet" else _text(rows, columns, ending, draw)
    if change and draw.random() < 0.5:
        for _ in range(draw.choice([1, 1, 2, 5])):
            data = draw.choice(CHANGES)(data, draw)
    if packed:
        data = COMPRESS[packed](data)
        if change and draw.random() < 0.3:
            data = draw.choice(CHANGES)(data, draw)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _text(rows: Rows, columns: list[str], ending: str, draw: random.Random) -> bytes:
    if ending in (".csv", ".tsv"):
        out = io.StringIO()
        separator = "\t" if ending == ".tsv" else ","
        if draw.random() < 0.1:
            separator = draw.choice(",;\t|")
        quoting = draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
        writer = csv.writer(out, delimiter=separator, quoting=quoting, lineterminator=draw.choice(["\n", "\r\n", "\r"]))
        writer.writerow([*columns, columns[0]] if draw.random() < 0.05 else columns)
        writer.writerows([["" if v is None else v for v in row.values()] for row in rows])
        return out.getvalue().encode()
    lines = []
    for row in rows:
        line = json.dumps(row, ensure_ascii=draw.random() < 0.5).encode()
        if draw.random() < 0.05:
            place = draw.choice([line.find(b":") + 2, line.rfind(b":") + 2])
            line = line[:place] + draw.choice(JSON_PIECES) + draw.choice([b"}", line[place:], b", " + line[place:]])
        lines.append(line)
    return b"".join(line + draw.choice([b"\n", b"\n", b"\r\n", b"\n\n", b" \t\n"]) for line in lines)


def _parquet(rows: Rows, columns: list[str], draw: random.Random) -> bytes:
    count = len(rows)
    arrays = []
    for name in columns:
        try:
            arrays.append(pa.array([row[name] for row in rows]))
            pq.write_table(pa.table({"x": arrays[-1]}), io.BytesIO())
        except (pa.ArrowException, OverflowError):
            arrays = arrays[: columns.index(name)]
            arrays.append(pa.array([str(row[name]) for row in rows]))
    odd: list[Callable[[], pa.Array]] = [
        lambda: pa.array([b"\xff"] * count),
        lambda: pa.array([0.1] * count, pa.float32()),
        lambda: pa.array([np.float16(0.1)] * count, pa.float16()),
        lambda: pa.array([[0.1, None]] * count, pa.list_(pa.float32())),
        lambda: pa.array([3_000_000] * count, pa.int32()).cast(pa.date32()),
        lambda: pa.array([2**62] * count).cast(pa.timestamp("us")),
        lambda: pa.array([1] * count).cast(pa.timestamp("ns", draw.choice([None, "UTC", "No/Where"]))),
        lambda: pa.array([datetime.timedelta(days=1)] * count),
        lambda: pa.array([[("a", 1)]] * count, pa.map_(pa.string(), pa.int64())),
        lambda: pa.array([2**64 - 1] * count, pa.uint64()),
        lambda: pa.array(["a", "b", "a"] * count)[:count].dictionary_encode(),
        lambda: pa.nulls(count),
        lambda: pa.Array.from_buffers(
            pa.string(),
            count,
            [None, pa.py_buffer(np.arange(count + 1, dtype=np.int32).tobytes()), pa.py_buffer(b"\xe9" * count)],
        ),
    ]
    for _ in range(draw.choice([0, 0, 0, 1, 2])):
        arrays.append(draw.choice(odd)())
        columns = [*columns, draw.choice(["answer", "extra", "extra", "more", "more"])]
    out = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, columns), out, row_group_size=draw.choice([2, 100]))
    return out.getvalue()


def _place(data: bytes, draw: random.Random) -> int:
    return draw.randint(0, len(data))


def _flip(data: bytes, draw: random.Random) -> bytes:
    return bytes(draw.randrange(256) if draw.random() < 3 / (len(data) + 1) else byte for byte in data)


def _insert(data: bytes, draw: random.Random) -> bytes:
    pieces = (*JSON_PIECES, b'"', b"\0", b"\r", b"\n", b"\xef\xbb\xbf", b",", b"\t", b"{", b"}", draw.randbytes(9))
    place = _place(data, draw)
    return data[:place] + draw.choice(pieces) + data[place:]


def _cut(data: bytes, draw: random.Random) -> bytes:
    first, second = sorted((_place(data, draw), _place(data, draw)))
    return draw.choice([data[:first], data[first:], data[:first] + data[second:], data + data[first:second]])


def _encoded(data: bytes, draw: random.Random) -> bytes:
    name = draw.choice(["utf-16", "utf-16-le", "utf-8-sig", "latin-1", "cp1252", "utf-32", "shift_jis", "utf-7"])
    return data.decode(errors="replace").encode(name, "replace")


def _huge(data: bytes, draw: random.Random) -> bytes:
    place = _place(data, draw)
    return data[:place] + draw.choice([b"x", b"[", b'"', b"\n", b","]) * draw.choice([200_000, 1000]) + data[place:]


def _other_bytes(data: bytes, draw: random.Random) -> bytes:
    return draw.choice([draw.randbytes(200), b"PAR1" + draw.randbytes(50) + b"PAR1", b"\x1f\x8b" + data, b"", b"[]"])


CHANGES = (_flip, _flip, _insert, _insert, _insert, _cut, _cut, _encoded, _huge, _other_bytes)


def ending_of(path: Path) -> tuple[str, str]:
    """(format, compression) of a path, in lower case. The format is ".jsonl" if the name has no known ending."""
    ending = path.suffix.lower()
    packed = ending if ending in COMPRESS else ""
    ending = Path(path.stem).suffix.lower() if packed else ending
    return (ending if ending in (".csv", ".tsv", ".parquet") else ".jsonl"), packed


def rows_in(path: Path, seen: frozenset[str] = frozenset()) -> list[dict[str, object] | None]:
    """The rows that a person sees in a file or a folder that synthgen accepts. A row of a Parquet file is given as
    None, because only the number of these rows is known.
    """
    if path.is_dir():
        if os.path.realpath(path) in seen:
            return []
        seen = seen | {os.path.realpath(path)}
        names = [p for p in path.iterdir() if not p.name.startswith(".") and p.suffix.lower() != ".md"]
        return [row for name in names for row in rows_in(name, seen)]
    ending, packed = ending_of(path)
    if ending == ".parquet":
        return [None] * pq.ParquetFile(path).metadata.num_rows
    data = path.read_bytes()
    if packed:
        data = OPEN[packed](data) if packed in OPEN else pa.input_stream(path, compression="zstd").read()
    if ending == ".jsonl":
        lines = [line for line in data.split(b"\n") if line.strip()]
        return [json.loads(line.decode("utf-8-sig").strip(" \t\r\n")) for line in lines]
    csv.field_size_limit(1 << 30)
    reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter="\t" if ending == ".tsv" else ",")
    table = [cells for cells in reader if cells]
    return [dict(zip(table[0], cells, strict=True)) for cells in table[1:]]
