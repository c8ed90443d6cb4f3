"""The local executor: equal results for any number of workers, errors that reach the caller, no process left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from support.killing import left_behind
from support.places import REPOSITORY
from support.tasks import dies, fails, squared

from synthgen.errors import CorpusError, UserError
from synthgen.executor import LocalExecutor, open_executor
from synthgen.executor.exchange import read_table, write_table
from synthgen.executor.ray import RayExecutor


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_tasks(workers):
    with LocalExecutor(workers) as executor:
        results = list(executor.map(squared, range(7)))
    assert [square for square, _ in results] == [n * n for n in range(7)]
    processes = {process for _, process in results}
    assert (processes == {os.getpid()}) == (workers == 1)
    assert len(processes) <= workers


def test_a_single_task_runs_in_this_process():
    with LocalExecutor(2) as executor:
        assert list(executor.map(squared, [5])) == [(25, os.getpid())]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_of_the_function_arrives(workers):
    with LocalExecutor(workers) as executor:
        with pytest.raises(CorpusError, match="shard 3 is damaged") as caught:
            list(executor.map(fails, range(6)))
        assert caught.value.hint == "mend it"
        assert list(executor.map(fails, range(3))) == [0, 1, 2]  # the executor still works


def test_a_worker_that_dies_is_an_error():
    with LocalExecutor(2) as executor, pytest.raises(UserError, match="a worker process ended"):
        list(executor.map(dies, range(4)))


@pytest.mark.parametrize("workers", [0, -1])
def test_less_than_one_worker_is_refused(workers):
    """With -1 workers, the executor would wait forever; 0 is not "as many as there are cores"."""
    with pytest.raises(UserError, match=f"{workers} workers cannot do any work"):
        open_executor("local", workers, few=1)
    with pytest.raises(UserError, match=f"{workers} workers cannot do any work"):
        RayExecutor(workers=workers)


def test_functions_need_not_be_in_the_main_module(tmp_path):
    """The executor runs a script only once, even if the script has no `__main__` guard. The script's functions come
    from a module in its folder.
    """
    (tmp_path / "tasks.py").write_text("def double(n, services):\n    return 2 * n\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import tasks\nfrom synthgen.executor import LocalExecutor\nprint('begun')\n"
        "with LocalExecutor(2) as executor:\n    print(list(executor.map(tasks.double, [1, 2, 3])))\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    assert (done.stdout, done.stderr) == ("begun\n[2, 4, 6]\n", "")


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    program = (
        f"import sys; sys.path[:0] = [{str(REPOSITORY)!r}, {str(REPOSITORY / 'tests')!r}]\n"
        "from support.tasks import sleeps\nfrom synthgen.executor import LocalExecutor\n"
        "with LocalExecutor(2) as executor:\n"
        "    for _ in executor.map(sleeps, [0.0, 0.0, 600.0, 600.0]):\n"
        "        print('one', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    assert process.stdout is not None
    assert [process.stdout.readline(), process.stdout.readline()] == ["one\n", "one\n"]
    process.kill()
    process.wait()
    process.stdout.close()
    assert left_behind(process.pid, patience=20) == []


def keyed(path: Path, keys: list[int], start: int) -> Path:
    values = {"key": pa.array(keys, pa.uint64()), "row": pa.array(range(start, start + len(keys)), pa.int64())}
    write_table(path, pa.table(values))
    return path


@pytest.mark.parametrize(("workers", "parts"), [(1, 1), (1, 3), (1, 50), (2, 3)])
def test_an_exchange_brings_equal_keys_together_in_order(tmp_path, workers, parts):
    keys = [[5, 7, 5, 11], [], [7, 5, 2**63 + 1], [11]]
    starts = [0, 4, 4, 7]
    tables = [keyed(tmp_path / f"t{n}.arrow", k, s) for n, (k, s) in enumerate(zip(keys, starts, strict=True))]
    with LocalExecutor(workers) as executor:
        partitions = executor.exchange(tables, "key", parts)
        rows = [partition.read() for partition in partitions]
    assert len(partitions) == parts
    assert sorted(r for table in rows for r in table["row"].to_pylist()) == list(range(8))
    for key in {5, 7, 11, 2**63 + 1}:
        holders = [table for table in rows if key in table["key"].to_pylist()]
        assert len(holders) == 1
    for table in rows:
        assert table["row"].to_pylist() == sorted(table["row"].to_pylist())


def test_an_exchange_takes_binary_keys(tmp_path):
    values = [b"a" * 16, b"b" * 16, b"a" * 8 + b"c" * 8]
    table = pa.table({"key": pa.array(values, pa.binary(16)), "row": pa.array([0, 1, 2], pa.int64())})
    write_table(tmp_path / "t.arrow", table)
    with LocalExecutor() as executor:
        found = [p.read()["row"].to_pylist() for p in executor.exchange([tmp_path / "t.arrow"], "key", 2)]
    assert sorted(map(tuple, found)) == [(0, 1, 2), ()] or any({0, 2} <= set(rows) for rows in found)
    write_table(tmp_path / "s.arrow", pa.table({"key": ["x", "y"]}))
    with pytest.raises(TypeError, match="not string"), LocalExecutor() as executor:
        executor.exchange([tmp_path / "s.arrow"], "key", 2)


def test_a_missing_table_is_not_a_damaged_one(tmp_path):
    with pytest.raises(CorpusError, match=r"a\.arrow is missing") as caught:
        read_table(tmp_path / "a.arrow")
    assert "every node must see this folder" in caught.value.hint


def test_a_damaged_table_is_said(tmp_path):
    (tmp_path / "t.arrow").write_bytes(b"nonsense")
    with pytest.raises(CorpusError, match="damaged"):
        read_table(tmp_path / "t.arrow")
