"""The checks `rationale` and `arithmetic`."""

from __future__ import annotations

import numpy as np
import pytest
from support.corpora import corpus_of, curating, parts, row
from test_curate import said

import synthgen
from synthgen.tables.curation import CHECKS
from synthgen.verify.conclusions import contradiction
from synthgen.verify.equations import equations

LEAKS = [
    "As given in the hint, the bridge is where he lives.",
    "The hint says that the answer is 42.",
    "According to the hint, we need the bridge.",
    "Based on the given hint, the total is 12.",
    "Following the hint, he has 5 apples left.",
    "The hint tells us that it must be gravity.",
    "As hinted, the result is 9.",
    "The given answer is 42, so we must add 40 and 2.",
    "Since the correct answer is 18, she sells 9 eggs for $2.",
    "We know that the answer is 72, so the sum must be 48 + 24.",
    "We are told that the answer is (d), which is a math problem.",
    "We were given the answer 15.",
    "This matches the given answer of 27.",
    "This is consistent with the provided answer.",
    "To arrive at the provided answer, we divide 84 by 2.",
    "The expected answer is 12, because 3 times 4 is 12.",
    "The reference answer is 7.",
    "According to the reference solution, he walks 5 miles.",
    "Working backwards from the answer, each box holds 6.",
    "The answer key says B.",
    "The correct answer given is bridge, so he lives under one.",
    "The answer provided is 10, so we need to find how to get it.",
    "Because the known answer is 30, the other number is 18.",
    "I was told the correct answer is 6.",
    "This leads to the correct answer 8, which matches the correct answer.",
    "The ground truth answer is 11.",
    "The gold answer is Paris.",
    "The gold-standard answer is Paris, so I explain why.",
    "I already know the answer is 64, so let me explain it.",
    "As stated in the reference, the train leaves at 9.",
    "Given that the final answer should be 20, we multiply 4 by 5.",
    "The known solution is 5, so x must be 5.",
    "You told me the answer, which was given as 14.",
    "Using the hint, I see that it is a park.",
    "The target answer is 3, so we subtract.",
    "The answer was already given: it is 44.",
    "Your hint suggests that the result is 100.",
    'We have been told the answer is "bridge".',
    "The stated answer, 56, comes from 7 times 8.",
    "The official solution is 21.",
]
HARMLESS = [
    "So the correct answer is (d) math problem.",
    "The answer is 42.",
    "Therefore, the final answer is 18.",
    "Of the given answer choices, only a bridge fits.",
    "The answer choices given are park, garden and bridge.",
    "Of the above choices, only gravity is an answer to the question.",
    "The answer is given by the formula 3 * 4 = 12.",
    "The solution is given by x = 5.",
    "We know that the answer must be a place where people live.",
    "We know that the answer is positive, because lengths are positive.",
    "The expected value of the die is 3.5.",
    "In the reference frame of the train, the ball is at rest.",
    "The given numbers are 5 and 7.",
    "The known values are the width and the height.",
    "Her smile hints at a secret.",
    "There was a hint of lemon in the soup.",
    "He took the hint and went home.",
    "She gave him a hint about the treasure, and he found it.",
    "The problem gives us the speed and asks for the time.",
    "We are given that there are 12 eggs in a box.",
    "We are told that Tom has 5 apples.",
    "We need to find the correct answer.",
    "Let me check my answer: 5 times 3 is 15.",
    "The answer provided by the farmer surprised everyone.",
    "The provided information is enough to compute the total.",
    "Tom's answer is wrong, because he forgot the tax.",
    "The teacher marked the answer as correct.",
    "To get the right answer, we divide first.",
    "With reference to the map, the town is in the north.",
    "The reference book was on the shelf.",
    "The results are known to be good.",
    "The solution was heated to 80 degrees.",
    "Add the given amount of salt to the solution.",
    "The unknown is the number of boxes.",
    "The given equation has two solutions.",
    "The solution of the given equation is x = 3.",
    "It is known that water boils at 100 degrees.",
    "The desired result follows from the theorem.",
    "We expect the answer to be an integer.",
    "If the answer is 12, then each side is 3, but the sides are 4.",
    "The answer to the given question is no.",
    "An answer is given in the table.",
    "The person who knows the answer is the librarian.",
    "The key to the answer is the number of days.",
    "Given the rate, the answer is 30 miles.",
    "The answer should be in meters.",
    "Since the answer is a probability, it lies between 0 and 1.",
    'The question is a known riddle with the answer "a shadow".',
]


def told(rationale: str | None, answer: str | None, prompt: str = "Where does he live?", **more):
    """The rejection of a row with this rationale and answer; None if it is kept."""
    text = f"So: {rationale}\nAnswer: {answer}"
    more = {"completion": [{"role": "assistant", "content": text}], **more}
    asked = [{"role": "user", "content": prompt}]
    record = row(text, 0, rationale=rationale, answer=answer, prompt=asked, **more)
    return said("rationale", [record]).rejected.get(0)


@pytest.mark.parametrize("text", LEAKS)
def test_a_rationale_that_speaks_of_a_given_answer_is_rejected(text):
    found = told(f"He has no house. {text}", None)
    assert found is not None
    assert found.rule == "hint"
    assert 21 <= found.span["start"] < found.span["stop"] <= 21 + len(text)
    first = told(text, None, completion=[{"role": "assistant", "content": f"{text} So it is."}])
    assert first.span == {place: at - 21 for place, at in found.span.items()}
    assert told(text, None, completion=[{"role": "assistant", "content": "So it is."}]).span is None


@pytest.mark.parametrize("text", HARMLESS)
def test_a_rationale_that_gives_or_seeks_an_answer_is_kept(text):
    assert told(f"He has no house. {text}", None) is None


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("As given in the hint, we divide by two.", "What is 8 / 2? Hint: halve it."),
        ("The given answer is wrong, because 3 + 4 is 7.", "The given answer is 8. Is it right?"),
        ("The reference solution forgets the tax.", "Compare the student's answer with the reference solution."),
        ("Since the correct answer is 7, the pupil is wrong.", "Grade this: 3 + 4 = 8."),
    ],
)
def test_what_the_prompt_itself_speaks_of_is_no_leak(text, prompt):
    assert told(text, None, prompt) is None
    assert told(text, None).rule == "hint"


@pytest.mark.parametrize(
    ("rationale", "answer", "stated"),
    [
        (
            "She sells 9 eggs for $2, so she earns 9 * 2 = $18.",
            "20",
            "She sells 9 eggs for $2, so she earns 9 * 2 = $18.",
        ),
        ("It is 48 + 24 = 72.\nSo the total is 72.", "74", "So the total is 72."),
        ("The answer is 42.", "43", "42."),
        (r"So it is \boxed{12}.", "13", "12"),
        ("Only a train station fits. So the answer is (c) train station.", "(d) bridge", "(c) train station."),
        ("So the answer is a bridge.", "station", "a bridge."),
    ],
)
def test_another_answer_at_the_end_of_the_rationale(rationale, answer, stated):
    assert contradiction(rationale, answer) == stated
    found = told(rationale, answer)
    assert (found.rule, found.reason) == (
        "conclusion",
        f"the rationale ends with '{stated}', and the answer is '{answer}'",
    )


@pytest.mark.parametrize(
    ("rationale", "answer"),
    [
        ("She sells 9 eggs for $2, so she earns 9 * 2 = $18.", "18"),
        ("She sells 9 eggs for $2, so she earns 9 * 2 = $18.", "$18.00"),
        ("So each gets 20 / 3 = 6.67 apples.", "6"),
        ("So each gets 20 / 3 = 6.67 apples.", "7"),
        ("So it costs 350 cents.", "3.50"),
        ("So there are 8 - 14 = -6 more.", "6"),
        ("So there are 6 fewer.", "-6"),
        ("Thus, there were 20 balloons in the bundle, and 18 of them were yellow.", "18"),
        ("So the answer is a bridge.", "under the dry arches where nobody looks for them at night"),
        ("So the ride takes 120 minutes.", "2 hours"),
        ("The chance is 3 / 4.", "75%"),
        ("She jumped 1 spot ahead to 4th place.", "4"),
        ("Of the choices, only a bridge is where a bum would live.", "(d) bridge"),
        ("So the answer is (d) bridge.", "d"),
        ("So the answer is (d).", "(d) bridge"),
        ("So the answer is a bridge.", "the bridge"),
        ("So the answer is a place where many people without a house of their own live.", "bridge"),
        ("It is either 5 or 6.", "7"),
        ("Let me think about that.", "7"),
        ("", "7"),
        ("So x = 3.", "Paris"),
        ("So the total is 72.", ""),
    ],
)
def test_an_answer_that_may_follow_is_kept(rationale, answer):
    assert contradiction(rationale, answer) is None
    assert told(rationale, answer) is None


def test_rationales_of_rows_of_data_sets():
    """A row of a data set has no strategy. The row's reasoning is a column, a field of the message, or a part of the
    completion.
    """
    foreign = {"strategy": None, "answer": None, "rationale": None}
    message = {"role": "assistant", "content": "It is 20.", "reasoning_content": "9 * 2 = 18"}
    rows = [
        row("9 * 2 = 18\n#### 20", 0, **foreign),
        row("9 * 2 = 18\n#### 18", 1, **foreign),
        row("", 2, **{**foreign, "completion": [message]}),
        row("It is 20.", 3, **{**foreign, "rationale": "9 * 2 = 18"}),
        row("9 * 2 = 18\n20 eggs", 4, **foreign),
        row("20", 5, **foreign),
        row("It is 18.", 6, **{**foreign, "rationale": "9 * 2 = 18", "answer": "20"}),
    ]
    assert sorted(said("rationale", rows).rejected) == [0, 2, 3, 6]
    made = [row("9 * 2 = 18\nAnswer: 20", 0, rationale=None)]
    assert not said("rationale", made).rejected, "a strategy without rationales"


@pytest.mark.parametrize(
    ("text", "results"),
    [
        ("16 - 3 - 4 = <<16-3-4=9>>9 eggs", "+"),
        ("16-3-4=9", "+"),
        ("2 * 3 = 6 + 1 = 7", "+"),
        ("9 + 9 = 18, 18 + 2 = 21", "+-"),
        ("- 3 + 5 = 8", "+"),
        ("-3 + 5 = 2", "+"),
        ("1. 5 + 3 = 8\n2) 5 + 3 = 9", "+-"),
        ("10 / 3 = 3.33 and 20 / 3 = 6.66 and 20/3 ≈ 7", "+++"),
        ("2000 / 75 = 26.666666666666668", "+"),
        ("7 / 2 = 2", "-"),
        ("7 + 2 = 8", "-"),
        ("$5 × 3 = $15", "+"),
        ("50 × 20% = 10", "+"),
        ("100% - 20% = 80%", "+"),
        ("5/25 = 20%", "+"),
        ("1/4 + 1/4 = 1/2", "+"),
        ("3 / 1/4 = 12", "+"),
        ("100 / 3 = 33 1/3", "+"),
        ("**5 + 3 = 8**", "+"),
        ("1,000 + 500 = 1,500.", "+"),
        (r"\frac{1}{2} \times 4 = 2", "+"),
        ("4x5=20", "+"),
        ("(5 + 3) * 2 = 16, (5 + 3 = 9)", "+-"),
        ("it is 12 * $9 = $108 a day", "+"),
        ("3 + 4 * 2 = 14", "-"),
        ("2 * 3 = -6", "-"),
        ("20% of 50 + 10 = 20", ""),
        ("x + 3 + 4 = 9", ""),
        ("f(5 + 3) = 8", ""),
        ("5 apples * 2 = 10 apples", ""),
        ("17 / 5 = 3 remainder 2", ""),
        ("2:30 - 1:15 = 1:15", ""),
        ("3 * 2 = 6x", ""),
        ("1.5 * 2 = 3 million", ""),
        ("17 % 5 = 2", ""),
        ("3 * 2 = 6.5.1", ""),
        ("10 = 5 + 5", ""),
        ("5 + 3 == 8", ""),
        ("a <= 5 + 3", ""),
        ("1 / 0 = 0", ""),
        ("no sums", ""),
    ],
)
def test_equations(text, results):
    assert "".join("+" if one.right else "-" for one in equations(text)) == results


def test_equations_take_time_in_proportion_to_the_text():
    assert len(equations("1 + 1 = 2, " * 5000)) == 5000
    assert equations("(" * 50_000 + "= 1") == []
    assert equations("1 + " * 20_000 + "= 1") == []


def test_arithmetic_is_a_score_and_rejects_only_if_asked():
    rows = [
        row("1 + 1 = 2, 2 + 2 = 5", 0),
        row("1 + 1 = 2", 1),
        row("none", 2),
        row("it is 2", 3, rationale="1 + 1 = 3"),
    ]
    found = said("arithmetic", rows)
    assert not found.rejected
    assert np.array_equal(found.scores["arithmetic"], [0.5, 1, np.nan, 0], equal_nan=True)
    strict = said("arithmetic", rows, min_share=0.9).rejected
    assert sorted(strict) == [0, 3]
    assert strict[0].reason == "1 of 2 equations are wrong, first '2 + 2 = 5'"
    assert (strict[0].score, strict[0].threshold) == (0.5, 0.9)


def test_rejected_rows_teach_nothing_and_scores_are_stored(tmp_path):
    rows = [row("9 * 2 = 18\nAnswer: 20", 0, rationale="9 * 2 = 18", answer="20"), row("9 * 2 = 18", 1)]
    run = corpus_of(tmp_path / "run", rows)
    synthgen.curate(curating(rationale=True, arithmetic=True), run)
    kept, gone = parts(run)
    assert [verdict["teaches"] for verdict in gone["r0"].verdicts] == ["nothing"]
    assert {"name": "arithmetic", "value": 1.0} in kept["r1"].scores


@pytest.mark.parametrize("name", ["rationale", "arithmetic"])
def test_these_checks_are_off(name):
    assert not CHECKS[name].on
