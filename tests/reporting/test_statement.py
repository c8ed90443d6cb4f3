"""Card, page and `distill eval` show the loss statement with the values of evaluation.json and of the audits, and no
others.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.audits import measurement
from support.statements import card_rows, check_card, check_page, page_rows, section

import synthgen
from distill.card import write_model_card
from synthgen import corpus
from synthgen.errors import CorpusError
from synthgen.results.audit import Measurement, audit_of_student, training_hash
from synthgen.results.evaluation import read_evaluation
from synthgen.results.measures import Interval
from synthgen.results.statement import FEWEST, Entry, Statement, entries_of, statement_of
from synthgen.results.statement_text import difference_text, terminal, verdict, words_of
from synthgen.tables.dimensions import DIMENSIONS
from synthgen.tables.students import KINDS

EVIL = "<b>a|b</b>\n\x1b[31m"
AUDITED = {name for name, one in DIMENSIONS.items() if one.audit}


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return shutil.copytree(finished.run, tmp_path / "run")


def written(run: Path, finished: SimpleNamespace) -> tuple[str, str]:
    """The card and the page of a run, written again."""
    recipe = synthgen.load_recipe(finished.recipe)
    write_model_card(run / "student", recipe, corpus.manifest(run / "curated"))
    return (run / "student" / "README.md").read_text(), synthgen.report(run).path.read_text()


def planted(run: Path, statement: Statement) -> None:
    """Replaces the statement in evaluation.json."""
    path = run / "student" / "evaluation.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "statement": asdict(statement)}))


def test_card_page_and_evaluation_say_the_same(finished):
    """Checks the files that the commands wrote."""
    entries = check_card(finished.run / "student")
    check_page(finished.run)
    assert {one["dimension"] for one in entries} == DIMENSIONS.keys() - AUDITED
    found = read_evaluation(finished.run / "student" / "evaluation.json")
    said = found.text()
    for row in page_rows((finished.run / "report.html").read_text()):
        assert all(cell in said for cell in (row[0], *row[4:])), row
    printed = json.loads(finished.done["eval"].out)
    assert printed["statement"] == asdict(found.statement)


def test_another_number_in_the_evaluation_is_another_number_on_card_and_page(run, finished):
    entry = Entry(
        dimension="accuracy",
        measure="answers right",
        format="percent",
        better="higher",
        teacher=0.75,
        student=Interval(0.123, 0.01, 0.2),
        minus_teacher=Interval(-0.627, -0.7, -0.5),
        n=1234,
        groups=1000,
        unit="prompts",
        note="As planted.",
        missing={"base": "it was lost"},
    )
    planted(run, Statement([entry], {"refusals": "nobody counted"}, {"teacher": "an oracle"}))
    card, page = written(run, finished)
    [row] = card_rows(card)
    assert row == [
        "Accuracy: answers right",
        "75.0%",
        "not measured",
        "12.3% [1.0, 20.0]",
        "worse: -62.7 points [-70.0, -50.0]",
        "not measured",
        "1,234 prompts in 1,000 groups",
    ]
    check_page(run)
    for words in (
        "Refusals: nobody counted.",
        "For the base, answers right: it was lost.",
        "The teacher is an oracle.",
    ):
        assert words in section(card)
        assert words in page
    assert "The student against its teacher: worse in accuracy." in section(card)


def test_what_a_statement_says_is_text_not_markup(run, finished):
    entry = Entry(dimension=EVIL, measure=EVIL, unit=EVIL, note=EVIL, student=1.0, missing={"teacher": EVIL})
    planted(run, Statement([entry], {EVIL: EVIL}, {"teacher": EVIL, "base": EVIL}))
    card, page = written(run, finished)
    assert len(card_rows(card)) == 1
    assert section(card).count("\n|") == 3, "the table has a header, a line and a row"
    assert "\x1b" not in card + page
    assert "<b>a|b" not in page
    assert "&lt;b>a" in section(card)


def test_a_student_that_was_not_evaluated_says_so(run, finished):
    (run / "student" / "evaluation.json").unlink()
    card, page = written(run, finished)
    for name, dimension in DIMENSIONS.items():
        how = "“synthgen audit STUDENT” does" if name in AUDITED else "“distill eval” measures it"
        [line] = [one for one in section(card).splitlines() if one.startswith(f"- {dimension.title}: ")]
        assert how in line
        assert line.removeprefix("- ") in page
    assert card_rows(card) == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_an_entry_or_a_reason_for_each_dimension(kind, tmp_path):
    assert KINDS[kind].not_stated.keys() <= DIMENSIONS.keys()
    for evaluated in (None, Statement()):
        found = statement_of(tmp_path, kind, evaluated)
        assert list(found.not_measured) == list(DIMENSIONS)
        assert list(Statement().completed(kind, "").not_measured) == [
            name for name in DIMENSIONS if name not in AUDITED
        ]
        assert all(found.not_measured.values())
        for name, reason in KINDS[kind].not_stated.items():
            assert found.not_measured[name] == reason
    older = statement_of(tmp_path, kind, Statement()).not_measured["agreement"]
    assert "older version" in older


def reported(folder: Path, **audits: list[dict]) -> None:
    """Writes the report of an audit with these measurements."""
    report = {
        "status": "ALLOW",
        "passed": True,
        "intent": {"use": "research", "actions": [], "competes": "no"},
        "findings": [],
        "audits": {name: {"status": "ALLOW", "measurements": some} for name, some in audits.items()},
    }
    folder.mkdir(exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report))


MEASURED = [
    measurement(name="canaries", subject="student", unit="bits", estimate=2.5, low=1.0, high=4.0, clusters=40),
    measurement(name="canaries", subject="untrained student", unit="bits", estimate=1.4, low=None, high=None),
    measurement(name="canaries", subject="student minus untrained student", unit="bits", estimate=1.1, low=0.4, high=2),
    measurement(name="canaries", subject="teacher", unit="bits", estimate=None, note="it has no canaries"),
    measurement(name="rows", subject="the corpus", estimate=9.0),
]
BIAS = [measurement(name="BBQ", subject="student", unit="share of pairs", estimate=0.25, low=0.1, high=0.4, n=64)]


def test_what_audits_measured_is_in_the_statement(run, finished):
    reported(run / "student" / "audit", privacy=MEASURED, models=BIAS)
    card, page = written(run, finished)
    rows = {row[0]: row for row in card_rows(card)}
    assert rows["Privacy: canaries, bits"][1:6] == [
        "not measured",
        "1.400",
        "2.500 [1.000, 4.000]",
        "not measured",
        "higher: +1.100 [0.400, 2.000]",
    ]
    assert rows["Bias: BBQ"][3] == "25.0% [10.0, 40.0]"
    assert rows["Bias: BBQ"][6] == "64 items in 40 groups"
    assert "For the teacher, canaries, bits: it has no canaries." in section(card)
    assert page_rows(page) == card_rows(card)
    assert len([name for name in rows if name.startswith(("Privacy", "Bias"))]) == 2, "the corpus is no model"


def test_numbers_of_a_test_that_could_not_be_done_are_no_values():
    """The page of the audit leaves such tests out too."""
    void = {"outcome": "not measurable", "note": "the model guesses"}
    some = [
        measurement(name="BBQ", subject="student", estimate=0.1, clusters=40),
        measurement(name="BBQ", subject="teacher", estimate=0.2, clusters=40, **void),
        measurement(name="BBQ", subject="student minus teacher", estimate=-0.1, low=-0.2, high=-0.05, **void),
    ]
    [entry] = entries_of("bias", [Measurement(**one) for one in some])
    assert (entry.teacher, entry.minus_teacher) == (None, None)
    assert entry.missing["teacher"] == "the model guesses"
    assert entries_of("bias", [Measurement(**{**some[0], **void})]) == []


def test_an_audit_of_an_older_student_does_not_count(run, finished):
    student = run / "student"
    reported(student / "audit", privacy=MEASURED)
    trained = (student / "training.json").stat().st_mtime_ns
    os.utime(student / "audit" / "report.json", ns=(trained - 10**9, trained - 10**9))
    found = statement_of(student, "decoder", None)
    assert "privacy" in found.not_measured
    reported(run / "audit", privacy=MEASURED)  # the audit of the run also measured the student
    again = statement_of(student, "decoder", None)
    assert [one.dimension for one in again.entries] == ["privacy"]


def test_an_audit_names_the_student_that_it_tested(run):
    """Copies of a folder may have other times, so they do not decide."""
    student = run / "student"
    report, training = student / "audit" / "report.json", student / "training.json"
    reported(student / "audit", privacy=MEASURED)
    report.write_text(json.dumps({**json.loads(report.read_text()), "student_sha256": training_hash(student)}))
    os.utime(report, ns=(1, 1))
    assert [one.dimension for one in statement_of(student, "decoder", None).entries] == ["privacy"]
    training.write_text(json.dumps({**json.loads(training.read_text()), "steps": 99}))
    os.utime(training, ns=(0, 0))
    assert "privacy" in statement_of(student, "decoder", None).not_measured
    assert audit_of_student(student) is None
    training.unlink()  # training writes the card before it writes training.json
    reported(student / "audit", privacy=MEASURED)
    assert "privacy" in statement_of(student, "decoder", None).not_measured


def test_each_dimension_comes_from_the_newest_audit_that_measured_it(run):
    """The audit of the student had no test of privacy, and the later audit of the run has one."""
    reported(run / "student" / "audit", models=BIAS)
    reported(run / "audit", privacy=MEASURED)
    for folder in ("student/audit", "audit"):  # the order of the two does not matter
        os.utime(run / folder / "report.json")
        entries = statement_of(run / "student", "decoder", None).entries
        assert [one.dimension for one in entries] == ["privacy", "bias"]


def test_an_audit_of_the_run_writes_the_card_of_its_student_again(run, finished):
    (run / "student" / "README.md").write_text("old")
    synthgen.audit(synthgen.load_recipe(finished.recipe), run)
    assert "## What the student lost or gained" in (run / "student" / "README.md").read_text()
    report = json.loads((run / "audit" / "report.json").read_text())
    assert report["student_sha256"] == training_hash(run / "student")


def test_an_audit_that_could_not_measure_says_why(run):
    reported(run / "student" / "audit", models=[measurement(subject="student", estimate=None, note="it is mute")])
    assert statement_of(run / "student", "decoder", None).not_measured["bias"] == "it is mute"
    (run / "student" / "audit" / "report.json").write_text("{")
    with pytest.raises(CorpusError, match=r"report\.json"):
        statement_of(run / "student", "decoder", None)


@pytest.mark.parametrize(
    ("low", "high", "better", "groups", "word"),
    [
        (0.1, 0.2, "higher", FEWEST, "better"),
        (0.1, 0.2, "lower", FEWEST, "worse"),
        (0.1, 0.2, "", FEWEST, "higher"),
        (-0.2, -0.1, "higher", FEWEST, "worse"),
        (-0.2, -0.1, "lower", FEWEST, "better"),
        (-0.2, -0.1, "", FEWEST, "lower"),
        (-0.1, 0.1, "higher", FEWEST, "no clear difference"),
        (0.0, 0.2, "higher", FEWEST, "no clear difference"),
        (float("nan"), float("nan"), "higher", FEWEST, "no clear difference"),
        (0.1, 0.2, "higher", FEWEST - 1, ""),
    ],
)
def test_verdicts(low, high, better, groups, word):
    entry = Entry(dimension="accuracy", measure="m", better=better, student=1.0, groups=groups)
    entry = replace(entry, minus_base=Interval((low + high) / 2, low, high))
    assert verdict(entry, "minus_base") == word
    assert verdict(replace(entry, minus_base=0.5), "minus_base") == "", "there is no interval"
    assert verdict(entry, "minus_teacher") == ""


def test_differences_have_signs_and_units():
    assert difference_text(Interval(0.05, -0.01, 0.11), "percent") == "+5.0 points [-1.0, 11.0]"
    assert difference_text(-0.25, "number") == "-0.250"
    assert difference_text(Interval(0.0, 0.0, 0.0), "percent") == "0.0 points [0.0, 0.0]"
    assert difference_text(1234.5, "rate") == "+1,234"
    assert difference_text(0.00001, "percent") == "0.0 points"
    assert difference_text(None, "number") == ""


def test_a_long_audit_is_cut_and_the_cut_is_named():
    entries = [Entry(dimension="bias", measure=f"test {n}", student=1.0, groups=9, n=9) for n in range(20)]
    found = words_of(Statement(entries))
    assert len(found.lines) == 8
    assert "12 more measures are in audit/report.json." in found.notes
    assert "privacy and bias" in terminal(Statement())
