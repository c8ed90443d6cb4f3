"""A model is loaded only with all its weights, because transformers replaces missing weights by random weights."""

from __future__ import annotations

import os

import pytest
from safetensors.torch import load_file, save_file
from support.small import small_encoder, small_teacher
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from synthgen.errors import TeacherError
from synthgen.lm.load import load_tokenizer, load_weights, load_whole
from synthgen.tables.engines import TeacherSection

HEADLESS = {"num_labels": 3, "ignore_mismatched_sizes": True}


def without(folder, *parts: str):
    """The folder of a model without the weights whose names contain one of `parts`."""
    path = folder / "model.safetensors"
    kept = {name: value for name, value in load_file(path).items() if not any(part in name for part in parts)}
    assert len(kept) < len(load_file(path))
    save_file(kept, path, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("auto", "make", "part", "changes"),
    [
        (AutoModelForCausalLM, small_teacher, "layers.1.mlp", {}),
        (AutoModelForCausalLM, small_teacher, "norm", {}),
        (AutoModelForSequenceClassification, small_encoder, "classifier", {}),
        (AutoModelForSequenceClassification, small_encoder, "layer.0.", HEADLESS),
        (AutoModel, small_encoder, "layer.0.", {}),
    ],
)
def test_a_model_with_missing_weights_is_refused(tmp_path, auto, make, part, changes):
    folder = without(make(tmp_path / "model"), part)
    with pytest.raises(TeacherError, match=rf"its weights are missing, such as '.*{part}"):
        load_weights(TeacherSection(model=str(folder)), auto, **changes)


def test_what_may_be_missing(tmp_path):
    """These weights may be missing: tied weights, the head of a new classifier, and the pooler, whose output is not
    used.
    """
    decoder = small_teacher(tmp_path / "decoder")
    assert "lm_head.weight" not in load_file(decoder / "model.safetensors")
    load_whole(str(decoder), "float32", AutoModelForCausalLM)
    encoder = without(small_encoder(tmp_path / "encoder"), "classifier", "pooler")
    load_whole(str(encoder), "float32", AutoModelForSequenceClassification, **HEADLESS)
    load_whole(str(encoder), "float32", AutoModel)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "generation_config.json", "extra.safetensors"])
def test_a_folder_with_a_pipe_or_a_device_is_refused(tmp_path, name):
    folder = small_teacher(tmp_path / "model")
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
        with pytest.raises(TeacherError, match=f"{name} is not a file that can be read"):
            load_weights(TeacherSection(model=str(folder)))
        with pytest.raises(TeacherError, match=f"{name} is not a file that can be read"):
            load_tokenizer(str(folder))
