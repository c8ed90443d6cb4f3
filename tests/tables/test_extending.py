"""Runs the examples of docs/extending.md as they are printed. Each example adds an entry to a table and uses it."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from support.corpora import corpus_of, curating, parts, row
from support.examples import EXAMPLES, PAGE, added
from support.small import small_task, small_teacher

import distill.cli
import synthgen.cli
from synthgen.recipe import SeedSource, Split


@pytest.fixture
def run_example():
    """A function that runs an example. After the test, the tables have their original entries again."""
    with ExitStack() as stack:
        yield lambda *headings: stack.enter_context(added(*headings))


def command(*words: object) -> str:
    """Runs a command of either program and returns its stdout."""
    program, *rest = map(str, words)
    main = {"synthgen": synthgen.cli.main, "distill": distill.cli.main}[program]
    done = CliRunner().invoke(main, rest)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_every_section_of_the_page_is_tried_here():
    headings = set(re.findall(r"^## (.*)", PAGE.read_text(), re.MULTILINE))
    assert headings == {*EXAMPLES, "A task"}


def test_the_task(tmp_path):
    (text,) = re.findall(r"^```yaml\n(# my-task.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    values = yaml.safe_load(text)
    values["teacher"]["model"] = str(small_teacher(tmp_path / "teacher"))  # the page names a model on the hub
    values["generate"] = {"max_new_tokens": 4}
    (tmp_path / "my-task").mkdir()
    (tmp_path / "my-task" / "recipe.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "my-task" / "user.j2").write_text("{{ question }}")
    rows = [{"question": f"What is the capital of country {n}?"} for n in range(3)]
    (tmp_path / "my-task" / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command("synthgen", "generate", tmp_path / "my-task", "-o", tmp_path / "run", "-q")
    assert pq.read_table(tmp_path / "run" / "generated" / "data").num_rows == 3


def test_the_check(tmp_path, run_example):
    run_example("A check")
    run = corpus_of(tmp_path, [row("Just add, and just add", 0), row("just add", 1), row("add", 2)])
    written = yaml.safe_load(re.findall(r"^```yaml\n(curate:.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)[0])
    synthgen.curate(curating(**written["curate"]), run)
    kept, rejected = parts(run)
    assert list(kept) == ["r1", "r2"]
    (verdict,) = rejected["r0"].verdicts
    assert (verdict["check"], verdict["score"], verdict["threshold"]) == ("without", 2.0, 1.0)
    assert {s["name"]: s["value"] for s in kept["r1"].scores}["unwanted_words"] == 1.0
    assert "has 2 of the unwanted words" in synthgen.report(run).path.read_text()


def test_the_engine_and_the_strategy(tmp_path, run_example):
    """The teacher adds numbers, and the strategy asks it twice. A sum that is too large for the teacher becomes a
    failure.
    """
    run_example("An engine")
    run_example("A strategy")
    teacher = {"engine": "adder", "license": "CC0-1.0", "most": 14}
    recipe = small_task(
        tmp_path / "task", tmp_path, strategy="shorten", teacher=teacher, logits=None, train=None, split={"test": 0.0}
    )
    out = tmp_path / "run"
    command("synthgen", "run", recipe, "-o", out, "-q")
    found = synthgen.open(out)
    assert len(found.kept) + len(found.rejected) == 14
    reasons = set(found.failures["reason"])
    assert reasons == {"15 is more than 14", "17 is more than 14"}
    parents = pq.read_table(out / "curated" / "data", columns=["parents"])["parents"].to_pylist()
    assert all(len(ids) == 1 for ids in parents)
    page = (out / "report.html").read_text()
    assert "adder" in page
    assert "shorten" in page


def test_the_kind_of_student(tmp_path, run_example):
    run_example("A kind of student")
    sections = {
        "strategy": "classify",
        "generate": {"labels": ["K", "l", "^"]},  # characters that the small teacher writes often
        "logits": None,
        "train": {"student": {"kind": "mean"}},
    }
    recipe = small_task(tmp_path / "task", small_teacher(tmp_path / "teacher"), seeds=24, **sections)
    out = tmp_path / "run"
    command("synthgen", "run", recipe, "-o", out, "-q")
    found = synthgen.open(out).evaluation
    assert found is not None
    assert found.table["mean"]["kl"] >= 0
    page, card = (out / "report.html").read_text(), (out / "student" / "README.md").read_text()
    assert "the mean is" in page
    assert "json.load(open('mean.json'))" in card
    command("distill", "train", out, "--fresh", "-q")
    assert (out / "student" / "mean.json").exists()


def test_the_dataset_format(tmp_path, run_example):
    from synthgen.datasets import open_dataset, records

    run_example("A dataset format")
    rows = [{"quiz_question": "Two and two?", "accepted": ["4", "four"]}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = open_dataset(SeedSource(path=str(tmp_path / "rows.jsonl"), license="CC0-1.0", source="s"))
    assert dataset.format == "quiz"
    assert [record.text for _, record in records(dataset, "t", Split())] == ["4", "four"]


def test_the_export_format(tmp_path, run_example):
    run_example("An export format")
    row = {"instruction": "Two and two?", "output": "4", "id": "a"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    command("synthgen", "export", tmp_path / "rows.jsonl", "--to", "alpaca-flat", "-o", tmp_path / "out")
    (line,) = (tmp_path / "out" / "train.jsonl").read_text().splitlines()
    assert json.loads(line) == {**row, "system": "", "input": ""}


def test_the_description(tmp_path, run_example):
    run_example("A description")
    run = corpus_of(tmp_path / "run", [row("x", 0)])
    command("synthgen", "export", run, "--to", "unjudged", "-o", tmp_path / "before")
    synthgen.audit(curating(), run)
    command("synthgen", "export", run, "--to", "unjudged", "-o", tmp_path / "after")
    found = [json.loads((tmp_path / name / "unjudged.json").read_text()) for name in ("before", "after")]
    assert found == [{"unjudged": ["tests"]}, {"unjudged": []}]


def test_the_model_format(tmp_path, run_example, finished):
    import shutil

    from transformers import AutoModelForCausalLM

    run_example("A model format")
    run = Path(shutil.copytree(finished.run, tmp_path / "run"))
    shown = json.loads(command("distill", "export", run, "--to", "half", "--json", "-q"))
    assert shown["passed"]
    assert shown["table"]["bfloat16"]["bytes"] < 0.6 * shown["table"]["float32"]["bytes"]
    model = AutoModelForCausalLM.from_pretrained(run / "student" / "half")
    assert str(model.dtype) == "torch.bfloat16"
