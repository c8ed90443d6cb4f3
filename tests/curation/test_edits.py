"""The edits `next_turn`, `opening` and `white_space`."""

from __future__ import annotations

import hashlib

import pytest
from support.corpora import corpus_of, curating, parts, row

import synthgen
from synthgen.curation.columns import Columns
from synthgen.curation.openings import answer_begins
from synthgen.executor import Services
from synthgen.records import Record, to_table
from synthgen.tables.curation import EDITS
from synthgen.tables.reference import resolve
from synthgen.tables.section import Section

REST = "Der Rhein, the Rhône, el Ebro et 长江"


def edited(name: str, *records: Record) -> list[dict]:
    """The rows after an edit, with the columns that it may change."""
    entry = EDITS[name]
    columns = Columns(to_table(list(records)).to_batches()[0])
    given = columns.select([*entry.columns, *entry.changes, "edits"])
    return resolve(entry.run)(given, Section(), Services()).to_pylist()


def text_after(name: str, text: str) -> str:
    return edited(name, row(text))[0]["completion"][-1]["content"]


@pytest.mark.parametrize(
    "opening",
    [
        "Sure! Here is a list of four rivers:\n\n",
        "Sure, here's the list you asked for:\n",
        "Sure thing! Here’s the list: ",
        "Certainly! Below are the rivers:\n",
        "Certainly, here are the rivers:\n",
        "  Of course! I'd be happy to help you with that. Here are the rivers:\n",
        "Absolutely! I would be glad to assist. ",
        "Great question! ",
        "That's a great question. ",
        "Great question! Sure, here are the rivers:\n",
        "I'd be happy to help! Here are the rivers:\n",
        "OK. Here is what I found:\n",
        "Klar! Hier ist eine Liste der Flüsse:\n\n",
        "Natürlich, hier sind die Flüsse:\n",
        "Gerne! Ich helfe dir gerne dabei. ",
        "Selbstverständlich! Im Folgenden findest du die Flüsse:\n",
        "Gute Frage! ",
        "¡Claro! Aquí tienes la lista:\n",
        "Por supuesto, aquí están los ríos:\n",
        "¡Con gusto! A continuación te presento los ríos:\n",
        "¡Buena pregunta! ",
        "Bien sûr ! Voici la liste :\n\n",
        "Certainement, voici les fleuves :\n",
        "Avec plaisir ! Je serai ravi de vous aider. ",
        "Très bonne question ! ",
        "当然！以下是四条河流：\n",
        "好的，下面是列表：\n",
        "当然可以！我很乐意为您提供帮助。",
        "这是一个很好的问题！",
    ],
)
def test_an_opening_is_cut(opening):
    assert text_after("opening", opening + REST) == REST
    assert text_after("opening", opening) == opening, "it is all that the completion says"
    assert answer_begins(opening) == 0


@pytest.mark.parametrize(
    "text",
    [
        "Certainly! The Rhine is longer.",
        "Certainly not. The Rhine is longer.",
        "Sure, the Rhine is longer.",
        "Of course, here in Germany people speak German.",
        "Here is a list of rivers:\n- Rhine",
        "Here are three rivers: Rhine, Elbe, Oder.",
        "Surely this is right: the Rhine.",
        "Sure is a word: it means certain.",
        "Yes, this is right: the Rhine is longer.",
        "I can help you, said the ferryman: come aboard!",
        "Good questions are rare. Ask one.",
        "Okay is spelled with four letters: o, k, a, y.",
        "Absolutely everything is here: rivers, lakes and seas.",
        '"Sure! Here is the list:" said the clerk.',
        "Klar ist das Wasser: man sieht den Grund.",
        "Natürlich ist der Rhein länger.",
        "Hier ist die Liste:\n- Rhein",
        "Gern geschehen: ein Lustspiel.",
        "Claro que no: el Ebro es más largo.",
        "Voici les fleuves : le Rhin.",
        "Bien sûr que non : le Rhin est plus long.",
        "当然，长江更长。",
        "好的河流很多：长江、黄河。",
        "def sure():\n    return 'here is'",
        "",
    ],
)
def test_an_answer_is_left_alone(text):
    assert answer_begins(text) == 0
    assert text_after("opening", text) == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a  \nb\t\nc ", "a\nb\nc"),
        ("a\r\nb\rc\r\n", "a\nb\nc"),
        ("a\n\n\n\nb\n \n\t\nc", "a\n\nb\n\nc"),
        ("\n \n    code\n\n", "    code"),
        ("a\n", "a"),
        ("a\n\nb", "a\n\nb"),
        ("a  b", "a  b"),
        ("```\nx = 1  \n\n\n\ny = 2\r\n```  \n\n\nend  ", "```\nx = 1  \n\n\n\ny = 2\n```\n\nend"),
        ("```\nnot closed  \n\n\n", "```\nnot closed  "),
        (" \n", " \n"),
        ("a\u00a0\nb\u3000", "a\u00a0\nb\u3000"),
    ],
)
def test_white_space(text, left):
    assert text_after("white_space", text) == left
    assert text_after("white_space", left) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("The Loire.\n\nUser: Code?\n```\nx\n```", "The Loire."),
        ("The Loire.\n```\nUser: x\n```\nHuman: y", "The Loire.\n```\nUser: x\n```"),
        ("The Loire.\n```\nx\n\nUser: the block is not closed", "The Loire.\n```\nx"),
        ("The Loire.\n\n---\n\nUser: And in Spain?", "The Loire."),
        ("The Loire.\n###\nQ: And in Spain?", "The Loire."),
        ("The Loire: <|im_end|>\nUser: Thanks.", "The Loire:"),
        ("The Loire. `<|im_end|>` is a mark.<|im_end|>", "The Loire. `<|im_end|>` is a mark."),
        ("<s>The Loire</s>", "<s>The Loire</s>"),
        ("The <s>Seine</s> Loire</s>", "The <s>Seine</s> Loire</s>"),
        ("The Loire.</s> <s>[INST] And in Spain? [/INST]", "The Loire."),
        ("X:1\nQ:1/4=68\nK:G\n--- ", "X:1\nQ:1/4=68\nK:G\n--- "),
        ("Fields:\n\nUser: a person.\nPost: a text. ", "Fields:\n\nUser: a person.\nPost: a text. "),
        ("User: I see.\nQ: And in Spain?", "User: I see."),
        ("  \nUser: I see.", "  \nUser: I see."),
        ("## Input\nx\n## Input\ny", "## Input\nx\n## Input\ny"),
        ("x\n### Input:\ny", "x"),
    ],
)
def test_a_next_turn(text, left):
    assert text_after("next_turn", text) == left


FEW = "Review: It works.\nMood: good\n\nReview: It broke.\nMood:"


@pytest.mark.parametrize(
    ("prompt", "text", "left"),
    [
        (FEW, " bad\n\nReview: It is red.\nMood: calm", " bad"),
        (FEW, " bad\nmood: calm", " bad"),
        (FEW, " bad\nPrice: 3", " bad\nPrice: 3"),
        (FEW, "Mood: bad\nReview: It is red.", "Mood: bad\nReview: It is red."),
        (FEW + " ?", " bad\nReview: x", " bad\nReview: x"),
        ("Mood:", "bad\nMood: good", "bad\nMood: good"),
        ("Write a dialogue of two sailors.", "It is late.\nUser: Ahoy!", "It is late.\nUser: Ahoy!"),
        ("Write a dialogue of two sailors.", "Ahoy!<|im_end|>\nUser: Ahoy!", "Ahoy!"),
        ("Schreib ein Quiz über Flüsse.", "1\nFrage: Wie lang?", "1\nFrage: Wie lang?"),
        ("Is a quiz fun?", "Yes.\nQuestion: Is chess?", "Yes."),
        ("Show a chat template.", "It ends with <|im_end|>\n", "It ends with <|im_end|>\n"),
    ],
)
def test_a_next_turn_of_which_the_prompt_speaks(prompt, text, left):
    asked = [{"role": "user", "content": "Write a dialogue."}, {"role": "user", "content": prompt}]
    assert edited("next_turn", row(text, prompt=asked))[0]["completion"][-1]["content"] == left


def test_what_a_changed_row_says_of_itself(tmp_path):
    """As with `next_turn`, tokens that do not match the text are removed, and the answer is read from the new text."""
    text = "Sure! Here is the sum:\n3 + 4 = 7  \nAnswer: 7"
    rationale = "Sure! Here is the sum:\n3 + 4 = 7"
    numbers = {"token_ids": [1, 2], "prompt_token_ids": [3], "label_probs": [0.5, 0.5]}
    rows = [
        row(text, 0, rationale=rationale, **numbers | {"answer": "7"}),
        row("Answer: 7", 1, **numbers),
        row(text, 2, answer=text, rationale="something else  "),
    ]
    run = corpus_of(tmp_path / "run", rows)
    synthgen.curate(curating(opening=True, white_space=True, duplicates=False), run)
    kept, _ = parts(run)
    changed, same, whole = (kept[name] for name in ("r0", "r1", "r2"))
    assert (changed.text, changed.answer) == ("3 + 4 = 7\nAnswer: 7", "7")
    assert changed.rationale == "3 + 4 = 7"
    assert (changed.token_ids, changed.label_probs, changed.prompt_token_ids) == (None, None, [3])
    assert [(edit["edit"], edit["start"], edit["end"]) for edit in changed.edits] == [
        ("opening", 0, 23),
        ("white_space", 9, 11),
    ]
    assert changed.edits[0]["before_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert (same.token_ids, same.edits) == ([1, 2], [])
    assert (whole.answer, whole.rationale) == (changed.text, None)


def test_the_limit_of_tokens_cut_off_only_the_invented_turn():
    rows = [
        row("The Loire.\nQ: And in Sp", 0, finish_reason="length"),
        row("The Loire, which", 1, finish_reason="length"),
        row("The Loire.\nQ: And in Spain?", 2, finish_reason="content_filter"),
        row("The Loire.\nQ: And in Spain?", 3, finish_reason=None),
    ]
    found = [changed["finish_reason"] for changed in edited("next_turn", *rows)]
    assert found == ["stop", "length", "content_filter", None]


@pytest.mark.parametrize(
    "text",
    [
        "The program:\n```python\nprompt = '''\nUser: hello\n'''\nfor i in ra",
        "~~~yaml\nname: x\nUser: root\nho",
        "<think>\nI read it again.\nQuestion: what is the capi",
        '{"asked": ["me",\nUser: y',
        "Question 1: The Loire.\nQuestion 3: The Rh",
        "The Loire.\n\n**Question 2:** The Rh",
    ],
)
def test_an_answer_that_the_limit_cut_stays_cut(text):
    """A line with a name can be a part of the answer. Then the rest is the beginning of an answer."""
    asked = [{"role": "user", "content": "Answer. Question 1: a river? Question 2: another?"}]
    [changed] = edited("next_turn", row(text, prompt=asked, finish_reason="length"))
    assert changed["edits"]
    assert changed["finish_reason"] == "length"


def test_only_the_last_message_is_changed():
    turns = [{"role": "assistant", "content": "a  "}, {"role": "tool", "content": "b  "}]
    calls = row("", 1, completion=[{"role": "assistant", "content": None, "tool_calls": "[]"}])
    last = {"role": "assistant", "content": "c  "}
    found = edited("white_space", row("", 0, completion=[*turns, last]), calls)
    assert [message["content"] for message in found[0]["completion"]] == ["a  ", "b  ", "c"]
    assert found[1]["edits"] in (None, [])


@pytest.mark.parametrize("name", ["opening", "white_space"])
def test_these_edits_are_off(name):
    assert not EDITS[name].on
