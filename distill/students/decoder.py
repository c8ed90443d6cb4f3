"""Decoders: causal language models trained on stored distributions, beside their baseline on the same batches."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from distill.data import TrainingSet, batch_rows, load
from distill.loop import Checkpoints, Metrics, Objective, accelerator_of, fit
from distill.students.build import Student, describe, student_of
from distill.targets import across as align
from distill.targets.ensemble import described, sources
from distill.targets.hidden import Inside
from distill.targets.hidden_states import States, store
from distill.targets.rationale import StepByStep, expand, shape
from distill.targets.stored import FromShards
from synthgen import durable
from synthgen.errors import CorpusError, UserError
from synthgen.lm.load import checkpoint_activations
from synthgen.recipe import Recipe, TrainSection, local_teacher
from synthgen.tables.divergences import refusal
from synthgen.tables.students import DecoderStudent, Seq2SeqStudent
from synthgen.teachers.transformers import LocalModel
from synthgen.ui import UI


def train_decoder(
    recipe: Recipe,
    student: DecoderStudent | Seq2SeqStudent,
    source: Path,
    folder: Path,
    teacher: LocalModel | None,
    ui: UI,
) -> dict[str, Any]:
    """Both arms on the same batches; returns what training.json says."""
    section = recipe.train
    assert section is not None
    teacher = teacher or LocalModel.open(local_teacher(recipe), lazy=True)
    alone = section.kd_weight == 0 or (section.rationale is not None and section.rationale.mode == "dropped")
    names, merge = ((), None) if alone else sources(recipe, source, teacher.render)
    more: dict[str, Any] = {"teachers": names, "merge": merge, "labels_alone": alone, "share": section.share}
    more["shape"] = shape(section, teacher, recipe.generate.answer_marker)
    data = _load(source, teacher, section, "train", more)
    learned_from: dict[str, Any] = {}
    if not alone:
        itself = not section.across and (not names or next(iter(recipe.teachers)) in names)
        check_made_by(source, data.meta, teacher, itself)
        learned_from = {"ensemble": merge.facts()} if merge else {"teacher": section.teacher} if section.teacher else {}
        if section.across:
            learned_from["across"] = align.facts(data, section.across)
        reason = refusal(section.loss, data.meta["kind"])
        if reason:  # the recipe's own logits section may say otherwise than the corpus
            raise CorpusError(f"{source}: {reason}", "change train.loss, or generate with another logits.kind")
    validation = validation_rows(source, teacher, section, more)
    steps = steps_of(len(data.examples), section)
    tokens = sum(
        len(e.completion) for s in range(steps) for e in expand([data.examples[i] for i in _rows(data, section, s)])
    )

    stored = States(source.parent / "hidden", teacher) if section.hidden and section.hidden.stored else None

    def inside(model: Any) -> Inside | None:
        if not (section.hidden or section.relations):
            return None
        return Inside(model, None if stored else teacher.model, section, stored)

    def begin() -> Student:
        made = student_of(student, teacher, section.seed, data.examples)
        if stored or not (section.hidden or section.relations):
            teacher.unload()  # it has told all that it is asked
        return made

    if section.hidden or section.relations:  # refused before anything is trained
        first = inside(student_of(student, teacher, section.seed, data.examples).model)
        assert first is not None
        learned_from["inside"] = first.describe()
        if stored:
            store(stored, teacher, [t for _, t in first.pairs], [*data.examples, *validation], ui)
    arms: dict[str, Callable[[Any], Objective]]
    if section.rationale and section.rationale.mode == "step_by_step":
        arms = {"distilled": lambda m: StepByStep(m, data.meta, section, alone)}
        arms["cross-entropy"] = lambda m: StepByStep(m, data.meta, section, labels_alone=True)
    else:
        arms = {"distilled": lambda m: FromShards(m, data.meta, section, alone, inside=inside(m))}
        arms["cross-entropy"] = lambda m: FromShards(m, data.meta, section, labels_alone=True)
    if alone or not section.baseline:  # it would be the same student
        del arms["cross-entropy"]
    curves = train_arms(
        arms,
        begin,
        lambda step: [data.examples[i] for i in _rows(data, section, step)],
        section,
        steps,
        folder,
        teacher.device,
        teacher.tokenizer,
        ui,
        validation,
    )
    facts = {
        "kind": student.kind,
        "student": describe(student, teacher.config.num_hidden_layers),
        "steps": steps,
        "rows": len(data.examples),
        "rows kept by curation": sum(e.kept for e in data.examples),
        "rows left out": data.left_out,
        "completion tokens trained on": tokens,
        "learns by": learns_by(section, data.meta),
        "targets": data.meta,
        **learned_from,
        "metrics": curves,
    }
    return {**facts, "learned from": described(facts) if data.meta else "the completions' tokens alone"}


def train_arms(
    arms: dict[str, Callable[[Any], Objective]],
    begin: Callable[[], Student],
    batch_of: Callable[[int], list[Any]],
    section: TrainSection,
    steps: int,
    folder: Path,
    device: torch.device,
    tokenizer: Any,
    ui: UI,
    validation: Sequence[Any] = (),
) -> dict[str, Metrics]:
    """Train the same student, which `begin` makes, by each arm's objective; the first is `folder`, the second
    `folder`/baseline, on `device` and saved with `tokenizer`. Arms that are finished are left alone.
    Returns each arm's metrics."""
    accelerator = accelerator_of(section, device, folder)
    if accelerator.num_processes > 1 and accelerator.is_main_process:
        ui.note(f"train: {accelerator.num_processes} processes share every batch")
    curves: dict[str, Metrics] = {}
    with ui.progress("train", steps * len(arms), "steps") as bar:
        for number, (arm, objective_of) in enumerate(arms.items()):
            target = folder if number == 0 else folder / "baseline"
            if (target / "metrics.jsonl").exists():
                bar.advance(steps, resumed=True)
            else:
                if section.report_to:
                    accelerator.init_trackers(arm)
                student = begin()
                student.model.to(accelerator.device)  # before the objective takes the output layer's tensors
                if section.gradient_checkpointing:
                    checkpoint_activations(student.model)
                objective = objective_of(student.model)
                checkpoints = Checkpoints(folder / "checkpoints", arm, section.save_total_limit)
                metrics = fit(
                    objective,
                    batch_of,
                    section,
                    steps,
                    checkpoints,
                    bar,
                    accelerator=accelerator,
                    validation=validation,
                )
                if accelerator.is_main_process:
                    for name, model in objective.beside().items():
                        save(Student(model), tokenizer, target / name)
                    save(student, tokenizer, target, metrics)
                accelerator.wait_for_everyone()
                accelerator.free_memory()
            curves[arm] = read_metrics(target)
    if section.report_to:
        accelerator.end_training()
    if accelerator.is_main_process:
        durable.remove(folder / "checkpoints")
    return curves


def steps_of(rows: int, section: TrainSection) -> int:
    """Optimizer steps of a training set of so many rows."""
    steps = section.num_train_epochs * -(-rows // section.batch_size)
    return min(steps, section.max_steps or steps)


def check_made_by(source: Path, meta: dict[str, Any], teacher: LocalModel, itself: bool = True) -> None:
    """Raises CorpusError when the logits are of another tokenizer or, if by the teacher `itself`, another revision."""
    made_by = {"tokenizer": [meta["tokenizer"]]}
    if itself:
        made_by["revision"] = [by.rpartition("@")[2] for by in meta.get("teachers", [meta["teacher"]])]
    identity: Mapping[str, object] = teacher.identity
    for what, values in made_by.items():
        if identity[what] not in values:
            raise CorpusError(
                f"{source}: its logits were made with {what} {' and '.join(values)}; the teacher's is "
                f"{identity[what]}",
                "name the teacher that made them in the recipe, or generate again",
            )


def learns_by(section: TrainSection, meta: dict[str, Any]) -> str:
    """One line on the objective, for cards."""
    if meta:
        size = f"{meta['draws']} draws" if meta["kind"] == "sampled" else f"the likeliest {meta['k']}"
        what = f"{section.kd_weight:g} · {section.loss} from {size} a token (temperature {meta['temperature']:g})"
        what += f" + {1 - section.kd_weight:g} · cross-entropy" if section.kd_weight < 1 else ""
    else:
        what = "cross-entropy on the completions' tokens"
    if section.rationale:
        what += {
            "then_answer": "; rationale, then answer",
            "step_by_step": f"; step by step: answers {section.rationale.weight:g}, rationales "
            f"{1 - section.rationale.weight:g}, asked for by '{section.rationale.explain.strip()}'",
            "dropped": "; answers alone, rationales dropped",
        }[section.rationale.mode]
    return what


def validation_rows(source: Path, teacher: LocalModel, section: TrainSection, more: dict[str, Any]) -> list[Any]:
    """Rows of the validation split, where training measures on them."""
    if not section.eval_steps:
        return []
    try:
        return _load(source, teacher, section, "validation", more).examples
    except CorpusError as error:
        if "no rows to train on" not in str(error):
            raise
        raise UserError(
            f"train.eval_steps is set, and {source} has no validation rows", "set split.validation in the recipe"
        ) from None


def _load(source: Path, teacher: LocalModel, section: TrainSection, split: str, more: dict[str, Any]) -> TrainingSet:
    if section.across:
        return align.load_across(source, teacher.render, section.max_length, section.across, teacher.tokenizer, split)
    return load(source, teacher.render, section.max_length, split, **more)


def _rows(data: TrainingSet, section: TrainSection, step: int) -> list[int]:
    return batch_rows(step, len(data.examples), section.batch_size, section.seed)


def read_metrics(folder: Path) -> Metrics:
    """The metrics of a finished student, a row a step."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def save(student: Student, tokenizer: Any, folder: Path, metrics: Metrics | None = None) -> None:
    """Weights, config and tokenizer under their usual names; metrics.jsonl last, as the sign that all are there.

    An adapter is saved as it is, in `folder`/adapter, and merged into the weights."""
    temporary = folder / f"{durable.TEMPORARY}model-{os.getpid()}"
    durable.make_folder(temporary)
    model = student.model.eval().float()
    if student.adapter is not None:
        student.adapter.save_pretrained(temporary / "adapter")
        model = student.adapter.merge_and_unload()
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    for path in sorted(temporary.iterdir()):
        durable.publish(path, folder / path.name)
    shutil.rmtree(temporary)
    if metrics is not None:
        durable.write_text(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in metrics))
