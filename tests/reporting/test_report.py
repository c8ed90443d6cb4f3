"""The report page is well-formed, needs no other files, and shows the content of the run's files after every stage."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from support.reading import reason, training_of

import synthgen
from synthgen import corpus
from synthgen.errors import CorpusError
from synthgen.records import Record, to_table
from synthgen.reporting.page import _disk
from synthgen.results.curve import Curve, Point
from synthgen.results.evaluation import Comparison, Evaluation, Matrix, Part, Sample
from synthgen.results.export import Export, ExportedFile, Gate
from synthgen.results.measures import Bootstrap, Figure, Interval, Measure, Quantiles

VOID = {"meta", "br", "hr", "img", "input", "link", "col", "wbr", "source", "base", "embed", "area", "track", "param"}
FETCHES = {"src", "href", "xlink:href", "srcset", "data", "poster", "action", "formaction", "background", "manifest"}
RUNS_CODE = {"script", "iframe", "object", "embed", "link", "base", "form", "img", "video", "audio"}


class Page(HTMLParser):
    """Parses a page strictly. `faults` lists errors, and `text` is what a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.faults: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        self.look(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.look(tag, attrs)
        if "svg" not in self.open:
            self.faults.append(f"<{tag}/> outside an svg")

    def handle_endtag(self, tag):
        if not self.open or self.open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self.open[-1:]} at line {self.getpos()[0]}")
        else:
            self.open.pop()

    def handle_data(self, data):
        if "style" in self.open:
            if re.search(r"@import|url\((?!#)|expression\(", data):
                self.faults.append(f"a style fetches: {data[:80]}")
        elif "metadata" not in self.open:
            self.text += data

    def look(self, tag, attrs):
        self.tags.append(tag)
        if tag in RUNS_CODE:
            self.faults.append(f"<{tag}> in the page")
        for name, value in attrs:
            if name in FETCHES and not (value or "").startswith("#"):
                self.faults.append(f"<{tag} {name}={value}> fetches")
            if name.startswith("on") or "javascript:" in (value or ""):
                self.faults.append(f"<{tag} {name}> runs code")
            if name == "style" and re.search(r"url\((?!#)", value or ""):
                self.faults.append(f"<{tag} style={value}> fetches")


def page_of(run: Path) -> tuple[Page, str]:
    result = synthgen.report(run)
    assert result.path == run / "report.html"
    assert result.text() == result.to_dict()["report"] == str(result.path)
    html = result.path.read_text(encoding="utf-8")
    page = Page(html)
    assert page.faults == []
    return page, html


def figure(html: str, label: str) -> str:
    """The number that the page's row of key figures shows under `label`."""
    return re.search(f"<dt>{label}</dt><dd>(?:<span[^>]*>)?([^<]*)<", html)[1]


@pytest.fixture
def run(tmp_path, finished) -> Path:
    return shutil.copytree(finished.run, tmp_path / "run", ignore=shutil.ignore_patterns("report.html"))


def strip(run: Path, *names: str) -> Path:
    for name in names:
        shutil.rmtree(run / name)
    return run


def manifest(run: Path, name: str) -> dict:
    return json.loads((run / name / "manifest.json").read_text())


def test_generated_only(run):
    page, html = page_of(strip(run, "curated", "audit", "student"))
    assert figure(html, "rows generated") == str(manifest(run, "generated")["counts"]["rows"]) == "48"
    assert "rows kept" not in html
    assert "not curated yet" in page.text
    assert page.tags.count("svg") == 1
    assert "Length of completions." in page.text
    assert "Student" not in page.text
    assert "audit," not in page.text


def test_curated_and_audited(run):
    page, html = page_of(strip(run, "student"))
    counts = manifest(run, "curated")["counts"]
    assert figure(html, "rows kept") == f"{counts['kept']:,}"
    assert figure(html, "tokens kept") == f"{counts['tokens_kept']:,}"
    assert figure(html, "audit, commercial use") == "ALLOW"
    assert f"{counts['kept']} of 48 rows were kept. {counts['rejected']} were rejected" in page.text
    assert page.tags.count("svg") == 2
    assert "Why rows were rejected." in page.text
    rows = {
        split: [entry["rows"] for name, entry in manifest(run, "curated")["files"].items() if split in name]
        for split in ("data/train", "data/test", "rejected/train", "rejected/test")
    }
    for split in ("train", "test"):
        kept, rejected = sum(rows[f"data/{split}"]), sum(rows[f"rejected/{split}"])
        assert f'<td>{split}</td><td class="n">{kept}</td><td class="n">{rejected}</td>' in html
    assert "duplicates: same as " in page.text
    assert html.count('<span class="tag kept">') == 6
    assert html.count('<span class="tag rejected">') == 6
    source = next(s for s in manifest(run, "generated")["sources"] if s["role"] == "seed")
    assert f"{source['source']} ({source['license']})" in page.text
    assert manifest(run, "generated")["teachers"]["teacher"]["revision"] in page.text


def test_trained_and_evaluated(run):
    page, html = page_of(run)
    evaluation = json.loads((run / "student" / "evaluation.json").read_text())
    training = json.loads((run / "student" / "training.json").read_text())
    assert figure(html, "KL to the teacher, nats a token") == f"{evaluation['table']['distilled']['kl']['mean']:.3f}"
    assert page.tags.count("svg") == 4
    assert "Distance from the teacher" in page.text
    assert f"{training['steps']} steps on {training['tokens']:,} completion tokens" in page.text
    for name, row in evaluation["table"].items():
        if row.get("kl"):
            shown = "{mean:z.3f} <small>[{low:z.3f}, {high:z.3f}]".format(**row["kl"])
            assert re.search(f"<td>{re.escape(name.replace(chr(39), '&#39;'))} .*{re.escape(shown)}", html), name
    [found] = [
        c for c in evaluation["comparisons"] if c["name"] == "distilled − cross-entropy" and c["measure"] == "kl"
    ]
    assert "{mean:z.3f} [{low:z.3f}, {high:z.3f}]".format(**found["difference"]) in page.text
    assert evaluation["samples"]
    for sample in evaluation["samples"]:
        assert sample["prompt"] in page.text


def test_trained_but_not_evaluated(run):
    (run / "student" / "evaluation.json").unlink()
    page, _ = page_of(run)
    assert "not evaluated yet" in page.text
    assert page.tags.count("svg") == 3


def test_the_same_files_give_the_same_page(run):
    page_of(run)  # this page is not compared, because the page lists its own file only if it already exists
    _, first = page_of(run)
    _, again = page_of(run)
    assert first == again


def test_the_size_of_each_part_of_a_run_is_that_of_its_files(tmp_path):
    sizes = {
        "recipe.yaml": 7,
        "generated/manifest.json": 20,
        "generated/data/train-00000.parquet": 100,
        "generated/data/test-00000.parquet": 50,
        "generated/logits/a/train-00000.parquet": 240,
        "curated/data/train-00000.parquet": 30,
        "student/model.safetensors": 1000,
        "student/onnx/model.onnx": 2000,
        "generated/.lock": 5,
    }
    for name, size in sizes.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    assert _disk(tmp_path, {"counts": {"tokens": 96}}) == [
        ("curated/data", 30, ""),
        ("generated", 20, ""),
        ("generated/data", 150, ""),
        ("generated/logits", 240, "2.5 bytes a token"),
        ("recipe.yaml", 7, ""),
        ("student", 3000, ""),
    ]


EVIL = "<script>alert('x')</script>\"'&amp;</pre>]]>"


def test_what_the_corpus_says_is_text_not_markup(run, tmp_path):
    """All strings that come from data contain markup here. Kinds and labels also appear in plots and bars."""
    facts = {
        **{k: v for k, v in manifest(run, "curated").items() if k not in ("schema_version", "kind", "files")},
        "task": EVIL,
        "description": EVIL,
        "prompt_version": EVIL,
        "labels": [EVIL, "b"],
        "counts": {"rows": 2, "kept": 1, "rejected": 1, "tokens_kept": 1234, "failures": 0},
        "rejected_by": {EVIL: 1},
        "sources": [{"role": "seed", "source": EVIL, "license": EVIL}],
    }
    facts["teachers"]["teacher"]["model"] = EVIL
    rows = [
        Record(
            id=EVIL + str(i),
            seed_id=EVIL,
            split="train",
            task=EVIL,
            strategy="answer",
            prompt_version=EVIL,
            prompt=[{"role": "user", "content": EVIL}],
            completion=[{"role": "assistant", "content": EVIL}],
            teacher="teacher",
            answer=EVIL,
            reference=[EVIL],
            token_ids=[1, 2],
            label_probs=[0.25, 0.75] if i else None,
            scores=[{"name": "answer", "value": 1.0}],
            verdicts=[reason(EVIL, EVIL, score=0.0)],
        )
        for i in range(2)
    ]
    evil = tmp_path / "evil"
    for name, tables in (
        ("generated", {"data": to_table(rows)}),
        ("curated", {"data": to_table(rows[:1]), "rejected": to_table(rows[1:])}),
    ):
        corpus.claim(evil / name, {}, "test")
        corpus.commit(evil / name, "train-00000", tables)
        corpus.finish(evil / name, name, facts, ["train-00000"])
    (evil / "recipe.yaml").write_text(yaml.safe_dump({"task": EVIL}))
    page, html = page_of(evil)
    assert page.text.count("<script>alert('x')</script>\"'&amp;</pre>]]>") >= 12
    assert "<script" not in html
    assert figure(html, "tokens kept") == "1,234"
    assert page.tags.count("svg") == 2


def test_no_rows_at_all(run, tmp_path):
    """Every request failed, so there are no rows."""
    facts = {k: v for k, v in manifest(run, "generated").items() if k not in ("schema_version", "kind", "files")}
    facts["counts"] = {"rows": 0, "failures": 3}
    corpus.claim(tmp_path / "none" / "generated", {}, "test")
    corpus.commit(tmp_path / "none" / "generated", "train-00000", {"data": to_table([])})
    corpus.finish(tmp_path / "none" / "generated", "generated", facts, ["train-00000"])
    page, _ = page_of(tmp_path / "none")
    assert "3 requests failed" in page.text
    assert page.tags.count("svg") == 0


@pytest.mark.parametrize("name", ["empty", "nowhere", "unfinished"])
def test_nothing_to_report_on_is_one_line(run, tmp_path, name):
    folder = tmp_path / name
    if name == "empty":
        folder.mkdir()
    if name == "unfinished":
        run.rename(folder)
        (folder / "generated" / "manifest.json").unlink()
    with pytest.raises(CorpusError) as caught:
        synthgen.report(folder)
    assert str(folder) in caught.value.message
    assert "\n" not in caught.value.message
    assert "synthgen run" in caught.value.hint
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("name", ["generated/manifest.json", "curated/manifest.json", "student/evaluation.json"])
def test_a_damaged_file_is_named(run, name):
    path = run / name
    path.write_text(path.read_text()[:-30])
    with pytest.raises(CorpusError, match=f"{name} is damaged"):
        synthgen.report(run)


@pytest.mark.parametrize("name", ["evaluation.json", "training.json"])
def test_a_file_of_another_version_is_named(run, name):
    path = run / "student" / name
    path.write_text(json.dumps({"kind": 3, "table": {"distilled": {"kl": 0.5}}}))
    with pytest.raises(CorpusError, match=f"{name} was written by another version, or is damaged") as caught:
        synthgen.report(run)
    assert "\n" not in caught.value.message
    assert "--fresh" in caught.value.hint


TOY = Evaluation(
    kind="toy",
    rows=17,
    unit="sonnets",
    headline="The toy rhymes.",
    measures={
        "rhyme": Measure("rhymes with the teacher", "percent", False, caption="How often it rhymes."),
        "meter": Measure("beats", "number"),
        "price": Measure("price, cents", "rate", True, "cost"),
        "secret": Measure("nobody asks for it", about="detail"),
    },
    table={
        "poet": {"rhyme": Interval(1.0, 1.0, 1.0), "meter": 5.0, "price": Quantiles(12.0, 34.0)},
        "apprentice": {"rhyme": Interval(0.625, 0.5, 0.75), "meter": None, "secret": 4711.0},
    },
    notes=["It was read aloud."],
    models={"poet": "wrote them all", "apprentice": "learned from the poet"},
    student="apprentice",
    figures=[Figure("rhymes found", 10.0, "count")],
    comparisons=[Comparison("apprentice − poet", "rhyme", Interval(-0.375, -0.5, -0.25))],
    parts=[Part("mood: gay", 9, {"apprentice": {"rhyme": Interval(0.5, 0.25, 0.75)}})],
    matrix=Matrix(["iamb", "trochee"], [[7, 1], [2, 7]], "poet wrote", "apprentice wrote", "Feet that were mixed up."),
    samples=[Sample("Shall I compare thee?", {"poet": "to a summer's day", "apprentice": ""})],
    bootstrap=Bootstrap(300, 1, "sonnet"),
    counts={"stanzas": 51},
)


def test_a_kind_that_the_page_does_not_know(run):
    """If a user adds a kind of student, a format or a check, the page shows it as completely as the kinds, formats and
    checks of synthgen. The page takes the words from the result files.
    """
    student = run / "student"
    training = training_of("toy") | {"student": "an apprentice", "steps": 3, "rows": 5, "loss_unit": "tears"}
    training["metrics"] = {"apprentice": [{"step": 0, "loss": 2.0}, {"step": 1, "loss": 1.0}]}
    points = [Point(share, rows, 3, {"apprentice": {"rhyme": Interval(share, 0.1, 0.9)}}) for share, rows in HALVES]
    export = Export(
        kind="toy",
        rows=17,
        unit="sonnets",
        measures={"bytes": Measure("size, MB", "megabytes"), "ink": Measure("same ink", "percent")},
        table={"student": {"bytes": 3e6}, "parchment": {"bytes": 4e6, "ink": 0.5}},
        files={"student": ExportedFile("book.txt", "quill"), "parchment": ExportedFile("roll.txt", "reader")},
        usage="Read it.",
        gate=Gate("ink", 0.75, "letters in the same ink"),
        to="scroll",
        title="Scroll",
    )
    (student / "training.json").write_text(json.dumps(training))
    (student / "evaluation.json").write_text(json.dumps(TOY.to_dict()))
    curve = Curve("toy", "apprentice", "rhyme", TOY.measures, points)
    (student / "curve.json").write_text(json.dumps(curve.to_dict()))
    (student / "export-scroll.json").write_text(json.dumps(export.to_dict()))
    manifest = run / "curated" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "rejected_by": {"cliché": 24}}))
    page, html = page_of(run)
    assert figure(html, "rhymes found") == "10"
    for words in (
        "The toy rhymes.",
        "17 held-out sonnets",
        "The student: an apprentice.",
        "rhymes with the teacher",
        "62.5% ",
        "[50.0, 75.0]",
        "price, cents",
        "p95 34",
        "learned from the poet",
        "It was read aloud.",
        "apprentice − poet -37.5%",
        "mood: gay",
        "apprentice: rhymes with the teacher",
        "How often it rhymes.",
        "Feet that were mixed up.",
        "Shall I compare thee?",
        "to a summer's day",
        "300 resamples",
        "training loss, tears",
        "Effect of more training data",
        "Scroll",
        "roll.txt, reader; fails the gate",
        "75.0% of letters in the same ink",
        "not passed",
        "3.00",
        "cliché",
        "poet wrote",
        "trochee",
    ):
        assert words in page.text, words
    assert "nobody asks" not in page.text
    assert "4711" not in page.text
    assert '<tr class="us"><td>apprentice' in html
    assert page.tags.count("svg") == 6, "a measure, a matrix, the curve, the loss, the rejects, the lengths"


HALVES = [(0.5, 2), (1.0, 5)]


def test_what_results_say_is_text_not_markup(run):
    """Results may come from unknown code, so the page must escape the names of models, the names of measures, the
    notes, the samples and the labels.
    """
    interval = Interval(0.5, 0.25, 0.75)
    evil = Evaluation(
        kind=EVIL,
        rows=1,
        unit=EVIL,
        headline=EVIL,
        measures={EVIL: Measure(EVIL, caption=EVIL)},
        table={EVIL: {EVIL: interval}},
        notes=[EVIL],
        models={EVIL: EVIL},
        student=EVIL,
        figures=[Figure(EVIL, 1.0)],
        comparisons=[Comparison(EVIL, EVIL, interval)],
        parts=[Part(EVIL, 1, {EVIL: {EVIL: interval}})],
        matrix=Matrix([EVIL, "b"], [[1, 0], [0, 1]], EVIL, EVIL, EVIL),
        samples=[Sample(EVIL, {EVIL: EVIL})],
        bootstrap=Bootstrap(1, 1, EVIL),
        learned_from=EVIL,
    )
    (run / "student" / "evaluation.json").write_text(json.dumps(evil.to_dict()))
    page, html = page_of(run)
    assert page.text.count("<script>alert('x')</script>") >= 20
    assert "<script" not in html


def test_tables_leave_out_what_is_empty(run):
    """A measure without values gets no column, and a model without measures gets no row."""
    (run / "student" / "evaluation.json").write_text(
        json.dumps(replace(TOY, table={"poet": {"rhyme": 1.0}, "mute": {}}, parts=[], comparisons=[]).to_dict())
    )
    page, _ = page_of(run)
    assert "beats" not in page.text
    assert "price" not in page.text
    assert "mute" not in page.text


def test_a_log_that_was_cut_off(run):
    line = json.dumps({"stage": "generate", "seconds": 3.5, "worked": True})
    (run / "log.jsonl").write_text(f'{line}\n{{"stage": "cur')
    page, _ = page_of(run)
    assert "generate 3.5 s" in page.text


def test_the_checker_sees_what_it_looks_for():
    for bad in (
        "<p><b>x</p></b>",
        "<div>",
        "</div>",
        "<script src='x.js'></script>",
        "<a href='https://example.org'>x</a>",
        "<p onclick='x()'>y</p>",
        "<style>@import 'x.css';</style>",
        "<style>p { background: url(x.png) }</style>",
        "<p style='background: url(//x)'>y</p>",
    ):
        assert Page(bad).faults, bad
    assert not Page("<p>x<br>y</p><svg><path d=''/><use xlink:href='#a'/></svg>").faults
