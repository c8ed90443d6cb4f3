"""The page: well-formed, needs nothing but itself, says what the files say, whatever stage the run is at."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from synthgen import corpus, write_report
from synthgen.errors import CorpusError
from synthgen.records import Record, to_table

VOID = {"meta", "br", "hr", "img", "input", "link", "col", "wbr", "source", "base", "embed", "area", "track", "param"}
FETCHES = {"src", "href", "xlink:href", "srcset", "data", "poster", "action", "formaction", "background", "manifest"}
RUNS_CODE = {"script", "iframe", "object", "embed", "link", "base", "form", "img", "video", "audio"}


class Page(HTMLParser):
    """Parses a page strictly; `faults` is what is wrong with it, `text` what a reader sees."""

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
    path = write_report(run)
    assert path == run / "report.html"
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert page.faults == []
    return page, html


def figure(html: str, label: str) -> str:
    """The number under a label in the row of key figures."""
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
    assert f"{counts['kept']} of 48 rows kept, {counts['rejected']} rejected" in page.text
    assert page.tags.count("svg") == 2
    assert "Why rows were rejected." in page.text
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
    assert figure(html, "KL to the teacher, nats a token") == f"{evaluation['table']['distilled']['kl']['mean']:.2f}"
    assert page.tags.count("svg") == 4
    assert "Distance from the teacher" in page.text
    assert f"{training['steps']} steps on {training['completion tokens trained on']}" in page.text
    for name, row in evaluation["table"].items():
        if row.get("kl"):
            shown = "{mean:.3f} [{low:.3f}, {high:.3f}]".format(**row["kl"])
            assert re.search(f"<td>{re.escape(name.replace(chr(39), '&#39;'))}</td>.*{re.escape(shown)}", html), name
    difference = evaluation["kl differences"]["distilled − cross-entropy"]
    assert f"{difference['mean']:.3f} [{difference['low']:.3f}, {difference['high']:.3f}]" in page.text
    for sample in evaluation["table"]["teacher"]["samples"]:
        assert sample["prompt"] in page.text


def test_trained_but_not_evaluated(run):
    (run / "student" / "evaluation.json").unlink()
    page, _ = page_of(run)
    assert "not evaluated yet" in page.text
    assert page.tags.count("svg") == 3


def test_the_same_files_give_the_same_page(run):
    page_of(run)  # from here on the page itself is among the files it lists
    _, first = page_of(run)
    _, again = page_of(run)
    assert first == again


EVIL = "<script>alert('x')</script>\"'&amp;</pre>]]>"


def test_what_the_corpus_says_is_text_not_markup(run, tmp_path):
    """Every string that data can bring, with markup in it; kinds and labels go into the plots and bars too."""
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
            reference=EVIL,
            token_ids=[1, 2],
            label_probs=[0.25, 0.75] if i else None,
            scores=[{"name": "answer", "value": 1.0}],
            verdicts=[{"check": EVIL, "reason": EVIL, "score": 0.0}],
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
    """Every request failed."""
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
        write_report(folder)
    assert str(folder) in caught.value.message
    assert "\n" not in caught.value.message
    assert "synthgen run" in caught.value.hint
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("name", ["generated/manifest.json", "curated/manifest.json", "student/evaluation.json"])
def test_a_damaged_file_is_named(run, name):
    path = run / name
    path.write_text(path.read_text()[:-30])
    with pytest.raises(CorpusError, match=f"{name} is damaged"):
        write_report(run)


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
