"""Rows are divided by the values of a column as a loop over the rows divides them."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pyarrow as pa
import pytest

from synthgen.errors import UserError
from synthgen.executor import LocalExecutor, Services, local, open_cluster, open_executor
from synthgen.executor.exchange import Partition, divided, read_table, scatter, scattered, write_table
from synthgen.executor.local import cores
from synthgen.executor.worker import answer, failed

KEYS = [5, 2**64 - 1, 0, 7, 5, 12, 2**63, 7]


@pytest.mark.parametrize("parts", [1, 2, 3, 20])
def test_the_remainder_of_a_number_is_its_partition(tmp_path, parts):
    table = pa.table({"key": pa.array(KEYS, pa.uint64()), "row": list(range(len(KEYS)))})
    write_table(tmp_path / "t.arrow", table)
    path = scatter(tmp_path / "t.arrow", "key", parts)
    assert path == scattered(tmp_path / "t.arrow", parts)
    assert path.name == f"t-by-{parts}.arrow"
    for part in range(parts):
        wanted = [row for row, key in enumerate(KEYS) if key % parts == part]
        assert Partition((path,), part).read()["row"].to_pylist() == wanted


@pytest.mark.parametrize("width", [8, 11])
def test_the_first_eight_bytes_of_a_key_decide(tmp_path, width):
    """As a number whose first byte counts least."""
    keys = [(n * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "little") + bytes([n] * (width - 8)) for n in range(9)]
    whole = pa.table({"key": pa.array([keys[0], *keys], pa.binary(width)), "row": list(range(-1, 9))})
    write_table(tmp_path / "t.arrow", whole.slice(1))
    path = scatter(tmp_path / "t.arrow", "key", 4)
    for part in range(4):
        wanted = [n for n, key in enumerate(keys) if int.from_bytes(key[:8], "little") % 4 == part]
        assert Partition((path,), part).read()["row"].to_pylist() == wanted


@pytest.mark.parametrize("kind", [pa.int64(), pa.binary(), pa.binary(7)])
def test_other_keys_are_refused(tmp_path, kind):
    value = 1 if kind == pa.int64() else b"1234567"
    write_table(tmp_path / "t.arrow", pa.table({"key": pa.array([value], kind)}))
    with pytest.raises(TypeError, match=f"not {kind}".replace("[", r"\[")):
        scatter(tmp_path / "t.arrow", "key", 2)


def test_rows_are_divided_in_their_order_and_may_be_left_out():
    place = np.array([2, -1, 0, 2, 0, -1, 3], np.int64)
    batches = divided(pa.table({"row": list(range(7))}), place, 5)
    assert [batch["row"].to_pylist() for batch in batches] == [[2, 4], [], [0, 3], [6], []]
    assert [b.num_rows for b in divided(pa.table({"row": pa.array([], pa.int64())}), place[:0], 2)] == [0, 0]


def test_a_copy_that_is_there_is_used_again_and_one_partition_needs_none(tmp_path):
    tables = [tmp_path / "a.arrow", tmp_path / "b.arrow"]
    for n, path in enumerate(tables):
        write_table(path, pa.table({"key": pa.array([n, 1], pa.uint64())}))
    with LocalExecutor() as executor:
        (only,) = executor.exchange(tables, "key", 1)
        assert (only.read()["key"].to_pylist(), len(list(tmp_path.iterdir()))) == ([0, 1, 1, 1], 2)
        executor.exchange(tables, "key", 2)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        scattered(tables[0], 2).unlink()
        found = executor.exchange(tables, "key", 2)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert {path.name for path in after if after[path] != before[path]} == {"a-by-2.arrow"}
    assert [partition.read()["key"].to_pylist() for partition in found] == [[0], [1, 1, 1]]


def test_each_batch_of_a_list_is_a_batch_of_the_file(tmp_path):
    batches = [pa.record_batch({"n": [n] * n}, pa.schema([("n", pa.int64())])) for n in (2, 0, 1)]
    write_table(tmp_path / "t.arrow", batches)
    assert [Partition((tmp_path / "t.arrow",), n).read()["n"].to_pylist() for n in range(3)] == [[2, 2], [], [1]]
    assert read_table(tmp_path / "t.arrow")["n"].to_pylist() == [2, 2, 1]


# Executors by their names


def test_an_executor_has_a_name_and_a_number_of_workers(monkeypatch):
    counts = []
    monkeypatch.setattr(local.LocalExecutor, "__init__", lambda self, workers: counts.append(workers))
    open_executor("local", None, 3)
    open_executor("local", 2, 3)
    assert counts == [3, 2]
    for name in ("spark", "ray:", "rayon", ""):
        with pytest.raises(UserError, match=f"there is no executor '{name}'"):
            open_executor(name, 2, 3)
    with pytest.raises(UserError, match="there is no executor 'local'"):
        open_cluster("local", 2)
    assert cores() == len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores() >= 1


class Stubborn(Exception):
    """An exception that cannot be pickled."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


def test_an_error_in_a_worker_is_an_answer_that_says_where():
    def raised(error: Exception) -> bytes:
        try:
            raise error
        except Exception as caught:
            return failed(caught)

    done, error = pickle.loads(raised(UserError("shard 3 is damaged", "mend it")))
    assert (done, error.message, error.hint) == (False, "shard 3 is damaged", "mend it")
    assert error.__notes__[0].startswith("In a worker process:\nTraceback")
    done, error = pickle.loads(raised(Stubborn("a", "b")))
    assert (done, type(error), str(error)) == (False, RuntimeError, "Stubborn: a b")
    assert pickle.loads(answer(pickle.dumps((pow, 2)), 5)) == (True, 32)
    assert pickle.loads(answer(b"nonsense", Services()))[0] is False
