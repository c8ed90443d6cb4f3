"""Sections whose class is chosen by a table. If a user adds an entry to the table, its section is validated, named in
errors, dumped and checked like the sections of synthgen's own entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
import yaml

from synthgen.errors import RecipeError
from synthgen.recipe import broken_rules, check_recipe, deciding, dump_recipe, load_recipe
from synthgen.tables.engines import ENGINES, AnyTeacher, Engine
from synthgen.tables.section import PathName, Rule
from synthgen.tables.strategies import STRATEGIES, Strategy
from synthgen.tables.students import KINDS, Kind, Student


class Oracle(AnyTeacher):
    """A teacher that answers from a book."""

    engine: Literal["oracle"]
    book: PathName
    """File of the book."""
    pages: int = 10
    """Number of pages to read."""

    def rules(self) -> Iterator[Rule]:
        if self.pages > 100:
            yield "pages", "nobody reads so many"


class Parrot(Student):
    """A student that repeats what it heard."""

    kind: Literal["parrot"] = "parrot"
    words: int = 3
    """Number of words to remember."""


@pytest.fixture
def tables(monkeypatch):
    oracle = Engine(Oracle, opens="x:y", in_process=True, top_k=True, may_change=("pages",))
    monkeypatch.setitem(ENGINES, "oracle", oracle)
    monkeypatch.setitem(KINDS, "parrot", Kind(Parrot, train="x:y", learns_from="sayings"))
    monkeypatch.setitem(STRATEGIES, "recite", Strategy("tests:recite", rows="sayings", keeps_distributions=False))


def written(folder, **sections):
    values = {
        "task": "t",
        "license": "MIT",
        "strategy": "recite",
        "seeds": [{"path": "s.jsonl", "source": "tests"}],
        "teacher": {"engine": "oracle", "model": "m", "book": "book.txt"},
        "train": {"student": {"kind": "parrot"}},
        **sections,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def test_it_is_read_resolved_and_dumped(tables, tmp_path):
    recipe = load_recipe(written(tmp_path))
    book = str(tmp_path.resolve() / "book.txt")
    assert recipe.teacher == Oracle(engine="oracle", model="m", book=book), "its paths are resolved too"
    assert recipe.train is not None
    assert recipe.train.student == Parrot(words=3)
    assert recipe.logits is None, "it has no whole distribution"
    again = tmp_path / "again.yaml"
    again.write_text(dump_recipe(recipe))
    assert load_recipe(again) == recipe
    assert recipe.model_dump()["teacher"]["pages"] == 10, "a section is dumped by its own class"
    assert recipe.model_dump(mode="json", exclude_defaults=True)["teacher"] == {
        "engine": "oracle",
        "model": "m",
        "book": book,
    }
    other = load_recipe(written(tmp_path, teacher={"engine": "oracle", "model": "m", "book": "book.txt", "pages": 3}))
    assert deciding(other) == deciding(recipe), "a key that may change decides nothing"


@pytest.mark.parametrize(
    ("sections", "line", "said"),
    [
        (
            {"teacher": {"engine": "oracle", "model": "m", "bok": "b"}},
            10,
            "unknown key 'teacher.bok'; did you mean 'book'?",
        ),
        ({"teacher": {"engine": "oracle", "model": "m", "book": "b", "pages": 101}}, 11, "teacher.pages: nobody reads"),
        (
            {"teacher": {"engine": "oracel", "model": "m"}},
            8,
            "key 'teacher.engine' is 'oracel'; did you mean 'oracle'?",
        ),
        ({"train": {"student": {"kind": "parot"}}}, 13, "key 'train.student.kind' is 'parot'; did you mean 'parrot'?"),
        ({"train": {"student": {"kind": "parrot", "words": "x"}}}, 14, "key 'train.student.words' is 'x'"),
        ({"strategy": "recit"}, 3, "key 'strategy' is 'recit'; did you mean 'recite'?"),
        ({"train": {"student": {"kind": "decoder"}}}, 13, "and 'recite' makes sayings (for students of kind parrot)"),
        ({"strategy": "answer"}, 13, "a student of kind 'parrot' needs strategy 'recite'"),
        (
            {"train": {"student": {"kind": "parrot"}, "hidden": {}}},
            14,
            "a student of kind 'parrot' does not use this key",
        ),
        ({"train": {"student": {"kind": "parrot"}, "loss": "mse"}}, 14, "a student of kind 'parrot' has a loss of its"),
        ({"logits": {"kind": "sampled"}, "strategy": "answer", "train": None}, 13, "engine 'oracle' does not give"),
        ({"generate": {"regex": "a"}}, 15, "engine 'oracle' cannot make answers match a pattern"),
    ],
)
def test_its_mistakes_are_located(tables, tmp_path, sections, line, said):
    path = written(tmp_path, **sections)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    first = caught.value.message.split("\n")[0]
    assert said in first
    assert first.startswith(f"{path}, line {line}: ")


def test_without_the_entry_it_is_unknown(tmp_path):
    path = written(tmp_path)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert [line.partition(": ")[2].partition(";")[0] for line in caught.value.message.split("\n")] == [
        "key 'strategy' is 'recite'",
        "key 'teacher.engine' is 'oracle'",
        "key 'train.student.kind' is 'parrot'",
    ]


def test_a_section_of_python_is_taken_as_it_is(tables, tmp_path):
    recipe = load_recipe(written(tmp_path))
    oracle = Oracle(engine="oracle", model="m", book="/b")
    again = type(recipe).model_validate({**dict(recipe), "teacher": oracle})
    assert again.teacher is oracle
    assert broken_rules(check_recipe(again)) == []
    with pytest.raises(ValueError, match="not a section of this table"):
        type(recipe).model_validate({**dict(recipe), "teacher": Parrot()})
