"""Training data as a stream gives the same rows and batches as a corpus in memory."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
import torch
from support.small import CLASSES, small_encoder, sorting_task
from support.streams import (
    LOGITS,
    MARKER,
    OWN,
    SECTIONS,
    check_same,
    ensemble_run,
    made,
    opened,
    rationale_run,
    reader,
    reference,
    reference_batch,
    reference_rows,
    run,
    same,
    teacher,
)
from transformers import LlamaForCausalLM

import synthgen
from distill.data import Choice, Example
from distill.loop import Checkpoints, accelerator_of, fit
from distill.streaming import columns
from distill.streaming.batches import Ahead, Joined, Order
from distill.streaming.conversations import reader_of
from distill.streaming.mapped import Completions
from distill.streaming.stream import cache_folder, open_stream
from distill.streaming.tokencache import Reader
from distill.targets.ensemble import Merge
from distill.targets.rationale import shape
from distill.targets.stored import FromStored
from synthgen.errors import CorpusError
from synthgen.recipe import RationaleSection, TrainSection
from synthgen.teachers.transformers import LocalModel
from synthgen.ui import Progress

__all__ = ["ensemble_run", "made", "rationale_run", "reader", "run", "teacher"]  # fixtures


# The same rows


CHOICES = {
    "all": {},
    "share": {"share": 0.5},
    "shorter": {"max_length": -1},  # this limit leaves out only the longest rows
    "labels alone": {"labels_alone": True},
    "held out": {"split": "test", "share": 0.3},  # the share applies to training seeds only
}


@pytest.mark.parametrize("kind", list(LOGITS))
@pytest.mark.parametrize("name", list(CHOICES))
def test_the_rows_are_those_of_the_corpus_in_memory(made, teacher, reader, kind, name):
    _, run = made(kind, logits=LOGITS[kind], **SECTIONS)
    choice = Choice(**{"max_length": 512, **CHOICES[name]})
    whole = reference(run, teacher.render, Choice(512, split=choice.split))[0]
    if name == "shorter":
        lengths = sorted({len(e.prompt) + len(e.completion) for e in whole})
        choice = dataclasses.replace(choice, max_length=lengths[-2])
    wanted = reference(run, teacher.render, choice)
    check_same(open_stream(run / "curated", reader, run / "cache", choice), wanted)
    assert len(columns.shards(run / "curated", choice.split)) > 1
    assert any(not e.kept for e in whole), "the test needs rejected rows"
    assert wanted[2]["degenerate"] > 0, "and degenerate ones"
    assert (len(wanted[0]) < len(whole)) == (name in ("share", "shorter", "labels alone"))


@pytest.mark.parametrize("kind", list(LOGITS))
def test_several_teachers(ensemble_run, kind):
    recipe, run = ensemble_run(LOGITS[kind])
    teacher = LocalModel.open(recipe.teachers["a"])
    reader = reader_of(teacher.tokens, OWN)
    merges = [Merge(("a", "c"), "mean", "test", (0.7, 0.3)), Merge(("c", "b", "a"), "mean", "test", (0.2, 0.3, 0.5))]
    merges += [Merge(("a", "b", "c"), "pool", "agreement")] if kind == "topk" else []
    for choice in [Choice(512, teachers=m.names, merge=m) for m in merges] + [Choice(512, teachers=("b",))]:
        stream = open_stream(run / "curated", reader, run / "cache", choice)
        check_same(stream, reference(run, teacher.render, choice))
    with pytest.raises(CorpusError, match="logits of 3 teachers"):
        opened(run, reader)
    with pytest.raises(CorpusError, match="no logits of a teacher 'x'"):
        opened(run, reader, teachers=("x",))


@pytest.mark.parametrize("mode", ["step_by_step", "dropped"])
def test_rationales(rationale_run, mode):
    recipe, run, teacher = rationale_run
    section = recipe.train.model_copy(update={"rationale": RationaleSection(mode=mode, explain="Why: ")})
    shape_of = shape(section, teacher.tokens, MARKER)

    def shaped(row, example: Example) -> Example | None:
        return None if row.id < "3" else shape_of(row, example)

    reader = reader_of(teacher.tokens, OWN, shaped, mode)
    choice = Choice(256, labels_alone=mode == "dropped")
    wanted = reference(run, teacher.render, choice, shaped)
    check_same(open_stream(run / "curated", reader, run / "cache", choice), wanted)
    assert wanted[2]["nothing_to_learn"] > 0
    assert any(e.also for e in wanted[0]) == (mode == "step_by_step")


def test_numbers_beside_the_tokens(tmp_path):
    task = sorting_task(tmp_path / "task", small_encoder(tmp_path / "teacher"), 60)
    run = tmp_path / "run"
    synthgen.generate(synthgen.load_recipe(task), run)
    synthgen.curate(synthgen.load_recipe(task), run)
    texts = {r.id: r.prompt[-1]["content"] for r, _ in reference_rows(run / "curated", "train")}
    reader = Reader(
        "words",
        (columns.PROMPT, columns.LABEL_PROBS),
        prompts=lambda rows: [[len(word) for word in row.prompt[-1]["content"].split()] for row in rows],
        values=lambda rows: [np.array(row.label_probs, np.float32) for row in rows],
    )
    stream = open_stream(run / "curated", reader, run / "cache", Choice(5, targets=False))
    wanted = [(r, kept) for r, kept in reference_rows(run / "curated", "train") if len(texts[r.id].split()) <= 5]
    assert stream.left_out["too_long"] > 0
    assert len(stream) == len(wanted) > 9
    for stored, (record, kept) in zip(stream.stored(range(len(stream))), wanted, strict=True):
        assert (stored.example.id, stored.example.kept) == (record.id, kept)
        assert stored.example.prompt == [len(word) for word in texts[record.id].split()]
        assert stored.values.tolist() == list(record.label_probs)
        assert len(stored.values) == len(CLASSES)


def test_rows_whose_prompts_leave_no_room(made, teacher, reader):
    """For students that write text, `max_prompt` limits both the student's and the teacher's prompt."""
    _, run = made("sampled", logits=LOGITS["sampled"], **SECTIONS)
    examples = reference(run, teacher.render, Choice(512))[0]
    asked = dataclasses.replace(
        reader, identity="asked", asked=lambda rows: [[7] * (50 + int(row.id[0], 16)) for row in rows]
    )
    for reads in (reader, asked):
        lengths = [max(len(e.prompt), 50 + int(e.id[0], 16) if reads is asked else 0) for e in examples]
        room = sorted(set(lengths))[-2]
        stream = opened(run, reads, max_prompt=room, targets=False)
        assert [e.id for e in stream] == [e.id for e, n in zip(examples, lengths, strict=True) if n <= room]
        assert stream.left_out["no_room_to_write"] == sum(n > room for n in lengths) > 0
        assert all(e.target is None for e in stream)
        assert any(not e.kept for e in stream)
    assert stream[0].teacher_prompt == (7,) * (50 + int(stream[0].id[0], 16))


def test_several_teachers_of_one_row(ensemble_run):
    recipe, run = ensemble_run(LOGITS["topk"])
    teacher = LocalModel.open(recipe.teachers["a"])
    reads = reader_of(teacher.tokens, OWN)
    stream = opened(run, reads, teachers=("c", "a"), merge=lambda targets, metas: (targets[0], metas[0]))
    targets, metas = stream.unmerged(2)
    for name, target, meta in zip("ca", targets, metas, strict=True):
        alone = opened(run, reads, teachers=(name,))
        assert meta == alone.meta
        assert np.array_equal(target.logprobs, alone[2].target.logprobs)


# The same batches


def test_a_batch_is_a_function_of_the_step():
    for count, size, seed in ((50, 8, 0), (7, 16, 3), (33, 4, 1)):
        order = Order(count, size, seed)
        for step in (*range(20), 500, 3):
            assert order.rows(step) == reference_batch(step, count, size, seed)
    assert order.permutation(4) is order.permutation(4)


def test_tokens_of_some_steps(made, reader):
    stream = opened(made("sampled", logits=LOGITS["sampled"], **SECTIONS)[1], reader)
    order = Order(len(stream), 5, 2)
    for steps in (0, 1, 3, order.steps_per_epoch, order.steps_per_epoch + 2, 3 * order.steps_per_epoch):
        wanted = sum(len(e.completion) for step in range(steps) for e in stream.rows(order.rows(step)))
        assert stream.completion_tokens(order, steps) == wanted


def test_a_process_reads_the_distributions_of_its_own_rows(made, reader):
    stream = opened(made("sampled", logits=LOGITS["sampled"], **SECTIONS)[1], reader)
    numbers = Order(len(stream), 7, 0).rows(1)
    whole = stream.rows(numbers)
    for rank in range(3):
        batch = stream.batch(numbers, rank, 3)
        for place, (ours, theirs) in enumerate(zip(batch, whole, strict=True)):
            has = place % 3 == rank
            same(ours, theirs if has else dataclasses.replace(theirs, target=None))
    for ours, theirs in zip(stream.batch(numbers), whole, strict=True):
        same(ours, theirs)


def test_a_stream_is_a_sequence(made, reader):
    stream = opened(made("sampled", logits=LOGITS["sampled"], **SECTIONS)[1], reader)
    assert [e.id for e in stream] == [e.id for e in stream[:]]
    assert [e.id for e in stream[3:6]] == [stream[n].id for n in (3, 4, 5)]
    assert stream[-1].id == stream[len(stream) - 1].id
    assert all(e.target is None for e in stream.rows([0, 1], targets=False))
    with pytest.raises(IndexError):
        stream[len(stream)]


# Reading ahead


def test_the_next_step_is_read_while_this_one_is_worked_on():
    seen = []

    def read(step: int) -> int:
        seen.append((step, threading.current_thread() is threading.main_thread()))
        return step * step

    with Ahead(read, 5) as batch_of:
        assert [batch_of(step) for step in (0, 1, 2, 4, 5, 3)] == [0, 1, 4, 16, 25, 9]
    assert (0, True) in seen
    assert (1, False) in seen
    assert [place for place in seen if place[0] == 5] == [(5, True)], "nothing is read ahead from the last step on"
    assert not any(thread.name.startswith("read-ahead") for thread in threading.enumerate())


def test_an_error_is_raised_where_its_step_is_asked_for():
    def read(step: int) -> int:
        if step == 2:
            raise CorpusError("step 2 is damaged")
        return step

    with Ahead(read, 9) as batch_of:
        assert [batch_of(0), batch_of(1)] == [0, 1]
        with pytest.raises(CorpusError, match="step 2"):
            batch_of(2)
        assert batch_of(3) == 3
    assert not any(thread.name.startswith("read-ahead") for thread in threading.enumerate())


def test_sequences_one_after_the_other():
    joined = Joined([1, 2], [], (3,), range(4, 7))
    assert list(joined) == [1, 2, 3, 4, 5, 6]
    assert joined[1:5] == [2, 3, 4, 5]
    assert (joined[-1], joined[2], len(joined)) == (6, 3, 6)
    with pytest.raises(IndexError):
        joined[6]


def test_the_rows_without_their_distributions(made, reader):
    stream = opened(made("sampled", logits=LOGITS["sampled"], **SECTIONS)[1], reader)
    for ours, theirs in zip(stream.without_targets(), stream, strict=True):
        same(ours, dataclasses.replace(theirs, target=None))
    assert stream[0].target is not None


@pytest.mark.parametrize("name", ["curated", "corpus", "mine"])
def test_the_cache_lies_where_nobody_elses_files_are(tmp_path, name):
    """For a corpus in a run, the cache is beside the corpus. For a corpus in another place, the cache is beside the
    student.
    """
    around = tmp_path / "run" if name != "mine" else tmp_path / "student"
    (tmp_path / "run").mkdir()
    assert cache_folder(tmp_path / "run" / name, tmp_path / "student") == around / "cache"


# Rows that are read when a measurement asks for them


def test_an_outline_gives_the_same_loss_as_the_rows(made, teacher, reader):
    """During validation, memory holds the distributions of only a few rows, and only the lengths of all other rows."""
    kind = "topk"
    _, run = made(kind, logits=LOGITS[kind], **SECTIONS)
    stream = open_stream(run / "curated", reader, run / "cache", Choice(512))
    rows = Completions(stream)
    for mine, other in zip(rows[1:4], stream[1:4], strict=True):
        same(mine, other)
    assert all(e.target is None and not any(e.completion) for e in rows.outline)
    model = LlamaForCausalLM.from_pretrained(teacher.weights.name).eval()
    objective = FromStored(model, TrainSection(kd_weight=0.7), stream.meta)
    losses = []
    with torch.no_grad():
        for whole in (list(stream), rows.outline):
            losses.append([objective(rows[n : n + 3], whole)[1] for n in range(0, len(rows), 3)])
    assert losses[0] == losses[1]


def test_an_outline_keeps_every_piece_of_a_row(rationale_run):
    recipe, run, teacher = rationale_run
    section = recipe.train.model_copy(update={"rationale": RationaleSection(mode="step_by_step")})
    how = shape(section, teacher.tokens, MARKER)
    stream = open_stream(run / "curated", reader_of(teacher.tokens, OWN, how, "outline"), run / "cache", Choice(256))
    rows = Completions(stream)

    def lengths(examples):
        return [[(e.task, e.kept, len(e.completion)) for e in (row, *row.also)] for row in examples]

    assert lengths(rows.outline) == lengths(list(stream))


def test_validation_reads_only_the_rows_that_it_computes(made, teacher, reader, tmp_path):
    """Only the rows whose loss is computed are read with distributions, so the distributions of all validation rows are
    never in memory together.
    """
    _, run = made("topk", logits=LOGITS["topk"], **SECTIONS)
    rows = Completions(open_stream(run / "curated", reader, run / "cache", Choice(512)))
    seen: list[bool] = []

    class Watching(FromStored):
        def forward(self, rows, step):
            if not self.training:
                seen.extend(e.target is None for e in step)
            return super().forward(rows, step)

    section = TrainSection(eval_steps=1, micro_batch_size=4)
    objective = Watching(LlamaForCausalLM.from_pretrained(teacher.weights.name), section, rows.stream.meta)
    accelerator = accelerator_of(section, torch.device("cpu"), tmp_path)
    checkpoints = Checkpoints(tmp_path, "arm")
    metrics = fit(
        objective,
        lambda step: rows[:4],
        section,
        1,
        checkpoints,
        Progress("train", 1, "steps"),
        accelerator=accelerator,
        validation=rows,
    )
    assert metrics[0]["validation"] > 0
    assert len(seen) >= len(rows)
    assert all(seen)
