"""The check `format`."""

from __future__ import annotations

import pytest
from support.corpora import row
from test_curate import said
from test_row_checks import refusal_of

from synthgen.teachers.structured import mismatch

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


def rejection(text: str, **settings):
    return said("format", [row(text)], **settings).rejected.get(0)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        ' [1, "zwei", null]\n',
        '"text"',
        "3",
        '```json\n{"a": 1}\n```',
        'Here it is:\n```json\n{"a": 1}\n```\nDo you need more?',
        '```JSON\n{"a": 1}```',
        '```json {"a": 1}```',
        '```json\n{"code": "```python\\n```"}\n```',
        '```json\n{"a": 1}\n```\nUse it like this:\n```python\nprint(1)\n```',
        '{"text": "```json"}',
        "```jsonl\n{}\n```\n```json\n{}\n```",
        "<think>I write {a JSON}.</think>\n[]",
    ],
)
def test_json_is_kept(text):
    assert rejection(text) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Sure! Here it is.", "the answer is not JSON: Expecting value: line 1 column 1 (char 0)"),
        ("", "the answer is empty"),
        ("<think>still thinking", "the answer is empty"),
        ('{"a": 1', "the answer is not JSON: Expecting ',' delimiter: line 1 column 8 (char 7)"),
        (
            "{'a': 1}",
            "the answer is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        ('{"a": NaN}', "the answer is not JSON: NaN is not a number in JSON"),
        ('{"a": 1, "a": 2}', "the answer is not JSON: the key 'a' occurs twice in an object"),
        ('Here: {"a": 1}', "the answer is not JSON: Expecting value: line 1 column 1 (char 0)"),
        ('```json\n{"a": 1}\n```\n```json\n{}\n```', "the answer has 2 blocks of JSON"),
        ('```json\n{"a": 1}', "the block of JSON is not closed"),
        ('```json\n{"a": }\n```', "the answer is not JSON: Expecting value: line 2 column 7 (char 7)"),
        ('```python\n{"a": 1}\n```', "the answer is not JSON: Expecting value: line 1 column 1 (char 0)"),
        ("```jsonl\n{}\n```", "the answer is not JSON: Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_what_is_no_json_is_rejected(text, reason):
    found = rejection(text)
    assert (found.rule, found.reason) == ("json", reason)


def test_a_block_may_be_forbidden():
    assert rejection('```json\n{"a": 1}\n```', in_block=False).rule == "json"
    assert rejection('{"a": 1}', in_block=False) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"name": "Anna", "age": 7}', None),
        ('```json\n{"name": "Anna"}\n```', None),
        ('{"name": "Anna", "age": -1}', "['age']: -1 is less than the minimum of 0"),
        ('```json\n{"age": 7}\n```', "'name' is a required property"),
        ('{"name": "A", "x": 1}', "Additional properties are not allowed ('x' was unexpected)"),
    ],
)
def test_json_that_does_not_follow_the_schema(text, reason):
    found = rejection(text, json_schema=SCHEMA)
    assert (found and (found.rule, found.reason)) == (
        reason and ("schema", f"the answer does not follow the schema: {reason}")
    )


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "objekt"}, "not a JSON schema: 'objekt' is not valid under any of the given schemas"),
        ({"$ref": "#/$defs/x"}, "the schema refers to '#/$defs/x', which it does not define"),
        ({"items": {"$ref": "https://example.org/s.json"}}, "the schema refers to 'https://example.org/s.json'"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(schema, says):
    message = refusal_of(format={"json_schema": schema})
    assert says in message
    assert "curate.format.json_schema" in message


def test_a_schema_may_refer_to_its_own_parts():
    tree = {"$ref": "#/$defs/node", "$defs": {"node": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}
    assert rejection("[[], [[]]]", json_schema=tree) is None
    assert rejection("[[], [1]]", json_schema=tree).rule == "schema"
    named = {"$id": "https://example.org/a", "$ref": "#top", "$defs": {"t": {"$anchor": "top", "type": "array"}}}
    assert rejection("[]", json_schema=named) is None


def test_a_reference_that_leads_nowhere_is_no_crash():
    assert mismatch("1", {"$ref": "https://example.org/s.json"}).startswith("the answer cannot be compared")


def test_a_text_of_many_marks_takes_no_time():
    assert rejection("```json\n" * 50_000).reason == "the answer has 50000 blocks of JSON"
    assert rejection("```json\n" + "[" * 50_000 + "```" * 50_000).rule == "json"
