"""How the vectors of an embedding model from the hub are pooled, when the hub cannot be reached."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.small import small_encoder

from synthgen.errors import TeacherError
from synthgen.tables.engines import TeacherSection
from synthgen.teachers.embedding import SentenceEncoder

COMMIT = "a1" * 20
POOLING = [{"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]


@pytest.fixture
def cached(tmp_path, monkeypatch) -> Path:
    """The folder of the model org/one in the hub's cache, with the weights only. The hub cannot be reached."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "models--org--one"
    shutil.copytree(small_encoder(tmp_path / "made"), place / "snapshots" / COMMIT)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    return place


@pytest.mark.parametrize("revision", [None, COMMIT])
def test_pooling_that_is_not_known_is_refused(cached, revision):
    section = TeacherSection(model="org/one", revision=revision, device="cpu")
    with pytest.raises(TeacherError, match="model 'org/one' cannot be loaded: ") as caught:
        SentenceEncoder.open(section)
    assert "\n" not in caught.value.message
    for name in ("modules.json", "sentence_bert_config.json"):  # as the hub's client does when the hub has no such file
        missing = cached / ".no_exist" / COMMIT / name
        missing.parent.mkdir(parents=True, exist_ok=True)
        missing.touch()
    encoder, found = SentenceEncoder.open(section)
    assert (encoder.pooling, found) == ("mean", COMMIT)


def test_pooling_in_the_cache_is_used(cached):
    files = cached / "snapshots" / COMMIT
    (files / "1_Pooling").mkdir()
    (files / "modules.json").write_text(json.dumps(POOLING))
    (files / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    (files / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 7}))
    encoder, _ = SentenceEncoder.open(TeacherSection(model="org/one", device="cpu"))
    assert (encoder.pooling, encoder.context) == ("cls", 7)
