"""`synthgen curate DATASET` curates rows that were made elsewhere: without a teacher, with their ids and columns. The
result is a run that the other commands accept.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections import Counter

import pytest
from click.testing import CliRunner
from support.corpora import contents, corpus_of, curating, parts, row

import synthgen
from synthgen import corpus
from synthgen.cli import main
from synthgen.datasets import reading, source_of
from synthgen.display import differences
from synthgen.errors import RunChanged
from synthgen.pipeline import recipe_of_rows
from synthgen.ui import UI

LONG = " ".join(f"w{number}" for number in range(40))
ROWS = [
    {"id": "a", "prompt": "Name a color.", "completion": "red", "level": 1},
    {"id": "b", "prompt": "Name a color.", "completion": "blue", "level": 2},
    {"id": "c", "prompt": "Name a color.", "completion": "red", "level": 3},
    {"id": "d", "prompt": "Name a city.", "completion": "I'm sorry, but I can't help with that.", "level": 4},
    {"id": "e", "prompt": "Name a city.", "completion": "Oslo, Oslo, Oslo, Oslo, Oslo, Oslo, Oslo", "level": 5},
    {"id": "f", "prompt": "Go on.", "completion": LONG, "level": 6},
    {"id": "g", "prompt": "Go on.", "completion": f"{LONG} end", "level": 7},
]


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def invoke(*arguments):
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return done.exit_code, done.output


def test_the_rows_of_a_file_are_curated_and_the_result_is_a_run(tmp_path, rows):
    out = tmp_path / "out"
    code, printed = invoke("curate", rows, "-o", out, "--license", "CC0-1.0", "--set", "curate.near_duplicates=0.8")
    assert (code, "format prompt-completion, 7 rows" in printed) == (0, True)
    kept, rejected = parts(out)
    assert sorted(kept) == ["a", "b", "f"]
    assert {i: r.verdicts[0]["check"] for i, r in rejected.items()} == {
        "c": "duplicates",
        "d": "refusal",
        "e": "repetition",
        "g": "near_duplicates",
    }
    assert {i: r.own["level"] for i, r in (kept | rejected).items()} == {row["id"]: row["level"] for row in ROWS}
    assert {r.sources[0]["license"] for r in kept.values()} == {"CC0-1.0"}
    assert (kept["a"].teacher, kept["a"].strategy) == (None, None)

    assert "similarity 0.9" in invoke("show", out, "--rejected")[1]
    code, printed = invoke("audit", out)
    assert (code, "rows.jsonl (dataset, CC0-1.0)" in printed) == (0, True)
    assert invoke("export", out, "--to", "prompt-completion", "-o", tmp_path / "back")[0] == 0
    files = (tmp_path / "back").glob("*.jsonl")
    assert sorted(json.loads(line)["level"] for path in files for line in path.read_text().splitlines()) == [1, 2, 6]
    assert invoke("curate", out, "-o", out / "loose", "--set", "curate.refusal=false")[0] == 0
    assert "d" in parts(out, "loose")[0]


def test_rejected_rows_of_a_rule_are_shown_with_their_twin(tmp_path, rows):
    out = tmp_path / "out"
    assert invoke("curate", rows, "-o", out, "--set", "curate.near_duplicates=0.8")[0] == 0
    shown = synthgen.show(out, rejected=True, rule="near_duplicates")
    assert [one.id for one in shown.records] == ["g"]
    assert list(shown.matched) == ["f"]
    assert f"compared with f:\nGo on. {LONG} [-end-]" in shown.text()
    code, printed = invoke("show", out, "--rejected", "--rule", "duplicates")
    assert (code, "compared with a:\nName a color. red\n" in printed) == (0, True)
    assert "── d" not in printed
    for arguments, message in (
        (["--rule", "refusal"], "--rule selects rejected rows"),
        (["--rejected", "--rule", "near_duplicate"], "rejected by 'near_duplicate'; did you mean 'near_duplicates'?"),
    ):
        code, printed = invoke("show", out, *arguments)
        assert (code, message in printed) == (2, True), printed


def test_differences_of_two_texts():
    assert differences("a b c d", "a x c d e") == "a [-b-] {+x+} c d {+e+}"
    assert differences("same\n text", "same text") == "same text"
    assert differences("", "new") == "{+new+}"
    many = "the " * 300
    found = differences(f"a {many}b", f"c {many}d")
    assert found == f"[-a-] {{+c+}} {many}[-b-] {{+d+}}", "frequent words are compared, too"


def test_a_row_that_cannot_be_used_is_a_failure_with_its_place(tmp_path, rows):
    odd = [
        {"id": "h", "prompt": "What?", "completion": ""},
        {"id": "", "prompt": "What?", "completion": [{"role": "user", "content": "no"}]},
    ]
    rows.write_text("".join(json.dumps(one) + "\n" for one in [odd[0], *ROWS, odd[1]]))
    out = tmp_path / "out"
    code, printed = invoke("curate", rows, "-o", out, "--license", "CC0-1.0")
    assert (code, printed.splitlines()[-2]) == (0, "kept 4, rejected 3, failed 2")
    assert len(parts(out)[0]) == 4
    shown = invoke("show", out, "--failures")[1]
    assert "rows.jsonl, line 1: no completion: the column 'completion' is empty" in shown
    assert "rows.jsonl, line 9: the completion is a message of the user, and not of the assistant" in shown
    assert corpus.manifest(out / "generated")["counts"] == {"rows": 7, "failures": 2}
    before = contents(out)
    assert invoke("curate", rows, "-o", out, "--license", "CC0-1.0")[0] == 0
    assert contents(out) == before
    for each in (odd[:1], odd[:1] * 3):
        rows.write_text("".join(json.dumps(one) + "\n" for one in each))
        code, printed = invoke("curate", rows, "-o", tmp_path / "none")
        assert (code, "rows.jsonl, line 1: " in printed) == (2, True)
        assert not (tmp_path / "none").exists()


def test_a_data_set_whose_rows_mostly_fail_says_rows_and_not_requests(tmp_path):
    path = tmp_path / "rows.jsonl"
    bad = [{"prompt": "p", "completion": ""}] * 3
    path.write_text("".join(json.dumps(one) + "\n" for one in [*bad, ROWS[0]]))
    _, printed = invoke("curate", path, "-o", tmp_path / "out")
    assert "Warning: 3 rows of the data set cannot be used, and only 1 rows were made" in printed
    path.write_text("".join(json.dumps(one) + "\n" for one in [*bad, ROWS[3]]))
    code, printed = invoke("curate", path, "-o", tmp_path / "none")
    assert (code, "3 rows of the data set cannot be used, most often by unusable: " in printed) == (1, True)
    assert "request" not in printed


@pytest.mark.parametrize("count", [3, 4])
def test_failures_are_kept_when_shards_are_full(tmp_path, monkeypatch, count):
    """With 3 rows, the last failure comes after the last row of a full shard."""
    monkeypatch.setattr(sys.modules["synthgen.datasets.store"], "_SHARD", 3)
    monkeypatch.setattr(reading, "_side", lambda *_: "train")
    good = [{"prompt": f"p{n}", "completion": "c"} for n in range(count)]
    path = tmp_path / "rows.jsonl"
    bad = {"prompt": "p", "completion": None}
    path.write_text("".join(json.dumps(one) + "\n" for one in [bad, *good, bad]))
    synthgen.curate_dataset(source_of(path), tmp_path / "out")
    failures = synthgen.show(tmp_path / "out", failures=True).failures
    assert len({one.id for one in failures}) == 2
    assert sorted(one.reason.partition(":")[0][-6:] for one in failures) == ["line 1", f"line {count + 2}"]
    assert len(parts(tmp_path / "out")[0]) == count


def test_the_sizes_of_the_splits_are_told(tmp_path, capsys):
    """Rows without a split get one, so the user must see that some rows are held out."""
    path = tmp_path / "rows.jsonl"
    prompts = [f"What do {first} and {second} mean?" for first in "abcdefgh" for second in "stuvwxyz"]
    path.write_text("".join(json.dumps({"prompt": one, "completion": "c"}) + "\n" for one in prompts))
    synthgen.curate_dataset(source_of(path), tmp_path / "out", ui=UI())
    splits = Counter(record.split for record in parts(tmp_path / "out")[0].values())
    assert 0 < splits["test"] < splits["train"]
    assert f"split: train {splits['train']}, test {splits['test']}\n" in capsys.readouterr().err


def test_a_curated_corpus_can_be_curated_again(tmp_path, rows):
    synthgen.curate_dataset(source_of(rows, "MIT"), tmp_path / "one")
    synthgen.curate(
        synthgen.load_recipe(tmp_path / "one" / "recipe.yaml"), tmp_path / "one" / "curated", tmp_path / "two"
    )
    assert sorted(parts(tmp_path, "two")[0]) == sorted(parts(tmp_path / "one")[0])


def test_a_repeated_call_resumes_and_other_rows_are_refused(tmp_path, rows):
    out = tmp_path / "out"
    first = synthgen.curate_dataset(source_of(rows), out)
    before = contents(out / "curated")
    assert synthgen.curate_dataset(source_of(rows), out).counts == first.counts
    assert contents(out / "curated") == before
    rows.write_text(rows.read_text() + json.dumps({**ROWS[0], "id": "z", "completion": "green"}) + "\n")
    with pytest.raises(RunChanged, match="seeds_sha256"):
        synthgen.curate_dataset(source_of(rows), out)
    assert contents(out / "curated") == before
    assert synthgen.curate_dataset(source_of(rows), out, fresh=True).counts["kept"] == first.counts["kept"] + 1


def test_half_written_rows_are_written_again(tmp_path, rows):
    out, other = tmp_path / "out", tmp_path / "other"
    synthgen.curate_dataset(source_of(rows), other)
    synthgen.curate_dataset(source_of(rows), out)
    for name in ("manifest.json", "data/train-00000.parquet"):
        (out / "generated" / name).unlink()
    shutil.rmtree(out / "curated")
    synthgen.curate_dataset(source_of(rows), out)
    assert contents(out / "curated") == contents(other / "curated")
    assert corpus.verify(out / "generated")["counts"]["rows"] == len(ROWS)


@pytest.mark.parametrize("part", ["generated", "curated"])
def test_damaged_rows_are_repaired_when_asked(tmp_path, rows, part):
    out = tmp_path / "out"
    assert invoke("curate", rows, "-o", out)[0] == 0
    before = contents(out)
    (out / part / "data" / "train-00000.parquet").write_bytes(b"PAR1")
    code, printed = invoke("curate", rows, "-o", out)
    assert (code, "damaged" in printed) == (2, True)
    assert invoke("curate", rows, "-o", out, "--repair")[0] == 0
    assert contents(out) == before


def test_rows_that_cannot_be_read_leave_nothing_behind(tmp_path, rows):
    """The output folder is not left behind, so the user can correct the file and give the same command again."""
    good, out = rows.read_text(), tmp_path / "out"
    rows.write_text(good + '{"prompt": "x"')
    code, printed = invoke("curate", rows, "-o", out)
    assert (code, "rows.jsonl, line 8" in printed, out.exists()) == (2, True, False)
    rows.write_text(good)
    assert invoke("curate", rows, "-o", out, "--field", "reference=nothing")[0] == 2
    assert invoke("curate", rows, "-o", out)[0] == 0


def test_the_output_is_apart_from_the_rows(tmp_path, rows):
    folder = tmp_path / "many"
    folder.mkdir()
    shutil.copy(rows, folder / "rows.jsonl")
    before = contents(tmp_path)
    for given, out in ((folder, folder / "out"), (folder, folder), (folder, tmp_path), (rows, tmp_path)):
        code, printed = invoke("curate", given, "-o", out)
        assert (code, "give another folder with -o" in printed) == (2, True)
    assert contents(tmp_path) == before


def test_a_run_that_was_killed_while_its_rows_were_written_goes_on(tmp_path, rows):
    many = [{**ROWS[n % 2], "id": str(n), "completion": f"row {n}"} for n in range(3000)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in many))
    program = (
        "import os, signal, sys, synthgen.corpus as c; real = c.commit\n"
        "def commit(folder, name, tables):\n"
        "    real(folder, name, tables)\n"
        "    if name == 'train-00001': os.kill(os.getpid(), signal.SIGKILL)\n"
        "c.commit = commit; from synthgen.cli import main; main(sys.argv[1:])\n"
    )
    arguments = ["curate", str(rows), "-o", str(tmp_path / "out"), "-q"]
    killed = subprocess.run([sys.executable, "-c", program, *arguments])
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "generated" / "manifest.json").exists()
    assert invoke(*arguments)[0] == 0
    assert invoke("curate", rows, "-o", tmp_path / "other", "-q")[0] == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "other")


def test_what_is_refused_in_one_line(tmp_path, rows):
    assert invoke("curate", rows)[0] == 2
    assert "is a data set, so its rows need a folder" in invoke("curate", rows)[1]
    synthgen.curate_dataset(source_of(rows), tmp_path / "out")
    assert "are only for data sets" in invoke("curate", tmp_path / "out", "--license", "MIT")[1]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    code, printed = invoke("curate", rows, "-o", tmp_path / "mine")
    assert (code, "is not empty and is not a run" in printed) == (2, True)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"
    code, printed = invoke("generate", tmp_path / "out" / "recipe.yaml", "-o", tmp_path / "asked")
    assert (code, "key 'teacher' is missing" in printed) == (2, True)


RUN_ON = [
    ("So he has 42. The answer is 42.\n\nQ: What is 3 + 4?\nA: The answer is 7.", "So he has 42. The answer is 42."),
    ("The answer is 42.\n### Instruction\nAdd 3 and 4.", "The answer is 42."),
    ("The answer is 42.\n\nUser: thanks\nAssistant: 7", "The answer is 42."),
    ("It is 42.\n<|im_start|>user\nMore", "It is 42."),
    ("It is 42.\n  Question 2: more?", "It is 42."),
]
WHOLE = [
    "Q: is the letter. The answer is 42.",
    "\n\nUser: I copy the prompt. The answer is 42.",
    "A line that ends in Q:\nand goes on. The answer is 42.",
    "The questions:\nQuestions: none. Users: none. The answer is 42.",
]


def test_invented_turns_are_cut_and_the_answer_is_what_is_left(tmp_path):
    path = tmp_path / "rows.jsonl"
    texts = [*(before for before, _ in RUN_ON), *WHOLE, "It is 41.\n\nQ: What is 6 * 7?\nA: The answer is 42."]
    rows = [{"question": f"What? {n}", "output": text, "answer": "42"} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {"prompt": "question", "completion": "output", "reference": "answer"}
    rules = synthgen.with_values(recipe_of_rows(source_of(path, fields=fields)), {"curate.next_turn": True})
    done = synthgen.curate_dataset(source_of(path, fields=fields), tmp_path / "out", rules)
    kept, rejected = parts(tmp_path / "out")
    assert [record.text for record in kept.values()] == [*(after for _, after in RUN_ON), *WHOLE]
    assert [v["reason"] for r in rejected.values() for v in r.verdicts] == ["answer 'It is 41.' is not '42'"]
    assert done.counts["edited"] == len(RUN_ON) + 1
    for record, (before, after) in zip(kept.values(), RUN_ON, strict=False):
        (edit,) = record.edits
        assert (edit["edit"], edit["start"], edit["end"]) == ("next_turn", len(after), len(before))
        assert edit["before_sha256"] == hashlib.sha256(before.encode()).hexdigest()
    off = synthgen.curate_dataset(source_of(path, fields=fields), tmp_path / "off")
    assert off.counts["kept"] < len(kept)


def test_a_cut_row_has_its_answer_and_rationale_read_again_and_no_tokens(tmp_path):
    text = "6 * 7 is 42.\nAnswer: 42\n\nQ: And 3 + 4?\nAnswer: 7"
    rows = [
        row(text, 0, answer="7", rationale="6 * 7 is 42.", reference=["42"], token_ids=[1, 2, 3]),
        row(text, 1, answer="7", rationale="3 + 4 is 7.", reference=["42"], prompt=[{"role": "user", "content": "x"}]),
    ]
    run = corpus_of(tmp_path, rows)
    synthgen.curate(curating(next_turn=True), run)
    kept, _ = parts(run)
    assert [(r.answer, r.rationale, r.token_ids) for r in kept.values()] == [
        ("42", "6 * 7 is 42.", None),
        ("42", None, None),
    ]
