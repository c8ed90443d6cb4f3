"""Tokens at which two teachers disagree add nothing to the loss, and their number is reported."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from support.launching import launch
from support.rows import load
from support.small import small_task, small_teacher
from support.training import curve_of
from support.unaudited import train
from transformers import AutoModelForCausalLM

import synthgen
from distill.data import Choice, Example
from distill.streaming.conversations import reader_of
from distill.streaming.mapped import Completions
from distill.streaming.stream import Stream, cache_folder, open_stream
from distill.targets.masking import Masking, differ, first
from distill.targets.stored import Rows, batch_loss
from synthgen import logits
from synthgen.errors import CorpusError, RecipeError
from synthgen.lm.sampling import top_k
from synthgen.recipe import TrainSection, dump_recipe
from synthgen.teachers.transformers import LocalModel

V, T = 11, 6
META: logits.LogitsMeta = {
    "kind": "topk",
    "k": 4,
    "temperature": 1.0,
    "vocab_size": V,
    "tokenizer": "t",
    "teacher": "a@1",
}


def stored(logp_TV: torch.Tensor, k: int = 4) -> logits.TopK:
    return logits.TopK(*(part.numpy() for part in top_k(logp_TV, k, 1.0)))


def distribution(seed: int) -> torch.Tensor:
    return torch.randn(T, V, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)


def test_teachers_differ_where_their_most_likely_tokens_differ():
    own, other = distribution(0), distribution(1)
    wanted = own.argmax(-1) != other.argmax(-1)
    assert 0 < int(wanted.sum()) < T, "the test needs both cases"
    assert differ(stored(own), stored(other)).tolist() == wanted.tolist()
    assert differ(stored(own, 1), stored(other, 1)).tolist() == wanted.tolist()
    assert not differ(stored(own), stored(own)).any()


def test_a_tie_with_the_most_likely_token_is_no_difference():
    own, other = torch.full((1, V), -9.0), torch.full((1, V), -9.0)
    own[0, 3], other[0, 3], other[0, 5] = 2.0, 1.0, 1.0
    assert not differ(stored(own.log_softmax(-1)), stored(other.log_softmax(-1))).any()
    other[0, 5] = 1.5
    assert differ(stored(own.log_softmax(-1)), stored(other.log_softmax(-1))).all()


def examples(mask: np.ndarray | None) -> list[Example]:
    rows = [Example("a", [1], list(range(T)), stored(distribution(0)), True, masked=mask)]
    return [*rows, Example("b", [1], [7, 8], stored(distribution(2)[:2]), False)]


@pytest.mark.parametrize("weight", [0.0, 0.7, 1.0])
def test_masked_tokens_have_no_gradient_and_do_not_count_in_the_mean(weight):
    mask = np.array([False, True, True, False, False, True])
    section = TrainSection.model_validate({"kd_weight": weight, "loss": "reverse_kl"})
    logits_NV = torch.randn(T + 2, V, generator=torch.Generator().manual_seed(5), requires_grad=True)
    rows = examples(mask)
    loss, parts = batch_loss(logits_NV, None, Rows(rows, rows), section, META)
    loss.backward()
    assert logits_NV.grad is not None
    size = logits_NV.grad.abs().sum(-1)
    assert size[:T][mask].tolist() == [0, 0, 0]
    assert bool((size[:T][~mask] > 0).all())
    # the loss equals that of a row that has only the other tokens
    kept = np.flatnonzero(~mask)
    short = replace(rows[0], completion=[rows[0].completion[n] for n in kept], masked=None)
    short = replace(short, target=stored(distribution(0)[kept]))
    part = torch.cat([logits_NV[kept], logits_NV[T:]]).detach()
    alone, alone_parts = batch_loss(part, None, Rows([short, rows[1]], [short, rows[1]]), section, META)
    assert float(loss.detach()) == pytest.approx(float(alone), rel=1e-5)
    assert parts == pytest.approx(alone_parts, rel=1e-5)


def test_a_step_of_masked_tokens_alone_has_the_loss_zero():
    logits_NV = torch.randn(T, V, requires_grad=True)
    rows = examples(np.ones(T, bool))[:1]
    for weight in (0.0, 0.7):
        section = TrainSection.model_validate({"kd_weight": weight, "loss": "reverse_kl"})
        loss, _ = batch_loss(logits_NV, None, Rows(rows, rows), section, META)
        assert float(loss.detach()) == 0


def test_distributions_that_cannot_be_compared_are_refused():
    masking, target = Masking(("a", "b")), stored(distribution(0))
    with pytest.raises(CorpusError, match="different tokenizers"):
        masking((target, target), (META, {**META, "tokenizer": "u"}))
    draws = logits.Sampled(np.zeros(T, np.int32), np.ones(T, np.uint16), np.ones(T, np.uint32))
    with pytest.raises(CorpusError, match="draws do not show them"):
        masking((target, draws), (META, META))
    far = torch.zeros(T, V)
    far[torch.arange(T), (distribution(0).argmax(-1) + 1) % V] = 5
    with pytest.raises(CorpusError, match="differ at all 6 tokens"):
        masking.facts([((target, stored(far.log_softmax(-1))), (META, META))])


TOPK = {"kind": "topk", "k": 6, "score_by": ["b"]}


def nudge(folder: Path) -> None:
    """Change the weights of a model a little, as fine-tuning does."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in model.parameters():
            weights += 0.1 * weights.std() * torch.randn(weights.shape, generator=draw) if weights.numel() > 1 else 0
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """`run(logits, **train)` returns the recipe of two small teachers and the folder of its curated run."""
    folder = tmp_path_factory.mktemp("masking")
    names = {n: str(small_teacher(folder / f"teacher-{n}")) for n in "ab"}
    nudge(folder / "teacher-b")
    both = {n: {"model": model, "license": "Apache-2.0", "device": "cpu"} for n, model in names.items()}

    def make(kept: dict, **section):
        student = {"student": {"kind": "decoder", "layers": 1}, "batch_size": 4, "max_steps": 1, "baseline": False}
        path = small_task(
            folder / "task",
            folder / "teacher-a",
            seeds=12,
            teachers=both,
            split={"test": 0.25},
            logits=kept,
            train={**student, **section},
        )
        values = yaml.safe_load(path.read_text())
        del values["teacher"]
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        recipe = synthgen.load_recipe(path)
        if not (folder / "run").exists():
            synthgen.generate(recipe, folder / "run")
            synthgen.curate(recipe, folder / "run")
        return recipe, folder / "run"

    return make


def test_a_student_learns_without_the_masked_tokens_and_says_so(run, tmp_path):
    recipe, folder = run(TOPK, teacher="a", mask_divergence="b")
    student = train(recipe, folder, tmp_path / "masked")
    teacher = LocalModel.open(recipe.teacher)
    names = ("a", "b")
    own, other = (load(folder / "curated", teacher.render, Choice(512, teachers=(n,))).examples for n in names)
    masks = [differ(a.target, b.target) for a, b in zip(own, other, strict=True)]
    found = json.loads((student.folder / "training.json").read_text())["masked"]
    assert found == {
        "against": "b",
        "masked": sum(int(m.sum()) for m in masks),
        "tokens": sum(len(e.completion) for e in own),
    }
    assert 0 < found["masked"] < found["tokens"]
    share = f"{found['masked'] / found['tokens']:.1%}"
    assert student.training.learned_from == (
        f"the stored distributions of a without the {share} of the tokens at which b differs"
    )
    assert share in (student.folder / "README.md").read_text()
    choice = Choice(512, teachers=names, merge=first, mask=Masking(names))
    masked = load(folder / "curated", teacher.render, choice).examples
    assert [e.masked.tolist() for e in masked] == [m.tolist() for m in masks]
    plain, again = run(TOPK, teacher="a")
    unmasked = train(plain, again, tmp_path / "plain")
    assert curve_of(student.folder, "loss") != curve_of(unmasked.folder, "loss")
    assert unmasked.training.masked is None


@pytest.mark.parametrize(
    ("kept", "section", "says"),
    [
        (TOPK, {"teacher": "a", "mask_divergence": "x"}, "the logits of 'x' are not stored"),
        (TOPK, {"mask_divergence": "b"}, "name one teacher in train.teacher"),
        (TOPK, {"teacher": "a", "mask_divergence": "a"}, "compared with itself"),
        (TOPK, {"teacher": "a", "mask_divergence": "b", "kd_weight": 0}, "with kd_weight 0 none are read"),
        (TOPK, {"mask_divergence": "b", "ensemble": {}}, "leave out 'ensemble'"),
        ({**TOPK, "kind": "sampled"}, {"teacher": "a", "mask_divergence": "b"}, "draws do not show them"),
    ],
)
def test_what_cannot_be_masked_is_refused(run, kept, section, says):
    with pytest.raises(RecipeError) as caught:
        run(kept, **section)
    assert says in str(caught.value)


def rows_of(run, split: str = "train") -> Stream:
    """The masked rows of teacher a, as a training reads them."""
    recipe, folder = run(TOPK, teacher="a", mask_divergence="b")
    reader = reader_of(LocalModel.open(recipe.teacher).tokens, ("a", "b"))
    choice = Choice(512, split, teachers=("a", "b"), merge=first, mask=Masking(("a", "b")))
    return open_stream(folder / "curated", reader, cache_folder(folder / "curated", folder / "rows"), choice)


def test_rows_of_other_processes_are_masked_too(run):
    """The loss of every process is divided by the tokens of the whole step, so each must know all masks."""
    stream = rows_of(run)
    numbers = range(4)
    alone = [e.learned for e in stream.batch(numbers)]
    assert sum(alone) < sum(len(e.completion) for e in stream.batch(numbers)), "the test needs masked tokens"
    for rank in range(2):
        batch = stream.batch(numbers, rank, 2)
        assert [e.learned for e in batch] == alone
        assert [e.target is None for e in batch] == [n % 2 != rank for n in numbers]


def test_the_validation_loss_counts_no_masked_tokens(run):
    """The loop normalizes the loss by the outlines of all validation rows."""
    rows = Completions(rows_of(run))
    assert [e.learned for e in rows.outline] == [e.learned for e in rows[:]]
    assert all(e.target is None for e in rows.outline)


@pytest.mark.slow
def test_portions_processes_and_resumed_trainings_have_the_same_losses(run, tmp_path):
    """In one process, in portions of one row, and begun by two processes and ended by one after a kill."""

    short = {"teacher": "a", "mask_divergence": "b", "max_steps": 4, "save_steps": 1}
    recipe, folder = run(TOPK, **short)
    whole = train(recipe, folder, tmp_path / "whole").folder
    portions, _ = run(TOPK, **short, micro_batch_size=1)
    parts = train(portions, folder, tmp_path / "parts").folder
    task = tmp_path / "recipe.yaml"
    task.write_text(dump_recipe(recipe))
    training = {"recipe": task, "run": folder, "out": tmp_path / "two"}
    done = launch(2, [{**training, "end": {"by": "kill", "rank": 0, "steps": 2}}])
    assert done.returncode != 0
    done = launch(1, [training])
    assert done.returncode == 0, done.stderr[-3000:]
    for other in (parts, tmp_path / "two"):
        assert curve_of(other, "loss") == pytest.approx(curve_of(whole, "loss"), rel=1e-4)
