"""The verifier accepts right answers and refuses wrong ones. The cases are in table.py."""

from __future__ import annotations

import json

import pytest
from support.places import SHARED
from table import CHEAP, KINDS

from synthgen.generation.rows import split_rationale
from synthgen.recipe import shipped
from synthgen.verify import gold, matches, mathematics, number, party, reason
from synthgen.verify.final import LIMIT
from synthgen.verify.notation import notation
from synthgen.verify.short import SHORT, remembered


@pytest.fixture(autouse=True)
def no_mathematics(monkeypatch):
    """The cheap rules alone decide here. test_mathematics.py tests math-verify."""
    monkeypatch.setattr(mathematics, "installed", lambda: False)
    mathematics.decide.cache_clear()
    yield
    mathematics.decide.cache_clear()


def test_there_are_enough_cases_of_both_verdicts():
    entries = [entry for kind in KINDS.values() for entry in kind]
    assert sum(len(right) for _, right, _ in entries) >= 400
    assert sum(len(wrong) for _, _, wrong in entries) >= 400
    assert all(any(right for _, right, _ in kind) and any(wrong for _, _, wrong in kind) for kind in KINDS.values())


@pytest.mark.parametrize("kind", CHEAP)
def test_right_answers_match_and_wrong_ones_do_not(kind):
    rejected = [(a, reference) for reference, right, _ in KINDS[kind] for a in right if not matches(a, reference)]
    accepted = [(a, reference) for reference, _, wrong in KINDS[kind] for a in wrong if matches(a, reference)]
    assert (rejected, accepted) == ([], [])


def test_gold_is_what_follows_the_last_marker():
    assert gold("a #### 1 #### 72") == "72"
    assert gold("72") == "72"
    assert gold("So $x$ is $\\boxed{\\frac{1}{2}}$.") == "\\frac{1}{2}"


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
        assert matches(reference, final)
        assert not matches(str(number(final) + 1), reference)


def test_equal_answers_are_one_party_and_different_symbols_are_two():
    for same in (
        ["2,500", "$2500", "2500 dollars", "2500.00", "2.5k", "The answer is 2500."],
        ["3/4", "0.75", "75%", "\\frac{3}{4}", "three quarters"],
        ["B", "(B)", "b)", "B) Paris", "The answer is (B)."],
        ["Yes", "yes.", "True"],
        ["Rome", "rome.", "**Rome**", "The answer is Rome."],
        ["2:30 pm", "14:30"],
    ):
        assert len({party(answer) for answer in same}) == 1, [party(answer) for answer in same]
    for different in (
        ["C", "C++", "C#", "c--"],
        ["x > 3", "x < 3", "x = 3", "x >= 3"],
        ["-4", "4", "4!", "1/4", "4 hours", "4 km", "4%", "€4"],
        ["+", "-", "*", "/"],
        ["def f():\n    return 1", "def f():\n    return 2", "def g():\n    return 1"],
        ["(1, 2)", "[1, 2]", "(2, 1)", "12"],
    ):
        assert len({party(answer) for answer in different}) == len(different), [party(a) for a in different]
    assert {party(nothing) for nothing in (None, "", "  ", "<think>never ends")} == {""}


def test_programs_and_other_long_texts_are_compared_whole():
    program = "def f(x):\n    return x + 1"
    assert matches(program, program)
    assert matches(f"{program}\n", program)
    for other in ("def f(x):\n    return x - 1", "def g(x):\n    return x + 1", "return x + 1", "1", "f"):
        assert not matches(other, program), other


def test_the_reason_names_both_sides():
    assert reason("Answer: 41 apples", ["42"]) == "answer '41 apples' is not '42'"
    assert "takes its answer back" in reason("Answer: 42\nWait, it is 41.", ["42"])
    assert "pip install 'synthgen-distill[curate]'" in reason("\\sqrt{2}", ["\\frac{2}{\\sqrt{2}}"])
    assert reason("<think>on and on", ["42"]) == "no final answer found"
    assert reason("42", [" "]) == "the reference is empty"


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("1.250", "1250"),
        ("Es sind 1.250 Euro.", "1,250"),
        ("Die Antwort ist 12.500.", "12500"),
        ("1250", "1.250"),
        ("1.250 personas", "#### 1250"),
    ],
)
def test_a_dot_before_three_digits_is_a_decimal_point_and_the_reason_says_so(answer, reference):
    assert not matches(answer, reference)
    assert "separates thousands, but it is read as a decimal point" in reason(answer, [reference])


@pytest.mark.parametrize(
    ("answer", "reference"),
    [("1.250", "1251"), ("0.250", "250"), ("1.2505", "12505"), ("1.250", "1.251"), ("It is 3.141", "pi")],
)
def test_other_answers_with_a_dot_are_just_wrong(answer, reference):
    assert not matches(answer, reference)
    assert "thousands" not in reason(answer, [reference])
    assert matches("1.250", "1.25")
    assert matches("1.250,00 €", "1250")
    assert matches("1.250.000", "1250000")


def test_the_marker_counts_only_behind_the_reasoning():
    thought = "<think>I see Answer: 7</think>\n"
    assert split_rationale(f"{thought}It is 12.", "Answer:") == (f"{thought}It is 12.", None)
    assert split_rationale(f"{thought}So\nAnswer: 12\nBye", "Answer:") == (f"{thought}So", "12")
    assert split_rationale("<think>Answer: 7", "Answer:") == ("<think>Answer: 7", None)
    assert split_rationale("Add. Answer: 7 (that is 9 - 2)", "Answer:") == ("Add.", "7 (that is 9 - 2)")


def test_the_answer_at_the_end_of_a_long_text_is_found():
    # these thoughts are longer than the part of a text that is searched, so only their end counts
    thoughts = "We think about it for a while.\n" * 5_000
    assert matches(f"{thoughts}Answer: 42", "42")
    assert not matches(f"Answer: 42\n{thoughts}It is 41.", "42")
    assert matches(f"{'We think. ' * 200}So there are 42 eggs.", "42")
    assert not matches("x" * 200_000 + " 42", "42")


def test_a_text_of_one_line_may_be_as_long_as_what_is_searched():
    longest = "So the answer is 42.".rjust(LIMIT, "w")
    assert matches(longest, "42")
    assert not matches(f"w{longest}", "42")


def test_only_what_is_mathematics_alone_is_notation():
    assert notation("x^2 + 3") == "x^{2} + 3"
    for text in ("x^2 # 3", "x^2 +", "= x^2", "1e5", "x is 3"):
        assert notation(text) == "", text


def test_results_of_short_texts_are_remembered():
    asked: list[str] = []

    @remembered
    def size(text: str) -> int:
        asked.append(text)
        return len(text)

    short, long = "a" * SHORT, "a" * (SHORT + 1)
    assert [size(short), size(short), size(long), size(long)] == [SHORT, SHORT, SHORT + 1, SHORT + 1]
    assert asked == [short, long, long]
