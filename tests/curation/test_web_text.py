"""The check `web_text`: each rule of each preset, at its bound."""

from __future__ import annotations

import json
import random
from itertools import chain

import pytest
from support.corpora import corpus_of, curating, row
from test_curate import said
from test_row_checks import refusal_of

import synthgen
from synthgen.curation.web_text import PRESETS, Bound, Page
from synthgen.datasets import source_of
from synthgen.display import show
from synthgen.errors import RecipeError
from synthgen.pipeline import recipe_of_rows
from synthgen.recipe import check_recipe

PARAGRAPHS = [
    "The harbor of the old town was built in three parts. The oldest one lies below the church, and it is now dry.",
    "Boats came up the river with salt and grain. They went down again with timber that had been cut in the hills.",
    "In winter the water froze, so nobody could travel. The sailors mended their nets and told stories to children.",
    "A bridge was planned many times. It was finished when the railway came, and with it the trade on water ended.",
]
PROSE = "\n\n".join(PARAGRAPHS)
DRAW = random.Random(1)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def words(count: int, length: int = 5) -> list[str]:
    """Different random words of this length, which are not words of any language."""
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(DRAW.choice(LETTERS) for _ in range(length))] = None
    return list(found)


def found(text: str, preset: str):
    """The rejection of a plain text; None if it is kept."""
    return said("web_text", [row(text, prompt=[])], preset=preset).rejected.get(0)


def repeated(times: int, size: int, others: int) -> str:
    """A text in which one sequence of `size` words occurs `times` times between other words. All words have five
    letters.
    """
    gram, rest = words(size), words(others)
    step = others // times
    parts = [[*gram, *rest[place * step : (place + 1) * step]] for place in range(times)]
    return " ".join(["the", "and", *chain(*parts), *rest[times * step :]])


def page(**share: int) -> str:
    """Ten lines that end with a punctuation mark. `short`, `open` and `bullet` say how many lines are made short, lose
    the mark, or get a bullet.
    """
    lines = [f"{' '.join(words(8))} {common}." for common in ("the", "and", "of", "to", "be") * 2]
    for number in range(share.get("open", 0)):
        lines[number] = lines[number].rstrip(".")
    for number in range(share.get("short", 0)):
        lines[number] = f"{words(1, 12)[0]}."
    for number in range(share.get("bullet", 0)):
        lines[number] = f"- {lines[number]}"
    for number in range(share.get("cut", 0)):
        lines[number] = f"{lines[number]}.."
    return "\n".join(lines)


@pytest.mark.parametrize("preset", [*PRESETS])
@pytest.mark.parametrize("text", [PROSE, page()])
def test_prose_is_kept(preset, text):
    assert found(text, preset) is None


@pytest.mark.parametrize(
    ("rule", "text", "kept"),
    [
        ("words", " ".join(PROSE.split()[:49]), " ".join(PROSE.split()[:50])),
        ("words", " ".join(["the", "and", *words(99_999)]), None),
        ("word_length", " ".join(["the", "and", *words(60, 2)]), " ".join(["the", "and", *words(60, 3)])),
        ("word_length", " ".join(["the", "and", *words(60, 11)]), " ".join(["the", "and", *words(60, 9)])),
        ("symbols", PROSE + " #tag" * 10, PROSE + " #tag" * 3),
        ("symbols", PROSE.replace(" and ", "… ", 4) + "… oh… no… so… but… now…", PROSE + "…"),
        ("bullets", page(bullet=10), page(bullet=9)),
        ("ellipses", page(cut=4), page(cut=3)),
        (
            "alphabetic",
            PROSE + "".join(f" {n}" for n in range(100, 125)),
            PROSE + "".join(f" {n}" for n in range(100, 118)),
        ),
        ("stop_words", " ".join(["The", "the", *words(60)]), " ".join(["The", "and", *words(60)])),
        ("top_2_gram", repeated(16, 2, 100), repeated(10, 2, 100)),
        ("top_3_gram", repeated(8, 3, 104), repeated(6, 3, 104)),
        ("top_4_gram", repeated(5, 4, 98), repeated(4, 4, 100)),
        ("repeated_5_grams", repeated(2, 21, 90), repeated(2, 9, 90)),
        ("repeated_10_grams", repeated(2, 11, 82), repeated(2, 9, 96)),
        ("same_lines", "\n".join([page(), *[PARAGRAPHS[0]] * 8]), "\n".join([page(), PARAGRAPHS[0]])),
        ("same_paragraphs", "\n\n".join([page(), *["Go on.\nSo it is."] * 3, page()]), None),
        ("same_lines_characters", "\n".join([page(), *[" ".join(words(40)) + "."] * 2]), page()),
    ],
)
def test_gopher(rule, text, kept):
    rejection = found(text, "gopher")
    assert rejection is not None
    assert rejection.rule == rule
    assert kept is None or found(kept, "gopher") is None, found(kept, "gopher")


@pytest.mark.parametrize(
    ("rule", "text", "reason"),
    [
        ("lorem_ipsum", PROSE + " Lorem Ipsum dolor.", "occurrences of 'lorem ipsum': 1, more than 0"),
        ("curly_bracket", PROSE + " {x}", "number of curly brackets: 1, more than 0"),
        ("sentences", PARAGRAPHS[0], "sentences in lines that C4 keeps: 2, less than 3"),
        ("sentences", "This is one. And two. Three.\nYou must enable JavaScript for this.", None),
        (
            "sentences",
            f"{PARAGRAPHS[0]}\nYou must enable JavaScript to read on.",
            "sentences in lines that C4 keeps: 2, less than 3",
        ),
        ("sentences", "One.\nTwo.\nThree.\nFour.", "sentences in lines that C4 keeps: 0, less than 3"),
        ("sentences", PROSE.replace(".", "..."), "sentences in lines that C4 keeps: 0, less than 3"),
        (
            "sentences",
            "\n".join([PARAGRAPHS[0], "Our privacy policy is here. Read it well."]),
            "sentences in lines that C4 keeps: 2, less than 3",
        ),
        (
            "sentences",
            "\n".join([PARAGRAPHS[0], f"{'x' * 1001} is a word too long."]),
            "sentences in lines that C4 keeps: 2, less than 3",
        ),
    ],
)
def test_c4(rule, text, reason):
    rejection = found(text, "c4")
    if reason is None:
        assert rejection is None
    else:
        assert (rejection.rule, rejection.reason) == (rule, reason)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("punctuated_lines", page(open=9)),
        ("short_lines", page(short=7)),
        ("same_lines_characters", "\n".join([page(), *[" ".join(words(12)) + "."] * 2])),
        ("punctuated_lines", ""),
    ],
)
def test_fineweb(rule, text):
    rejection = found(text, "fineweb")
    assert rejection.rule == rule
    assert found(page(open=8, short=6), "fineweb") is None


def test_a_rejection_has_the_value_and_the_bound():
    rejection = found(page(open=9), "fineweb")
    assert rejection.reason == "share of lines with a mark at the end: 0.1, not more than 0.12"
    assert (rejection.score, rejection.threshold) == (0.1, 0.12)
    short = found("\n".join(["a b."] * 1 + [f"{word} x." for word in words(9)]), "fineweb")
    assert short.reason == "share of lines under 30 characters: 1, not less than 0.67"
    assert found("It is short.", "gopher").reason == "number of words: 3, less than 50"


@pytest.mark.parametrize("bounds", [{"least": 0.5}, {"most": 0.5}])
def test_the_bound_itself(bounds):
    page = Page("")
    assert Bound("half", "half", lambda page: 0.5, **bounds).broken(page) is None
    assert Bound("half", "half", lambda page: 0.5, **bounds, strict=True).broken(page) is not None


def test_measures_of_repetition():
    """The values that the papers' definitions give for a text that can be counted by hand."""
    measure = {bound.name: bound.measure for bound in PRESETS["gopher"]}
    text = Page("aa bb cc aa bb dd aa bb")
    assert measure["top_2_gram"](text) == 12 / 16
    assert measure["top_3_gram"](text) == 6 / 16
    twice = Page("a b c d e a b c d e x")
    assert measure["repeated_5_grams"](twice) == 5 / 11
    assert measure["repeated_6_grams"](twice) == 0
    assert measure["repeated_5_grams"](Page("a b c d e f a b c d e f")) == 6 / 12, "overlaps count once"
    lines = Page("one\ntwo\none\n\none")
    assert measure["same_lines"](lines) == 2 / 4
    assert measure["same_lines_characters"](lines) == 6 / 12
    assert measure["same_paragraphs"](Page("one\n\none\n \ntwo")) == 1 / 3
    assert measure["same_paragraphs_characters"](Page("one\n\none\n \nthree")) == 3 / 11
    assert all(bound.measure(Page("")) == 0 for bound in PRESETS["gopher"])


def test_rows_with_a_prompt_are_refused(tmp_path):
    run = corpus_of(tmp_path / "run", [row(PROSE, 0)])
    recipe = curating(web_text="gopher").model_copy(update={"teacher": None})
    with pytest.raises(RecipeError, match=r"curate\.web_text is for data sets of plain text, and a row has a prompt"):
        synthgen.curate(recipe, run)
    with pytest.raises(
        RecipeError, match=r"curate\.web_text is for data sets of plain text, and the rows of a teacher"
    ):
        check_recipe(curating(web_text="gopher"))
    assert "curate.web_text" in refusal_of(web_text="goffer")
    assert "curate.web_text" in refusal_of(web_text=True)


def test_planted_pages(tmp_path):
    """A data set of plain text: pages that break a rule are rejected by this rule, and pages that break none are
    kept.
    """
    pages = {f"good-{number}": page() for number in range(30)}
    pages |= {"words": "Too short.", "bullets": page(bullet=10), "ellipses": page(cut=5), "symbols": PROSE + " #a" * 20}
    path = tmp_path / "pages.jsonl"
    path.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in pages.items()))
    source = source_of(path, "CC0-1.0")
    synthgen.curate_dataset(source, tmp_path / "out", recipe_of_rows(source, ["curate.web_text=gopher"]))
    rejected = {one.id: one.verdicts[0]["rule"] for one in show(tmp_path / "out", 99, rejected=True).records}
    assert rejected == {name: name for name in pages if not name.startswith("good-")}
