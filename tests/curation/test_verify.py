"""The verifier accepts right answers and refuses changed answers."""

from __future__ import annotations

import json

import pytest
from support.places import SHARED

from synthgen.recipe import shipped
from synthgen.verify import gold, matches, number


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("42", "42"),
        ("42.", "42"),
        ("$1,200.00", "1200"),
        ("The answer is 42 apples", "42"),
        ("6 + 3 = 9", "9"),
        ("1/2", "0.5"),
        ("seven", "7"),
        ("7", "seven"),
        ("-3", "-3"),
        ("−3", "-3"),
        ("42", "He has 40 + 2 = 42 #### 42"),
        ("Tuesday.", "Tuesday"),
        ("tuesday, because it follows Monday", "Tuesday"),
        ("The gate", "gate"),
        ("Yes", "yes"),
        ("50%", "50"),
    ],
)
def test_right_answers_match(answer, reference):
    assert matches(answer, reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("41", "42"),
        ("142", "42"),
        ("4.2", "42"),
        ("", "42"),
        (None, "42"),
        ("no number", "42"),
        ("not Tuesday", "Tuesday"),
        ("Wednesday", "Tuesday"),
        ("yesterday", "yes"),
        ("3", "-3"),
        ("no", "yes"),
        ("gatehouse", "gate"),
        ("9\n10", "10"),
    ],
)
def test_wrong_answers_do_not(answer, reference):
    assert not matches(answer, reference)


def test_gold_is_what_follows_the_last_marker():
    assert gold("a #### 1 #### 72") == "72"
    assert gold("72") == "72"


def test_shipped_references_verify_and_corrupted_ones_do_not():
    for line in (shipped("data") / "reasoning.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert matches(row["answer"], row["answer"]), row
        value = number(row["answer"])
        wrong = "wrong thing" if value is None else str(value + 1)
        assert not matches(wrong, row["answer"]), row


def test_gsm8k_references_verify_and_corrupted_ones_do_not():
    path = SHARED / "gsm8k" / "train.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not here: GSM8K is not part of the project")
    for line in path.read_text().splitlines()[:2000]:
        reference = json.loads(line)["answer"]
        final = gold(reference)
        assert matches(f"So it is {final}.", reference)
        # given as an answer, a whole reference must match only if it is a single line
        assert matches(reference, final) or "\n" in reference
        assert not matches(str(number(final) + 1), reference)
