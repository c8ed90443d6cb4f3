"""The checks `repetition` and `length`: when a text counts as repetitive, in every script."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from synthgen.curation.columns import Columns
from synthgen.curation.near.shingles import ALONE, KINDS
from synthgen.curation.repetition import measured, repetition
from synthgen.curation.scripts import characters
from synthgen.curation.text import length
from synthgen.curation.verdicts import Verdicts
from synthgen.executor import Services
from synthgen.tables.curation_settings import Length, Repetition

MESSAGES = pa.list_(pa.struct([("content", pa.string())]))
SENTENCE = "The boat left the harbor at six, and nobody saw it again."
CHINESE = "小船六点离开港口，后来再也没有人见过它。老人每天都在岸边等，有时他会想起年轻时的海。"
THAI = "เรือออกจากท่าเวลาหกโมงเช้าและหลังจากนั้นไม่มีใครเห็นมันอีกเลยชายชรานั่งรออยู่ริมฝั่งทุกวัน"


def columns(*texts: str) -> pa.RecordBatch:
    rows = pa.array([[{"content": text}] for text in texts], MESSAGES)
    batch = pa.RecordBatch.from_arrays([rows, rows], names=["completion", "prompt"])
    return Columns(batch).select(("completion.plain", "completion.text"))


def repeats(*texts: str, **settings: float) -> Verdicts:
    return repetition(columns(*texts), Repetition(**settings), Services())


def counted(*texts: str, **settings: int | None) -> Verdicts:
    return length(columns(*texts), Length(**settings), Services())


LOOPS = {
    "three equal lines": "Yes.\nYes.\nYes.\n",
    "four equal lines": "No\n\nNo\nno\nNO",
    "equal sentences": "I do not know it. " * 6,
    "a line again and again": f"{SENTENCE}\n" + "Thank you very much.\n" * 20,
    "two lines in turns": f"{SENTENCE}\nThe rain fell.\n" * 9,
    "a numbered loop": "\n".join(f"{number}. Remember to drink a glass of water." for number in range(1, 20)),
    "a bulleted loop": "- Stay calm and carry on\n" * 12,
    "a loop in a block of code": "```\n" + "print('the same line once more')\n" * 15 + "```",
    "a loop in a table": "| a | b |\n| --- | --- |\n" + "| the same | row again |\n" * 15,
    "one word": "word " * 50,
    "Chinese": "我不知道这件事情。" * 6,
    "Chinese lines": "这是一个非常好的问题。\n" * 6,
    "Japanese": "わかりません。もう一度お願いします。" * 5,
    "Thai": "ฉันไม่รู้เรื่องนี้เลยจริงๆ" * 6,
    "laughter": "ha" * 120,
    "marks": "It is:\n" + "!" * 300,
    "faces": "😀" * 300,
}
SONG = "\n".join(
    f"{verse}\nRow on, row on, the tide is turning,\nthe lamps along the shore are burning,\nrow on, my love, row on.\n"
    for verse in (
        "The morning came with silver rain\nand all the men came home again.",
        "At noon the market bells were loud,\nand I stood lonely in the crowd.",
        "By night the wind had turned to west,\nand in my arms I let you rest.",
    )
)
GOOD = {
    "a song with a refrain": SONG,
    "a table with few values": "| Item | A | B |\n| --- | --- | --- |\n"
    + "".join(f"| Item {n} | {'yes' if n % 2 else 'no'} | {'no' if n % 3 else 'yes'} |\n" for n in range(20)),
    "a table without outer bars": "Item | A | B | C\n"
    + "".join(f"Item {n} | no | no | {'yes' if n % 3 else 'no'}\n" for n in range(20)),
    "a list with one beginning": "\n".join(
        f"- Open the settings, choose the tab and press {key}" for key in "ABCDEFGHIJK"
    ),
    "a multiplication table": "\n".join(f"{n} times 7 is {n * 7}" for n in range(1, 13)),
    "code": "def f(x):\n"
    + "".join(f"    if x == {n}:\n        raise ValueError('x must not be {n}')\n" for n in range(12)),
    "code in a block": "```\n"
    + "".join(f"assert add({n}, {n}) == {2 * n}, 'add is wrong'\n" for n in range(12))
    + "```",
    "commands in a block": "Run it.\n```\n" + "".join(f"say the name of guest {n}\n" for n in range(12)) + "```",
    "short answers": "1. yes\n2. no\n3. yes\n4. yes",
    "a googol": f"It is 1{'0' * 100}.",
    "a ruler": f"One\n{'-' * 250}\nTwo\n{'─' * 250}",
    "a long address": "https://example.org/" + "".join(chr(97 + n * n % 26) + str(n) for n in range(100)),
    "laughter in a text": f"{SENTENCE} {'ha' * 100} {' '.join(f'word{n}' for n in range(200))}",
    "two equal lines": "Yes.\nYes.",
    "a shout": "no no no",
    "Chinese": CHINESE,
    "Thai": THAI,
    "a Chinese table": "| 城市 | 已经完成 | 尚未完成 |\n"
    + "".join(f"| 第{n}城 | 是的已经完成 | 还没有开始做 |\n" for n in range(12)),
    "empty": "",
    "a space": " \n ",
}


@pytest.mark.parametrize("name", LOOPS)
def test_loops_are_rejected(name):
    verdicts = repeats(LOOPS[name])
    assert verdicts.rejected[0].score > 0.3
    assert "sequences repeat, more than 30%" in verdicts.rejected[0].reason


@pytest.mark.parametrize("name", GOOD)
def test_good_texts_are_kept(name):
    assert not repeats(GOOD[name]).rejected


def test_a_song_repeats_more_than_the_limit_if_it_is_not_read_line_by_line():
    assert measured_shares(SONG) > 0.3
    assert repeats(SONG).scores["repetition"][0] < 0.1


def measured_shares(text: str) -> float:
    return float(measured(columns(text)["completion.plain"])[0][0])


def test_the_shares_of_sequences():
    assert measured_shares("你" * 10) == pytest.approx(2 / 3)
    assert measured_shares("a b c d a b c d") == pytest.approx(1 / 5)
    assert measured_shares("a b c d") == 0
    found = repeats("a" * 199, "a" * 200, f"{'a' * 200} {'b' * 200}", f"{'a' * 200} {SENTENCE}")
    rest = len(SENTENCE.replace(" ", ""))
    assert found.scores["repetition"].tolist() == pytest.approx(
        [0, 184 / 185, 184 / 185, 184 / 185 * 200 / (200 + rest)]
    )


def test_the_reason_names_the_length_of_the_sequences():
    found = repeats(LOOPS["Chinese"], LOOPS["Thai"], LOOPS["equal sentences"]).rejected
    assert [rejection.reason.split(" of ")[1].split(" seq")[0] for rejection in found.values()] == [
        "8-character",
        "16-character",
        "4-word",
    ]


def test_a_row_is_judged_alone():
    texts = [*LOOPS.values(), *GOOD.values()]
    together = repeats(*texts)
    for number, text in enumerate(texts):
        alone = repeats(text)
        assert alone.scores["repetition"][0] == together.scores["repetition"][number]
        assert (0 in alone.rejected) == (number in together.rejected) == (text in LOOPS.values())


def test_a_higher_limit_keeps_more():
    assert not repeats("I do not know it. " * 6, max_share=1.0).rejected
    assert not repeats("Yes.\nYes.\nYes.", max_share=0.7).rejected
    assert repeats("Yes.\nYes.\nYes.", max_share=0.6).rejected[0].score == pytest.approx(2 / 3)


def test_length_counts_characters_of_scripts_without_spaces():
    verdicts = counted(
        "one two", "你好，世界！", "สวัสดี", "Python 的 list 很好用", "答案是 42。", "日本語 ok", min_words=None
    )
    assert verdicts.scores["length"].tolist() == [2, 4, 6, 4, 5, 5]
    assert not verdicts.rejected
    found = counted(
        "你好", "a", "a b c", "你好世界", min_words=2, max_words=2, min_characters=3, max_characters=3
    ).rejected
    assert [(row, each.rule, each.score, each.threshold, each.reason) for row, each in sorted(found.items())] == [
        (0, "min_characters", 2, 3, "2 characters, fewer than 3"),
        (1, "min_words", 1, 2, "1 words, fewer than 2"),
        (2, "max_words", 3, 2, "3 words, more than 2"),
        (3, "max_characters", 4, 3, "4 characters, more than 3"),
    ]
    open_ended = dict.fromkeys(("min_words", "max_words", "min_characters", "max_characters"))
    assert not counted("", "你" * 5000, "word " * 5000, **open_ended).rejected
    assert sorted(counted("", "你" * 3001, "你" * 3000, "word " * 1001, "。").rejected) == [0, 1, 3]


def test_the_scripts_are_those_of_near_duplicates():
    draw = random.Random(3)
    codes = [*draw.sample(range(0x80, 0xD800), 3000), *range(0x0E00, 0x0F00), *range(0x3000, 0x3100)]
    wanted = [2 * (KINDS[code] == ALONE) - 1 for code in codes]
    assert np.sign(characters(pa.array([chr(code) for code in codes]))).tolist() == wanted
