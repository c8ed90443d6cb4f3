"""The local teacher follows a JSON schema or a pattern: answers are complete, and stored
distributions are unchanged.
"""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest

import synthgen
from synthgen import corpus, logits
from synthgen.errors import RecipeError, TeacherError
from synthgen.tables.engines import TeacherSection
from synthgen.teachers.structured import mismatch
from synthgen.teachers.transformers import LocalModel

SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["red", "blue"]}, "n": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["kind", "n"],
    "additionalProperties": False,
}
TOPK = {"kind": "topk", "k": 8}


def made(folder):
    rows = [r for _, some in corpus.records(folder) for r in some]
    failures = [row for path in folder.glob("failures/*.parquet") for row in pq.read_table(path).to_pylist()]
    return rows, failures


@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 1.0), (1.0, 1.0), (1.0, 0.9)])
def test_every_answer_is_of_the_schema(task, tmp_path, temperature, top_p):
    """The model has random weights, and without the schema it would never write JSON."""
    more = {"max_new_tokens": 40, "temperature": temperature, "top_p": top_p, "json_schema": SCHEMA}
    recipe = synthgen.load_recipe(task(12, generate={"num_generations": 2, "shard_size": 8, **more}, train=None))
    rows, failures = made(synthgen.generate(recipe, tmp_path / "run").folder)
    assert [f["reason"] for f in failures] == []
    assert len(rows) == 24
    values = [json.loads(r.text) for r in rows]
    assert all(v["kind"] in ("red", "blue") and 0 <= v["n"] <= 99 and len(v) == 2 for v in values)
    assert {r.finish_reason for r in rows} == {"stop"}
    if temperature:
        assert len({r.text for r in rows}) > 6


def test_a_pattern_and_an_answer_that_was_cut(task, tmp_path):
    more = {"num_generations": 1, "max_new_tokens": 30, "regex": "(yes|no), [0-9]{2}"}
    recipe = synthgen.load_recipe(task(8, generate=more, train=None))
    rows, failures = made(synthgen.generate(recipe, tmp_path / "run").folder)
    assert (len(rows), failures) == (8, [])
    assert all(re.fullmatch("(yes|no), [0-9]{2}", r.text) for r in rows)
    short = synthgen.load_recipe(task(8, name="short", generate={**more, "max_new_tokens": 2}, train=None))
    rows, failures = made(synthgen.generate(short, tmp_path / "cut").folder)
    assert rows == []
    assert {(f["kind"], f["reason"]) for f in failures} == {("schema", "the answer does not match generate.regex")}


def test_what_is_stored_is_the_teachers_own_distribution(task, tmp_path, tiny):
    """Distributions cover all tokens, including those that the schema excludes. The written tokens are often outside
    the top-k.
    """
    more = {"num_generations": 1, "max_new_tokens": 40, "json_schema": SCHEMA}
    recipe = synthgen.load_recipe(task(8, generate=more, train=None, logits=TOPK))
    folder = synthgen.generate(recipe, tmp_path / "run").folder
    teacher = LocalModel.open(TeacherSection(model=str(tiny), device="cpu"))
    outside = 0
    [part] = (folder / "logits").iterdir()
    for name, rows in corpus.records(folder):
        shard = logits.read(part / f"{name}.parquet")
        for row, record in enumerate(rows):
            [logp] = teacher.logprobs([list(record.prompt_token_ids)], [list(record.token_ids)])
            best, ids = logp.topk(8, dim=-1)
            target = shard.target(row)
            assert np.abs(target.logprobs - best.numpy()).max() < 5e-3
            assert (target.ids == ids.numpy()).mean() > 0.98
            outside += sum(t not in top for t, top in zip(record.token_ids, target.ids.tolist(), strict=True))
    assert outside > 10


def test_a_step_on_the_way_is_not_held(task, tmp_path):
    more = {"num_generations": 1, "max_new_tokens": 40, "json_schema": SCHEMA}
    path = task(6, strategy="paraphrase", generate=more, train=None, steps={"max_new_tokens": 30})
    (path.parent / "paraphrase.j2").write_text("Say in other words: {{ question }}\n")
    rows, failures = made(synthgen.generate(synthgen.load_recipe(path), tmp_path / "run").folder)
    assert all(f["kind"] in ("cut", "empty", "unchanged") for f in failures)  # random weights seldom end a turn
    assert len(rows) + len(failures) == 6
    assert all("kind" in json.loads(r.text) and not r.prompt[-1]["content"].startswith("{") for r in rows)


def test_bad_forms_are_one_line(task, tmp_path):
    with pytest.raises(RecipeError, match="not a JSON schema: 'objekt' is not valid"):
        synthgen.load_recipe(task(4, generate={"json_schema": {"type": "objekt"}}))
    with pytest.raises(RecipeError, match="at most one of"):
        synthgen.load_recipe(task(4, generate={"json_schema": SCHEMA, "regex": "a"}))
    never = {"type": "string", "pattern": "(?=a)b"}
    recipe = synthgen.load_recipe(task(4, generate={"json_schema": never}, train=None))
    with pytest.raises(TeacherError, match=r"generate\.json_schema cannot be used"):
        synthgen.generate(recipe, tmp_path / "run")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"kind": "red", "n": 3}', ""),
        ('{"kind": "red", "n": 3', "not JSON"),
        ('{"kind": "green", "n": 3}', "['kind']: 'green' is not one of ['red', 'blue']"),
        ('{"kind": "red"}', "'n' is a required property"),
        ('{"kind": "red", "n": 3, "m": 1}', "Additional properties"),
        ('["red"]', "is not of type 'object'"),
        ('{"kind": "red", "n": NaN}', "not JSON: NaN is not a number in JSON"),
        ('{"kind": "red", "n": -Infinity}', "not JSON: -Infinity is not a number in JSON"),
        ('{"kind": "red", "n": 2e400}', "not JSON: the number 2e400 is too large"),
        ('{"kind": "red", "n": ' + "3" * 5000 + "}", "… has 5000 digits"),
        ('{"kind": "red", "n": 3, "n": 4}', "not JSON: the key 'n' occurs twice"),
        ('{"kind": "red", "n": 03}', "not JSON"),
        ("{'kind': 'red', 'n': 3}", "not JSON"),
        ('{"kind": "red", "n": 3}.', "not JSON"),
        ("[" * 60_000, "not JSON: it is nested too deeply"),
        ('{"kind": ' * 60_000, "not JSON: it is nested too deeply"),
    ],
)
def test_why_an_answer_is_not_of_the_schema(text, said):
    assert said in mismatch(text, SCHEMA) if said else mismatch(text, SCHEMA) == ""


def test_values_that_no_schema_can_judge():
    assert mismatch("[" * 800 + "]" * 800, {"items": {"$ref": "#"}}).startswith("the answer cannot be compared")
    assert mismatch("1" + "0" * 350, {"multipleOf": 0.5}).startswith("the answer cannot be compared")
