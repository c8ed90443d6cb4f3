"""`synthgen curate … --plan` says how each rule would change a sample, and writes nothing."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from support.corpora import contents, corpus_of, curating, row

from synthgen import pipeline
from synthgen.cli import main
from synthgen.curation import preview as previews
from synthgen.curation.preview import preview
from synthgen.tables.curation import CHECKS

LONG = " ".join(f"w{number}" for number in range(60))


def rows(count: int):
    """Rows of three kinds of faults: every tenth row has too many words, every tenth is cut off, and every tenth
    continues after its answer.
    """
    texts = {0: LONG, 5: "Yes.\nQ: And now?\nA: No."}
    return [
        row(texts.get(n % 10, f"Answer number {n}."), n, finish_reason="length" if n % 10 == 3 else "stop")
        for n in range(count)
    ]


def test_each_rule_is_counted_with_five_examples(tmp_path):
    run = corpus_of(tmp_path, rows(100))
    before = contents(tmp_path)
    done = preview(curating(length={"max_words": 50}, next_turn=True, duplicates=False), run / "generated")
    assert contents(tmp_path) == before
    assert (done.rows, done.of, done.kept) == (100, 100, 80)
    assert {one.rule: one.count for one in done.effects} == {"next_turn": 10, "length": 10, "truncated": 10}
    assert [one.rule for one in done.effects] == ["next_turn", "length", "truncated"], "in the order of the rules"
    assert all(len(one.examples) == 5 for one in done.effects)
    length = done.effects[1]
    assert length.examples[0].reason == "60 words, more than 50"
    assert length.examples[0].completion == LONG[:100]
    text = done.text()
    assert text.startswith("A sample of 100 of 100 rows: 80 would be kept. Nothing was written.")
    assert f"length: 10 rows (10.0%). {CHECKS['length'].about}" in text


def test_a_large_corpus_is_sampled_from_all_of_its_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(previews, "ROWS", 40)
    run = corpus_of(tmp_path, rows(200), size=10)
    done = preview(curating(), run / "generated")
    assert (done.rows, done.of) == (40, 200)
    ids = [one.id for effect in done.effects for one in effect.examples]
    assert any(int(i[1:]) > 100 for i in ids)
    assert preview(curating(), run / "generated") == done


def test_the_command_takes_runs_and_data_sets_and_writes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"p{n}", "completion": LONG if n else ""}) + "\n" for n in range(4)))
    run = corpus_of(tmp_path / "run", rows(20))
    (run / "recipe.yaml").write_text("task: t\nseeds: [{path: none.jsonl, license: MIT, source: s}]\n")
    before = contents(tmp_path)
    arguments = ["curate", str(path), "--plan", "--set", "curate.length.max_words=50"]
    monkeypatch.setattr(pipeline, "ROWS", 3)
    assert "The first 2 rows: 0 would be kept" in CliRunner().invoke(main, arguments).output
    monkeypatch.setattr(pipeline, "ROWS", 2000)
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, "length: 3 rows (100.0%)" in done.output) == (0, True)
    found = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert (found["rows"], found["kept"], found["effects"][0]["rule"], found["unusable"]) == (3, 0, "length", 1)
    assert "1 more cannot be used, such as rows without a completion" in done.output
    done = CliRunner().invoke(main, ["curate", str(run), "--plan", "--set", "curate.length.max_words=50"])
    assert (done.exit_code, "truncated: 2 rows (10.0%)" in done.output) == (0, True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("exists", [True, False])
def test_what_cannot_be_sampled_is_one_line(tmp_path, exists):
    path = tmp_path / "rows.jsonl"
    if exists:
        path.write_text('{"prompt": "p", "completion": ""}\n')
    done = CliRunner().invoke(main, ["curate", str(path), "--plan"])
    assert (done.exit_code, "Traceback" in done.output) == (2, False)
