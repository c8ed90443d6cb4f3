"""The words, groups and units that the tests for bias read from a corpus."""

from __future__ import annotations

import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from support.corpora import corpus_of, row

from synthgen.bias.groups import lexicon
from synthgen.bias.reading import read
from synthgen.bias.words import sequences, words
from synthgen.curation.near import shingles
from synthgen.errors import RecipeError
from synthgen.recipe.bias import BiasSection

GENDER = BiasSection(dimensions=("gender",))


def said(answer: str, number: int, prompt: str | None = None, **more):
    return row(answer, number, prompt=[{"role": "user", "content": prompt or f"question {number}"}], **more)


TEXTS = ["She said: Don't! ÀÉ naïve_1", "", "你好. Σας\n3.14 Ⅷ 𝒜b", "a.b c... d", "İstanbul é", "x" * 300]


def test_words_are_those_of_near_duplicates():
    found = words(pa.array(TEXTS))
    for number, text in enumerate(TEXTS):
        here = np.flatnonzero(found.rows == number)
        assert [found.spelled(place) for place in here] == shingles.words(unicodedata.normalize("NFC", text))
    assert len(set(found.hashes.tolist())) == len({found.spelled(n) for n in range(len(found.hashes))})


def test_sentences_end_at_marks_and_lines_but_not_inside_numbers():
    found = words(pa.array(["One two. Three 3.5 four! Five\nsix", "seven"]))
    _, numbers = np.unique(found.sentences, return_inverse=True)
    assert numbers.tolist() == [0, 0, 1, 1, 1, 1, 2, 3, 4]


def test_equal_sequences_have_equal_hashes_wherever_they_are():
    values = np.array([5, 6, 7, 5, 6, 8], np.uint64)
    first = sequences(values, np.array([0, 3, 1, 2]), np.array([2, 5, 3, 3]))
    assert first[0] == first[1]
    assert len(set(first.tolist())) == 3


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("SHE left", {"female"}),
        ("the sheep and the shed", set()),
        ("heroes here", set()),
        ("Mary and Tom", {"female", "male"}),
        ("ruth without ruth", set()),  # names match only with a capital letter
        ("an old WOMAN", {"female", "old"}),
        ("an old. Woman", {"female"}),  # a phrase does not continue in the next sentence
        ("Black people and black cats", {"black"}),
        ("¿Ella? (he)", {"female", "male"}),
    ],
)
def test_whole_words_name_groups(text, groups):
    book = lexicon(BiasSection(dimensions=("gender", "age", "ethnicity")))
    masks = book.masks(words(pa.array([text])))
    together = np.bitwise_or.reduce(masks, keepdims=True)
    found = {g for one in book.dimensions for n, g in enumerate(one.groups) if one.has(together, n)[0]}
    assert found == groups


def test_own_words_are_added_and_mistakes_are_named():
    own = BiasSection(
        dimensions=("gender",), groups={"gender": {"male": ("bloke",)}, "pet": {"cat": ("cat",), "dog": ("dog",)}}
    )
    book = lexicon(own)
    assert [one.name for one in book.dimensions] == ["gender", "pet"]
    assert book.masks(words(pa.array(["a bloke, a cat"]))).tolist() == [0, 2, 0, 4]
    for wrong, message in (
        ({"dimensions": ("gendre",)}, r"no dimension 'gendre'; did you mean 'gender'\?"),
        ({"dimensions": ("nope",)}, "no dimension 'nope'; known: age, "),
        ({"targets": {"nope": {"a": 0.5, "b": 0.5}}}, "no dimension 'nope' is compared; known: age, "),
        ({"groups": {"pet": {"cat": ("cat",)}}}, "at least two groups"),
        ({"groups": {"gender": {"male": ("She",)}}}, "'She' is in the groups 'female' and 'male'"),
        ({"targets": {"gender": {"female": 0.5, "mal": 0.5}}}, "must name all groups"),
    ):
        with pytest.raises(RecipeError, match=message):
            lexicon(BiasSection.model_validate(wrong))
    for wrong in ({"targets": {"gender": {"female": 0.5, "male": 0.4}}}, {"groups": {"pet": {"cat": (" ",)}}}):
        with pytest.raises(ValueError):
            BiasSection.model_validate(wrong)


# Units


PASSAGE = "The nurse said that she would come to the old house tomorrow."


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({}, {}, False),
        ({"seed_id": "s"}, {"seed_id": "s"}, True),
        ({"group_id": "g"}, {"group_id": "g"}, True),
        ({"answer": f"Yes. {PASSAGE}"}, {"answer": f"{PASSAGE} Indeed it is so."}, True),
        ({"prompt": f"Read: {PASSAGE}"}, {"prompt": f"{PASSAGE} Why?"}, False),  # 'Read' begins the first sentence
        ({"prompt": f"Read. {PASSAGE}"}, {"prompt": f"{PASSAGE} Why?"}, True),
        ({"answer": "I hope that this helps you a lot today, my friend."},) * 2 + (False,),  # names nobody
        ({"answer": "I'm sorry, but I can't tell you anything about the women of this town."},) * 2 + (False,),
        (
            {"answer": " ".join(f"word{n}" for n in range(40))},
            {"answer": " ".join(f"word{n}" for n in range(1, 40))},
            True,
        ),
        ({"answer": "Yes indeed."}, {"answer": "Yes indeed."}, False),  # short answers are often alike
    ],
)
def test_rows_that_are_not_independent_are_one_unit(tmp_path, first, second, same):
    rows = [said(f"An answer number {n} with nothing else in common {n * 7}", n) for n in range(12)]
    for number, more in ((3, first), (8, second)):
        values = dict(more)
        rows[number] = said(values.pop("answer", rows[number].text), number, values.pop("prompt", None), **values)
    run = corpus_of(tmp_path, rows, size=100)
    unit = read(run / "generated", lexicon(GENDER)).unit
    assert sorted(np.bincount(unit).tolist()) == ([1] * 10 + [2] if same else [1] * 12)
    assert (unit[3] == unit[8]) == same


def test_a_sentence_of_a_template_joins_nothing(tmp_path):
    rows = [said(f"answer {n}", n, f"Write about a woman who lives in a small town. Topic {n}") for n in range(20)]
    run = corpus_of(tmp_path, rows, size=100)
    assert len(set(read(run / "generated", lexicon(GENDER)).facts.unit.tolist())) == 20
