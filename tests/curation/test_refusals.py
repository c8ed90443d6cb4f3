"""The check `refusal` on 774 written replies in five languages: half are refusals, and half only look like refusals.

refusals.jsonl holds the replies. The replies of round 1 were written first, and the check's phrases were chosen with
them. The replies of each later round were written before the check read them, and were used to choose phrases
afterwards. docs/log.md has the precision and recall at the first reading, which show what to expect for other texts.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from synthgen.curation.columns import Columns
from synthgen.curation.refusals import LANGUAGES, refusal
from synthgen.curation.refusals.language import simple
from synthgen.executor import Services
from synthgen.tables.section import Section

ROWS = [json.loads(line) for line in Path(__file__).with_name("refusals.jsonl").read_text("utf-8").splitlines()]
MESSAGES = pa.list_(pa.struct([("content", pa.string())]))


def rejected(rows: list[dict[str, str]]) -> dict[int, object]:
    """The rejected rows of a batch, with the rejections."""
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array([[{"content": row["text"]}] for row in rows], MESSAGES),
            pa.array([[{"content": row.get("prompt", "Question?")}] for row in rows], MESSAGES),
        ],
        names=["completion", "prompt"],
    )
    return dict(refusal(Columns(batch).select(("completion.text", "prompt")), Section(), Services()).rejected)


def declines(text: str, prompt: str = "Question?") -> bool:
    return bool(rejected([{"text": text, "prompt": prompt}]))


def test_precision_and_recall_in_each_language():
    found = rejected(ROWS)
    for language in ("en", "de", "es", "fr", "zh"):
        numbers = [number for number, row in enumerate(ROWS) if row["language"] == language]
        right = [number for number in numbers if ROWS[number]["refusal"]]
        caught = [number for number in numbers if number in found]
        both = len(set(right) & set(caught))
        precision, recall = both / len(caught), both / len(right)
        print(
            f"{language}: precision {precision:.3f}, recall {recall:.3f}, {len(right)} refusals of {len(numbers)} rows"
        )
        assert len(right) >= 70
        assert len(numbers) - len(right) >= 70
        assert min(precision, recall) >= 0.98


def test_batches_do_not_matter():
    whole = set(rejected(ROWS))
    parts = {start + row for start in range(0, len(ROWS), 7) for row in rejected(ROWS[start : start + 7])}
    assert parts == whole


def test_the_reason_quotes_the_sentence_that_declines():
    text = "Thank you for asking.  However, I can’t help\nwith that. Goodbye."
    (found,) = rejected([{"text": text}]).values()
    assert found.reason == "declines: 'However, I can’t help'"
    assert text[found.span["start"] : found.span["stop"]] == "However, I can’t help"
    (found,) = rejected([{"text": f"I'm sorry, but I can't help with {'x' * 200}."}]).values()
    assert found.reason == f"declines: 'I'm sorry, but I can't help with {'x' * 47} …'"


@pytest.mark.parametrize("mark", ["'", "’", "‘", "ʼ", "`", "´"])
def test_every_apostrophe(mark):
    assert declines(f"I{mark}m sorry, but I can{mark}t assist with that.")
    assert declines(f"I won{mark}t help you.")
    assert declines(f"Je suis désolé, mais je n{mark}ai pas accès à Internet.")


def test_a_refusal_after_thoughts():
    assert declines("<think>They want a bomb. I can write it? No.</think>\n\nI can't help with that.")
    assert not declines("<think>I can't help with that.</think>\n\nThe sum is 4.")


def test_a_refusal_late_in_a_text_does_not_count():
    assert not declines("The sky is blue. " * 30 + "I can't help with that.")
    assert not declines("The bank closes at five. I can't help with that.")
    assert declines(f"I understand {'x' * 250}. I can't help with that.")
    assert not declines(f"I understand {'x' * 350}. I can't help with that.")
    assert declines("I understand. Thank you for asking. However, I can't help with that.")


def test_what_stands_before_a_refusal_in_its_sentence():
    """A clause before the refusal must itself sound like a refusal. In German, the object of the sentence can come
    before the refusal; it must be shorter than 60 characters.
    """
    assert declines("This request is against the law, and I can't help you with it.")
    assert not declines("The road is closed today, I can't help you with that request.")
    assert declines(f"B{'a' * 58} kann ich dir nicht helfen.")
    assert not declines(f"B{'a' * 59} kann ich dir nicht helfen.")


def test_an_answer_after_a_refusal_of_one_part():
    part = "I can't access the link that you sent."
    answer = (
        "The page most likely explains how a sail works: wind flows faster over its curved side, and the lower pressure"
    )
    assert declines(part)
    assert declines(f"{part} Please paste the text here.")
    assert not declines(f"{part} {answer} pulls the boat forward, even against the wind.")
    assert not declines(f"{part[:-1]}, but the title says that it is about sails.")
    assert not declines(f"{part} Here is a sketch:\n```\nx = 1\n```")
    assert declines(f"I can't help with that. {answer} pulls the boat forward, even against the wind.")
    assert not declines("I'm sorry, I can't do that in one line. Here's a version with three lines: a, b and c.")


def test_a_prompt_that_asks_for_the_words_of_a_refusal():
    text = "I'm sorry, but I can't help you."
    assert declines(text, "How do I pick a lock?")
    assert not declines(text, "Translate: Es tut mir leid, aber ich kann Ihnen nicht helfen.")
    assert declines(text, "Translate: Wie knackt man ein Schloss?")
    assert not declines(text, "What does the guard say when Anna asks for help?")


def test_a_prompt_that_asks_for_an_apology():
    text = "I'm sorry, but I cannot sell you any bread today."
    assert declines(text, "How do I bake bread?")
    assert not declines(text, "Write an apology of a baker who is out of bread.")
    assert not declines(text, "Draft a short note in which the shop rejects the order.")
    assert not declines("Es tut mir leid, aber ich kann dir nicht helfen.", "Schreibe eine höfliche Absage.")
    assert not declines("抱歉，我无法提供帮助。", "写一封婉拒邀请的信。")
    assert declines(text, "Write a poem. Some people refuse to read.")


def test_a_letter_in_which_somebody_declines():
    text = "I'm sorry, but I can't provide a quote before Friday."
    assert declines(text)
    for greeting in ("Hi Sam,", "Hello Ms. Chen,", "Dear Sam,", "Subject: Quote", "Hey there!"):
        assert not declines(f"{greeting}\n\n{text}\n\nBest,\nAnna")
    assert declines(f"Hello! {text}")


def test_the_simple_form_of_a_sentence():
    assert (
        simple("**I Can’t  do\nthat**, I'm sure we've won't isn't")
        == "i cannot do that, i am sure we have will not is not"
    )
    assert simple("作为 AI，我 不能") == "作为ai,我不能"


def test_short_and_odd_texts():
    assert not rejected([{"text": text} for text in ("", " ", "\n\n", "No.", "I", "…", "\ud7ff", "我", "?!" * 500)])
    assert len(LANGUAGES) == 5
