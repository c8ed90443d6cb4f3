"""The selection `select` keeps a number of rows of the split `train`: rows with the best scores, rows that differ much,
or random rows.

`signature` reads the data that the selection needs about each row, in the same pass as the checks. `decide` then sees
all rows that are left. `decide` chooses units: a group is a unit, and each row without a group is a unit (see `Order`).
A unit with a row of `validation` or `test` is always kept. The choice depends only on the rows, their order and the
settings.

The units of each stratum are put into an order. Units are taken in this order as long as they fit into the number of
rows that the stratum may keep. For `random`, units are ordered by a hash of the seed and the id of the row or group. So
a row that is kept when few rows are selected is also kept when more rows are selected. For `score`, this hash orders
the rows with the same score. For `spread`, see the module `spread`.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from unicodedata import unidata_version

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.held_out import is_held_out
from synthgen.curation.lists import Rows, lengths, numbers
from synthgen.curation.order import Order
from synthgen.curation.selection.choice import Choice, Units, by_order, by_spread
from synthgen.curation.selection.parts import divided
from synthgen.errors import RecipeError
from synthgen.executor import Executor, Services
from synthgen.executor.exchange import read_table
from synthgen.tables.curation_settings import Select

Floats = npt.NDArray[np.float64]


def fingerprint(section: Select) -> str:
    """Everything on which the order of rows depends, except for the settings. Raises RecipeError when `by: spread`
    cannot run.
    """
    if section.by != "spread":
        return ""
    if importlib.util.find_spec("numba") is None:
        raise RecipeError(
            "curate.select.by: 'spread' needs numba, which is not installed", "pip install 'synthgen-distill[curate]'"
        )
    return f"words, version 1, Unicode {unidata_version}"


def signature(batch: pa.RecordBatch, section: Select, services: Services) -> pa.Table:
    """Return for each row (`row`): its key in the random order (`key`) and whether it is held out (`held_out`). If the
    settings need them, the table also has the score (`score`), stratum (`stratum`) and hashed words (`words`) of each
    row.
    """
    named = pc.fill_null(pc.binary_join_element_wise("group", batch["group_id"], "\3"), "")
    alone = pc.binary_join_element_wise("row", batch["id"], "\3")
    texts = pc.if_else(pc.equal(named, ""), alone, named).to_pylist()
    salted = (f"{section.seed}\3{text}".encode() for text in texts)
    keys = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in salted)
    columns = {
        "row": batch["row"],
        "key": pa.array(np.frombuffer(keys, "<u8"), pa.uint64()),
        "held_out": is_held_out(batch["split"]),
    }
    if section.by == "score":
        columns["score"] = pa.array(_scores(batch["scores"], str(section.score)))
    if section.column:
        columns["stratum"] = _strata(batch[section.column], section.column)
    if section.by == "spread":
        from synthgen.curation.selection import spread

        columns["words"] = spread.hashed(batch, section.of)
    return pa.table(columns)


def _scores(scores: pa.Array, name: str) -> Floats:
    """For each row, the last score with this name; NaN for a row without such a score."""
    entries = scores.flatten()
    rows = np.repeat(np.arange(len(scores)), lengths(scores))
    named = numbers(pc.equal(pc.struct_field(entries, "name"), name)).astype(bool)
    values = np.full(len(scores), np.nan)
    found = numbers(pc.struct_field(entries, "value").fill_null(np.nan))
    for row, value in zip(rows[named].tolist(), found[named].tolist(), strict=True):
        values[row] = value
    return values


def _strata(values: pa.Array, name: str) -> pa.Array:
    try:
        return values.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise RecipeError(
            f"curate.select.column: '{name}' holds values of type {values.type}, which cannot be strata",
            "name a column of texts, numbers or booleans",
        ) from None


def decide(paths: Sequence[Path], lost: Rows, order: Order, section: Select, executor: Executor) -> pa.Table:
    """Return the rows to reject (`row`), each with its `reason`, its `score`, the `threshold` and, for `by: spread`,
    the kept row that it resembles most (`twin`).

    Raises RecipeError when no row has the named score.
    """
    table = pa.concat_tables([read_table(path) for path in paths])
    rows = numbers(table["row"]).astype(np.int64)
    table = table.filter(pa.array(~np.isin(rows, lost))).combine_chunks()
    rows = numbers(table["row"]).astype(np.int64)
    _, first, place = np.unique(order.units_of(rows), return_index=True, return_inverse=True)
    units, held = _units(table, first, place, section)
    trained = int(numbers(pc.invert(table["held_out"])).sum())
    number = section.rows or int(float(section.share or 0) * trained + 1e-9)
    number = max(0, number - int(units.size[held].sum()))
    if section.by == "score" and len(rows) and np.isnan(units.score[~held]).all() and not held.all():
        raise RecipeError(
            f"curate.select.score: no row has the score '{section.score}'",
            "name a score that the rows have, or switch on the rule that measures it, such as curate.confidence",
        )
    choose = by_spread if section.by == "spread" else by_order
    strata = _strata_of(units, np.flatnonzero(~held))
    quotas = divided([int(units.size[members].sum()) for _, members in strata], number, section.shares)
    choices = [
        (value, choose(units, members, quota, section)) for (value, members), quota in zip(strata, quotas, strict=True)
    ]
    return _drops(rows, first, place, choices, section)


def _units(table: pa.Table, first: Rows, place: Rows, section: Select) -> tuple[Units, npt.NDArray[np.bool_]]:
    """The units of the rows that are left, and whether each has a row that is held out. `first` is the index of each
    unit's first row in the table, and `place` the index of each row's unit.
    """
    held_out = numbers(table["held_out"]).astype(bool)
    held = np.bincount(place, held_out, len(first)) > 0
    size = np.bincount(place, ~held_out, len(first)).astype(np.int64)
    score = np.full(len(first), np.nan)
    if section.by == "score":
        values = numbers(table["score"]).astype(np.float64)
        known = ~np.isnan(values)
        count = np.bincount(place[known], minlength=len(first))
        total = np.bincount(place[known], values[known], len(first))
        np.divide(total, count, out=score, where=count > 0)
    strata = table["stratum"].to_pylist() if section.column else [""] * len(table)
    words = np.zeros((len(first), 0), np.int8)
    if section.by == "spread":
        kind = table["words"].type
        data = np.frombuffer(table["words"].combine_chunks().cast(pa.binary()).buffers()[2] or b"", np.int8)
        words = data.reshape(-1, kind.byte_width)[first]
    key = numbers(table["key"]).astype(np.uint64)[first]
    return Units(size, key, score, [strata[row] for row in first.tolist()], words), held


def _strata_of(units: Units, members: Rows) -> list[tuple[str | None, Rows]]:
    """Pairs (value of the column, its units), ordered by value. Units without a value come first."""
    found: dict[str | None, list[int]] = {}
    for unit in members.tolist():
        found.setdefault(units.stratum[unit], []).append(unit)
    ordered = sorted(found, key=lambda value: (value is not None, value or ""))
    return [(value, np.array(found[value], np.int64)) for value in ordered]


def _drops(
    rows: Rows, first: Rows, place: Rows, choices: Sequence[tuple[str | None, Choice]], section: Select
) -> pa.Table:
    """The table that `decide` returns."""
    unit = np.full(len(first), -1)  # for each rejected unit: its index in the lists below
    twins: list[int | None] = []
    scores: list[float] = []
    thresholds: list[float] = []
    reasons: list[str] = []
    for value, choice in choices:
        lost = np.flatnonzero(~choice.taken)
        unit[choice.members[lost]] = np.arange(len(lost)) + len(reasons)
        reasons += choice.reasons(lost, section, value)
        scores += choice.score[lost].tolist()
        thresholds += [choice.threshold] * len(lost)
        twins += [int(rows[first[twin]]) if twin >= 0 else None for twin in choice.twin[lost].tolist()]
    chosen = unit[place]
    dropped = np.flatnonzero(chosen >= 0)
    table = pa.table(
        {
            "twin": pa.array(twins, pa.int64()),
            "score": pa.array(scores, pa.float64(), from_pandas=True),
            "threshold": pa.array(thresholds, pa.float64(), from_pandas=True),
            "reason": pa.array(reasons, pa.string()),
        }
    ).take(pa.array(chosen[dropped]))
    return table.append_column("row", pa.array(rows[dropped]))
