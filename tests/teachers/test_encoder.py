"""Encoder classifiers as teachers give the model's own probabilities. A student is made from a run with an encoder
teacher.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import unaudited
from support.small import small_encoder, sorting_task

import synthgen
from synthgen import corpus
from synthgen.errors import TeacherError
from synthgen.requests import Request
from synthgen.tables.engines import TeacherSection
from synthgen.teachers import open_teacher


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return small_encoder(tmp_path_factory.mktemp("encoder"))


def request(text: str, labels: tuple[str, ...] = ("payment", "delivery", "technical")) -> Request:
    asked = [{"role": "system", "content": "Sort."}, {"role": "user", "content": text}]
    return Request("classify", asked, labels=labels, text=text)


TEXTS = ["where is my parcel", "my card was charged twice and twice the bill", "the app crashes", "lost"]


def test_probabilities_are_those_of_the_model(encoder):
    """The probabilities are a float64 softmax of the model's logits. The probabilities do not depend on the batch.
    The probabilities are in the order of the recipe's labels, also when the model's labels differ in letter case.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(encoder).eval()
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    for size in (1, 3, 8):
        teacher = open_teacher(TeacherSection(model=str(encoder), batch_size=size, device="cpu"))
        replies = teacher.classify([request(text) for text in TEXTS])
        for text, reply in zip(TEXTS, replies, strict=True):
            with torch.inference_mode():
                z = model(**tokenizer(text, return_tensors="pt")).logits[0].double()
            expected = z.softmax(-1)[[1, 0, 2]]
            assert reply.label_probs == pytest.approx(expected.tolist(), abs=1e-6)
            assert reply.text == ("payment", "delivery", "technical")[int(expected.argmax())]
            assert dict(reply.scores)["label_mass"] == pytest.approx(1.0)


def test_some_of_the_classes_are_normalised_and_their_mass_is_said(encoder):
    teacher = open_teacher(TeacherSection(model=str(encoder), device="cpu"))
    [whole] = teacher.classify([request(TEXTS[0])])
    [some] = teacher.classify([request(TEXTS[0], ("delivery", "payment"))])
    p = dict(zip(("payment", "delivery", "technical"), whole.label_probs, strict=True))
    mass = p["delivery"] + p["payment"]
    assert some.label_probs == pytest.approx([p["delivery"] / mass, p["payment"] / mass])
    assert dict(some.scores)["label_mass"] == pytest.approx(mass)


def test_what_it_cannot_do_is_said(encoder):
    teacher = open_teacher(TeacherSection(model=str(encoder), device="cpu"))
    with pytest.raises(TeacherError, match="no class 'billing'; its classes: delivery, payment, technical"):
        teacher.classify([request("x", ("billing", "delivery"))])
    [long] = teacher.classify([request("my " * 40)])
    assert long.failure == ("context", "text of 42 tokens exceeds the context of 24")
    assert teacher.can == {"classify"}


@pytest.fixture
def recipe(encoder, tmp_path):
    """A function that returns the path of a recipe with the encoder as teacher."""
    return lambda **sections: sorting_task(tmp_path, encoder, **sections)


def test_a_student_of_an_encoder(recipe, tmp_path):
    import distill

    loaded = synthgen.load_recipe(recipe())
    folder = synthgen.generate(loaded, tmp_path / "run").folder
    rows = [r for _, some in corpus.records(folder) for r in some]
    assert len(rows) == 60
    assert all(abs(sum(r.label_probs) - 1) < 1e-6 for r in rows)
    assert corpus.manifest(folder)["teachers"][loaded.teacher.model.rsplit("/", 1)[-1]]["revision"].startswith(
        "sha256:"
    )
    synthgen.curate(loaded, tmp_path / "run")
    unaudited.train(loaded, tmp_path / "run")
    distill.evaluate(loaded, tmp_path / "run")
    found = json.loads((tmp_path / "run/student/evaluation.json").read_text())["table"]
    assert found["distilled"]["kl"]["mean"] < 0.3 < found["majority class"]["kl"]["mean"]
    assert found["teacher"]["rows_per_second"] > 0


def test_another_strategy_is_refused_before_anything_is_made(recipe, tmp_path):
    loaded = synthgen.load_recipe(recipe(strategy="answer", train=None, generate={"max_new_tokens": 4}))
    with pytest.raises(TeacherError, match="does not offer 'sample'"):
        synthgen.generate(loaded, tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.parquet"))
