"""Training: what each row teaches, the order of rows, errors, and resuming with the same bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from support.corpora import list_again
from support.rows import load
from support.small import small_task, small_teacher
from support.training import FULL, resumes_everywhere, training_of
from support.unaudited import train

import distill
import synthgen
from distill import losses
from distill.data import Choice, rows, target_batch
from distill.streaming.batches import Order
from distill.targets.stored import Rows, batch_loss
from synthgen import corpus, logits
from synthgen.errors import CorpusError, GateDenied, UserError
from synthgen.lm.model import LanguageModel
from synthgen.lm.tokens import Tokens

# Both samples of a seed are greedy, so the second sample is rejected as a copy.
GREEDY = {"num_generations": 2, "max_new_tokens": 16, "shard_size": 8, "temperature": 0.0}
# Rows of more than one word fail the check `length`, so training treats these rows as degenerate.
THREE_WAYS = {"answer": False, "truncated": False, "repetition": None, "length": {"min_words": None, "max_words": 1}}


# What a row teaches


def rows_of_three_kinds(small_run, kind: str):
    """(recipe, run, the teacher's tokens, training set) with kept, rejected and degenerate rows."""
    spec = FULL if kind == "topk" else {"kind": "sampled", "draws": 9}
    recipe, run = small_run(seeds=24, generate=GREEDY, logits=spec, curate=THREE_WAYS)
    tokens = Tokens.open(recipe.teacher.model)
    return recipe, run, tokens, load(run / "curated", tokens.render, Choice(512))


def loss_of(z_NV, examples, section, meta):
    """The loss of a whole step with the logits `z_NV`."""
    return batch_loss(z_NV, None, Rows(examples, examples), section, meta)


@pytest.mark.parametrize("kind", ["topk", "sampled"])
def test_kept_rejected_and_degenerate_rows(small_run, kind):
    """Cross-entropy uses only kept rows. The divergence uses kept and rejected rows. Degenerate rows are not used."""
    recipe, run, _, data = rows_of_three_kinds(small_run, kind)
    verdicts = {}
    for part in ("data", "rejected"):
        for _, records in corpus.records(run / "curated", part, "train"):
            verdicts |= {r.id: {v["check"] for v in r.verdicts} for r in records}
    kept = {i for i, checks in verdicts.items() if not checks}
    degenerate = {i for i, checks in verdicts.items() if checks & {"length", "repetition"}}
    rejected = verdicts.keys() - kept - degenerate
    assert kept, "the test needs rows of all three kinds"
    assert rejected
    assert degenerate
    assert {e.id for e in data.examples if e.kept} == kept
    assert {e.id for e in data.examples if not e.kept} == rejected
    assert data.left_out["degenerate"] == len(degenerate)
    tokens = [len(e.completion) for e in data.examples]
    kept_N = torch.tensor([e.kept for e, n in zip(data.examples, tokens, strict=True) for _ in range(n)])
    z_NV = torch.randn(sum(tokens), 258, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def gradient(kd_weight: float, meta=data.meta) -> torch.Tensor:
        section = recipe.train.model_copy(update={"kd_weight": kd_weight})
        (found,) = torch.autograd.grad(loss_of(z_NV, data.examples, section, meta)[0], z_NV)
        return found.norm(dim=-1)

    labels = gradient(1e-12)  # cross-entropy only
    assert float(labels[~kept_N].max()) < 1e-9
    assert float(labels[kept_N].min()) > 1e-6
    assert float(gradient(1.0).min()) > 1e-7, "the divergence is over every row"
    assert float(gradient(0.9, meta=None).min()) > 1e-7, "the baseline learns every row's tokens"


def test_parts_of_the_loss_are_means_over_their_own_tokens(small_run):
    recipe, _, _, data = rows_of_three_kinds(small_run, "topk")
    tokens = [len(e.completion) for e in data.examples]
    z_NV = torch.randn(sum(tokens), 258, generator=torch.Generator().manual_seed(0))
    loss, parts = loss_of(z_NV, data.examples, recipe.train, data.meta)
    kept_N = torch.tensor([e.kept for e, n in zip(data.examples, tokens, strict=True) for _ in range(n)])
    labels = torch.tensor([t for e in data.examples for t in e.completion])
    ce = torch.nn.functional.cross_entropy(z_NV[kept_N], labels[kept_N])
    target = target_batch([e.target for e in data.examples], data.meta)
    kd = losses.divergence(z_NV, target, "forward_kl", temperature=1.0).mean()
    assert parts["cross_entropy"] == pytest.approx(float(ce), rel=1e-5)
    assert parts["distillation"] == pytest.approx(float(kd), rel=1e-5)
    assert float(loss) == pytest.approx(0.9 * float(kd) + 0.1 * float(ce), rel=1e-5)


def test_a_batch_without_kept_rows_has_no_cross_entropy(small_run):
    recipe, _, _, data = rows_of_three_kinds(small_run, "topk")
    batch = [e for e in data.examples if not e.kept][:3]
    z_NV = torch.randn(sum(len(e.completion) for e in batch), 258, requires_grad=True)
    loss, parts = loss_of(z_NV, batch, recipe.train, data.meta)
    assert parts["cross_entropy"] == 0
    assert torch.isfinite(loss)


def test_rows_longer_than_max_length_are_left_out_and_counted(small_run):
    _, run, tokens, data = rows_of_three_kinds(small_run, "topk")
    longest = max(len(e.prompt) + len(e.completion) for e in data.examples)
    shorter = load(run / "curated", tokens.render, Choice(longest - 1))
    missing = {e.id for e in data.examples} - {e.id for e in shorter.examples}
    assert shorter.left_out["too_long"] == len(missing) > 0
    with pytest.raises(CorpusError, match="no rows to train on"):
        load(run / "curated", tokens.render, Choice(3))


def test_held_out_rows_are_not_trained_on(small_run):
    _, run, _, data = rows_of_three_kinds(small_run, "topk")
    held_out = {r.id for r, _ in rows(run / "curated", "test")}
    assert held_out
    assert not held_out & {e.id for e in data.examples}


def test_batches_cover_every_row_once_an_epoch():
    for count, size in ((10, 3), (12, 4), (1, 5), (7, 7)):
        steps = -(-count // size)
        order = Order(count, size, 3)
        assert order.steps_per_epoch == steps
        epochs = [[order.rows(e * steps + s) for s in range(steps)] for e in range(3)]
        for batches in epochs:
            assert sorted(i for batch in batches for i in batch) == list(range(count))
            assert all(len(batch) == size for batch in batches[:-1])
        assert count == 1 or epochs[0] != epochs[1]
    order = Order(50, 8, 0)
    again = [order.rows(step) for step in (13, 2, 13)]
    assert again[0] == again[2] == Order(50, 8, 0).rows(13), "a function of its arguments alone"
    assert order.rows(2) != Order(50, 8, 1).rows(2)
    Order(2**32, 8, 0)
    with pytest.raises(UserError, match="4,294,967,297 rows are more than 4,294,967,296"):
        Order(2**32 + 1, 8, 0)  # the index of a row is stored in 32 bits


# Errors


def copy_of(run: Path, target: Path) -> Path:
    return Path(shutil.copytree(run, target / "run", ignore=shutil.ignore_patterns("student", "audit")))


def refused(recipe: synthgen.Recipe, run: Path, says: str, kind: type[UserError] = CorpusError, **more) -> None:
    with pytest.raises(kind, match=says) as caught:
        train(recipe, run, **more)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert not (run / "student" / "training.json").exists()


def test_logits_of_another_teacher(small_run, tmp_path):
    recipe, run = small_run(logits=FULL)
    other = small_teacher(tmp_path / "other", seed=1)
    section = recipe.teacher.model_copy(update={"model": str(other)})
    teacher = LanguageModel.open(section, lazy=True)
    refused(recipe, copy_of(run, tmp_path), "were made with revision", teacher=teacher)


def test_logits_of_another_tokenizer(small_run, tmp_path):
    recipe, run = small_run(logits=FULL)
    other = small_teacher(tmp_path / "other")
    template = other / "chat_template.jinja"
    template.write_text(template.read_text().replace("\n", " "))
    section = recipe.teacher.model_copy(update={"model": str(other)})
    teacher = LanguageModel.open(section, lazy=True)
    refused(recipe, copy_of(run, tmp_path), "were made with tokenizer", teacher=teacher)


def test_no_logits(small_run, tmp_path):
    recipe, run = small_run(logits=FULL)
    run = copy_of(run, tmp_path)
    (folder,) = (run / "generated" / "logits").iterdir()
    first = next(folder.glob("train-*.parquet"))
    first.unlink()
    refused(recipe, run, f"{first.name} is damaged")
    list_again(run / "generated")
    refused(recipe, run, "no logits for record")
    shutil.rmtree(run / "generated" / "logits")
    refused(recipe, run, "has no stored logits")


def rewrite(path: Path, change) -> None:
    table = pq.read_table(path)
    pq.write_table(change(table), path)
    list_again(path.parents[2])


@pytest.mark.parametrize("column", ["id", "align"])
def test_a_row_of_logits_beside_another_record(small_run, tmp_path, column):
    recipe, run = small_run(logits=FULL)
    run = copy_of(run, tmp_path)
    path = next((run / "generated" / "logits").rglob("train-*.parquet"))

    def turn(table):
        turned = table[column].combine_chunks().take(list(reversed(range(len(table)))))
        return table.set_column(table.column_names.index(column), table.schema.field(column), turned)

    rewrite(path, turn)
    refused(recipe, run, "does not belong to record")


def test_shards_of_different_logits(small_run, tmp_path):
    recipe, run = small_run(logits=FULL)
    run = copy_of(run, tmp_path)
    first, *_ = sorted((run / "generated" / "logits").rglob("train-*.parquet"))

    def warmer(table):
        meta = json.loads(table.schema.metadata[logits.FORMAT.encode()]) | {"logprob_step": 1.0}
        return table.replace_schema_metadata({logits.FORMAT: json.dumps(meta)})

    rewrite(first, warmer)
    with pytest.raises(CorpusError, match="differ from those of the other shards in kind, teacher or temperature"):
        train(recipe, run)


def test_an_audit_that_says_no(small_run, tmp_path):
    recipe, run = small_run(logits=FULL)
    run = copy_of(run, tmp_path)
    recipe = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"license": "CC-BY-NC-4.0"})})
    assert synthgen.audit(recipe, run).status == "DENY"
    with pytest.raises(GateDenied, match="is DENY for commercial use") as caught:
        distill.train(recipe, run)
    assert "--override-audit" in caught.value.hint
    assert not (run / "student").exists()
    forced = train(recipe, run)
    assert "training was forced with `--override-audit`" in (forced.folder / "README.md").read_text()
    assert forced.training.audit.overridden
    assert training_of(forced.folder) == forced.training


def test_an_override_without_a_denial_is_not_on_the_card(small_run, tmp_path):
    recipe, run = small_run(logits=FULL)
    run = copy_of(run, tmp_path)
    assert synthgen.audit(recipe, run).passed
    student = train(recipe, run)
    assert "forced" not in (student.folder / "README.md").read_text()
    assert not student.training.audit.overridden


def test_a_loss_that_is_not_a_number_stops_training(small_run, tmp_path):
    recipe, run = small_run(logits=FULL)
    section = recipe.train.model_copy(update={"learning_rate": 1e30})
    recipe = recipe.model_copy(update={"train": section})
    refused(recipe, copy_of(run, tmp_path), r"the loss of step \d is", kind=UserError)


# Resume


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_resume_is_exact_wherever_it_was_cut(tmp_path, dropout):
    """Every second step has a checkpoint. The training of student and baseline is cut once, at one of several steps, or
    repeatedly.
    """
    teacher = small_teacher(tmp_path / "teacher", attention_dropout=dropout)
    recipe = synthgen.load_recipe(small_task(tmp_path / "task", teacher))
    run = tmp_path / "run"
    synthgen.generate(recipe, run)
    synthgen.curate(recipe, run)
    model = LanguageModel.open(recipe.teacher)
    whole = resumes_everywhere(
        lambda folder, ui: train(recipe, run, folder, teacher=model, ui=ui),
        tmp_path / "students",
        range(1, 2 * recipe.train.max_steps) if dropout else (1, 3, 6),
        again=[3],
    )
    assert (whole / "baseline" / "model.safetensors").exists()


def test_dropout_drops(tmp_path):
    """Dropout changes the trained weights. If dropout had no effect, the test above could not show that random states
    are restored.
    """
    weights = []
    for dropout in (0.0, 0.3):
        teacher = small_teacher(tmp_path / f"teacher-{dropout}", attention_dropout=dropout)
        recipe = synthgen.load_recipe(small_task(tmp_path / f"task-{dropout}", teacher))
        run = tmp_path / f"run-{dropout}"
        synthgen.generate(recipe, run)
        synthgen.curate(recipe, run)
        weights.append(load_file(train(recipe, run).folder / "model.safetensors"))
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_finished_student_is_left_alone_and_fresh_makes_it_again(small_run, tmp_path):
    recipe, run = small_run(logits=FULL)
    trained = train(recipe, run, tmp_path / "student")
    student = trained.folder
    before = {p: p.stat().st_mtime_ns for p in student.rglob("*") if p.name != ".lock"}
    assert train(recipe, run, student) == trained
    assert {p: p.stat().st_mtime_ns for p in student.rglob("*") if p.name != ".lock"} == before
    weights = (student / "model.safetensors").read_bytes()
    train(recipe, run, student, fresh=True)
    assert (student / "model.safetensors").stat().st_mtime_ns != before[student / "model.safetensors"]
    assert (student / "model.safetensors").read_bytes() == weights


def test_the_result_says_what_was_trained(small_run, tmp_path):
    recipe, run = small_run(logits=FULL)
    student = train(recipe, run, tmp_path / "student")
    assert student.text() == str(tmp_path / "student")
    figures = json.loads(json.dumps(student.to_dict()))
    facts = json.loads((student.folder / "training.json").read_text())
    assert figures.pop("folder") == student.text()
    assert facts.keys() - figures.keys() == {"metrics", "train"}
    assert {name: facts[name] for name in figures} == figures


def test_tokens_alone_are_those_of_kept_rows(small_run):
    """A student that learns no distributions learns nothing from rejected rows."""
    _, run, tokens, data = rows_of_three_kinds(small_run, "topk")
    alone = load(run / "curated", tokens.render, Choice(512, labels_alone=True))
    assert {e.id for e in alone.examples} == {e.id for e in data.examples if e.kept} != {e.id for e in data.examples}
    assert all(e.target is None for e in alone.examples)
