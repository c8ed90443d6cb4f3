"""Suggestions for a mistyped name: typing errors, parts of names and abbreviations, but no unrelated names."""

from __future__ import annotations

import pytest

from synthgen.errors import RecipeError, close, nearest
from synthgen.recipe import GenerateSection, SeedSource, TrainSection, find_recipe
from synthgen.tables.curation_settings import Length
from synthgen.tables.strategies import STRATEGIES

TRAIN, SEEDS = [*TrainSection.model_fields], [*SeedSource.model_fields]
GENERATE, LENGTH = [*GenerateSection.model_fields], [*Length.model_fields]


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("lisence", SEEDS, ["license"]),
        ("licens", SEEDS, ["license"]),
        ("licence", SEEDS, ["license"]),
        ("sedes", ["seeds", "split", "task"], ["seeds"]),
        ("tarin", ["train", "task"], ["train"]),
        ("studnet", TRAIN, ["student"]),
        ("epoch", TRAIN, ["num_train_epochs"]),
        ("epochs", TRAIN, ["num_train_epochs"]),
        ("lr", TRAIN, ["learning_rate"]),
        ("learningrate", TRAIN, ["learning_rate"]),
        ("Learning-Rate", TRAIN, ["learning_rate"]),
        ("max_len", TRAIN, ["max_length"]),
        ("patience", TRAIN, ["early_stopping_patience"]),
        ("per_device_train_batch_size", TRAIN, ["batch_size"]),
        ("eval", TRAIN, ["eval_steps"]),
        ("max_tokens", GENERATE, ["max_new_tokens"]),
        ("temprature", GENERATE, ["temperature"]),
        ("min_word", LENGTH, ["min_words"]),
        ("data", SEEDS, ["dataset", "dataset_split"]),
        ("qq", ["id", "q"], ["q"]),
        ("on", ["one", "two"], ["one"]),
        ("gpu", ["cpu", "cuda"], []),
        ("evaluation", ["evaluate", "train"], ["evaluate"]),
        ("bestofn", STRATEGIES, ["best_of_n"]),
        ("consesus", STRATEGIES, ["consensus"]),
    ],
)
def test_what_is_meant(word, known, meant):
    assert close(word, known) == meant


@pytest.mark.parametrize(
    ("word", "known"),
    [
        ("top_k", ["top_p"]),
        ("max_words", ["min_words"]),
        ("top_p", ["top_k", "max_new_tokens"]),
        ("optimizer", TRAIN),
        ("scheduler", TRAIN),
        ("gradient_accumulation_steps", TRAIN),
        ("n", GENERATE),
        ("file", SEEDS),
        ("zzz", ["task", "seeds"]),
        ("seq2seq", ["decoder", "encoder", "classifier"]),
        ("", ["task"]),
    ],
)
def test_what_only_looks_alike(word, known):
    assert close(word, known) == []


def test_the_sentence():
    assert nearest("tset", ["test", "seed"]) == "; did you mean 'test'?"
    assert nearest("data", SEEDS) == "; did you mean 'dataset' or 'dataset_split'?"
    assert nearest("zzz", ["test", "seed"]) == "; known: seed, test"


def test_recipes_are_found_by_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "support.yaml").write_text("task: x\n")
    (tmp_path / "tickets").mkdir()
    (tmp_path / "tickets" / "recipe.yaml").write_text("task: x\n")
    for name, meant in (
        ("reasonin", "reasoning"),
        ("clasify", "classify"),
        ("suport.yaml", "support.yaml"),
        ("ticket", "tickets"),
    ):
        with pytest.raises(RecipeError) as caught:
            find_recipe(name)
        assert caught.value.message == f"no recipe at '{name}'; did you mean '{meant}'?"
    with pytest.raises(RecipeError) as caught:
        find_recipe("zzz")
    assert caught.value.message == "no recipe at 'zzz'"
