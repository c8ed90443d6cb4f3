"""Weights are loaded when they are first needed. Some facts of a model are known without its weights."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import weakref

import pytest
import torch
from support.loading import loads_of
from support.small import small_teacher

from synthgen.errors import TeacherError
from synthgen.lm import prefix
from synthgen.lm.model import LanguageModel
from synthgen.lm.tokens import Tokens
from synthgen.tables.engines import TeacherSection

PROMPT, COMPLETION = [5, 70, 71, 72], [80, 81, 82]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_teacher(tmp_path_factory.mktemp("weights") / "teacher", layers=3)


def opened(folder, *, lazy: bool) -> LanguageModel:
    return LanguageModel.open(TeacherSection(model=str(folder)), lazy=lazy)


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    """A list that gets an entry each time that weights are loaded."""
    return loads_of(monkeypatch)


def test_a_model_without_its_weights_is_the_same_model(folder, loads):
    lazy = opened(folder, lazy=True)
    assert lazy.weights.are_there
    assert not lazy.weights.is_loaded
    assert not loads
    whole = opened(folder, lazy=False)
    loads.clear()
    for name in ("name", "dtype", "device", "revision", "layers", "context", "vocab_size"):
        assert getattr(lazy.weights, name) == getattr(whole.weights, name), name
    assert lazy.weights.config.to_dict() == whole.weights.config.to_dict()
    assert (lazy.tokens.hash, lazy.tokens.eos) == (whole.tokens.hash, whole.tokens.eos)
    assert not loads
    a, b = (model.logprobs([PROMPT], [COMPLETION])[0] for model in (lazy, whole))
    assert torch.equal(a, b)
    assert loads == [str(folder)]
    assert prefix.enabled(lazy.weights.model) == prefix.enabled(whole.weights.model)
    gone = weakref.ref(lazy.weights.model)
    lazy.weights.unload()
    gc.collect()
    assert gone() is None
    assert torch.equal(lazy.logprobs([PROMPT], [COMPLETION])[0], b)
    whole.weights.unload()
    assert whole.weights.is_loaded, "a model that was opened whole stays"


@pytest.mark.parametrize("given", [True, False])
def test_ends_of_turns_are_known_without_the_weights(folder, tmp_path, given):
    """The end tokens come from generation_config.json, or from the config if that file is missing."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    name = "generation_config.json" if given else "config.json"
    values = json.loads((tmp_path / name).read_text())
    (tmp_path / "generation_config.json").unlink()
    (tmp_path / name).write_text(json.dumps({**values, "eos_token_id": [7, values["eos_token_id"]]}))
    lazy, whole = (opened(tmp_path, lazy=on) for on in (True, False))
    assert lazy.tokens.eos == whole.tokens.eos == {7, values["eos_token_id"]}


@pytest.mark.parametrize("missing", ["tokenizer*", "config.json", "*.jinja"])
def test_a_folder_that_does_not_describe_its_model_is_refused_at_once(folder, tmp_path, missing):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    assert list(tmp_path.glob(missing))
    for path in tmp_path.glob(missing):
        path.unlink()
    with pytest.raises(TeacherError) as caught:
        opened(tmp_path, lazy=True)
    assert "\n" not in caught.value.message


def test_config_and_tokenizer_are_enough_until_weights_are_wanted(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    lazy = opened(tmp_path, lazy=True)
    assert not lazy.weights.are_there
    assert lazy.weights.layers == 3
    assert lazy.tokens.decode(lazy.tokens.ids("Hi")) == "Hi"
    assert lazy.tokens.hash == Tokens.open(str(folder)).hash
    for want in (lambda: lazy.weights.model, lambda: lazy.weights.revision):
        with pytest.raises(TeacherError) as caught:
            want()
        assert str(tmp_path) in caught.value.message
        assert "\n" not in caught.value.message


def test_damaged_weights_are_refused_when_they_are_wanted(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    lazy = opened(tmp_path, lazy=True)
    assert lazy.tokens.ids("Hi")
    with pytest.raises(TeacherError) as caught:
        assert lazy.weights.model
    assert "\n" not in caught.value.message


_HUB = """
import sys
from synthgen.lm.weights import Weights
from synthgen.tables.engines import TeacherSection
for name in sys.argv[1:]:
    for revision in (None, "main"):
        section = TeacherSection(model=name, revision=revision, device="cpu")
        lazy, whole = Weights.open(section), Weights.load(section)
        assert lazy.revision == whole.revision, (lazy.revision, whole.revision)
        print(lazy.revision)
"""


def test_of_a_hub_id_the_commit_is_known(folder, tmp_path):
    """The revision of a hub model is its commit. With a less exact revision, the stored states of another model or of
    an older commit would be used.
    """
    commits = {"org/one": "a1" * 20, "org/two": "b2" * 20}
    for name, commit in commits.items():
        place = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        shutil.copytree(folder, place / "snapshots" / commit)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text(commit)
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", _HUB, *commits], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [commit for commit in commits.values() for _ in range(2)]


def test_the_text_model_of_a_composite_checkpoint_is_described(folder, tmp_path):
    """The config is that of the loaded text model, which has the number of layers and the context length."""
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    text = {"vocab_size": size, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "head_dim": 8}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 1, "layer_types": ["full_attention"] * 4}
    text |= dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2)
    text |= dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8) | {"max_position_embeddings": 256}
    sight = {"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 16}
    config = Qwen3_5Config(text_config=text, vision_config={**sight, "num_position_embeddings": 16})
    Qwen3_5ForConditionalGeneration(config).save_pretrained(tmp_path)
    whole, lazy = (opened(tmp_path, lazy=on) for on in (False, True))
    assert (lazy.context, lazy.weights.layers) == (whole.context, whole.weights.layers) == (256, 4)
    assert (lazy.weights.revision, lazy.tokens.eos) == (whole.weights.revision, whole.tokens.eos)
    assert type(lazy.weights.config) is type(whole.weights.config) is type(lazy.weights.model.config)
