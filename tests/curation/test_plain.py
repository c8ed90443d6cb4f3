"""Arrow and Python give the same plain form of texts."""

from __future__ import annotations

import random

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from synthgen.curation.plain import _INVISIBLE, _NOT_CANONICAL, canonical, completion_text, plain, said, whole

SPACES = [chr(i) for i in range(0x3001) if chr(i).isspace()]
LETTERS = ["a", "B", "É", "ß", "Σ", "σ", "İ", "I", "ı", "ᲀ", "Ა", "Ꙁ", "Ɪ", "ꭰ", "𐐀", "𝔄", "漢", "1", ".", "\u200b"]


@pytest.mark.parametrize("seed", range(20))
def test_the_plain_form_is_the_one_of_python(seed):
    draw = random.Random(seed)
    texts = ["".join(draw.choices([*SPACES, " ", " ", *LETTERS], k=draw.randint(0, 9))) for _ in range(60)]
    texts = [None if draw.random() < 0.1 else text for text in texts]
    wanted = [text and " ".join(text.lower().split()) for text in texts]
    assert plain(pa.array(texts, pa.string())).to_pylist() == wanted


def test_few_texts():
    for texts in ([], [None], [None, None], ["Σ"], ["A  b"], ["Σ", None, "A"]):
        wanted = [text and " ".join(text.lower().split()) for text in texts]
        assert plain(pa.array(texts, pa.string())).to_pylist() == wanted


def test_every_character_has_the_canonical_form_of_unicode():
    texts = [f"e{chr(code)}\u0323{chr(code)}" for code in range(0x20000) if not 0xD800 <= code < 0xE000]
    texts += [chr(code) for code in range(0x20000) if not 0xD800 <= code < 0xE000]
    singles = pa.array([chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000])
    plain_ones = pc.filter(singles, pc.invert(pc.match_substring_regex(singles, pattern=_NOT_CANONICAL))).to_pylist()
    texts += [first + second for first in ("e", "は", "가", "и", "≤") for second in plain_ones]
    texts += ["", "plain", "\u00e9t\u00e9", "e\u0301t\u00e9", "soft\u00adhyphen"]
    whole_array = pc.utf8_normalize(pa.array(texts), "NFC")
    wanted = pc.replace_substring_regex(whole_array, pattern=_INVISIBLE, replacement="")
    assert canonical(pa.array(texts)).equals(wanted)
    assert canonical(pa.array(["\u00e9", None, "e\u0301"])).to_pylist() == ["\u00e9", None, "\u00e9"]
    assert canonical(pa.array(["a", None])).to_pylist() == ["a", None]


def test_what_messages_say_whatever_columns_are_null():
    fields = ("role", "content", "name", "tool_calls", "reasoning_content")
    kind = pa.list_(pa.struct([(name, pa.string()) for name in fields]))
    empty = dict.fromkeys(fields)
    rows = [[{**empty, "role": "user"}], [{**empty, "role": "assistant"}, {**empty, "role": "tool"}]]
    assert said(pa.array(rows, kind)).to_pylist() == ["\1\1\1", "\1\1\1\2\1\1\1"]
    assert whole(pa.array(rows, kind)).to_pylist()[0] == "user\1\1\1\1"
    rows[0][0]["tool_calls"] = "f( )"
    assert said(pa.array(rows, kind)).to_pylist()[0] == "\1\1f( )\1"


def test_the_text_of_a_row_without_a_completion_is_its_last_message():
    kind = pa.list_(pa.struct([("content", pa.string())]))

    def messages(*rows: list[str | None]) -> pa.Array:
        return pa.array([[{"content": text} for text in row] for row in rows], kind)

    asked = messages(["a", "b"], ["c"], [], [None])
    assert completion_text(messages(["x"], ["y", None], ["z"], ["w"]), asked).to_pylist() == ["x", "y\n", "z", "w"]
    assert completion_text(messages([], ["x"], [], []), asked).to_pylist() == ["b", "x", "", ""]
