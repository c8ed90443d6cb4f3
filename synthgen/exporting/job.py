"""`export` reads the rows of a run or a data set twice: first to check them and then to write them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from synthgen import corpus, durable, outputs
from synthgen.auditing.notices import NAME
from synthgen.datasets import Dataset, is_dataset, open_dataset, records, source_of
from synthgen.errors import CorpusError, GateDenied, RunChanged, UserError, nearest, one_line
from synthgen.exporting.card import MADE_BY, About, write_card
from synthgen.exporting.description import Described, describe
from synthgen.exporting.files import Files, JsonLines, Tables
from synthgen.exporting.rows import Columns, columns, groups, row_of
from synthgen.files import is_regular, read_text
from synthgen.manifest import Manifest
from synthgen.records import SCHEMA, SPLITS, Record, own_names
from synthgen.results.audit import audit_of
from synthgen.tables.formats import DESCRIPTIONS, ROW_FORMATS
from synthgen.tables.reference import resolve
from synthgen.tally import tally
from synthgen.ui import UI

_LINES = ".jsonl"


@dataclass(frozen=True)
class Exported:
    """The result of `export`. `rows` holds the number of rows of each split. `files` holds the path of each split's
    file below `out`, or the path `out` itself if all rows are in one file. `rejected` is the number of rejected rows of
    a run, which are not exported. `license` is the license that the card states. `read_as` says how the rows of a data
    set were read; it is empty for a run.
    """

    out: Path
    to: str
    rows: dict[str, int]
    files: dict[str, str]
    rejected: int
    license: str
    read_as: str = ""
    columns: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {**vars(self), "out": str(self.out)}

    def text(self) -> str:
        """For people."""
        splits = ", ".join(f"{split} {count:,}" for split, count in self.rows.items())
        left = f"; {self.rejected:,} rejected rows were left out" if self.rejected else ""
        return "\n".join(
            [
                f"{self.out}: {sum(self.rows.values()):,} rows as {self.to} ({splits}){left}",
                f"columns: {', '.join(self.columns)}",
                f"license: {self.license}",
            ]
        )


@dataclass(frozen=True)
class _Rows:
    """The rows to export. `read` yields pairs (place, record). `own` maps the names of the user's own columns in a
    corpus to their original names, and `types` has the types of all columns in a corpus. `notice` is NOTICE.md of a
    corpus that was audited.
    """

    read: Callable[[], Iterator[tuple[str, Record]]]
    own: Mapping[str, str]
    types: pa.Schema
    folder: Path | None = None
    manifest: Manifest | None = None
    notice: Path | None = None
    rejected: int = 0
    read_as: str = ""

    @property
    def is_run(self) -> bool:
        """Whether the rows are those of a run."""
        return self.manifest is not None

    def about(self, name: str, to: str, license: str | None) -> About:
        """What the card says about these rows before any row was read."""
        if self.manifest is None or self.folder is None:
            return About(name, to, False, license, ())
        about = About(name, to, True, license, tuple(self.manifest["sources"]))
        about.manifest, about.rejected = self.manifest, self.rejected
        about.audit = audit_of(self.folder, about.corpus_sha256)
        return about


def exported() -> outputs.Output:
    """The files that `export` writes into a folder."""
    described = (re.escape(entry.file) for entry in DESCRIPTIONS.values() if entry.rows)
    data = (r"(train|validation|test)\.jsonl", r"data/(train|validation|test)-\d{5}-of-\d{5}\.parquet")
    return outputs.Output(
        "synthgen export", (("README.md", MADE_BY),), (r"README\.md", r"NOTICE\.md", *described, *data)
    )


def export(
    path: str | Path,
    to: str,
    out: str | Path,
    *,
    license: str | None = None,
    split: str | None = None,
    fields: Mapping[str, str] | None = None,
    fresh: bool = False,
    ui: UI | None = None,
) -> Exported | Described:
    """Write the kept rows of a run, or the rows of a data set, to the folder `out` in a format of ROW_FORMATS. With a
    format of DESCRIPTIONS, describe a run instead.

    The folder gets a file for each split and a card. Rows without a split are written to the file `train`. If the name
    of `out` ends in `.jsonl`, all rows are written to this file, and no card is written. `license` is the license of
    the exported rows; without `license`, the card states the license that all sources of the run have, `other` if the
    sources have several licenses, or `unknown`. With `split`, only rows of this split are written. `fields` maps
    columns of a format to the columns of the data set that hold them, as in {"prompt": "question"}. `fresh` replaces an
    earlier export.

    Raises UserError when the output folder is not free, and CorpusError, which names the row, when the format cannot
    hold a row without loss. In these cases, nothing is written. Raises GateDenied when there are no rows.
    """
    path, out, named = Path(path), Path(out), to
    described = DESCRIPTIONS.get(to)
    if described and not described.rows:
        if split or fields:
            raise UserError(f"{to} describes all rows, and writes none", "leave out --split and --field")
        return describe(path, to, out, license=license, fresh=fresh)
    to = described.rows if described else to
    if to not in ROW_FORMATS:
        raise UserError(
            f"there is no format '{to}'{nearest(to, [*ROW_FORMATS, *DESCRIPTIONS])}", "name a format with --to"
        )
    rows = _dataset(path, license, fields, ui) if is_dataset(path) else _run(path, fields)
    _check_out(out, path, to, fresh)
    about = rows.about(path.resolve().name, to, license)
    about.described = named if described else ""
    names = _checked(rows, to, split, about)
    if names is None:
        raise GateDenied(
            f"there are no rows to export in '{path}'" + (f" (split {split})" if split else ""),
            "see what it has: `synthgen show RUN`" if rows.is_run else "give a data set that has rows",
        )
    about.rows = {name: about.rows[name] for name in SPLITS if name in about.rows}
    _publish(out, rows, names, split, about)
    return Exported(
        out,
        named,
        about.rows,
        about.files,
        rejected=rows.rejected,
        license=about.terms,
        read_as=rows.read_as,
        columns=list(about.columns),
    )


def _publish(out: Path, rows: _Rows, names: Columns, split: str | None, about: About) -> None:
    """Write the file or the folder under a temporary name, and then rename it."""
    temporary = out.absolute().with_name(durable.TEMPORARY + out.name)
    durable.make_folder(temporary.parent)
    if out.suffix == _LINES:
        _write(rows, names, split, JsonLines(out.parent, temporary))
        about.files = {"all": out.name}
    else:
        _write_folder(temporary, rows, names, split, about)
    durable.publish(temporary, out)


def _write_folder(folder: Path, rows: _Rows, names: Columns, split: str | None, about: About) -> None:
    """Write the files and the card into a temporary folder. Files that an interrupted call left there are deleted."""
    durable.new_folder(folder)
    with durable.lock(folder):
        for left in [path for path in folder.iterdir() if path.name != ".lock"]:
            durable.remove(left)
        tables = ROW_FORMATS[about.to].like is not None
        made = Tables(folder, names, about.columns, about.has_tools) if tables else JsonLines(folder)
        _write(rows, names, split, made)
        place = "data/{}-00000-of-00001.parquet" if tables else "{}.jsonl"
        about.files = {name: place.format(name) for name in about.rows}
        if rows.notice:
            durable.write_text(folder / NAME, read_text(rows.notice, "audit again: `synthgen audit RUN`"))
            about.has_notice = True
        write_card(folder, about)
        if about.described:
            entry = DESCRIPTIONS[about.described]
            durable.write_json(folder / entry.file, resolve(entry.describe)(folder, about))
        (folder / ".lock").unlink()


def _checked(rows: _Rows, to: str, split: str | None, about: About) -> Columns | None:
    """Check that the format can hold every row, and count the rows. Returns null when there are no rows."""
    names: Columns | None = None
    for _, record in rows.read():
        names = columns(to, record, rows.own, rows.types, rows.is_run)
        break
    if names is None:
        return None
    for where, sides in groups(rows.read(), names.entry):
        if split in (None, _split(sides)):
            about.see(_split(sides), row_of(where, sides, names))
    return names if about.rows else None


def _write(rows: _Rows, names: Columns, split: str | None, files: Files) -> None:
    try:
        for where, sides in groups(rows.read(), names.entry):
            if split in (None, _split(sides)):
                files.add(_split(sides), row_of(where, sides, names, checked=True))
    finally:
        files.close()


def _split(records: list[Record]) -> str:
    """The split of a row. Rows of a data set that has no splits are training rows."""
    return records[0].split or SPLITS[0]


def _dataset(path: Path, license: str | None, fields: Mapping[str, str] | None, ui: UI | None) -> _Rows:
    dataset: Dataset = open_dataset(source_of(path, license, fields))
    if ui:
        ui.note(dataset.text())
    if dataset.unread:
        raise CorpusError(
            one_line(f"'{path}' has columns that an export cannot hold: {', '.join(dataset.unread)}"),
            "remove these columns from the files: values such as bytes cannot be exported",
        )
    names = own_names(dataset.own.names)
    types = pa.schema([dataset.own.field(name).with_name(new) for name, new in names.items()])
    own = {new: name for name, new in names.items()}
    return _Rows(lambda: records(dataset, "", None), own, types, read_as=dataset.text())


def _run(path: Path, fields: Mapping[str, str] | None) -> _Rows:
    if fields:
        raise UserError(f"'{path}' is a run, whose columns have names already", "leave out --field")
    folder = corpus.resolve(path)
    manifest = corpus.verify(folder)
    types = corpus.own_columns(folder)
    known = {f"source_{name}": name for name in SCHEMA.names}
    own = {name: known.get(name, name) for name in types.names}

    def read() -> Iterator[tuple[str, Record]]:
        for name, shard in corpus.records(folder):
            for number, record in enumerate(shard, 1):
                yield f"{folder}/data/{name}.parquet, row {number}", record

    notice = folder / NAME if is_regular(folder / NAME) else None
    return _Rows(read, own, types, folder, manifest, notice=notice, rejected=tally(folder).rejected)


def _check_out(out: Path, path: Path, to: str, fresh: bool) -> None:
    """Raise an error when the output cannot be written to `out`: `out` is an input or contains an input, or it contains
    files that `export` did not write.
    """
    outputs.not_around(out, path)
    if path.is_dir():
        inside = [path]
        with suppress(UserError):
            folder = corpus.resolve(path)
            inside = [folder, *outputs.stages(folder, "")]
        outputs.not_inside(out, inside)
    if out.suffix == _LINES:
        if ROW_FORMATS[to].like is not None:
            raise UserError(f"{out} is the name of a file, and {to} is a folder", "give a folder with -o")
        if out.exists():
            raise RunChanged(f"{out} is there already", "give another name with -o, or delete the file")
        return
    if out.is_dir() and exported().begun(out) and not fresh:
        raise RunChanged(
            one_line(f"{out} holds an earlier export"), "give another folder with -o, or replace it with --fresh"
        )
    outputs.check(out, exported(), fresh)
