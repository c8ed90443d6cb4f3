"""Opens a run in a notebook: rows are pandas data frames, distributions are numpy arrays, and results are objects.

    run = synthgen.open("runs/first")
    run                                            # a short summary, also in a notebook's cell
    run.kept                                       # the rows that curation kept
    run.rejected[["completion_text", "rejected_by", "reason"]]
    run.rows("kept", ["id", "answer"], split="test")
    run.distribution(run.kept["id"].iloc[0]).probabilities
    run.evaluation.frame()

`open` accepts the folder of a run at any stage, or a corpus folder. Files are read only when they are needed.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthgen import corpus, logits
from synthgen.errors import CorpusError, UserError, nearest
from synthgen.parquet import metadata
from synthgen.records import FAILURE_SCHEMA, SCHEMA
from synthgen.results.audit import read_audit
from synthgen.results.evaluation import Evaluation, read_evaluation
from synthgen.results.measures import text_table
from synthgen.results.training import Training, read_training
from synthgen.visible import visible

if TYPE_CHECKING:
    import pandas as pd

Part = Literal["generated", "kept", "rejected", "failures"]
Ints = np.ndarray[Any, np.dtype[Any]]
Floats = np.ndarray[Any, np.dtype[Any]]

_DERIVED = {
    "prompt_text": ("prompt",),
    "completion_text": ("completion",),
    "rejected_by": ("verdicts",),
    "reason": ("verdicts",),
}
"""Additional columns of a data frame, each with the corpus columns from which it is computed."""


@dataclass(frozen=True)
class Distribution:
    """The teacher's stored distribution at each of the T tokens of a completion.

    `token_ids` (T,) are the tokens of the completion; entry t of the other arrays is the distribution that token t was
    drawn from. `ids` (T, K) are token ids. `probabilities` and `log_probabilities` (T, K) are at `temperature`, which
    is the temperature in the metadata of the stored distribution.

    For `kind` "topk", `ids` are the K most probable ids, the most probable first; `tail` (T,) is the total probability
    of all other ids. For `kind` "sampled", `ids` are the ids that were drawn, in ascending order. `counts` (T, K) are
    the numbers of draws of each id, and a probability is count / `draws`. Positions with fewer than K distinct ids are
    padded with id −1 and count 0.
    """

    kind: str
    teacher: str
    temperature: float
    token_ids: Ints
    ids: Ints
    probabilities: Floats
    log_probabilities: Floats
    tail: Floats | None = None
    counts: Ints | None = None
    draws: int | None = None

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True)
class Student:
    """A trained student: its folder and the facts of its training."""

    path: Path
    training: Training


class OpenRun:
    """An opened run or corpus. Each attribute reads its files when it is first used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        inside = {name: path / name for name in ("generated", "curated") if (path / name).is_dir()}
        if not inside and (path / "data").is_dir():  # a corpus folder
            curated = (path / "rejected").is_dir()
            inside = {"curated" if curated else "generated": path}
            path = path.parent
        if not inside:
            raise CorpusError(
                f"there is no corpus in '{self.path}'" if self.path.exists() else f"'{self.path}' does not exist",
                "give a run folder, or make one: `synthgen run RECIPE -o RUN`",
            )
        self._folders = inside
        self._run = path

    # Rows

    @cached_property
    def generated(self) -> pd.DataFrame:
        """All rows that the teacher generated, before curation."""
        return self.rows("generated")

    @cached_property
    def kept(self) -> pd.DataFrame:
        """The rows that curation kept."""
        return self.rows("kept")

    @cached_property
    def rejected(self) -> pd.DataFrame:
        """The rows that curation rejected, with `rejected_by` (the checks) and `reason` (in words)."""
        return self.rows("rejected")

    @cached_property
    def failures(self) -> pd.DataFrame:
        """The requests that did not lead to a row, with the reasons."""
        return self.rows("failures")

    def rows(self, part: Part, columns: Sequence[str] | None = None, split: str | None = None) -> pd.DataFrame:
        """Rows of one part as a data frame with Arrow-backed columns. `columns` selects columns, and `split` selects
        the rows of one split.

        In addition to the columns of the corpus, there are `prompt_text` and `completion_text`: the text of the last
        message of the prompt and of the completion. Rejected rows also have `rejected_by` and `reason`. If the corpus
        itself has a column of one of these names, the corpus's column is returned. Raises UserError when the run does
        not have these rows yet, or when a column does not exist.
        """
        import pandas as pd

        folder, name = self._place(part)
        names = corpus.shards(folder, name, split)
        there = _columns(folder / name, names, FAILURE_SCHEMA if part == "failures" else SCHEMA)
        derived = {} if part == "failures" else {n: d for n, d in _DERIVED.items() if n not in there}
        if part != "rejected":
            derived = {n: d for n, d in derived.items() if d != ("verdicts",)}
        wanted = [*there, *derived] if columns is None else list(columns)
        for column in wanted:
            if column not in there and column not in derived:
                raise UserError(
                    f"{folder / name} has no column '{column}'{nearest(column, [*there, *derived])}",
                    "`rows(part)` returns all columns",
                )
        read = list(dict.fromkeys(c for w in wanted for c in derived.get(w, (w,))))
        schema = pa.schema([there[c] for c in read])
        batches = [b for shard in names for b in corpus.scan(folder / name / f"{shard}.parquet", read, 8192)]
        table = pa.Table.from_batches(batches, schema if not batches else None).select(read)
        for column in wanted:
            if column in derived:
                table = table.append_column(column, _derive(column, table))
        found: pd.DataFrame = table.select(wanted).to_pandas(types_mapper=pd.ArrowDtype)
        return found

    def _place(self, part: Part) -> tuple[Path, str]:
        """Return the corpus folder that holds the rows of `part`, and the name of the subfolder with these rows."""
        if part not in ("generated", "kept", "rejected", "failures"):
            raise UserError(
                f"there is no part '{part}'{nearest(part, ('generated', 'kept', 'rejected', 'failures'))}",
                "name generated, kept, rejected or failures",
            )
        stage = "curated" if part in ("kept", "rejected") else "generated"
        if stage not in self._folders:
            hint = f"curate the run: `synthgen curate {self.path}`; `.generated` has all rows"
            if stage == "generated":
                hint = "open the run that contains this folder"
            raise UserError(f"{self.path} is not {stage}, so it has no part '{part}'", hint)
        return self._folders[stage], {"generated": "data", "kept": "data"}.get(part, part)

    # Distributions

    def distribution(self, id: str, teacher: str | None = None) -> Distribution:
        """The stored distribution of the row `id`. `teacher` must be given when several teachers' distributions are
        stored.

        Raises UserError when no distribution is stored for the row, and CorpusError when the stored distribution does
        not belong to the row.
        """
        root = self._logits()
        folders = {p.name: p for p in sorted(root.iterdir()) if p.is_dir()} if root else {}
        if not folders:
            raise UserError(
                f"{self.path} has no stored distributions", "generate with a `logits` section in the recipe"
            )
        if teacher is None and len(folders) > 1:
            raise UserError(
                f"{root} has distributions of several teachers: {', '.join(folders)}",
                "name a teacher: distribution(id, teacher)",
            )
        name = teacher or next(iter(folders))
        if name not in folders:
            raise UserError(
                f"{root} has no distributions of '{name}'{nearest(name, folders)}",
                "name a teacher whose distributions are stored",
            )
        shard, row = self._find(folders[name], id)
        tokens = self._tokens(shard, id)
        path = folders[name] / f"{shard}.parquet"
        stored = _shard(path, path.stat().st_mtime_ns)
        logits.check_aligned(stored, row, id, tokens, path)
        return _distribution(stored.target(row), stored.meta, np.asarray(tokens, np.int32))

    def _logits(self) -> Path | None:
        """The folder `logits` with the stored distributions, usually in the generated corpus; None if nothing is
        stored.
        """
        places = [*(folder / "logits" for folder in self._folders.values()), self._run / "generated" / "logits"]
        return next((place for place in places if place.is_dir()), None)

    def _find(self, folder: Path, id: str) -> tuple[str, int]:
        """Return the name of the shard with the distribution of the row `id`, and the row's index in this shard."""
        index = self._indexes.setdefault(folder, {})
        if not index:
            for shard in (p.stem for p in sorted(folder.glob("*.parquet")) if not p.name.startswith(".")):
                batches = list(corpus.scan(folder / f"{shard}.parquet", ["id"]))
                ids = [value for batch in batches for value in batch["id"].to_pylist()]
                index |= {value: (shard, place) for place, value in enumerate(ids)}
        if id not in index:
            raise UserError(f"{folder} has no distribution of a row '{id}'", "ids are in the column `id`")
        return index[id]

    @cached_property
    def _indexes(self) -> dict[Path, dict[str, tuple[str, int]]]:
        return {}

    def _tokens(self, shard: str, id: str) -> list[int]:
        """The completion tokens of the row `id`, which is a kept or a rejected row of the shard `shard`."""
        for folder in self._folders.values():
            for part in ("data", "rejected"):
                path = folder / part / f"{shard}.parquet"
                for batch in corpus.scan(path, ["id", "token_ids"]) if path.exists() else ():
                    places = np.flatnonzero(np.array(batch["id"].to_pylist()) == id)
                    if len(places):
                        return list(batch["token_ids"][int(places[0])].as_py() or ())
        raise UserError(f"{self.path} has no row '{id}'", "ids are in the column `id`")

    # Results

    @property
    def student(self) -> Student | None:
        """The trained student; None when no student was trained yet."""
        folder = self._student_folder
        return Student(folder, read_training(folder / "training.json")) if folder else None

    @property
    def evaluation(self) -> Evaluation | None:
        """The result of `distill eval`; None when the student was not measured yet."""
        path = self._student_folder / "evaluation.json" if self._student_folder else None
        return read_evaluation(path) if path and path.exists() else None

    @property
    def _student_folder(self) -> Path | None:
        """The student's folder: RUN/student or, for a student that was trained on a data set, the folder that also
        holds the rows.
        """
        folders = (self._run / "student", self._run)
        return next((folder for folder in folders if (folder / "training.json").exists()), None)

    @property
    def audit(self) -> dict[str, Any] | None:
        """The latest audit, as audit/report.json holds it; None when the run was not audited yet."""
        path = self._run / "audit" / "report.json"
        if not path.exists():
            return None
        read_audit(path)  # raises CorpusError for a file of another shape
        found: dict[str, Any] = corpus.load_json(path)
        return found

    # The summary

    def summary(self) -> list[tuple[str, str]]:
        """A summary of the run as pairs (label, value)."""
        lines = [("folder", str(self.path))]
        for stage, folder in self._folders.items():
            lines.append((stage, self._state(folder)))
        audit, student, evaluation = self.audit, self.student, self.evaluation
        lines += [("audit", f"{audit['status']} for {audit['intent']['use']} use")] if audit else []
        if student:
            training = student.training
            lines.append(("student", f"{training.student}; {training.steps:,} steps on {training.rows:,} rows"))
            lines += [("audit waived", one) for one in (training.audit.waivers if training.audit else ())]
            if training.audit and training.audit.overridden:
                lines.append(("audit overridden", training.audit.text()))
        for figure in evaluation.figures if evaluation else ():
            lines.append((figure.label, figure.text()))
        return lines

    def _state(self, folder: Path) -> str:
        """The counts of a corpus, or its progress when it is unfinished."""
        if not (folder / "manifest.json").exists():
            return f"not finished: {len(corpus.shards(folder)):,} shards so far"
        manifest = corpus.manifest(folder)
        counts = Counter({name.replace("_", " "): count for name, count in manifest["counts"].items()})
        return ", ".join(f"{name} {count:,}" for name, count in counts.items())

    def __repr__(self) -> str:
        lines = self.summary()
        return visible(text_table(lines[0], lines[1:]))

    def _repr_html_(self) -> str:
        cells = "".join(
            f'<tr><th style="text-align: left">{html.escape(label)}</th>'
            f'<td style="text-align: left">{html.escape(value)}</td></tr>'
            for label, value in self.summary()
        )
        return f"<table>{cells}</table>"


def open(run: str | Path) -> OpenRun:
    """Open the folder of a run at any stage, or a corpus folder. Raises CorpusError when the folder holds no corpus."""
    return OpenRun(Path(run))


@lru_cache(maxsize=4)
def _shard(path: Path, changed: int) -> logits.Shard:
    """Read a shard of distributions, or take it from a cache.

    `changed` is the file's modification time. The modification time is part of the cache's key, so a changed file is
    read again.
    """
    return logits.read(path)


def _columns(folder: Path, shards: Sequence[str], schema: pa.Schema) -> dict[str, pa.Field]:
    """The columns of the shards in `folder` by name, read from the first shard, or from `schema` when there is no shard
    yet.
    """
    if shards:
        schema, _ = metadata(folder / f"{shards[0]}.parquet")
    return {field.name: field for field in schema}


def _derive(column: str, table: pa.Table) -> pa.Array:
    """Compute the column `column`, which is a key of `_DERIVED`, from the corpus columns in `table`."""
    if column == "rejected_by":
        return _joined(table["verdicts"], "check", ", ")
    if column == "reason":
        return _joined(table["verdicts"], "reason", "; ")
    messages = table[_DERIVED[column][0]].combine_chunks()
    ends = np.asarray(messages.offsets)[1:]
    begins = np.asarray(messages.offsets)[:-1]
    last = pa.array(
        [int(end) - 1 if end > begin else None for begin, end in zip(begins, ends, strict=True)], pa.int64()
    )
    return pc.struct_field(messages.values, "content").take(last)


def _joined(verdicts: pa.ChunkedArray, field: str, by: str) -> pa.Array:
    """For each row: the values of one field in all entries of its `verdicts`, joined into one text with the separator
    `by`.
    """
    lists = verdicts.combine_chunks()
    return pc.binary_join(pa.ListArray.from_arrays(lists.offsets, pc.struct_field(lists.values, field)), by)


def _distribution(target: logits.Target, meta: logits.LogitsMeta, tokens: Ints) -> Distribution:
    """Convert the stored distributions of one row to a `Distribution`, whose arrays have equal K at every position."""
    teacher, temperature = meta["teacher"], meta["temperature"]
    # a top-k target stores `logprobs` at temperature 1, and `log_tail` and `log_z` at `temperature`
    if isinstance(target, logits.TopK):
        log_probabilities = target.logprobs / temperature - target.log_z[:, None]
        return Distribution(
            "topk",
            teacher,
            temperature,
            tokens,
            ids=target.ids,
            probabilities=np.exp(log_probabilities),
            log_probabilities=log_probabilities,
            tail=np.exp(target.log_tail),
        )
    width = int(target.uniques.max(initial=0))
    inside = np.arange(width)[None, :] < target.uniques[:, None]
    ids, counts = np.full(inside.shape, -1, np.int32), np.zeros(inside.shape, np.int32)
    ids[inside], counts[inside] = target.ids, target.counts
    draws = int(meta["draws"])
    probabilities = counts / draws
    with np.errstate(divide="ignore"):
        log_probabilities = np.log(probabilities)
    return Distribution(
        "sampled",
        teacher,
        temperature,
        tokens,
        ids=ids,
        probabilities=probabilities,
        log_probabilities=log_probabilities,
        counts=counts,
        draws=draws,
    )
