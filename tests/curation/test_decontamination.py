"""Rows that hold a question or a long answer of an evaluation set are found, and rows with common phrases are not."""

from __future__ import annotations

import json
import random
import unicodedata

import pyarrow as pa
import pytest
from support.corpora import corpus_of, curating, parts, row

import synthgen
from synthgen import curation
from synthgen.curation import decontamination as check
from synthgen.curation import job
from synthgen.curation.decontamination import words as words_module
from synthgen.curation.decontamination.sets import Item, items_of
from synthgen.curation.decontamination.words import sequences, words_of
from synthgen.curation.near import shingles
from synthgen.errors import RecipeError, RunChanged, UserError
from synthgen.executor import Services
from synthgen.pipeline import recipe_of_rows
from synthgen.recipe import dump_recipe, load_recipe
from synthgen.records import Record, to_table
from synthgen.tables.curation_settings import Decontamination, EvaluationSet

QUESTION = (
    "A farmer keeps 12 brown hens and 7 white geese behind the old mill. Every hen lays 3 eggs in a week, and every "
    "goose lays 2. How many eggs does the farmer collect there in 4 weeks?"
)
ANSWER = (
    "The hens lay 12 * 3 = 36 eggs in a week and the geese lay 7 * 2 = 14, which is 50 eggs together. In 4 weeks the "
    "farmer collects 200 eggs."
)
SHORT = "Which river flows through the city of Wroclaw?"
FORM = "Choose the best answer to the following question and write only its letter in your reply"
ROWS = [
    {"id": "q1", "question": QUESTION, "answer": ANSWER},
    {"id": "q2", "question": SHORT, "answer": "Oder"},
    {"id": "q3", "question": "Why not?", "answer": "42"},
]
TEXTS = [
    *("", " ", "...", "one", "A_b 12 c-d E.f", "x² + y² — “quoted” … end", "Привет МИР, как", "我爱Python。 ok"),
    *("これは한국어 문장 은", "ภาษาไทย ไม่", "one 😀 two 😀😀", "na\u200bi\u00adve cafe\u0301 \u200b"),
]


@pytest.fixture
def sets(tmp_path):
    """A function that writes rows to a file and returns the settings of the check for it."""

    def make(rows: list[dict[str, object]] = ROWS, ngram: int = 13, **more: object) -> Decontamination:
        path = tmp_path / "eval.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in rows))
        one = {"name": "farm", "path": str(path), "question": "question", "answer": "answer"}
        return Decontamination.model_validate({"sets": [one], "ngram": ngram, **more})

    return make


def asked(prompt: str, answer: str = "nine", number: int = 0, **more) -> Record:
    return row(answer, number, prompt=[{"role": "user", "content": prompt}], **more)


def judged(section: Decontamination, *records: Record):
    """Maps the index of each rejected record to its rejection."""
    (batch,) = to_table(list(records)).select(["prompt", "completion", "split"]).to_batches()
    return dict(check.decontamination(batch, section, Services()).rejected)


def test_the_words_are_those_of_near_duplicates_and_their_places_are_right():
    words = words_of(pa.array([*TEXTS, None]))
    for number, text in enumerate(TEXTS):
        plain = unicodedata.normalize("NFC", text)
        first, last = int(words.first[number]), int(words.first[number] + words.count[number])
        visible = "".join(c for c in plain if c not in "\u200b\u00ad")
        assert words.of_text(number) == shingles.words(visible.lower())
        places = zip(words.start[first:last].tolist(), words.stop[first:last].tolist(), strict=True)
        assert [shingles.words(plain[a:b].lower().replace("\u200b", "").replace("\u00ad", "")) for a, b in places] == [
            [word] for word in words.of_text(number)
        ]
        assert set(words.text[first:last].tolist()) <= {number}
    assert words.of_text(len(TEXTS)) == []


def test_equal_words_have_equal_hashes_and_other_words_have_others():
    draw = random.Random(1)
    texts = ["".join(draw.choices("abcdefgh", k=draw.randrange(1, 90))) for _ in range(3000)]
    words = words_of(pa.array([f"x {text.upper()}, y" for text in texts]))
    assert len({*words.hashes[1::3].tolist()}) == len({*texts})
    again = words_of(pa.array(texts))
    assert again.hashes.tolist() == words.hashes[1::3].tolist()
    hashes, firsts = sequences(words_of(pa.array(["a b c a b", "c", "a b"])), 2)
    assert firsts.tolist() == [0, 1, 2, 3, 6]
    assert (hashes[0] == hashes[3] == hashes[4], len({*hashes.tolist()})) == (True, 3)


@pytest.mark.parametrize("ngram", [8, 13])
@pytest.mark.parametrize(
    "text",
    [
        QUESTION,
        QUESTION.upper(),
        f"Solve this problem.\n{QUESTION} Think step by step.",
        QUESTION.replace(",", "").replace(".", " -").replace(" ", "\n"),
        QUESTION.replace("geese", "turkeys"),
        QUESTION.replace("old", "o\u200bl\u00add"),
        QUESTION[len("A farmer keeps") :],
    ],
)
def test_a_question_is_found_in_the_prompt_and_in_the_completion(sets, ngram, text):
    found = judged(sets(ngram=ngram), asked(text), asked("Go on.", text), asked("something else"))
    assert found.keys() == {0, 1}
    assert [(one.matched_id, one.rule, one.threshold) for one in found.values()] == [("q1", "farm", 0.5)] * 2
    assert all(0.5 <= one.score <= 1 for one in found.values())
    assert (found[0].score == 1) == ("turkeys" not in text and "keeps" in text.lower())
    assert found[0].span is None
    assert "of the words of a question of farm (q1): in the prompt, characters" in found[0].reason


def test_the_span_is_the_place_of_the_question(sets):
    begin, end = "Cafe\u0301: ", " Is it so?"
    two = [{"role": "assistant", "content": "é e\u0301"}, {"role": "assistant", "content": begin + QUESTION + end}]
    history = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"So: {QUESTION}"}]
    records = [asked("Go on.", begin + QUESTION + end), row("", 0, completion=two), row("nine", prompt=history)]
    found = judged(sets(), *records)
    for number in (0, 1):
        text, span = records[number].text, found[number].span
        assert text[span["start"] : span["stop"]] == QUESTION.rstrip("?")
    place = f"characters {len(begin)} to {len(begin) + len(QUESTION) - 1}"
    assert found[0].reason == f"holds 100% of the words of a question of farm (q1): in the completion, {place}"
    assert found[1].reason.endswith(f"in message 2 of the completion, {place}")
    assert found[2].reason.endswith(f"in message 2 of the prompt, characters 4 to {3 + len(QUESTION)}")


def test_a_long_answer_is_found_and_a_short_one_is_not(sets):
    rows = [asked("Go on.", ANSWER), asked("Go on.", "42"), asked("Oder", "The answer is 42."), asked(ANSWER)]
    found = judged(sets(), *rows)
    assert found.keys() == {0, 3}
    assert "an answer of farm (q1): in the completion" in found[0].reason
    one = {"name": "farm", "path": sets().sets[0].path, "question": "question"}
    assert judged(Decontamination.model_validate({"sets": [one]}), *rows) == {}


def test_short_questions_must_be_found_whole(sets):
    rows = [asked(f"Tell me: {SHORT}"), asked(SHORT.replace("city", "town")), asked("why NOT"), asked("So why not?")]
    found = judged(sets(), *rows)
    assert {place: one.matched_id for place, one in found.items()} == {0: "q2", 2: "q3"}
    assert judged(sets([{"question": QUESTION, "answer": ""}]), asked(QUESTION[: len(QUESTION) // 3])) == {}


def test_a_phrase_is_no_question(sets):
    """The phrase has 13 of the question's 38 words."""
    phrase = "A farmer keeps 12 brown hens and 7 white geese behind the old"
    assert judged(sets(), asked(f"{phrase} house, said Ann.")) == {}
    assert judged(sets(min_share=0.3), asked(f"{phrase} house, said Ann."))[0].score == pytest.approx(13 / 38)


def test_the_form_that_many_questions_share_does_not_count(sets):
    draw = random.Random(2)
    own = [" ".join(f"w{draw.randrange(900)}" for _ in range(16)) for _ in range(12)]
    rows = [{"id": str(n), "question": f"{FORM}: {text}", "answer": ""} for n, text in enumerate(own)]
    other = asked(f"{FORM}: the sky is blue")
    assert judged(sets(rows[:3], min_share=0.4), other).keys() == {0}
    section = sets(rows, min_share=0.4)
    assert judged(section, other) == {}
    assert [one.matched_id for one in judged(section, *map(asked, own)).values()] == [str(n) for n in range(12)]
    assert judged(sets([ROWS[0]] * 9), asked(QUESTION))[0].score == 1
    whole = [{"id": "form", "question": FORM, "answer": ""}]
    assert judged(sets(rows + whole), other)[0].matched_id == "form"


def test_equal_hashes_reject_nothing(sets, monkeypatch):
    monkeypatch.setattr(words_module, "_hashed", lambda values, begins: begins.astype("uint64") * 0)
    section = sets()
    other = " ".join(f"w{n}" for n in range(40))
    assert judged(section, asked(other), asked("one two three four five six seven eight"), asked(QUESTION)).keys() == {
        2
    }


def test_the_row_with_the_largest_share_is_named(sets):
    """If a row has several messages, the message with the largest share is named."""
    part = QUESTION[: QUESTION.index("How many")]
    rows = [
        {"id": "other", "question": f"{part} What does it cost to feed all of them for one year?", "answer": ""},
        {"id": "same", "question": QUESTION, "answer": ""},
        {"id": "copy", "question": QUESTION.lower(), "answer": ""},
    ]
    assert judged(sets(rows), asked(QUESTION))[0].matched_id == "same"
    for first, last in ((QUESTION, rows[0]["question"]), (rows[0]["question"], QUESTION)):
        found = judged(sets(rows[1:2], min_share=0.3), asked(first, last))[0]
        assert (found.score, "in the prompt" in found.reason) == (1, first == QUESTION)
    (found,) = judged(sets(rows), asked(part, QUESTION)).values()
    assert (found.matched_id, found.score, found.span) == ("same", 1, {"start": 0, "stop": len(QUESTION) - 1})


def test_rows_that_are_held_out_and_rows_without_messages_are_kept(sets):
    rows = [asked(QUESTION, split="test"), asked(QUESTION, split="validation"), row("", prompt=[], completion=[])]
    assert judged(sets(), *rows, asked(QUESTION)).keys() == {3}
    assert judged(sets(), rows[0]) == judged(sets(), rows[2]) == {}


def items(tmp_path, name: str, text: str, **more: str) -> list[Item]:
    (tmp_path / name).write_text(text)
    return items_of(EvaluationSet.model_validate({"name": "s", "path": str(tmp_path / name), **more}))


def test_sets_of_every_format_are_read(tmp_path):
    lines = '\ufeffWhat is 2 + 2?\n\n  Who wrote "Faust"?\n'
    assert items(tmp_path, "a.txt", lines) == [
        Item("a.txt, line 1", "What is 2 + 2?", ""),
        Item("a.txt, line 3", 'Who wrote "Faust"?', ""),
    ]
    columns = '{"q": "one?", "a": 7, "id": 5, "n": "x"}\n{"q": "two?", "a": null, "id": "", "n": "y"}\n'
    place = "b.jsonl, line 2"
    assert items(tmp_path, "b.jsonl", columns, question="q") == [Item("5", "one?", ""), Item(place, "two?", "")]
    both = {"question": "q", "answer": "a", "id": "n"}
    assert items(tmp_path, "b.jsonl", columns, **both) == [Item("x", "one?", "7"), Item("y", "two?", "")]
    turns = [{"role": r, "content": r[:2]} for r in ("system", "user", "assistant", "user", "assistant")]
    assert items(tmp_path, "c.jsonl", json.dumps({"messages": turns})) == [Item("c.jsonl, line 1", "us\nus", "as")]
    assert items(tmp_path, "d.jsonl", '{"text": "all of it", "id": "t"}') == [Item("t", "all of it", "")]
    assert items(tmp_path, "e.csv", "prompt,completion\np,c\n") == [Item("e.csv, line 2", "p", "c")]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.csv").write_text("prompt,completion\np,c\n")
    one = EvaluationSet(name="s", path=str(tmp_path / "folder"))
    assert items_of(one) == [Item("x.csv, line 2", "p", "c")]


@pytest.mark.parametrize(
    ("name", "text", "more", "message"),
    [
        ("a.txt", "\n \n", {}, "there are no questions"),
        ("a.jsonl", "", {}, "there are no rows"),
        ("a.jsonl", "\n", {"question": "q"}, "there are no questions"),
        ("a.jsonl", '{"question": "q"}', {}, "unknown format of rows; the columns are question"),
        ("a.jsonl", '{"question": "q"}', {"question": "quest"}, "no column 'quest'; did you mean 'question'"),
        ("a.jsonl", '{"q": ["a"]}', {"question": "q"}, "the column 'q' holds a list"),
        ("a.jsonl", '{"q": ', {"question": "q"}, "line 1"),
        ("a.pdf", "x", {}, "unknown format"),
    ],
)
def test_a_set_that_cannot_be_read_is_named(tmp_path, name, text, more, message):
    with pytest.raises(RecipeError, match=message) as error:
        items(tmp_path, name, text, **more)
    assert error.value.message.startswith("evaluation set 's': ")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "curate.decontamination: give its settings: 'sets'"),
        ({"sets": []}, "too short"),
        ({"sets": [{"name": "a", "path": "x"}, {"name": "a", "path": "y"}]}, "two sets have the same name"),
        ({"sets": [{"name": "a", "path": "x", "answer": "b"}]}, "name the column of the question too"),
        ({"sets": [{"name": "a", "path": "x"}], "ngram": 9}, "ngram"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, value, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(curating()))
    with pytest.raises(RecipeError, match=message):
        load_recipe(path, [f"curate.decontamination={json.dumps(value)}"])


def test_a_row_of_the_corpus_with_the_id_of_an_evaluation_row_is_not_shown_beside_it(tmp_path, sets):
    section = sets([{"id": "r1", "question": QUESTION, "answer": ""}])
    run = corpus_of(tmp_path / "run", [asked(QUESTION, number=0), asked("other", "x", 1)])
    synthgen.curate(curating(decontamination=section.model_dump()), run)
    shown = synthgen.show(run, rejected=True, rule="decontamination")
    assert [one.verdicts[0]["matched_id"] for one in shown.records] == ["r1"]
    assert shown.matched == {}
    assert "compared with" not in shown.text()


def test_a_corpus_is_judged_and_the_sets_are_counted(tmp_path, sets):
    section = sets([*ROWS, {"id": "q4", "question": f"{QUESTION} Or less?", "answer": ""}])
    rows = [asked(QUESTION, number=0), asked(QUESTION, "ten", 1), asked("Go on.", SHORT, 2), asked("other", "x", 3)]
    run = corpus_of(tmp_path / "run", [*rows, asked(QUESTION, "a", 4, split="test")], size=2)
    recipe = curating(decontamination=section.model_dump())
    done = synthgen.curate(recipe, run)
    kept, rejected = parts(run)
    assert set(kept) == {"r3", "r4"}
    (verdict,) = rejected["r2"].verdicts
    assert (verdict["check"], verdict["teaches"], verdict["matched_id"]) == ("decontamination", "nothing", "q2")
    assert verdict["span"] == {"start": 0, "stop": len(SHORT) - 1}
    counts = {"farm": {"rows": 4, "found": 2, "rejected": 3}}
    assert done.summaries == done.to_dict()["summaries"] == {"decontamination": counts}
    line = "decontamination, farm: rows 4, found 2, rejected 3"
    lines = done.text().splitlines()
    assert "rejected by: decontamination 3" in lines
    assert lines[-1] == line
    assert line in synthgen.show(run).text().splitlines()
    assert synthgen.curate(recipe, run).summaries == done.summaries


def test_pieces_and_shards_do_not_change_the_result(tmp_path, monkeypatch, sets):
    """`test_held_out` has a test with worker processes."""
    monkeypatch.setattr(job, "TASK_ROWS", 20)
    recipe = curating(decontamination=sets(ngram=8).model_dump())
    texts = [QUESTION, ANSWER, SHORT, "Why not?", QUESTION[:90], "Nothing of it."]
    draw = random.Random(4)
    rows = [asked(draw.choice(texts), f"{draw.choice(texts)} {n}", n) for n in range(80)]
    results = []
    for size, piece in ((100, 1 << 20), (30, 70), (13, 1)):
        check._index.cache_clear()
        monkeypatch.setattr(words_module, "_PIECE", piece)
        run = corpus_of(tmp_path / str(size), rows, size)
        done = synthgen.curate(recipe, run, workers=1)
        results.append((done.counts, {i: r.verdicts for i, r in parts(run)[1].items()}))
    assert results[0] == results[1] == results[2]
    assert 20 < done.counts["rejected"] < 80


def test_the_contents_of_the_sets_decide_whether_a_curation_is_valid(tmp_path, monkeypatch, sets):
    recipe = curating(decontamination=sets(ROWS[1:]).model_dump())
    run = corpus_of(tmp_path / "run", [asked(QUESTION), asked("other", "x", 1)])
    assert synthgen.curate(recipe, run).counts["kept"] == 2
    assert synthgen.curate(recipe, run).counts["kept"] == 2
    sets(ROWS)
    with pytest.raises(RunChanged, match="files_sha256"):
        synthgen.curate(recipe, run)
    assert synthgen.curate(recipe, run, fresh=True).counts["kept"] == 1
    changing = monkeypatch.setattr
    changing(check, "summary", lambda section, folder: sets(ROWS[:1]) and {})
    with pytest.raises(RunChanged, match="has changed during the curation"):
        synthgen.curate(recipe, run, run / "other")
    assert not (run / "other" / "manifest.json").exists()


def test_a_node_that_reads_another_file_is_refused(tmp_path, monkeypatch, sets):
    """Here the file is another one only while the rows are judged, as on a node that sees another disk."""
    recipe = curating(decontamination=sets(ROWS[1:]).model_dump())
    run = corpus_of(tmp_path / "run", [asked(QUESTION), asked("other", "x", 1)])
    real = curation.judge_rows

    def elsewhere(work, services):
        sets(ROWS)
        try:
            real(work, services)
        finally:
            sets(ROWS[1:])

    monkeypatch.setattr(curation, "judge_rows", elsewhere)
    with pytest.raises(UserError, match="is not the file that the command has read"):
        synthgen.curate(recipe, run)


def test_paths_are_relative_to_the_recipe_and_must_exist(tmp_path, monkeypatch, sets):
    sets()
    (tmp_path / "recipe.yaml").write_text(dump_recipe(curating()))
    setting = 'curate.decontamination.sets=[{"name": "farm", "path": "eval.jsonl", "question": "question"}]'
    recipe = load_recipe(tmp_path / "recipe.yaml", [setting])
    run = corpus_of(tmp_path / "run", [asked(QUESTION)])
    assert synthgen.curate(recipe, run).counts["kept"] == 0
    monkeypatch.chdir(tmp_path)
    rows = synthgen.datasets.source_of(tmp_path / "eval.jsonl")
    assert recipe_of_rows(rows, [setting]).curate == recipe.curate
    (tmp_path / "eval.jsonl").unlink()
    for act in (lambda: synthgen.curate(recipe, run, run / "new"), lambda: synthgen.plan(recipe)):
        with pytest.raises(RecipeError, match=r"eval\.jsonl' does not exist"):
            act()
    assert not (run / "new").exists()
