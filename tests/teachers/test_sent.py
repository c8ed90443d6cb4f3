"""What a row says was sent for it, and how many tokens a reply may have at most."""

from __future__ import annotations

import json

import pytest
from support.wire import request

from synthgen.tables.engines import ApiTeacher
from synthgen.teachers.base import TeacherOptions
from synthgen.teachers.openai import preview
from synthgen.teachers.sent import as_sent, most_completion

OWN = request().sampling
TOOLS = [{"type": "function", "function": {"name": "look"}}, {"type": "web_sürch"}]


@pytest.mark.parametrize(
    ("kind", "extra", "sampling", "tools"),
    [
        ("sample", {}, None, None),
        ("sample", {"user": "me"}, None, None),
        ("sample", {"temperature": 0.0, "top_p": 0.5}, {"temperature": 0.0, "top_p": 0.5}, None),
        ("sample", {"seed": None}, {"seed": None}, None),
        ("sample", {"max_tokens": 9}, {"max_new_tokens": 9}, None),
        ("sample", {"max_tokens": 9, "max_completion_tokens": 700}, {"max_new_tokens": 700}, None),
        ("sample", {"max_tokens": None, "max_completion_tokens": 700}, {"max_new_tokens": 700}, None),
        ("sample", {"max_tokens": None}, {"max_new_tokens": None}, None),
        ("sample", {"tools": TOOLS}, None, TOOLS),
        ("sample", {"tools": None}, None, []),
        ("classify", {}, {"temperature": 0.0, "max_new_tokens": 16}, None),
        ("classify", {"temperature": 0.3, "max_tokens": 4}, {"temperature": 0.3, "max_new_tokens": 4}, None),
        ("classify", {"max_completion_tokens": None}, {"temperature": 0.0, "max_new_tokens": None}, None),
    ],
)
def test_a_row_states_what_was_sent_in_place_of_the_recipes_values(kind, extra, sampling, tools):
    found = as_sent(request(kind), extra)
    assert found["sampling"] == (None if sampling is None else {**OWN, **sampling})
    assert (None if found["tools"] is None else json.loads(found["tools"])) == tools
    assert "\\u" not in (found["tools"] or "")


@pytest.mark.parametrize(
    ("url", "kind", "extra", "sent", "most"),
    [
        ("http://127.0.0.1:9/v1", "sample", {}, {"max_tokens": 16}, 16),
        ("https://api.openai.com/v1", "sample", {}, {"max_completion_tokens": 16}, 16),
        ("http://127.0.0.1:9/v1", "sample", {"max_tokens": 5}, {"max_tokens": 5}, 5),
        ("http://127.0.0.1:9/v1", "sample", {"max_completion_tokens": 700}, {"max_completion_tokens": 700}, 700),
        ("http://127.0.0.1:9/v1", "sample", {"max_tokens": None}, {}, 1 << 20),
        ("http://127.0.0.1:9/v1", "classify", {}, {"max_tokens": 16}, 16),
        ("http://127.0.0.1:9/v1", "classify", {"max_tokens": 5}, {"max_tokens": 5}, 5),
    ],
)
def test_the_longest_reply_that_is_reserved_is_the_limit_that_is_sent(url, kind, extra, sent, most):
    section = ApiTeacher(engine="openai", model="m", base_url=url, api_key_env=None, extra=extra)
    call = preview(section, TeacherOptions()).call(request(kind))
    body = json.loads(call.payload)
    assert {name: value for name, value in body.items() if name.startswith("max_")} == sent
    assert call.most_completion == most == most_completion(body)
    assert (as_sent(request(kind), extra)["sampling"] or OWN)["max_new_tokens"] == max(sent.values(), default=None)


def test_a_label_is_asked_for_without_chance_and_with_as_many_alternatives_as_apis_give():
    body = json.loads(
        preview(ApiTeacher(engine="openai", model="m"), TeacherOptions()).call(request("classify")).payload
    )
    assert {key: body.get(key) for key in ("temperature", "logprobs", "top_logprobs", "seed", "top_p")} == {
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 20,  # the most that the API of OpenAI allows
        "seed": None,
        "top_p": None,
    }


def test_each_sample_of_each_seed_is_sent_with_its_own_random_seed():
    teacher = preview(ApiTeacher(engine="openai", model="m", api_key_env=None), TeacherOptions())
    seeds = set()
    for seed in range(3):
        for index in range(3):
            asked = request()._replace(sampling={**OWN, "seed": seed, "sample_index": index})
            seeds.add(json.loads(teacher.call(asked).payload)["seed"])
    assert len(seeds) == 9
    assert all(type(seed) is int for seed in seeds)
