"""`synthgen remove` of single rows, and in a run that was made from the rows of a data set, without a teacher."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from support.corpora import parts
from support.removing import make, places_of, rows_of
from support.serving import KEY, Serving

import synthgen
from synthgen.cli import main
from synthgen.takedown import remove as takedown
from synthgen.takedown.result import Removal


def command(*words, code=0):
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done.output


def run_of(tmp_path, *names):
    path, run = tmp_path / "rows.jsonl", tmp_path / "run"
    rows = [{"id": name, "prompt": f"What is {name}?", "completion": f"The secret of {name}."} for name in names]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command("curate", path, "--license", "CC0-1.0", "-o", run)
    return run


def test_a_run_of_allowed_rows_inside_the_run_goes_too(tmp_path):
    run = run_of(tmp_path, "one", "two")
    command("audit", run, "--keep-allowed", "-o", run / "allowed")
    (run / "allowed" / "mine.txt").write_text("a file of the user")
    planned = synthgen.remove(run, "one", plan=True)
    assert {"allowed/curated/", "allowed/audit/", "allowed/recipe.yaml"} <= set(planned.made)
    assert planned.unsearched == ["allowed/mine.txt"]
    command("remove", run, "--source", "one", "--yes")
    assert [path.name for path in (run / "allowed").rglob("*") if path.name != ".lock"] == ["mine.txt"]


def test_the_hint_names_a_command_that_works(tmp_path):
    run = run_of(tmp_path, "one", "two")
    assert f"synthgen curate {run}, which makes again" in command("remove", run, "--source", "one", "--yes")
    command("curate", run)
    assert list(parts(run)[0]) == ["two"]


def test_a_run_whose_rows_were_all_removed_says_so(tmp_path):
    run = run_of(tmp_path, "one", "two")
    command("remove", run, "--source", "rows.jsonl", "--yes")
    assert f"all may have been removed: `synthgen show {run} -n 0`" in command("curate", run, code=1)
    assert "'rows.jsonl' (2 rows)" in command("show", run, "-n", 0)


def test_the_line_about_a_student_names_both_commands_that_train_it():
    text = Removal(
        Path("run"), "x", "the seed 'x'", False, dict.fromkeys(("rows", "failures", "replies"), 1), [], ["student"]
    ).text()
    assert "`synthgen run`, or `distill train` with --fresh, trains it again" in text


@pytest.fixture
def documents(tmp_path, monkeypatch):
    """A run that asked a teacher twice for questions about each of two documents. Each reply has two questions. One
    question about Rome is not answered.
    """
    names = ("Oslo", "Rome")
    lists = {f"Ask about {name}.": [f"1. Where is {name}?\n2. How old is {name}?\n"] for name in names}
    server = Serving(answers=lists, script=[["How old is Rome", ["filter"]]])
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "cache"))
    yield make(
        tmp_path,
        server,
        {"questions": "Ask about {{ name }}."},
        seeds=[{"id": name, "name": name} for name in names],
        strategy="extract",
        split={"test": 0},
        generate={"shard_size": 1, "num_generations": 2},
    )
    server.stop()


def test_rows_that_share_a_reply_go_together(documents):
    """Two rows were made from one reply, which has a question for each. The reply quotes the removed row, so the reply
    is deleted. Without the reply, the second row could not be made again, so it goes too.
    """
    rows = rows_of(documents.run)
    one = next(row for row in rows.values() if "Where is Oslo" in str(row.prompt))
    removal = synthgen.remove(documents.run, one.id)
    assert removal.counts | {"rows": 2, "failures": 0, "replies": 3} == removal.counts
    gone = [row for row in rows.values() if row.id not in rows_of(documents.run)]
    assert [(row.seed_id, row.parents) for row in gone] == [("Oslo", one.parents)] * 2
    left = rows_of(documents.run).keys()
    synthgen.generate(documents.recipe, documents.run, fresh=True)
    assert rows_of(documents.run).keys() == left


def test_a_failure_goes_even_if_the_rows_of_its_seed_went_before_a_kill(documents, monkeypatch):
    row = next(row for row in rows_of(documents.run).values() if row.seed_id == "Rome")
    whole = takedown.rewrite

    def killed(work, name):
        if row.id in pq.read_table(work.folder / "data" / f"{name}.parquet")["id"].to_pylist():
            whole(work, name)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(takedown, "rewrite", killed)
        with pytest.raises(KeyboardInterrupt):
            synthgen.remove(documents.run, row.id)
    synthgen.remove(documents.run, row.id)
    assert not places_of("Rome", documents.run / "generated" / "failures")
