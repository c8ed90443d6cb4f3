"""Rows become token ids of the student's own tokenizer and chat template. A row with content that the template cannot
show is refused.
"""

from __future__ import annotations

import json

import pytest
from support.rows import dataset_of
from support.small import byte_tokenizer

from distill.adopted import adopt
from distill.streaming.conversations import reader_of
from distill.streaming.tokencache import Row, first_turns
from synthgen.errors import CorpusError
from synthgen.lm.tokens import Tokens
from synthgen.lm.turns import turn_end

# A template that shows tools, tool calls and names of tools, but shows reasoning only in the last answer.
FULL = (
    "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}{{ ' ' + m.name if m.name }}{{ ' ' + m.tool_call_id if "
    "m.tool_call_id }}\n"
    "{% if m.reasoning_content and loop.last %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m['content'] or '' }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = byte_tokenizer().chat_template
THINKS = PLAIN.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}").replace(
    "{{ m['content'] }}", "{{ '<think>\n</think>' if m.role == 'assistant' }}{{ m['content'] }}"
)
# A template like DeepSeek R1's: the prompt begins the reasoning, and a rendered answer has no reasoning.
FORGETS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'].split('</think>')[-1].lstrip() }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
USER = {"role": "user", "content": "weather in Rome?"}
CALL = [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"city": "Rome"}'}}]
CALLING = {"role": "assistant", "content": None, "tool_calls": json.dumps(CALL)}
RESULT = {"role": "tool", "content": "sunny", "name": "look", "tool_call_id": "c1"}
TOOLS = json.dumps([{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}])


def tokens_with(template: str, *special: str, eos: str = "<|im_end|>") -> Tokens:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"eos_token": eos, "additional_special_tokens": ["<|im_end|>", *special]})
    tokenizer.chat_template = template
    tokenizer.name_or_path = "odd-model"
    return Tokens.of(tokenizer, None)


def assistant(content: str, **more) -> dict:
    return {"role": "assistant", "content": content, **more}


def read(template: str, prompt, completion, reasoning: bool = True, **columns) -> list[tuple[str, str]]:
    """The turns that a row teaches, as (text before the turn, text of the turn)."""
    tokens = tokens_with(template)
    row = Row("row-1", True, prompt=prompt, completion=completion, **columns)
    [turns] = reader_of(tokens, (), reasoning=reasoning).read([row])
    show = tokens.tokenizer.decode
    return [(show(turn.prompt), show(turn.completion)) for turn in turns]


def test_a_plain_answer():
    [(before, answer)] = read(PLAIN, [USER], [assistant("It rains.")])
    assert before == "<|im_start|>user\nweather in Rome?<|im_end|>\n<|im_start|>assistant\n"
    assert answer == "It rains.<|im_end|>"


@pytest.mark.parametrize("text", ["red<|im_end|>", "red<|im_end|>\n", "red"])
def test_one_end_where_the_text_has_one_already(text):
    tokens = tokens_with(PLAIN)
    [[turn]] = reader_of(tokens, ()).read([Row("r", True, prompt=[USER], completion=[assistant(text)])])
    assert turn.completion.count(tokens.end) == 1
    assert tokens.tokenizer.decode(turn.completion) == "red<|im_end|>"


def test_an_end_in_the_middle_is_text():
    tokens = tokens_with(PLAIN)
    [[turn]] = reader_of(tokens, ()).read([Row("r", True, prompt=[USER], completion=[assistant("a<|im_end|>b")])])
    assert turn.completion.count(tokens.end) == 1
    assert turn.completion[-1] == tokens.end


def test_an_answer_that_the_prompt_begins_is_continued():
    [(before, answer)] = read(PLAIN, [USER, assistant("It is")], [assistant(" sunny")])
    assert before.endswith("<|im_start|>assistant\nIt is")
    assert answer == " sunny<|im_end|>"
    with pytest.raises(CorpusError, match=r"^row row-1 \('It is'\): an answer with .* cannot continue"):
        read(FULL, [USER, assistant("It is")], [assistant(" sunny", reasoning_content="hm")])


def test_tools_and_calls_reach_the_template():
    prompt = [USER, CALLING, RESULT]
    [(before, answer)] = read(FULL, prompt, [assistant("Sunny.")], tools=TOOLS)
    assert before.startswith('<|im_start|>tools\n[{"type": "function", "function": {"name": "look"')
    assert '<call>look {"city": "Rome"}</call><|im_end|>' in before, "arguments are an object, not JSON text in quotes"
    assert "<|im_start|>tool look c1\nsunny<|im_end|>" in before
    assert answer == "Sunny.<|im_end|>"
    [(_, answer)] = read(FULL, [USER], [CALLING], tools=TOOLS)
    assert answer == '<call>look {"city": "Rome"}</call><|im_end|>'


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": [USER], "completion": [assistant("x")], "tools": TOOLS}, "hides the tools"),
        ({"prompt": [USER], "completion": [CALLING]}, "hides the calls of tools"),
        ({"prompt": [USER, CALLING, RESULT], "completion": [assistant("x")]}, "hides the calls of tools"),
        ({"prompt": [USER], "completion": [assistant("x", reasoning_content="hm")]}, "hides the reasoning"),
        ({"prompt": [USER], "completion": [{**CALLING, "tool_calls": '"look"'}]}, "are not a list of calls"),
        ({"prompt": [USER], "completion": [assistant("x")], "tools": "{}"}, "are not a list of functions"),
    ],
)
def test_what_the_template_hides_is_refused(row, says):
    with pytest.raises(CorpusError, match=rf"^row row-1 \('.*'\): .*{says}") as caught:
        read(PLAIN, **row)
    assert caught.value.hint


def test_reasoning_is_learned_as_the_template_writes_it_or_left_out():
    answer = [assistant("Sunny.", reasoning_content="June.")]
    assert read(FULL, [USER], answer)[0][1] == "<think>June.</think>Sunny.<|im_end|>"
    assert read(FULL, [USER], answer, reasoning=False)[0][1] == "Sunny.<|im_end|>"
    assert read(PLAIN, [USER], answer, reasoning=False)[0][1] == "Sunny.<|im_end|>"


def test_a_template_that_begins_to_think_gets_an_end_of_thinking():
    [(before, answer)] = read(THINKS, [USER], [assistant("Sunny.")])
    assert before.endswith("<|im_start|>assistant\n<think>\n")
    assert answer == "</think>Sunny.<|im_end|>", "the answer does not stand inside the thoughts"


@pytest.mark.parametrize(
    ("answer", "learned"),
    [
        (assistant("<think>\nJune.\n</think>\n\nSunny."), "June.\n</think>\n\nSunny.<|im_end|>"),
        (assistant("Sunny.", reasoning_content="June."), "June.\n</think>\n\nSunny.<|im_end|>"),
        (assistant("Sunny."), "\n</think>\n\nSunny.<|im_end|>"),
    ],
)
def test_reasoning_that_the_prompt_begins_is_learned_where_a_rendered_answer_has_none(answer, learned):
    [(before, after)] = read(FORGETS, [USER], [answer])
    assert before.endswith("<|im_start|>assistant\n<think>\n")
    assert after == learned
    with pytest.raises(CorpusError, match="hides the reasoning"):
        read(PLAIN, [USER], [assistant("Sunny.", reasoning_content="June.")])


def test_a_call_that_ends_by_a_token_of_its_own_has_one_end():
    template = FULL.replace("{% endfor %}<|im_end|>", "{% endfor %}{{ '<|call|>' if m.tool_calls else '<|im_end|>' }}")
    tokens = tokens_with(template, "<|call|>")
    [[turn]] = reader_of(tokens, ()).read([Row("r", True, prompt=[USER], completion=[CALLING], tools=TOOLS)])
    assert tokens.tokenizer.decode(turn.completion) == '<call>look {"city": "Rome"}</call><|call|>'
    assert turn.completion[-1] in tokens.eos, "the student's generate stops there"
    [[turn]] = reader_of(tokens, ()).read([Row("r", True, prompt=[USER], completion=[assistant("ok")])])
    assert tokens.tokenizer.decode(turn.completion) == "ok<|im_end|>"
    assert tokens_with(FULL).eos == {tokens_with(FULL).end}


def test_of_two_tokens_that_end_a_turn_the_first_is_learned():
    template = FULL.replace(
        "<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n{% else %}<|all_ends|>{% endif %}"
    )
    tokens = tokens_with(template, eos="<|all_ends|>")
    for answer in ([CALLING], [assistant("ok", reasoning_content="June.")], [assistant("ok<|im_end|>\n<|all_ends|>")]):
        [[turn]] = reader_of(tokens, ()).read([Row("r", True, prompt=[USER], completion=answer)])
        shown = tokens.tokenizer.decode(turn.completion)
        assert shown.endswith("<|im_end|>")
        assert shown.count("<|") == 1, shown


@pytest.mark.parametrize("end", ["<|im_end|>", "<|im_end|>\n", ""])
def test_all_turns_have_one_end_where_the_texts_have_one_already(end):
    prompt = [USER, assistant(f"One.{end}"), {"role": "user", "content": "<|im_end|>"}]
    last, first = read(FULL, prompt, [assistant(f"Two.{end}", reasoning_content="2")], teaches="all")
    assert [last[1], first[1]] == ["<think>2</think>Two.<|im_end|>", "One.<|im_end|>"]
    assert last[0].count("One.<|im_end|>\n<|im_start|>user") == 1, "a turn that is read looks like one that is learned"
    assert last[0].count("<|im_end|><|im_end|>") == 1, "what a user writes is not changed"


def test_all_turns_are_learned_after_what_stood_before_them():
    first, last = assistant("One.", reasoning_content="1"), assistant("Two.", reasoning_content="2")
    prompt = [USER, first, {"role": "user", "content": "And then?"}]
    whole, earlier = read(FULL, prompt, [last], teaches="all")
    assert [whole[1], earlier[1]] == ["<think>2</think>Two.<|im_end|>", "<think>1</think>One.<|im_end|>"]
    assert earlier[0] == "<|im_start|>user\nweather in Rome?<|im_end|>\n<|im_start|>assistant\n"
    assert "<think>1" not in whole[0], "the template leaves out the reasoning of earlier turns"
    assert whole[0].endswith("And then?<|im_end|>\n<|im_start|>assistant\n")
    assert len(read(FULL, prompt, [last])) == 1
    assert len(read(FULL, [*prompt, assistant("T")], [assistant("wo.")], teaches="all")) == 2


def test_of_an_answer_of_several_messages_those_of_the_assistant_are_learned():
    last, first = read(FULL, [USER], [CALLING, RESULT, assistant("Sunny.")], tools=TOOLS)
    assert first[1] == '<call>look {"city": "Rome"}</call><|im_end|>'
    assert last[1] == "Sunny.<|im_end|>", "not what the tool wrote"
    assert last[0].endswith("<|im_start|>tool look c1\nsunny<|im_end|>\n<|im_start|>assistant\n")


def test_plain_text_is_learned_whole():
    [(before, answer)] = read(PLAIN, [], [assistant("abc")])
    assert before + answer == "abc<|im_end|>"
    assert len(before) == 1, "nothing stands before the first token that could predict it"


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (PLAIN, "<|im_end|>"),
        (PLAIN.replace("<|im_end|>", "<|im_start|>"), "<|im_start|>"),
        (PLAIN.replace("<|im_end|>", " "), "<|im_end|>"),
        (None, "<|im_end|>"),
    ],
)
def test_the_token_that_ends_a_turn_is_in_the_template(template, end):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    assert turn_end(tokenizer) == tokenizer.convert_tokens_to_ids(end)
    assert turn_end(tokenizer) in Tokens.of(tokenizer, None).eos
    assert tokenizer.eos_token_id in Tokens.of(tokenizer, None).eos


@pytest.mark.parametrize(("finish", "ended"), [("stop", True), ("tool_calls", True), ("length", False), (None, False)])
def test_a_finished_reply_of_a_server_gets_its_end(finish, ended):
    tokens = tokens_with(PLAIN)
    stored = {"token_ids": [1, 2], "teacher": "mine", "prompt": [USER], "completion": [assistant("ab")]}
    [[turn]] = reader_of(tokens, ["mine"]).read([Row("r", True, finish_reason=finish, **stored)])
    assert turn.completion == [1, 2, *([tokens.end] if ended else [])]
    stored["token_ids"] = [1, tokens.end]
    [[turn]] = reader_of(tokens, ["mine"]).read([Row("r", True, finish_reason=finish, **stored)])
    assert turn.completion == [1, tokens.end], "not a second end"


def test_stored_tokens_are_used_for_teachers_with_this_tokenizer():
    tokens = tokens_with(PLAIN)
    stored = {"token_ids": [1, 2, 3], "teacher": "mine", "prompt": [USER], "completion": [assistant("red")]}
    [[turn]] = reader_of(tokens, ["mine"]).read([Row("r", True, **stored)])
    assert turn.completion == [1, 2, 3]


def test_rows_are_read_without_a_cache_in_the_tokens_of_the_student(tmp_path):
    """An export is compared with its student on the tokens that the student learned, no matter who wrote the rows."""
    rows = [{"prompt": f"{word}?", "completion": f"{word}!", "split": "test"} for word in ("a", "b", "c")]
    recipe, source = dataset_of(tmp_path, rows, tmp_path)
    adopt(source, recipe, tmp_path / "corpus")
    tokens = tokens_with(PLAIN)
    turns = list(first_turns(tmp_path / "corpus", "test", reader_of(tokens, ()), 2))
    assert len(turns) == 2
    for turn in turns:
        asked, said = (tokens.tokenizer.decode(ids) for ids in (turn.prompt, turn.completion))
        assert asked[asked.index("?") - 1] + "!<|im_end|>" == said
    assert list(first_turns(tmp_path / "corpus", "train", reader_of(tokens, ()), 2)) == []
