"""A random value in one spelling matches itself in every other spelling, and never matches another value."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from synthgen.verify import matches, mathematics, party

ROUNDS = 400
ONES = str.split(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
TENS = str.split("- - twenty thirty forty fifty sixty seventy eighty ninety")
FRAMES = (
    "{}",
    "{}.",
    " {} ",
    "**{}**",
    "The answer is {}.",
    "Answer: {}",
    "**Answer:** {}",
    "We think.\n#### {}",
    "\\boxed{{{}}}",
    "So the final answer is {}",
    "<think>It may be 3.</think>{}",
    "First 2, then 3.\nAnswer: {}",
    "${}$",
    "A: {}",
    "= {}",
)
WORDS = str.split("amber birch cedar delta ember fjord grove heron islet jetty kayak lemon maple north ocean pearl")


@pytest.fixture(autouse=True)
def no_mathematics(monkeypatch):
    monkeypatch.setattr(mathematics, "decide", lambda answer, expected: None)


def in_words(value: int) -> str:
    if value < 20:
        return ONES[value]
    if value < 100:
        return TENS[value // 10] + (f"-{ONES[value % 10]}" if value % 10 else "")
    if value < 1000:
        return f"{ONES[value // 100]} hundred" + (f" and {in_words(value % 100)}" if value % 100 else "")
    rest = value % 1000
    return f"{in_words(value // 1000)} thousand" + (f" {in_words(rest)}" if rest else "")


def spellings(value: Fraction) -> list[str]:
    """Texts that all mean this value."""
    minus, size = ("-" if value < 0 else ""), abs(value)
    above, below = size.numerator, size.denominator
    texts = [f"{minus}{above}/{below}", f"{minus}\\frac{{{above}}}{{{below}}}"] if below > 1 else []
    if below == 1:
        texts += [f"{minus}{above}", f"{minus}{above:,}", f"{minus}{above}.0", f"{minus}{above:,}".replace(",", " ")]
        texts += [f"{minus}{above}".replace("-", "−"), f"{minus}{above * 2}/2", f"{minus}{above:,}".replace(",", "'")]
        texts += [f"{'minus ' if minus else ''}{in_words(above)}"] if above < 1_000_000 else []
    if 10**6 % below == 0:
        decimal = f"{float(size):.6f}".rstrip("0").rstrip(".")
        texts += [f"{minus}{decimal}", f"{minus}{decimal}0" if "." in decimal else f"{minus}{decimal}"]
        texts += [f"{minus}{float(size):e}", f"{minus}{float(size) / 100:.8f} × 10^2"]
    if below > 1 and above > below:
        texts.append(f"{minus}{above // below} {above % below}/{below}")
    return texts


def random_value(draw: random.Random) -> Fraction:
    size = draw.choice([9, 99, 999, 99_999])
    return Fraction(draw.randint(-size, size), draw.choice([1, 1, 1, 2, 3, 4, 5, 7, 8, 10, 100]))


def corrupted(value: Fraction, draw: random.Random) -> Fraction:
    """Another value, which differs by a sign, a step, a factor or a digit."""
    others = [-value, value + 1, value - 1, value * 10, value / 10, value + Fraction(1, 10), value * 2]
    others += [Fraction(value.denominator, value.numerator)] if value else []
    digits = str(abs(value.numerator))
    at = draw.randrange(len(digits))
    others.append(Fraction(int(digits[:at] + str((int(digits[at]) + 1) % 10) + digits[at + 1 :]), value.denominator))
    return draw.choice([other for other in others if other != value])


def test_numbers():
    draw = random.Random(13)
    for _ in range(ROUNDS):
        value = random_value(draw)
        other = corrupted(value, draw)
        one, two = draw.choice(spellings(value)), draw.choice(spellings(value))
        wrong = draw.choice(spellings(other))
        answer, frame = draw.choice(FRAMES), draw.choice(FRAMES)
        assert matches(answer.format(one), frame.format(two)), (answer.format(one), frame.format(two))
        assert not matches(answer.format(wrong), frame.format(two)), (answer.format(wrong), frame.format(two))
        assert party(one) == party(two), (one, two)
        assert party(one) != party(wrong), (one, wrong)


def test_words():
    draw = random.Random(14)
    for _ in range(ROUNDS):
        words = draw.sample(WORDS, draw.randint(1, 4))
        changed = list(words)
        if draw.random() < 0.5 and len(words) > 1:
            draw.shuffle(changed)
        else:
            changed[draw.randrange(len(words))] = "quartz"
        text, other = " ".join(words), " ".join(changed)
        answer, frame = draw.choice(FRAMES[:-5]), draw.choice(FRAMES[:-5])
        spelled = draw.choice([text, text.upper(), text.title(), text.replace(" ", "-"), f"the {text}", f'"{text}"'])
        assert matches(answer.format(spelled), frame.format(text)), (answer.format(spelled), frame.format(text))
        for wrong in {other, f"not {text}", f"{text} or quartz", f"{text} quartz"} - {text}:
            assert not matches(answer.format(wrong), frame.format(text)), (answer.format(wrong), frame.format(text))


def test_choices():
    draw = random.Random(15)
    for _ in range(ROUNDS):
        right, wrong = draw.sample("ABCDEFGH", 2)
        forms = ["{}", "({})", "{}.", "{})", "option {}", "[{}]"]
        one, two = draw.choice(forms), draw.choice(forms)
        answer = draw.choice([*FRAMES[:8], *FRAMES[9:10]])
        assert matches(answer.format(one.format(right)), two.format(right)), (
            answer.format(one.format(right)),
            two.format(right),
        )
        assert not matches(answer.format(one.format(wrong)), two.format(right))
        assert not matches(answer.format(f"{right} or {wrong}"), two.format(right))
