"""`synthgen remove` in a run that was made from the rows of a data set, without a teacher."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner
from support.corpora import parts

import synthgen
from synthgen.cli import main
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
