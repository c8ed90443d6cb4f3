"""Rows of each format become the right records. If a record cannot hold a value, the row is refused and named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synthgen.datasets import open_dataset, records, source_of
from synthgen.errors import RecipeError
from synthgen.recipe import Split
from synthgen.records import Record
from synthgen.tables.formats import DATASET_FORMATS

TOOL = {"name": "add", "parameters": {"type": "object"}}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


def said(role: str, content: object, **more) -> dict:
    return {"role": role, "content": content, **more}


ASKED, ANSWERED = said("user", "How much?"), said("assistant", "Two.")
AGAIN, MORE = said("user", "And now?"), said("assistant", "Three.")


def written(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(tmp_path: Path, *rows: dict) -> tuple[str, list[Record]]:
    """The format and the records of these rows."""
    dataset = open_dataset(source_of(written(tmp_path / "rows.jsonl", *rows)))
    return dataset.format, [record for _, record in records(dataset, "t", Split(test=0.0))]


def refused(tmp_path: Path, first: dict, row: dict) -> str:
    """The message for the second row of a data set."""
    with pytest.raises(RecipeError) as error:
        open_dataset(source_of(written(tmp_path / "rows.jsonl", first, row)))
    assert "rows.jsonl, line 2: " in error.value.message
    return error.value.message


def test_messages_end_with_the_completion(tmp_path):
    name, (one, two, three) = read(
        tmp_path,
        {"messages": [ASKED, ANSWERED], "level": 3},
        {"messages": [said("system", "Be brief."), ASKED, ANSWERED, AGAIN, MORE]},
        {"messages": [ASKED, ANSWERED, AGAIN, MORE], "teaches": "last", "system": "Count."},
    )
    assert name == "messages"
    assert (one.prompt, one.completion, one.teaches, one.own) == ([ASKED], [ANSWERED], "last", {"level": 3})
    assert (two.prompt, two.completion, two.teaches) == (
        [said("system", "Be brief."), ASKED, ANSWERED, AGAIN],
        [MORE],
        "all",
    )
    assert (three.prompt[0], three.teaches) == (said("system", "Count."), "last")


def test_tools_calls_and_reasoning_reach_the_record(tmp_path):
    as_text = {"id": "c2", "type": "function", "function": {"name": "add", "arguments": '{"a":  1}'}}
    messages = [
        ASKED,
        said("assistant", None, tool_calls=json.dumps([CALL, as_text]), thinking="Add them."),
        said("tool", "2", name="add", tool_call_id="c2"),
        said("assistant", "Two.", reasoning="So it is two."),
    ]
    tools = [{"type": "function", "function": TOOL}]
    _, found = read(
        tmp_path,
        {"messages": messages, "tools": tools},
        {"messages": messages, "tools": json.dumps(tools)},
        {"messages": json.dumps(messages), "tools": [json.dumps(one) for one in tools]},
    )
    for one in found:
        assert json.loads(one.tools) == tools
        assert json.loads(one.prompt[1]["tool_calls"]) == [CALL, as_text]
        assert one.prompt[1]["reasoning_content"] == "Add them."
        assert one.prompt[2] == said("tool", "2", name="add", tool_call_id="c2")
        assert one.completion == [said("assistant", "Two.", reasoning_content="So it is two.")]
        assert one.teaches == "all"
    _, (none,) = read(tmp_path, {"messages": [ASKED, ANSWERED], "tools": []})
    assert none.tools is None


def test_older_function_calls_become_tool_calls(tmp_path):
    call = {"name": "add", "arguments": "{}"}
    messages = [ASKED, said("assistant", None, function_call=call), said("function", "2", name="add"), ANSWERED]
    _, (one,) = read(tmp_path, {"messages": messages, "functions": [TOOL]})
    assert json.loads(one.prompt[1]["tool_calls"]) == [{"type": "function", "function": call}]
    assert one.prompt[2] == said("tool", "2", name="add")
    assert json.loads(one.tools) == [{"type": "function", "function": TOOL}]


@pytest.mark.parametrize(
    ("marks", "teaches"),
    [((1, 1), "all"), ((0, 1), "last"), ((False, None), "last"), ((None, True), "all"), ((None, None), "all")],
)
def test_marks_of_what_is_learned_are_honored(tmp_path, marks, teaches):
    for key in ("weight", "train"):
        first, second = ({} if mark is None else {key: mark} for mark in marks)
        row = {"messages": [ASKED, {**ANSWERED, **first}, AGAIN, {**MORE, **second}]}
        _, (one,) = read(tmp_path, row)
        assert one.teaches == teaches


def test_sharegpt_with_the_names_of_llama_factory(tmp_path):
    turns = [
        ("human", "How much?"),
        ("function_call", '[{"name": "add", "arguments": {"a": 1}}, {"name": "add", "arguments": "{}"}]'),
        ("observation", "2"),
        ("gpt", "Two."),
    ]
    row = {"conversations": [{"from": name, "value": value} for name, value in turns], "system": "Be brief."}
    name, (one, two) = read(tmp_path, {**row, "tools": json.dumps([TOOL])}, {"conversations": [ASKED, ANSWERED]})
    assert name == "sharegpt"
    assert [message["role"] for message in one.prompt] == ["system", "user", "assistant", "tool"]
    assert json.loads(one.prompt[2]["tool_calls"]) == [
        CALL,
        {"type": "function", "function": {"name": "add", "arguments": "{}"}},
    ]
    assert json.loads(one.tools) == [{"type": "function", "function": TOOL}]
    assert (one.completion, one.teaches) == ([ANSWERED], "all")
    assert (two.prompt, two.completion) == ([ASKED], [ANSWERED])


def test_alpaca_joins_the_input_by_an_empty_line(tmp_path):
    history = [["One?", "1"], ["Two?", "2"]]
    name, (one, two, three) = read(
        tmp_path,
        {"instruction": "Add.", "input": "1 + 1", "output": "2"},
        {"instruction": "Greet.", "input": " ", "output": "Hello"},
        {"instruction": "Three?", "input": None, "output": "3", "system": "Count.", "history": history},
    )
    assert name == "alpaca"
    assert (one.prompt, one.text) == ([said("user", "Add.\n\n1 + 1")], "2")
    assert two.prompt == [said("user", "Greet.")]
    assert [message["content"] for message in three.prompt] == ["Count.", "One?", "1", "Two?", "2", "Three?"]
    assert three.teaches == "all"


def test_text_has_no_prompt(tmp_path):
    name, found = read(tmp_path, *({"text": f" Once {n}\n"} for n in ("one", "two")))
    assert name == "text"
    assert (found[0].prompt, found[0].completion, found[0].tools) == ([], [said("assistant", " Once one\n")], None)
    assert found[0].id != found[1].id


def test_rows_of_text_are_not_all_in_one_split(tmp_path):
    words = ("red", "blue", "green", "cold", "warm", "long", "short", "old", "new", "dark")
    rows = [{"text": f"A {word} tale"} for word in words]
    dataset = open_dataset(source_of(written(tmp_path / "rows.jsonl", *rows)))
    assert {record.split for _, record in records(dataset, "t", Split(test=0.5))} == {"train", "test"}


def test_the_sides_of_a_pair_belong_together(tmp_path):
    good, bad = said("assistant", "Two."), said("assistant", "Five.")
    name, found = read(
        tmp_path,
        {"prompt": "How much?", "chosen": "Two.", "rejected": "Five.", "id": "a"},
        {"prompt": [ASKED], "chosen": [good], "rejected": [bad], "id": "b"},
        {"chosen": [ASKED, good], "rejected": [ASKED, bad], "id": "c"},
        {"prompt": "How much?", "chosen": [ASKED, good], "rejected": [ASKED, bad], "id": "d"},
        {"chosen": [ASKED, ANSWERED, AGAIN, good], "rejected": [ASKED, ANSWERED, AGAIN, bad], "id": "e"},
    )
    assert name == "preference"
    for place, row in enumerate("abcde"):
        chosen, rejected = found[2 * place : 2 * place + 2]
        assert (chosen.pair_role, rejected.pair_role) == ("chosen", "rejected")
        assert (chosen.id, rejected.id) == (f"{row}-chosen", f"{row}-rejected")
        assert (chosen.group_id, rejected.group_id, chosen.seed_id, rejected.seed_id) == (row,) * 4
        assert (chosen.completion, rejected.completion) == ([good], [bad])
        assert chosen.prompt == rejected.prompt == ([ASKED] if row != "e" else [ASKED, ANSWERED, AGAIN])
        assert chosen.teaches == "last"
        assert chosen.split == rejected.split
    _, found = read(tmp_path, *({"prompt": "How much?", "chosen": "Two.", "rejected": "Five."} for _ in range(2)))
    assert len({record.id for record in found}) == 4
    assert [record.group_id for record in found][::2] == [record.group_id for record in found][1::2]
    assert len({record.group_id for record in found}) == 2
    _, other = read(tmp_path, {"prompt": "How much?", "chosen": "Two.", "rejected": "Six."})
    assert other[0].group_id not in {record.group_id for record in found}


def test_a_bad_completion_of_unpaired_preferences_is_rejected(tmp_path):
    row = {"prompt": "How much?", "completion": "Two."}
    name, found = read(tmp_path, {**row, "label": True}, {**row, "completion": "Five.", "label": False})
    assert name == "unpaired-preference"
    assert [(record.pair_role, record.group_id) for record in found] == [("chosen", None), ("rejected", None)]


def test_a_completion_of_several_messages_becomes_turns_that_are_all_learned(tmp_path):
    steps = [said("assistant", None, tool_calls=[CALL]), said("tool", "2"), ANSWERED]
    _, (one,) = read(tmp_path, {"prompt": "How much?", "completion": steps})
    assert [message["role"] for message in one.prompt] == ["user", "assistant", "tool"]
    assert (one.completion, one.teaches) == ([ANSWERED], "all")


def test_a_beginning_of_the_assistant_stays_the_end_of_the_prompt(tmp_path):
    begun = said("assistant", "The sum is")
    _, (one,) = read(tmp_path, {"prompt": [ASKED, begun], "completion": [said("assistant", " two.")]})
    assert (one.prompt, one.completion, one.teaches) == ([ASKED, begun], [said("assistant", " two.")], "last")


def test_a_line_says_how_the_rows_are_read(tmp_path):
    message = {**ANSWERED, "created": 5, "annotations": None}
    row = {"messages": [ASKED, message], "tools": None, "id": "a", "topic": "sea", "split": "test"}
    text = open_dataset(source_of(written(tmp_path / "rows.jsonl", row, {**row, "id": "b"}))).text()
    assert text == (
        "rows.jsonl: format messages, 2 rows; columns: messages, tools, id, split; own columns: topic; "
        "left out of messages: created"
    )


MESSAGES = {"messages": [ASKED, ANSWERED]}
SPOKEN = {"conversations": [{"from": "human", "value": "How much?"}, {"from": "gpt", "value": "Two."}]}
PAIR = {"prompt": "How much?", "chosen": "Two.", "rejected": "Five."}
ALPACA = {"instruction": "Add.", "output": "2"}


def messages(*said: dict, **more) -> dict:
    return {"messages": list(said), **more}


@pytest.mark.parametrize(
    ("first", "row", "words"),
    [
        (MESSAGES, messages(ASKED), "ends with a message of the user, and not of the assistant"),
        (MESSAGES, messages(ASKED, ANSWERED, said("tool", "x")), "ends with a message of the tool"),
        (MESSAGES, messages(), "there are no messages"),
        (MESSAGES, messages(ANSWERED), "no message before the assistant's"),
        (MESSAGES, messages(ASKED, ANSWERED, MORE), "two messages of the assistant"),
        (MESSAGES, messages(said("human", "x"), ANSWERED), "the role 'human'"),
        (MESSAGES, messages(said("user", [{"type": "image_url"}]), ANSWERED), "not text (a part of type 'image_url')"),
        (MESSAGES, messages({**ASKED, "images": ["a.png"]}, ANSWERED), "images, which cannot be learned"),
        (MESSAGES, messages(ASKED, {**ANSWERED, "refusal": "No."}), "a refusal"),
        (MESSAGES, messages(ASKED, {**ANSWERED, "prefix": True}), "the mark `prefix`"),
        (MESSAGES, messages(ASKED, {**ANSWERED, "weight": 0.5}), "neither 0 nor 1"),
        (MESSAGES, messages(ASKED, {**ANSWERED, "weight": 0}), "must choose the last turn"),
        (MESSAGES, messages(ASKED, {**ANSWERED, "train": 1}, AGAIN, {**MORE, "train": 0}), "must choose the last turn"),
        (MESSAGES, messages({**ASKED, "train": True}, ANSWERED), "only messages of the assistant are learned"),
        (MESSAGES, messages(ASKED, ANSWERED, teaches="first"), "neither `last` nor `all`"),
        (MESSAGES, messages(ASKED, ANSWERED, tools="hammer"), "the column 'tools' is not a list of tools"),
        (MESSAGES, messages(ASKED, ANSWERED, tools=["hammer"]), "the column 'tools' is not a list of tools"),
        (MESSAGES, messages(ASKED, ANSWERED, tools=[TOOL], functions=[TOOL]), "both `tools` and `functions`"),
        (MESSAGES, messages(ASKED, said("assistant", "x", tool_calls="add")), "tool_calls of a message is not a list"),
        (MESSAGES, messages(ASKED, said("assistant", "x", tool_calls=[{"id": "c"}])), "no name of a function"),
        (MESSAGES, messages(said("user", "x", tool_calls=[CALL]), ANSWERED), "which only the assistant makes"),
        (MESSAGES, messages(ASKED, said("assistant", "x", thinking="a", reasoning="b")), "different reasoning"),
        (MESSAGES, messages(said("user", None), ANSWERED), "has no content"),
        (MESSAGES, messages(ASKED, said("assistant", " ")), "the last message of the completion is empty"),
        (MESSAGES, messages(said("system", "a"), ASKED, ANSWERED, system="b"), "different system messages"),
        (MESSAGES, messages(ASKED, ANSWERED, images=["a.png"]), "the row has images"),
        (MESSAGES, messages(ASKED, ANSWERED, chat_template_kwargs={"think": False}), "settings of the chat template"),
        (PAIR, {**PAIR, "chat_template_kwargs": {"think": False}}, "settings of the chat template"),
        (MESSAGES, {"messages": None}, "the column 'messages' is not a list"),
        (MESSAGES, messages("Hello", ANSWERED), "not an object with a role"),
        (SPOKEN, {"conversations": [{"from": "narrator", "value": "x"}]}, "from 'narrator'"),
        (SPOKEN, {"conversations": SPOKEN["conversations"][:1]}, "ends with a message of the user"),
        (SPOKEN, {"conversations": [{"from": "function_call", "value": "add(1)"}]}, "a function_call is not JSON"),
        (ALPACA, {"instruction": " ", "output": "2"}, "`instruction` is empty"),
        (ALPACA, {"instruction": "Add.", "output": None}, "no output"),
        (ALPACA, {"instruction": "Add.", "output": "2", "history": [["One?"]]}, "'history' is not a list of pairs"),
        ({"text": "x"}, {"text": " "}, "the column 'text' is empty"),
        ({"text": "x"}, {"text": 7}, "the column 'text' is not text"),
        (PAIR, {"chosen": "Two.", "rejected": "Five."}, "there is no `prompt`"),
        (PAIR, {"chosen": [ASKED, ANSWERED], "rejected": [AGAIN, MORE]}, "differ before their last messages"),
        (PAIR, {**PAIR, "chosen": [AGAIN, ANSWERED]}, "`prompt` is not the beginning of `chosen`"),
        (PAIR, {**PAIR, "chosen": [ANSWERED, AGAIN, MORE]}, "several messages after the prompt"),
        (PAIR, {**PAIR, "rejected": ""}, "no rejected"),
        (
            {"prompt": "a?", "completion": "b", "label": True},
            {"prompt": "a?", "completion": "b", "label": "good"},
            "'label' is not true or false",
        ),
        (
            {"prompt": "a?", "completion": "b"},
            {"prompt": "a?", "completion": [ASKED]},
            "completion is a message of the user",
        ),
        (
            {"prompt": "a?", "completion": "b"},
            {"prompt": [ASKED, ANSWERED, AGAIN], "completion": [MORE, ASKED, ANSWERED]},
            "follows a turn of the assistant",
        ),
    ],
)
def test_what_a_record_cannot_hold_is_refused_by_row(tmp_path, first, row, words):
    assert words in refused(tmp_path, first, row)


def test_settings_that_are_null_change_nothing(tmp_path):
    row = messages(ASKED, ANSWERED, chat_template_kwargs={"think": None})
    assert open_dataset(source_of(written(tmp_path / "rows.jsonl", row))).rows == 1


def test_a_row_of_no_format_names_the_columns_and_what_to_do(tmp_path):
    with pytest.raises(RecipeError) as error:
        open_dataset(source_of(written(tmp_path / "rows.jsonl", {"question": "a?", "answer": "b"})))
    assert "the columns are answer, question" in error.value.message
    assert "fields: {prompt: question, completion: answer}" in error.value.hint
    for name in DATASET_FORMATS:
        assert f"{name}: `" in error.value.hint
