"""Damages files in ways that a disk, an editor or another program may damage them. Every way is deterministic.

    for way in ways_for(path):
        mutate(path, way, random.Random(7))

A way is the name of a function in this module's tables. `ways_for` names the ways that fit the file's kind.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

Way = Callable[[bytes, Random], bytes]
DEEP = 100_000
ODD = (None, True, -1, 0.5, 1e400, 10**40, "", "x", "\x1b[31m", [], [1], {}, {"a": [None]}, [[[[]]]], "\ud800")
"""Values that replace a value of a JSON or YAML file."""


def _cut(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(max(1, len(data)))]


def _flip(data: bytes, random: Random) -> bytes:
    changed = bytearray(data or b"\0")
    changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _middle(data: bytes, random: Random) -> bytes:
    place = random.randrange(max(1, len(data)))
    return data[:place] + random.randbytes(16) + data[place + 16 :]


BYTES: dict[str, Way] = {
    "half": lambda data, random: data[: len(data) // 2],
    "cut": _cut,
    "empty": lambda data, random: b"",
    "noise": lambda data, random: random.randbytes(min(len(data), 4096) or 64),
    "zeros": lambda data, random: bytes(len(data)),
    "flip": _flip,
    "hole": _middle,
    "longer": lambda data, random: data + random.randbytes(64),
    "twice": lambda data, random: data + data,
}
TEXT: dict[str, Way] = {
    "latin-1": lambda data, random: data + "\n# é\n".encode("latin-1"),
    "utf-16": lambda data, random: data.decode(errors="replace").encode("utf-16"),
    "bom": lambda data, random: b"\xef\xbb\xbf" + data,
    "nul": lambda data, random: data[: len(data) // 2] + b"\0" + data[len(data) // 2 :],
    "escape": lambda data, random: data.replace(b"a", b"\x1b[31ma\xe2\x80\xae", 3),
}


def _replaced(value: object, random: Random) -> object:
    """A copy of a JSON value in which one value, at any depth, is replaced, removed or repeated."""
    value = json.loads(json.dumps(value))
    places: list[tuple[dict[str, object] | list[object], object]] = []
    waiting: list[object] = [value]
    while waiting:
        part = waiting.pop()
        keys = list(part) if isinstance(part, dict) else list(range(len(part))) if isinstance(part, list) else []
        for key in keys:
            places.append((part, key))
            waiting.append(part[key])
    if not places:
        return random.choice(ODD)
    part, key = random.choice(places)
    act = random.randrange(4)
    if act == 0:
        del part[key]
    else:
        part[key] = random.choice(ODD)
    return value


def _json(change: Callable[[object, Random], object]) -> Way:
    def way(data: bytes, random: Random) -> bytes:
        return json.dumps(change(json.loads(data), random), indent=2).encode()

    return way


JSON: dict[str, Way] = {
    **{f"replaced-{n}": _json(_replaced) for n in range(6)},
    "list": lambda data, random: b"[1]",
    "object": lambda data, random: b"{}",
    "null": lambda data, random: b"null",
    "text": lambda data, random: b'"text"',
    "number": lambda data, random: b"5",
    "huge-number": lambda data, random: b"9" * 5000,
    "deep": lambda data, random: b"[" * DEEP,
    "deep-closed": lambda data, random: b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "wrapped": lambda data, random: b"[" + data + b"]",
    "half-key": lambda data, random: data.replace(b'":', b'" ', 1),
}


def _line(data: bytes, random: Random) -> bytes:
    lines = data.splitlines()
    if not lines:
        return b"[]\n"
    number = random.randrange(len(lines))
    try:
        lines[number] = json.dumps(_replaced(json.loads(lines[number]), random)).encode()
    except ValueError:
        lines[number] = b"{}"
    return b"\n".join(lines) + b"\n"


JSONL: dict[str, Way] = {
    **{f"line-{n}": _line for n in range(4)},
    "lists": lambda data, random: b"[1]\n" * 3,
    "deep": lambda data, random: data + b"[" * DEEP + b"\n",
    "blank": lambda data, random: b"\n\n" + data + b"\n\n",
}


def _yaml(change: Callable[[object, Random], object]) -> Way:
    def way(data: bytes, random: Random) -> bytes:
        head = b"".join(line + b"\n" for line in data.splitlines() if line.startswith(b"#"))
        value = change(yaml.safe_load(data), random)
        return head + yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")

    return way


def _head(text: str) -> Way:
    """The file with more YAML directly after the comments at its beginning."""

    def way(data: bytes, random: Random) -> bytes:
        lines = data.splitlines(keepends=True)
        comments = [line for line in lines if line.startswith(b"#")]
        return b"".join([*comments, text.encode() + b"\n", *lines[len(comments) :]])

    return way


_BOMB = "\n".join(
    ["b0: &b0 [x, x, x, x, x, x, x, x, x]", *(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]" for n in range(1, 12))]
)
YAML: dict[str, Way] = {
    **{f"replaced-{n}": _yaml(_replaced) for n in range(6)},
    "bomb": _head(_BOMB),
    "itself": _head("extra: &a [*a]"),
    "deep": _head("extra: " + "[" * 20_000),
    "deep-closed": _head("extra: " + "[" * 2_000 + "]" * 2_000),
    "date": _head("description: 2026-01-31"),
    "bytes": _head("description: !!binary aGVsbG8="),
    "python": _head("description: !!python/object/apply:os.system [id]"),
    "odd-key": _head("? [1, 2]\n: x"),
    "tab": _head("\tdescription: x"),
    "list": lambda data, random: b"[1, 2]",
    "null": lambda data, random: b"",
    "number": lambda data, random: b"5",
}


def _table(change: Callable[[pa.Table], pa.Table]) -> Way:
    def way(data: bytes, random: Random) -> bytes:
        sink = io.BytesIO()
        pq.write_table(change(pq.read_table(pa.BufferReader(data))), sink, compression="zstd")
        return sink.getvalue()

    return way


PARQUET: dict[str, Way] = {
    "no-rows": _table(lambda table: table.slice(0, 0)),
    "fewer-rows": _table(lambda table: table.slice(1)),
    "rows-twice": _table(lambda table: pa.concat_tables([table, table])),
    "no-metadata": _table(lambda table: table.replace_schema_metadata(None)),
    "written-again": _table(lambda table: table),
    "one-column": _table(lambda table: table.select(table.column_names[:1])),
    "other-columns": _table(lambda table: pa.table({"a": list(range(len(table)))})),
    "texts": _table(lambda table: pa.table({name: ["x"] * len(table) for name in table.column_names})),
    "nulls": _table(
        lambda table: pa.table({f.name: pa.nulls(len(table), f.type) for f in table.schema}, schema=table.schema)
    ),
}


def _header(change: Callable[[bytes], bytes]) -> Way:
    def way(data: bytes, random: Random) -> bytes:
        (size,) = struct.unpack("<Q", data[:8])
        head = change(data[8 : 8 + size])
        return struct.pack("<Q", len(head)) + head + data[8 + size :]

    return way


SAFETENSORS: dict[str, Way] = {
    "long-header": lambda data, random: struct.pack("<Q", 1 << 62) + data[8:],
    "no-tensors": lambda data, random: struct.pack("<Q", 2) + b"{}",
    "list-header": _header(lambda head: b"[]"),
    "other-names": _header(lambda head: head.replace(b"weight", b"wieght")),
    "other-shape": _header(lambda head: head.replace(b'"shape":[', b'"shape":[1,', 1)),
    "no-metadata": _header(
        lambda head: json.dumps({k: v for k, v in json.loads(head).items() if k[:2] != "__"}).encode()
    ),
}


def _sql(*statements: str) -> Way:
    def way(data: bytes, random: Random) -> bytes:
        connection = sqlite3.connect(":memory:")
        if data:
            connection.deserialize(data)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        return connection.serialize()

    return way


SQLITE: dict[str, Way] = {
    "other-version": _sql("PRAGMA user_version = 99"),
    "no-table": _sql("DROP TABLE reply"),
    "odd-bodies": _sql("UPDATE reply SET body = x'05'"),
    "text-bodies": _sql("UPDATE reply SET body = 'text'"),
    "no-bodies": _sql("UPDATE reply SET body = NULL, failure = NULL"),
    "deep-bodies": _sql(f"UPDATE reply SET body = x'00000000' || zeroblob(0) || '{'[' * 5000}'"),
}
KINDS: dict[str, dict[str, Way]] = {
    ".json": {**TEXT, **JSON},
    ".jsonl": {**TEXT, **JSONL},
    ".yaml": {**TEXT, **YAML},
    ".md": TEXT,
    ".j2": TEXT,
    ".jinja": TEXT,
    ".html": TEXT,
    ".parquet": PARQUET,
    ".safetensors": SAFETENSORS,
    ".sqlite": SQLITE,
}


def _folder(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


def _link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


def _moved(path: Path) -> None:
    away = path.with_name(f"{path.name}.moved")
    path.rename(away)
    path.symlink_to(away)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _exchanged(path: Path) -> None:
    """The file gets the content of another file of its folder with the same suffix."""
    others = sorted(p for p in path.parent.iterdir() if p.suffix == path.suffix and p.is_file() and p != path)
    if others:
        shutil.copyfile(others[0], path)


PLACES: dict[str, Callable[[Path], None]] = {
    "missing": lambda path: path.unlink(),
    "folder": _folder,
    "link-to-nothing": lambda path: _link(path, path.with_name("nothing-here")),
    "link-to-itself": lambda path: _link(path, path),
    "link-to-folder": lambda path: _link(path, path.parent),
    "link-to-device": lambda path: _link(path, Path("/dev/zero")),
    "moved": _moved,
    "pipe": _pipe,
    "exchanged": _exchanged,
}
"""Ways that replace the file at a path by something else, instead of changing its bytes."""


def ways_for(path: Path) -> list[str]:
    """The names of all ways that fit a file of this kind."""
    return [*PLACES, *BYTES, *KINDS.get(path.suffix, {})]


def mutate(path: Path, way: str, random: Random) -> None:
    """Damage the file at `path` in one way."""
    if way in PLACES:
        PLACES[way](path)
        return
    change = KINDS.get(path.suffix, {}).get(way) or BYTES[way]
    data = path.read_bytes()
    try:
        changed = change(data, random)
    except (ValueError, TypeError, pa.ArrowException, sqlite3.Error, yaml.YAMLError):
        changed = b"[" + data  # the file was not of the kind that its suffix says
    path.write_bytes(changed)
