"""Encoder classifiers as students: loss, initial weights, evaluation and resuming."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support import unaudited
from support.measuring import measured_here
from support.small import CLASSES, WORDS, small_encoder, small_teacher, sorting_task, word_tokenizer
from support.statements import check_card, check_page
from support.training import resumes_everywhere, training_of
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import distill
import synthgen
from distill.card import write_model_card
from distill.data import Choice
from distill.students.encoder import Encoder, FromProbabilities, Text, encoder, read_texts, tokenizer_of
from distill.students.labels import tokenizer_identity
from synthgen import corpus
from synthgen.errors import CorpusError, RecipeError, TeacherError, UserError
from synthgen.recipe import TrainSection
from synthgen.tables.students import EncoderStudent
from synthgen.teachers.encoder import padded

TINY = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
}
LABELS = ["delivery", "payment", "technical"]
FAST = {"batch_size": 8, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder of the recipe, folder of the teacher, run with a curated corpus). 30 of the 150 rows are rejected as
    copies.
    """
    folder = tmp_path_factory.mktemp("encoder-student")
    teacher = small_encoder(folder / "teacher")
    recipe = synthgen.load_recipe(sorting_task(folder / "task", teacher, seeds=150, curate={"duplicates": True}))
    synthgen.generate(recipe, folder / "run")
    synthgen.curate(recipe, folder / "run")
    return folder / "task", teacher, folder / "run"


def recipe_of(run, student: dict, **train) -> synthgen.Recipe:
    task, teacher, _ = run
    section = {"student": {"kind": "encoder", **student}, **FAST, **train}
    return synthgen.load_recipe(sorting_task(task, teacher, seeds=150, curate={"duplicates": True}, train=section))


# The loss


def texts(count: int = 7) -> list[Text]:
    rng = np.random.default_rng(0)
    probs = rng.dirichlet([1, 1, 1], count)
    return [Text([1, *rng.integers(4, 16, 1 + i), 2], probs[i].tolist(), i % 3 != 0) for i in range(count)]


def objective(tmp_path: Path, labels_alone: bool = False, **section) -> FromProbabilities:
    model = AutoModelForSequenceClassification.from_pretrained(small_encoder(tmp_path / "m")).eval()
    return FromProbabilities(model, 0, TrainSection(student=EncoderStudent(config=TINY), **section), labels_alone)


@pytest.mark.parametrize("loss", ["forward_kl", "reverse_kl", "mse"])
@pytest.mark.parametrize("labels_alone", [False, True])
def test_loss_and_gradients_are_those_of_its_formula_in_float64(tmp_path, loss, labels_alone):
    """The formula uses logits that the model computes for each text alone, without padding."""
    found, data = objective(tmp_path, labels_alone, kd_weight=0.7, loss=loss), texts()
    model = found.model
    value, parts = found(data, data)
    value.backward()
    ours = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).double()
    model.zero_grad()
    model.double()
    z = torch.cat([model(torch.tensor([row.ids])).logits for row in data])
    logq, p = z.log_softmax(-1), torch.tensor([row.probs for row in data], dtype=torch.float64)
    kept = torch.tensor([row.kept for row in data])
    label = -logq[torch.arange(len(data)), p.argmax(-1)]
    if labels_alone:
        expected = label.mean()
    else:
        kd = {
            "forward_kl": (p * (p.log() - logq)).sum(-1),
            "reverse_kl": (logq.exp() * (logq - p.log())).sum(-1),
            "mse": ((z - z.mean(-1, keepdim=True)) - (p.log() - p.log().mean(-1, keepdim=True))).square().mean(-1) / 2,
        }[loss].mean()
        expected = 0.7 * kd + 0.3 * label[kept].mean()
        assert parts["distillation"] == pytest.approx(float(kd.detach()), rel=1e-4)
    expected.backward()
    theirs = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert float(value.detach()) == pytest.approx(float(expected), rel=1e-5)
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-4


def test_parts_of_a_step_add_up(tmp_path):
    found, data = objective(tmp_path), texts()
    whole = found(data, data)[1]
    parts = [found(data[a:b], data)[1] for a, b in ((0, 1), (1, 4), (4, 7))]
    for name, value in whole.items():
        assert sum(part[name] for part in parts) == pytest.approx(value, rel=1e-5)


def test_padding_is_masked(tmp_path):
    found, data = objective(tmp_path), texts()
    batch = padded([row.ids for row in data], 0, torch.device("cpu"))
    assert batch["input_ids"].shape == (7, 9)
    assert batch["attention_mask"].sum(-1).tolist() == [len(row.ids) for row in data]
    other = {**batch, "input_ids": batch["input_ids"].where(batch["attention_mask"] == 1, 7)}
    with torch.no_grad():
        assert torch.allclose(found.model(**batch).logits, found.model(**other).logits, atol=1e-5)


# Initial weights


def made(student: EncoderStudent, seed: int, teacher: str = ""):
    """A student with two labels."""
    return encoder(student, tokenizer_of(student, teacher), ["yes", "no"], seed)


def test_a_checkpoint_keeps_its_body_and_gets_a_head_for_the_labels(tmp_path):
    folder = small_encoder(tmp_path / "headless", headless=True)
    model = made(EncoderStudent(model=str(folder)), 3)
    body = AutoModelForSequenceClassification.from_pretrained(folder).bert.state_dict()
    assert all(
        torch.equal(value, body[name]) for name, value in model.bert.state_dict().items() if "pooler" not in name
    )
    assert model.config.id2label == {0: "yes", 1: "no"}
    assert model.classifier.weight.shape == (2, 16)
    again = made(EncoderStudent(model=str(folder)), 3)
    assert torch.equal(model.classifier.weight, again.classifier.weight), "the same whenever it is called"
    other = made(EncoderStudent(model=str(folder)), 4)
    assert not torch.equal(model.classifier.weight, other.classifier.weight)
    # a checkpoint with three classes, for a student with two labels
    three = made(EncoderStudent(model=str(small_encoder(tmp_path / "three"))), 3)
    assert three.classifier.weight.shape == (2, 16)


def test_random_weights_have_the_tokenizers_vocabulary(run):
    recipe = recipe_of(run, {"config": TINY})
    tokenizer = tokenizer_of(recipe.train.student, recipe.teacher.model)
    model = encoder(recipe.train.student, tokenizer, LABELS, 0)
    assert model.config.vocab_size == len(tokenizer) == len(WORDS) + 4
    assert (model.config.pad_token_id, model.config.num_hidden_layers) == (0, 1)


def test_a_tokenizer_in_a_folder_of_its_own_serves(tmp_path):
    word_tokenizer(tmp_path)
    assert not (tmp_path / "config.json").exists()
    student = EncoderStudent(config=TINY, tokenizer=str(tmp_path))
    tokenizer = tokenizer_of(student, "")
    assert encoder(student, tokenizer, LABELS, 0).config.vocab_size == len(tokenizer) == len(WORDS) + 4
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(TeacherError, match="cannot be loaded") as caught:
        tokenizer_of(student, "")
    assert "\n" not in caught.value.message


def test_a_decoders_tokenizer_serves(tmp_path):
    """The tokenizer has no padding token, and adds no tokens around a text."""
    teacher = small_teacher(tmp_path / "llama")
    student = EncoderStudent(config={**TINY, "max_position_embeddings": 64}, tokenizer=str(teacher))
    tokenizer = tokenizer_of(student, "")
    model = encoder(student, tokenizer, LABELS, 0)
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    found = Encoder.load(tmp_path / "saved")
    alone = [found.predict([text])[0] for text in ("where is it", "", "x" * 100)]
    assert np.allclose(found.predict(["where is it", "", "x" * 100]), alone, atol=1e-6)


# A whole run


@pytest.fixture(scope="module")
def learned(run, tmp_path_factory):
    """(recipe, run with a trained and evaluated student, its evaluation)."""
    work = Path(shutil.copytree(run[2], tmp_path_factory.mktemp("learned") / "run"))
    recipe = recipe_of(run, {"config": TINY}, num_train_epochs=15, learning_rate=5e-3)
    unaudited.train(recipe, work)
    with measured_here():
        return recipe, work, distill.evaluate(recipe, work)


def test_a_student_learns_and_is_measured_and_is_a_stock_model(learned):
    _, work, found = learned
    folder, table = work / "student", found.table
    facts = training_of(folder)
    assert facts.kind == "encoder"
    assert 0 < facts.rows_kept < facts.rows, "rejected rows teach, too"
    print(found)
    assert table["distilled"]["kl"].mean < 0.8 * table["untrained"]["kl"].mean
    assert table["distilled"]["kl"].mean < table["cross-entropy"]["kl"].mean
    kl = table["distilled"]["kl"]
    assert kl.low < kl.mean < kl.high
    assert table["distilled"]["peak_rss_bytes"] > 0
    agrees, faster = found.figures
    assert (agrees.label, agrees.value) == ("agrees with the teacher", table["distilled"]["agreement"].mean)
    speeds = [table[name]["rows_per_second"] for name in ("distilled", "teacher")]
    assert (faster.label, faster.value) == ("times the teacher's speed", pytest.approx(speeds[0] / speeds[1]))
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert table["distilled"]["parameters"] == sum(p.numel() for p in model.parameters())
    held_out = [r for _, some in corpus.records(work / "curated", split="test") for r in some][:9]
    asked = [r.prompt[-1]["content"] for r in held_out]
    assert [model.config.id2label[i] for i in range(3)] == LABELS
    with torch.no_grad():
        z = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in asked])
    assert np.allclose(Encoder.load(folder).predict(asked), z.softmax(-1), atol=1e-5)


def test_page_and_card_say_it(learned):
    recipe, work, found = learned
    write_model_card(work / "student", recipe, corpus.manifest(work / "curated"))
    card, page = (work / "student" / "README.md").read_text(), synthgen.report(work).path.read_text()
    agreement = found.table["distilled"]["agreement"]
    for text in (card, page):
        assert "bert encoder with a classification head of random weights" in text
        assert "n-grams" not in text
    share, low = f"{100 * agreement.mean:.1f}%", f"[{100 * agreement.low:.1f}, "
    assert f"| distilled | {share} {low}" in card
    assert f"{share} <small>{low}" in page
    entries = {one["measure"]: one for one in check_card(work / "student")}
    check_page(work)
    assert {one["dimension"] for one in entries.values()} == {"accuracy", "agreement", "likelihood", "calibration"}
    assert entries["answers right"]["missing"]["student"] == "no held-out row has a reference answer"
    same = entries["same label as the teacher"]
    assert same["minus_base"]["mean"] == pytest.approx(
        found.table["distilled"]["agreement"].mean - found.table["untrained"]["agreement"].mean
    )
    assert "a student of this kind writes no text" in card


@pytest.mark.parametrize(("origin", "cuts"), [("config", (1, 3, 5, 7)), ("model", (3, 8))])
def test_resume_is_exact_wherever_it_was_cut(run, tmp_path, origin, cuts):
    """Dropout is 0.1, and every second step has a checkpoint. Training is cut before a checkpoint, between two
    checkpoints, after the first student, and during the second.
    """
    student = {"config": TINY} if origin == "config" else {"model": str(small_encoder(tmp_path / "m", headless=True))}
    recipe = recipe_of(run, student, max_steps=5, num_train_epochs=4, save_steps=2)
    whole = resumes_everywhere(
        lambda folder, ui: unaudited.train(recipe, run[2], folder, ui=ui), tmp_path / "students", cuts
    )
    assert (whole / "baseline" / "model.safetensors").exists()


def test_the_identity_of_a_tokenizer_ignores_earlier_calls(tmp_path):
    """The identity chooses the cache of token ids, so a call of the tokenizer that truncates must not change the
    identity.
    """
    tokenizer = word_tokenizer(tmp_path / "words")
    before = tokenizer_identity(tokenizer)
    tokenizer(["cat dog", "cat"], truncation=True, max_length=2, padding=True)
    assert tokenizer.backend_tokenizer.truncation is not None
    assert tokenizer_identity(tokenizer) == before
    tokenizer.add_tokens(["another"])
    assert tokenizer_identity(tokenizer) != before


# Errors


@pytest.mark.parametrize(
    ("student", "says"),
    [
        ({}, "give exactly one of 'model' and 'config'"),
        ({"model": "x", "config": TINY}, "give exactly one of 'model' and 'config'"),
        ({"config": {"hidden_size": 8}}, "'config' needs a 'model_type'"),
        ({"model": "x", "tokenizer": "y"}, "a checkpoint has its own tokenizer"),
        ({"layers": 2, "model": "x"}, "layers"),
    ],
)
def test_senseless_sections(run, student, says):
    with pytest.raises(RecipeError, match=says):
        recipe_of(run, student)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "nonsense"}, "does not know the model_type 'nonsense'"),
        ({"layers": 3}, "bert configs have no key 'layers'"),
        ({"hidden_size": 15}, "this model cannot be made: .*multiple"),
    ],
)
def test_configs_that_cannot_be(run, tmp_path, change, says):
    with pytest.raises(RecipeError, match=says) as caught:
        unaudited.train(recipe_of(run, {"config": TINY | change}), run[2], tmp_path / "student")
    assert "\n" not in str(caught.value)


def test_a_corpus_without_probabilities(run, tmp_path):
    curated = tmp_path / "curated"
    (curated / "data").mkdir(parents=True)
    path = next((run[2] / "curated" / "data").glob("train-*.parquet"))
    table = pq.read_table(path)
    column = table.schema.get_field_index("label_probs")
    empty = pa.nulls(len(table), table.schema.field(column).type)
    pq.write_table(table.set_column(column, table.schema.field(column), empty), curated / "data" / path.name)
    with pytest.raises(CorpusError, match="no class probabilities") as caught:
        read_texts(curated, word_tokenizer(tmp_path / "words"), tmp_path / "cache", Choice(24, targets=False))
    assert "strategy: classify" in caught.value.hint


@pytest.mark.parametrize("wrong", [[math.nan] * 3, [math.inf, 0.0, 0.0], [1.5, -0.5, 0.0], [0.5, 0.1, 0.1]])
def test_numbers_that_are_no_probabilities_teach_nobody(run, tmp_path, wrong):
    curated = tmp_path / "curated"
    (curated / "data").mkdir(parents=True)
    path = next((run[2] / "curated" / "data").glob("train-*.parquet"))
    table = pq.read_table(path)
    column, [first, *others] = table.schema.get_field_index("label_probs"), table["label_probs"].to_pylist()
    assert len(first) == len(wrong)
    values = pa.array([wrong, *others], table.schema.field(column).type)
    pq.write_table(table.set_column(column, table.schema.field(column), values), curated / "data" / path.name)
    with pytest.raises(CorpusError, match=rf"row {table['id'][0]}: its class probabilities are not numbers"):
        read_texts(curated, word_tokenizer(tmp_path / "words"), tmp_path / "cache", Choice(24, targets=False))


def test_another_strategy_and_missing_validation_rows(run, tmp_path):
    _, teacher, work = run
    section = {"student": {"kind": "encoder", "config": TINY}}
    with pytest.raises(RecipeError, match="kind 'encoder' needs a strategy that makes label probabilities"):
        synthgen.load_recipe(sorting_task(tmp_path / "task", teacher, strategy="answer", train=section))
    with pytest.raises(UserError, match="has no validation rows"):
        unaudited.train(recipe_of(run, {"config": TINY}, eval_steps=1), work, tmp_path / "student")


def test_rows_that_are_too_long_are_left_out_and_counted(run, tmp_path):
    recipe = recipe_of(run, {"config": TINY}, max_steps=1, max_length=6)
    facts = unaudited.train(recipe, run[2], tmp_path / "s").training
    assert facts.left_out["too_long"] > 0
    assert facts.rows > 0


def test_the_teachers_classes_are_the_tests_own():
    assert [name.casefold() for name in CLASSES] == LABELS
