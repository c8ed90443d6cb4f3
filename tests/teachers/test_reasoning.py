"""Reasoning and control tokens in the text of a reply: which part is the answer, and which text only mentions a tag."""

from __future__ import annotations

import random
import time

import pytest

from synthgen.teachers.reasoning import holds_call, split_reasoning

HIDDEN = "The sum of both is twelve."
ANSWER = "It costs 12 euros."
# Each text holds ANSWER as the answer and HIDDEN as the reasoning.
SPLIT = [
    f"<think>{HIDDEN}</think>{ANSWER}",
    f"<think>\n{HIDDEN}\n</think>\n\n{ANSWER}",
    f"\n\n<THINK>\n{HIDDEN}\n</Think>{ANSWER}\n",
    f"{HIDDEN}\n</think>\n\n{ANSWER}",
    f"{HIDDEN}</think>{ANSWER}",
    f"<thinking>{HIDDEN}</thinking>\n{ANSWER}",
    f"<thought>{HIDDEN}</thought>\n{ANSWER}",
    f"<reasoning>\n{HIDDEN}\n</reasoning>\n{ANSWER}",
    f"[THINK]{HIDDEN}[/THINK]{ANSWER}",
    f"◁think▷{HIDDEN}◁/think▷{ANSWER}",
    f"<seed:think>{HIDDEN}</seed:think>{ANSWER}",
    f"<unused94>thought\n{HIDDEN}<unused95>{ANSWER}",
    f"<|START_THINKING|>{HIDDEN}<|END_THINKING|><|START_RESPONSE|>{ANSWER}<|END_RESPONSE|>",
    f"<|begin_of_thought|>\n{HIDDEN}\n<|end_of_thought|>\n\n<|begin_of_solution|>\n{ANSWER}\n<|end_of_solution|>",
    f"<|channel|>analysis<|message|>{HIDDEN}<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}<|return|>",
    f"<|start|>assistant<|channel|>commentary<|message|>{HIDDEN}<|end|><|channel|>final<|message|>{ANSWER}",
    f"analysis{HIDDEN}assistantfinal{ANSWER}",
    f"<|im_start|>assistant\n<think>{HIDDEN}</think>\n{ANSWER}<|im_end|>",
    f"<think>{HIDDEN}</think>\n{ANSWER}<|im_end|>\n<|im_start|>user\nAnd for two?",
    f"<think>{HIDDEN}</think>{ANSWER}</s>",
    f'<think duration="3">{HIDDEN}</think>{ANSWER}',
    f"<|channel>thought\n{HIDDEN}\n<channel|>{ANSWER}<turn|>",
    f"<|turn>model\n<|channel>thought\n{HIDDEN}<channel|>{ANSWER}<turn|>\n<|turn>user\nMore?",
    f"{HIDDEN}\n[BEGIN FINAL RESPONSE]\n{ANSWER}\n[END FINAL RESPONSE]\n<|end|>",
    f"Here is my thought process: {HIDDEN}\n\nHere is my response: {ANSWER}",
    f"Here's my thought process:\n{HIDDEN}\nHere's my response:\n{ANSWER}\n",
]


@pytest.mark.parametrize("text", SPLIT)
def test_reasoning_is_taken_out_and_kept(text):
    assert split_reasoning(text)[:3] == (ANSWER, HIDDEN, True)


@pytest.mark.parametrize(
    "text",
    [
        f"{ANSWER}<|im_end|>",
        f"{ANSWER}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nMore?",
        f"{ANSWER}<end_of_turn>\n<start_of_turn>user\nMore?",
        f"{ANSWER}</s>",
        f"{ANSWER} </s>",
        f"{ANSWER}<｜end▁of▁sentence｜>",
        f"<|im_start|>assistant\n{ANSWER}",
        f"<start_of_turn>model\n{ANSWER}<end_of_turn>",
        f"<s>[INST] How much? [/INST] {ANSWER}</s>",
        f"{ANSWER}<|user|>\nMore?",
    ],
)
def test_control_tokens_are_taken_out(text):
    assert split_reasoning(text) == (ANSWER, None, True, True)


@pytest.mark.parametrize(
    "text",
    [
        f"<think>\n{HIDDEN}",
        f"<think>a</think>\n<think>\n{HIDDEN}",
        f"[THINK]{HIDDEN}",
        f"<|channel|>analysis<|message|>{HIDDEN}<|end|>",
        f"<|channel|>analysis<|message|>{HIDDEN}",
        f"analysis{HIDDEN}",
    ],
)
def test_an_answer_that_ends_inside_the_reasoning_is_not_complete(text):
    parts = split_reasoning(text)
    assert (parts.answer, parts.complete) == ("", False)
    assert HIDDEN in parts.reasoning


@pytest.mark.parametrize(
    "text",
    [
        "Write <think> to begin and </think> to end the block.",
        "Close it with `</think>`.",
        "Models emit <think>reasoning</think> blocks before the answer.",
        '{"text": "<think>a</think>b", "x": 1}',
        "a<think>b</think>c",
        "The closing tag is </think>\nIt comes after the reasoning.",
        "```python\nend = f\"{m['content']}<|im_end|>\\n\"\n```\nThat is the line.",
        "The prompt format is:\n\n[INST] question [/INST]",
        "Tokens:\n<bos>\n<eos>\n<pad>",
        "| token | id |\n|<eos>|2|\n",
        "<s>wrong</s> right",
        "analysis(data) returns a table.",
        "The assistant final report is ready.",
        'The token "<|im_end|>" ends a turn in ChatML.',
        "The token <|im_end|> ends a turn in ChatML.",
        "```\n<think>\nshort\n</think>\n```\nThis is what the model writes.",
        "He wrote <s>twelve</s> thirteen.",
        "analysis of variance compares means",
        "The assistant finalized the list.",
        "if (a < b && c > d) return a;",
        "The <thought experiment> of Schrödinger has a cat.",
        "Here is my thought process: I add both numbers. So it is 12.",
        "Here is my response: 12",
        "```\n[BEGIN FINAL RESPONSE]\n```\nis how Apriel announces its answer.",
        "Apriel writes [BEGIN FINAL RESPONSE] before its answer.",
        " <p>paragraph</p>\n",
        "",
    ],
)
def test_a_tag_that_is_only_mentioned_stays(text):
    assert split_reasoning(text) == (text, None, True, False)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[TOOL_CALLS] [{"name": "f", "arguments": {}}]', True),
        ('[TOOL_CALLS]f[ARGS]{"city": "Rome"}', True),
        ('I look it up.\n<|python_tag|>{"name": "f", "parameters": {}}', True),
        ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f", True),
        ("<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0", True),
        ('```\na\n```\n[TOOL_CALLS] [{"name": "f"}]', True),
        ("```\n[TOOL_CALLS] []\n```\nis what Mistral writes.", False),
        ("Mistral writes [TOOL_CALLS] before a call.", False),
        ('The token "<|python_tag|>" begins a call.', False),
        (ANSWER, False),
        ("", False),
    ],
)
def test_a_tool_call_that_was_left_in_the_text(text, found):
    assert holds_call(text) == found


def test_a_block_after_a_whole_sentence():
    assert split_reasoning(f"Sure! <think>{HIDDEN}</think> {ANSWER}")[:3] == (f"Sure!  {ANSWER}", HIDDEN, True)
    first = "analysisThink.assistantfinalThe assistantfinal report"
    assert split_reasoning(first)[:3] == ("The assistantfinal report", "Think.", True)


def test_random_pieces_never_fail_and_leave_no_closed_block():
    draw = random.Random(5)
    pieces = [
        "<think>",
        "</think>",
        "\n",
        " ",
        "a b",
        "<|im_end|>",
        "```",
        "`",
        "[INST]",
        "</s>",
        "<|channel|>",
        "final",
    ]
    for _ in range(3000):
        text = "".join(draw.choice(pieces) for _ in range(draw.randint(0, 12)))
        parts = split_reasoning(text)
        assert split_reasoning(parts.answer).complete or not parts.complete, text
        assert len(parts.answer) <= len(text)


@pytest.mark.parametrize(
    "piece",
    [
        "x <think>",
        "</think>",
        "<think>",
        "`<think>",
        "x </s>",
        "[INST]",
        "<|channel|>a<|message|>",
        "<|channel>",
        "\n\nHere is my response:",
        "```\n[BEGIN FINAL RESPONSE]",
        "```\n<|python_tag|>",
    ],
)
def test_the_time_is_linear(piece):
    def seconds(count: int) -> float:
        began = time.process_time()
        split_reasoning("<|channel|>" + piece * count)
        split_reasoning("Here is my thought process:" + piece * count)
        holds_call(piece * count)
        return time.process_time() - began

    short = min(seconds(500) for _ in range(3))
    assert min(seconds(5000) for _ in range(3)) < 40 * short + 0.01  # quadratic time would be a factor of 100
