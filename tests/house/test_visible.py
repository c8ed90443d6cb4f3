"""The hidden characters of a text that others wrote are escaped in a terminal, on a card and on a page."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import yaml
from support.corpora import corpus_of, curating, row

import synthgen
from synthgen.auditing import Report
from synthgen.auditing.result import Finding
from synthgen.cards import environment, markdown_table
from synthgen.results.measures import Measure
from synthgen.ui import UI
from synthgen.visible import cell, json_ascii, visible

EVIL = "a\x1b]0;owned\x07b\x00c\u202ed\u2066e\x9b31mf\rg\ud800h\U000e0041"
HIDDEN = "\x1b\x07\x00\u202e\u2066\x9b\r\ud800\U000e0041"


def hidden(text: str) -> set[str]:
    return {letter for letter in text if letter in HIDDEN}


def test_hidden_characters_are_escaped_and_others_stay():
    shown = visible(EVIL)
    assert not hidden(shown)
    assert shown.startswith(r"a\x1b]0;owned\x07b\x00c\u202ed\u2066e\x9b31mf\x0dg\ud800h\U000e0041")
    usual = "Zürich, 東京 – مرحبا\n\tnext line 👩\u200d🔬"
    assert visible(usual) == usual
    assert visible("a\r\nb") == "a\nb"
    assert cell("a|b\nc\\|d") == r"a\|b c\|d"


def test_a_terminal_gets_no_hidden_character(capsys):
    ui = UI()
    ui.result({}, EVIL)
    ui.note(EVIL)
    ui.hint(EVIL)
    ui.error(EVIL, EVIL)
    with ui.progress(EVIL, 2, EVIL) as bar:
        bar.advance(1)
    UI(as_json=True).result({"text": EVIL}, "")
    out, err = capsys.readouterr()
    assert not hidden(out + err)
    assert json.loads(out.splitlines()[-1]) == {"text": EVIL}
    assert json_ascii('"é東"') == '"é東"'


def test_rows_are_shown_without_hidden_characters(tmp_path, capsys):
    evil = EVIL.replace("\ud800", "")
    run = corpus_of(tmp_path / "run", [row(evil, 0, prompt=[{"role": "user", "content": evil}])])
    shown = synthgen.show(run)
    UI().result(shown.to_dict(), shown.text())
    UI(as_json=True).result(shown.to_dict(), shown.text())
    assert not hidden(capsys.readouterr().out)
    assert shown.records[0].text == evil, "the data keep every character"


def test_cards_and_reports_keep_their_columns_and_show_no_hidden_character(tmp_path):
    run = corpus_of(tmp_path / "run", [row("x", 0)])
    manifest = synthgen.corpus.manifest(run / "generated")
    evil = EVIL.replace("\ud800", "")
    source = {"role": "seed", "source": f"{evil}|b\n# Heading", "license": "we|ird\x1b"}
    from synthgen.cards import write_dataset_card

    write_dataset_card(run / "generated", {**manifest, "description": evil, "sources": [source]}, f"{evil}\n# x")
    card = (run / "generated" / "README.md").read_text()
    assert not hidden(card)
    assert "\n# Heading" not in card
    yaml.safe_load(card.split("---\n")[1])
    done = (f"do\nthis {evil}",)
    finding = Finding(source["source"], "seed", "we|ird", "UNKNOWN", (f"reason | {evil}",), done, duties=("notice",))
    audited = synthgen.audit(curating(), run)
    report = replace(audited, findings=[finding])
    assert isinstance(report, Report)
    text = environment().get_template("audit.md.j2").render(audit=report)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in rows} == {6}
    assert len(rows) == 3
    more = report.notices()
    assert "\n# Heading" not in more
    assert not hidden(text + more)
    table = markdown_table({"a": Measure(f"t|{evil}")}, {"x|\ny": {"a": 1.0}})
    assert {line.replace(r"\|", "").count("|") for line in table.splitlines()} == {3}
    assert not hidden(table)


def test_the_page_of_a_run_has_no_hidden_character(finished, tmp_path):
    run = shutil.copytree(finished.run, tmp_path / "run")
    evaluation = json.loads((run / "student" / "evaluation.json").read_text())
    evaluation["headline"] = f"{EVIL} <b>"
    (run / "student" / "evaluation.json").write_text(json.dumps(evaluation))
    page = synthgen.report(run).path.read_text()
    assert not hidden(page)
    assert "owned" in page


def test_a_dollar_in_a_label_is_a_dollar():
    pytest.importorskip("matplotlib")
    from synthgen.reporting.plots import rejected_plot

    svg = rejected_plot({r"$\frac{$": 2, "$5 or $6": 3}).svg
    assert "$5 or $6" in svg
    assert r"$\frac{$" in svg
