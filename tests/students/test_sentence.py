"""Sentence encoders: the teacher's pooling, the student's loss, saved files, evaluation and resuming."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from support import unaudited
from support.measuring import measured_here
from support.small import WORDS, small_encoder, sorting_task
from support.statements import check_card, check_page
from support.training import resumes_everywhere
from transformers import AutoModel, AutoTokenizer

import distill
import distill.cli
import synthgen
from distill.card import write_model_card
from distill.evaluation.similarity import _quality, bootstrap, cosines, ranks, spearman
from distill.students.sentence import FromVectors, Sentence, sentence
from synthgen import corpus
from synthgen.errors import RecipeError, TeacherError, UserError
from synthgen.recipe import dump_recipe
from synthgen.requests import Request
from synthgen.tables.engines import TeacherSection
from synthgen.tables.students import SentenceStudent
from synthgen.teachers import open_teacher
from synthgen.teachers.embedding import EmbeddingModel, SentenceEncoder

TEXTS = ["where is my parcel", "the app crashes", "lost", "my card was charged twice and the bill is lost"]


def section(folder: Path) -> TeacherSection:
    return TeacherSection(model=str(folder), device="cpu", license="Apache-2.0")


def modules(folder: Path, *parts: tuple[str, dict], lengths: int | None = None) -> Path:
    """Adds modules.json to a folder, in the form that sentence-transformers writes."""
    found = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for number, (name, config) in enumerate(parts, 1):
        path = folder / f"{number}_{name}"
        path.mkdir()
        (path / "config.json").write_text(json.dumps(config))
        found.append(
            {"idx": number, "name": str(number), "path": path.name, "type": f"sentence_transformers.models.{name}"}
        )
    (folder / "modules.json").write_text(json.dumps(found))
    if lengths:
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": lengths}))
    return folder


MEAN = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """A BERT with four layers, mean pooling and normalized vectors."""
    folder = small_encoder(tmp_path_factory.mktemp("sentence") / "teacher", headless=True, layers=4, spread=0.2)
    return modules(folder, ("Pooling", MEAN), ("Normalize", {}), lengths=20)


# The teacher


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("form", ["flags", "name", "none"])
def test_vectors_are_those_of_each_text_alone(tmp_path, pooling, form):
    """Tests batches of several sizes, and every form that modules.json has had. Without modules.json, pooling is the
    mean.
    """
    folder = small_encoder(tmp_path / "m", headless=True)
    if form == "flags":
        keys = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}
        config = {f"pooling_mode_{key}": name == pooling for name, key in keys.items()}
        modules(folder, ("Pooling", config))
    elif form == "name":
        modules(folder, ("Pooling", {"embedding_dimension": 16, "pooling_mode": pooling}))
    elif pooling != "mean":
        return
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    found, _ = SentenceEncoder.open(section(folder))
    for size in (1, 3, 8):
        for text, vector in zip(TEXTS, found.vectors(TEXTS, size), strict=True):
            with torch.no_grad():
                h_TD = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            expected = {"mean": h_TD.mean(0), "cls": h_TD[0], "max": h_TD.amax(0)}[pooling]
            assert torch.allclose(vector, expected, atol=1e-5)


def test_normalised_projected_and_cut(tmp_path):
    folder = small_encoder(tmp_path / "m", headless=True)
    dense = {"in_features": 16, "out_features": 5, "bias": True, "activation_function": "torch.nn.Identity"}
    modules(folder, ("Pooling", MEAN), ("Dense", dense), ("Normalize", {}), lengths=6)
    weight, bias = torch.randn(5, 16), torch.randn(5)
    save_file({"linear.weight": weight, "linear.bias": bias}, folder / "2_Dense" / "model.safetensors")
    found, _ = SentenceEncoder.open(section(folder))
    plain, _ = SentenceEncoder.open(section(small_encoder(tmp_path / "plain", headless=True)))
    assert (found.width, found.context) == (5, 6)
    expected = torch.nn.functional.normalize(plain.vectors(TEXTS[:3]) @ weight.T + bias, dim=-1)
    assert torch.allclose(found.vectors(TEXTS[:3]), expected, atol=1e-5)
    assert torch.allclose(found.vectors([TEXTS[3]]), found.vectors(["my card was charged"]), atol=1e-5), "cut to 6"


def test_modules_that_are_not_known(tmp_path):
    folder = modules(small_encoder(tmp_path / "lstm", headless=True), ("LSTM", {}))
    with pytest.raises(TeacherError, match=r"has a module of type sentence_transformers.models.LSTM"):
        SentenceEncoder.open(section(folder))
    folder = modules(
        small_encoder(tmp_path / "two", headless=True), ("Pooling", {**MEAN, "pooling_mode_cls_token": True})
    )
    with pytest.raises(TeacherError, match="pools by mean and cls"):
        SentenceEncoder.open(section(folder))


def test_a_teacher_reads_and_does_nothing_else(teacher):
    model = open_teacher(section(teacher))
    assert isinstance(model, EmbeddingModel)
    messages = [[{"role": "user", "content": text}] for text in (TEXTS[0], "my " * 40)]
    short, long = model.embed([Request("embed", m) for m in messages])
    assert short.failure is None
    assert len(short.prompt_token_ids) == 6
    assert long.failure == ("context", "text of 42 tokens exceeds the context of 20")
    for act in (lambda: model.sample([], None), lambda: model.classify([]), lambda: model.score([], None)):
        with pytest.raises(TeacherError, match="is an embedding model"):
            act()


# The student


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_loss_is_the_mean_distance_over_the_step(teacher, distance):
    theirs, _ = SentenceEncoder.open(section(teacher))
    student = sentence(SentenceStudent(layers=1, distance=distance), theirs, 0).eval()
    vectors = theirs.vectors(TEXTS)
    data = [Sentence(ids, vector) for ids, vector in zip(student.tokens(TEXTS), vectors, strict=True)]
    objective = FromVectors(student, distance)
    loss, parts = objective(data, data)
    mine, true = student.vectors(TEXTS).double().numpy(), vectors.double().numpy()
    if distance == "cosine":
        cosine = (mine * true).sum(-1) / np.linalg.norm(mine, axis=-1) / np.linalg.norm(true, axis=-1)
        expected = (1 - cosine).mean()
    else:
        expected = ((mine - true) ** 2).mean()
    assert float(loss.detach()) == parts["loss"] == pytest.approx(expected, rel=1e-4)
    split = sum(objective(data[a:b], data)[1]["loss"] for a, b in ((0, 1), (1, 4)))
    assert split == pytest.approx(expected, rel=1e-4)
    whole = sentence(SentenceStudent(layers=4), theirs, 0).eval()
    assert FromVectors(whole, distance)(data, data)[1]["loss"] == pytest.approx(0, abs=1e-6), "all layers: the teacher"


def test_layers_are_the_teachers(teacher):
    theirs, _ = SentenceEncoder.open(section(teacher))
    student = sentence(SentenceStudent(layers=(3, 0)), theirs, 0)
    mine, its = student.model.state_dict(), theirs.model.state_dict()
    for name, value in mine.items():
        origin = name.replace("layer.0.", "layer.3.") if "layer.0." in name else name.replace("layer.1.", "layer.0.")
        assert torch.equal(value, its[origin]), name
    assert (student.pooling, student.normalize, student.dense) == ("mean", True, None)
    assert sentence(SentenceStudent(), theirs, 0).model.config.num_hidden_layers == 2, "half of them"


def test_a_narrower_student_has_a_projection(teacher, tmp_path):
    theirs, _ = SentenceEncoder.open(section(teacher))
    narrow = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    student = sentence(SentenceStudent(config=narrow), theirs, 3)
    assert student.dense is not None
    assert student.dense.bias is None
    assert student.width == 16
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            student.parameters(), sentence(SentenceStudent(config=narrow), theirs, 3).parameters(), strict=True
        )
    )
    objective = FromVectors(student, "cosine")
    assert "model.dense.weight" in dict(objective.named_parameters()), "it is trained, and in checkpoints"
    checkpoint = SentenceStudent(model=str(small_encoder(tmp_path / "wide", headless=True, width=24)))
    torch.manual_seed(1)
    first = sentence(checkpoint, theirs, 0).dense.weight
    torch.manual_seed(2)
    assert first.shape == (16, 24)
    assert torch.equal(first, sentence(checkpoint, theirs, 0).dense.weight), "the same whenever it is made"


# A whole run


def task(folder: Path, teacher: Path, student: dict, **train) -> synthgen.Recipe:
    path = sorting_task(
        folder,
        teacher,
        seeds=150,
        strategy="embed",
        generate={"shard_size": 64},
        train={"student": {"kind": "sentence", **student}, "batch_size": 16, "learning_rate": 3e-3, **train},
    )
    return synthgen.load_recipe(path)


@pytest.fixture(scope="module")
def run(teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentence-run")
    recipe = task(folder / "task", teacher, {})
    synthgen.generate(recipe, folder / "run")
    synthgen.curate(recipe, folder / "run")
    return folder / "task", folder / "run"


NARROW = {"config": {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}}


@pytest.fixture(scope="module")
def learned(teacher, run, tmp_path_factory):
    """(recipe, run, evaluation) of a narrow student with random weights."""
    work = Path(shutil.copytree(run[1], tmp_path_factory.mktemp("learned") / "run"))
    recipe = task(run[0], teacher, NARROW, num_train_epochs=80, learning_rate=1e-2)
    unaudited.train(recipe, work)
    with measured_here():
        return recipe, work, distill.evaluate(recipe, work)


def test_rows_are_texts_with_their_terms(run):
    rows = [r for _, some in corpus.records(run[1] / "curated") for r in some]
    assert len(rows) > 100
    assert all(r.completion == [] and r.strategy == "embed" and len(r.prompt_token_ids) > 2 for r in rows)
    assert rows[0].text == rows[0].prompt[-1]["content"]
    assert {s["license"] for r in rows for s in r.sources if s["role"] == "generator"} == {"Apache-2.0"}


def test_a_student_learns_and_is_measured(learned):
    recipe, work, found = learned
    table = found.table
    print(found)
    assert table["distilled"]["spearman"].low > table["untrained"]["spearman"].high
    [better] = [c.difference for c in found.comparisons if c.name == "distilled − untrained"]
    assert better.low > 0
    assert table["distilled"]["cosine"] > 0.9
    assert table["distilled"]["parameters"] < table["teacher"]["parameters"]
    assert table["distilled"]["peak_rss_bytes"] > 0
    write_model_card(work / "student", recipe, corpus.manifest(work / "curated"))
    card, page = (work / "student" / "README.md").read_text(), synthgen.report(work).path.read_text()
    rho = table["distilled"]["spearman"]
    assert f"| distilled | {rho.mean:.3f} [{rho.low:.3f}, {rho.high:.3f}]" in card
    assert "a Dense projection from 8 to 16 numbers is part of it" in card
    assert "library_name: sentence-transformers" in card
    assert f"{rho.mean:.3f} <small>[{rho.low:.3f}, {rho.high:.3f}]</small>" in page
    [entry] = check_card(work / "student")
    check_page(work)
    assert (entry["dimension"], entry["minus_base"]["mean"]) == ("agreement", better.mean)
    assert "a student of this kind computes vectors" in card
    (work / "recipe.yaml").write_text(dump_recipe(recipe))
    said = CliRunner().invoke(distill.cli.main, ["eval", str(work)])
    assert "Spearman's ρ with the teacher" in said.output, said
    assert re.search(rf"^distilled +{rho.mean:.3f} \[{rho.low:.3f}, {rho.high:.3f}\]", said.output, re.MULTILINE), said


def test_the_folder_is_one_of_sentence_transformers(learned):
    """sentence-transformers, if it is installed, loads the folder and gives the same vectors. The test also reads the
    files itself.
    """
    folder = learned[1] / "student"
    found, _ = SentenceEncoder.open(section(folder))
    assert (found.normalize, found.pooling, found.width, found.context) == (True, "mean", 16, 20)
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        h_TD = model(**tokenizer(TEXTS[0], return_tensors="pt")).last_hidden_state[0]
    expected = torch.nn.functional.normalize(h_TD.mean(0) @ found.dense.weight.T, dim=-1)
    assert torch.allclose(found.vectors(TEXTS[:1])[0], expected, atol=1e-5)
    theirs = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    vectors = theirs.SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    assert np.allclose(vectors, found.vectors(TEXTS).numpy(), atol=1e-5)


@pytest.mark.parametrize(("student", "cuts"), [(NARROW, (1, 3, 4)), ({"layers": 1, "distance": "mse"}, (3,))])
def test_resume_is_exact_wherever_it_was_cut(teacher, run, tmp_path, student, cuts):
    recipe = task(run[0], teacher, student, max_steps=6, save_steps=2)
    whole = resumes_everywhere(lambda folder, ui: unaudited.train(recipe, run[1], folder, ui=ui), tmp_path, cuts)
    assert (whole / "2_Dense" / "model.safetensors").exists() == (student is NARROW)


def test_activations_made_again_change_nothing(teacher, run, tmp_path):
    a, b = (
        unaudited.train(
            task(run[0], teacher, NARROW, max_steps=3, gradient_checkpointing=on), run[1], tmp_path / str(on)
        ).folder
        for on in (False, True)
    )
    assert (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()


def test_a_student_is_a_teacher(teacher, learned, tmp_path):
    """A narrow student has a projection. If the narrow student is used as a teacher, its own student gets the same
    projection.
    """
    theirs, _ = SentenceEncoder.open(section(learned[1] / "student"))
    student = sentence(SentenceStudent(layers=1), theirs, 0).eval()
    assert torch.allclose(student.vectors(TEXTS), theirs.vectors(TEXTS), atol=1e-6)


# Figures


def test_ranks_and_spearman():
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0.0, 2.5, 1.0]
    a = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert spearman(a, np.exp(a)) == pytest.approx(1)
    assert spearman(a, np.array([2.0, 1.0, 4.0, 3.0, 5.0])) == pytest.approx(1 - 6 * 4 / (5 * 24))


def test_a_text_is_no_pair_with_itself():
    """If a text that is drawn twice were paired with itself, any model would look like the teacher."""
    rng = np.random.default_rng(0)
    similar = {"teacher": cosines(rng.normal(size=(12, 8))), "other": cosines(rng.normal(size=(12, 8)))}
    draws = bootstrap(similar, 12, 0)["other"]
    upper = np.triu_indices(12, 1)
    assert abs(float(np.mean(draws)) - spearman(similar["teacher"][upper], similar["other"][upper])) < 0.1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [3, 4, 6, 8])
def test_few_texts_have_wide_intervals(count):
    """A resample that has fewer than three different texts has no order of pairs, so its correlation is not known."""
    random = torch.Generator().manual_seed(count)
    names = ("teacher", "static", "untrained", "distilled")
    table, comparisons = _quality({name: torch.randn(count, 5, generator=random) for name in names}, 0)
    for found, least in [
        *((table[name]["spearman"], -1.0) for name in names[1:]),
        *((one.difference, -2.0) for one in comparisons),
    ]:
        assert least <= found.low <= found.mean <= found.high <= -least
        if count == 3:
            assert (found.low, found.high) == (least, -least), "three texts prove nothing"


# Errors


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"strategy": "classify", "generate": {"labels": ["a", "b"]}},
            "a student of kind 'sentence' needs strategy 'embed'",
        ),
        ({"train": {"student": {"kind": "classifier"}}}, "kind 'classifier' needs a strategy that makes label"),
        ({"train": {"student": {"kind": "sentence"}, "loss": "mse"}}, "kind 'sentence' has a loss of its own"),
        ({"train": {"student": {"kind": "sentence"}, "kd_weight": 0.5}}, "have no labels that could be mixed in"),
        ({"train": {"student": {"kind": "sentence", "layers": 1, "model": "x"}}}, "give at most one of"),
    ],
)
def test_senseless_recipes(teacher, tmp_path, change, says):
    values = {"strategy": "embed", "train": {"student": {"kind": "sentence"}}, "generate": {}, **change}
    with pytest.raises(RecipeError, match=says):
        synthgen.load_recipe(sorting_task(tmp_path, teacher, **values))


def test_a_teacher_that_is_no_embedding_model(tmp_path):
    recipe = task(tmp_path / "task", small_encoder(tmp_path / "classifier"), {})
    with pytest.raises(TeacherError, match="does not offer 'embed'"):
        synthgen.generate(recipe, tmp_path / "run")


def test_too_few_texts_to_compare(teacher, run, tmp_path):
    recipe = task(run[0], teacher, {}, max_steps=1)
    recipe = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"max_rows": 2})})
    unaudited.train(recipe, run[1], tmp_path / "student")
    with pytest.raises(UserError, match="only 2 different held-out texts"):
        distill.evaluate(recipe, run[1], tmp_path / "student")
    assert len(WORDS) == 13
