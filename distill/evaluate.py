"""How near is the student to its teacher, on seeds that neither training nor tuning saw?

    evaluate(recipe, "runs/demo")         # → runs/demo/student/evaluation.json

Decoders: KL(teacher ‖ model) over the full vocabulary against the live teacher, on the teacher's own held-out
completions; agreement of the likeliest token; accuracy of greedy answers; parameters, peak memory, speed.
Intervals are paired bootstraps over held-out seeds: completions of one seed are not independent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill import losses
from distill.data import rows
from distill.measure import measure
from distill.students import from_layers
from synthgen import corpus, durable
from synthgen.errors import CorpusError, UserError
from synthgen.recipe import EvaluateSection, Recipe, TeacherSection, local_teacher
from synthgen.records import Record, Request
from synthgen.teachers.forward import completion_logits
from synthgen.teachers.transformers import LocalModel
from synthgen.ui import UI
from synthgen.verify import matches

_CHUNK = 8  # rows whose full distributions are in memory at once
_RESAMPLES = 2000

Array = np.ndarray[Any, np.dtype[Any]]


def evaluate(
    recipe: Recipe,
    run: str | Path,
    student: str | Path | None = None,
    *,
    fresh: bool = False,
    teacher: LocalModel | None = None,
    ui: UI | None = None,
) -> dict[str, Any]:
    """Measure `run`/student (or `student`) on the held-out split; returns and writes evaluation.json."""
    ui = ui or UI(quiet=True)
    source = corpus.resolve(Path(run), prefer=("curated",))
    folder = Path(student) if student else source.parent / "student"
    if not (folder / "training.json").exists():
        raise CorpusError(f"there is no trained student at {folder}", f"train one: `distill train {run}`")
    training = (folder / "training.json").read_bytes()
    made = corpus.verify(source)
    inputs = {
        "training_sha256": durable.digest(training.decode()),
        "curated_sha256": durable.digest(made["files"]),
        "evaluate": recipe.evaluate.model_dump(mode="json"),
    }
    path = folder / "evaluation.json"
    if path.exists() and not fresh:
        old = json.loads(path.read_text())
        if old["inputs"] == inputs:
            ui.note(f"{folder} is evaluated; nothing to do")
            return dict(old)
    facts = json.loads(training)
    held_out = [record for record, _ in rows(source, "test")]
    if not held_out:
        raise UserError(f"{source} has no held-out rows", "set split.test in the recipe")
    if facts["kind"] == "classifier":
        found = _evaluate_classifier(recipe, folder, held_out, ui)
    else:
        found = _evaluate_decoder(recipe, facts, source, folder, held_out, teacher, ui)
    result = {"inputs": inputs, "kind": facts["kind"], **found}
    durable.write_json(path, result)
    return result


def _evaluate_decoder(
    recipe: Recipe,
    facts: dict[str, Any],
    source: Path,
    folder: Path,
    held_out: list[Record],
    teacher: LocalModel | None,
    ui: UI,
) -> dict[str, Any]:
    section = recipe.evaluate
    held_out = held_out[: section.max_rows]
    teacher = teacher or LocalModel.open(local_teacher(recipe))
    models: dict[str, LocalModel] = {"untrained": _wrap(from_layers(teacher.model, facts["layers"]), teacher)}
    names = {"cross-entropy": folder / "baseline", "distilled": folder}
    for name, path in names.items():
        if (path / "model.safetensors").exists():
            models[name] = LocalModel.open(TeacherSection(model=str(path.resolve()), batch_size=teacher.batch_size))
    unigram = _unigram(source, teacher.identity["vocab_size"])
    ui.note(f"evaluate: {len(held_out)} held-out completions")
    kl, agree, nll = _compare(teacher, models, unigram, held_out, ui)
    tokens_R = np.array([len(r.token_ids or ()) for r in held_out])
    clusters = [r.seed_id for r in held_out]
    table: dict[str, dict[str, Any]] = {}
    for name in kl:
        table[name] = {
            "kl": _interval(kl[name], tokens_R, clusters, section.seed),
            "agreement": _interval(agree[name], tokens_R, clusters, section.seed) if name in agree else None,
            "nll": _interval(nll[name], tokens_R, clusters, section.seed),
        }
    answers, prompts = _answers(recipe, teacher, models, folder, held_out, ui)
    for name, found in answers.items():
        table.setdefault(name, {}).update(found)
    comparisons = {
        f"{a} − {b}": _interval(kl[a] - kl[b], tokens_R, clusters, section.seed)
        for a, b in (("distilled", "cross-entropy"), ("distilled", "unigram"), ("cross-entropy", "unigram"))
        if a in kl and b in kl
    }
    return {
        "rows": len(held_out),
        "tokens": int(tokens_R.sum()),
        "seeds": len(set(clusters)),
        "prompts answered": prompts,
        "bootstrap": {"resamples": _RESAMPLES, "seed": section.seed, "unit": "held-out seed", "interval": 0.95},
        "table": table,
        "kl differences": comparisons,
    }


def _wrap(model: Any, teacher: LocalModel) -> LocalModel:
    return LocalModel(model.eval().to(teacher.model.device), teacher.tokenizer, teacher.identity, teacher.batch_size)


def _unigram(source: Path, vocab_size: int) -> torch.Tensor:
    """Log-frequencies (V,) of the training completions' tokens, one added to each."""
    counts = np.ones(vocab_size)
    for record, _ in rows(source, "train"):
        np.add.at(counts, np.asarray(record.token_ids), 1)
    return torch.from_numpy(np.log(counts / counts.sum())).float()


@torch.inference_mode()
def _compare(
    teacher: LocalModel, models: dict[str, LocalModel], unigram_V: torch.Tensor, held_out: list[Record], ui: UI
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
    """Sums over each row's tokens: KL(teacher ‖ model), agreements of the likeliest token, −log q(token).

    The teacher is conditioned on the prompt it was sent, each student on the prompt a student sees. "teacher,
    student's prompt" is the teacher conditioned like a student.
    """
    others = {"teacher, student's prompt": teacher, **models}
    sums = {name: np.zeros((3, len(held_out))) for name in ("teacher", "unigram", *others)}
    with ui.progress("evaluate", len(held_out), "rows") as bar:
        for begin in range(0, len(held_out), _CHUNK):
            chunk = held_out[begin : begin + _CHUNK]
            completions = [list(r.token_ids or ()) for r in chunk]
            teacher_rows = teacher.logprobs([list(r.prompt_token_ids or ()) for r in chunk], completions)
            asked = [teacher.render(r.prompt) for r in chunk]
            for name, model in others.items():
                for row, z_TV in enumerate(completion_logits(model.model, asked, completions)):
                    sums[name][:, begin + row] = _row(z_TV, teacher_rows[row], completions[row])
            for row, logp_TV in enumerate(teacher_rows):
                sums["teacher"][:, begin + row] = _row(logp_TV, logp_TV, completions[row])
                sums["unigram"][:, begin + row] = _row(
                    unigram_V.to(logp_TV.device).expand_as(logp_TV), logp_TV, completions[row]
                )
            bar.advance(len(chunk))
    kl, agree, nll = ({name: s[i] for name, s in sums.items()} for i in range(3))
    return kl, agree, nll


def _row(z_TV: torch.Tensor, logp_TV: torch.Tensor, tokens: list[int]) -> list[float]:
    labels = torch.tensor(tokens, device=z_TV.device)
    return [
        float(losses.kl_full(z_TV, logp_TV).double().sum()),
        float((z_TV.argmax(-1) == logp_TV.argmax(-1)).sum()),
        float(losses.cross_entropy(z_TV, labels).double().sum()),
    ]


def _interval(sums_R: Array, weights_R: Array, clusters: Sequence[str], seed: int) -> dict[str, float]:
    """Mean a token with its 95% percentile bootstrap interval; whole clusters are drawn with replacement."""
    names, place = np.unique(np.asarray(clusters), return_inverse=True)
    total = np.bincount(place, sums_R, len(names))
    weight = np.bincount(place, weights_R, len(names))
    drawn = np.random.default_rng(seed).integers(0, len(names), (_RESAMPLES, len(names)))
    means = total[drawn].sum(1) / weight[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": float(sums_R.sum() / weights_R.sum()), "low": float(low), "high": float(high)}


def _answers(
    recipe: Recipe,
    teacher: LocalModel,
    models: dict[str, LocalModel],
    folder: Path,
    held_out: list[Record],
    ui: UI,
) -> tuple[dict[str, dict[str, Any]], int]:
    """Greedy answers to the held-out prompts: accuracy, speed, memory; and how many prompts there were.

    Teacher and distilled student answer in a process of their own, which gives peak memory; the other students
    share the distilled one's architecture.
    """
    section = recipe.evaluate
    first = list({r.seed_id: r for r in held_out}.values())[: section.max_prompts]
    ui.note(f"evaluate: {len(first)} prompts answered greedily by the teacher and each student")
    found: dict[str, dict[str, Any]] = {}
    apart = {
        "teacher": local_teacher(recipe),
        "distilled": TeacherSection(model=str(folder.resolve()), batch_size=local_teacher(recipe).batch_size),
    }
    for name in ("teacher", *models):
        asked = [_greedy(r, section, teacher_prompt=name == "teacher") for r in first]
        if name in apart:
            job = {"what": "sample", "teacher": apart[name].model_dump(mode="json")}
            measured = measure({**job, "requests": [vars(r) for r in asked]})
            texts = measured.pop("texts")
            found[name] = measured
        else:
            texts = [r.text for r in models[name].sample(asked, None)]
            found[name] = {}
        found[name]["accuracy"] = _accuracy(recipe, first, texts, section.seed)
        found[name]["samples"] = [
            {"prompt": r.prompt[-1]["content"], "text": t} for r, t in list(zip(first, texts, strict=True))[:4]
        ]
    return found, len(first)


def _greedy(record: Record, section: EvaluateSection, teacher_prompt: bool) -> Request:
    return Request(
        kind="sample",
        seed_id=record.seed_id,
        split=record.split,
        prompt=record.prompt,
        teacher_prompt=(record.teacher_prompt or record.prompt) if teacher_prompt else record.prompt,
        sampling={"temperature": 0.0, "top_p": 1.0, "max_new_tokens": section.max_new_tokens},
        sources=[],
        id=record.id,
    )


def _accuracy(recipe: Recipe, records: Sequence[Record], texts: Sequence[str], seed: int) -> dict[str, float] | None:
    """Share of right answers with its interval; None when the seeds have no references."""
    checked = [(r, t) for r, t in zip(records, texts, strict=True) if r.reference is not None]
    if not checked:
        return None
    marker = recipe.generate.answer_marker
    right = []
    for record, text in checked:
        answer = text.rpartition(marker)[2].strip().split("\n", 1)[0] if marker and marker in text else text
        right.append(float(matches(None if marker and marker not in text else answer, record.reference or "")))
    return _interval(np.array(right), np.ones(len(right)), [r.seed_id for r, _ in checked], seed)


def _evaluate_classifier(recipe: Recipe, folder: Path, held_out: list[Record], ui: UI) -> dict[str, Any]:
    from distill.classifier import Classifier, prompt_text

    texts = [prompt_text(r) for r in held_out]
    clusters, ones, seed = [r.seed_id for r in held_out], np.ones(len(held_out)), recipe.evaluate.seed
    teacher_RL = np.array([r.label_probs for r in held_out], np.float64)
    choice = teacher_RL.argmax(-1)
    labels = Classifier.load(folder).labels
    references = np.array([labels.index(r.reference) if r.reference in labels else -1 for r in held_out])
    table: dict[str, dict[str, Any]] = {"teacher": _agreement(teacher_RL, teacher_RL, references, clusters, seed)}
    majority = np.zeros_like(teacher_RL)
    majority[:, np.bincount(choice).argmax()] = 1
    table["majority class"] = _agreement(majority, teacher_RL, references, clusters, seed)
    for name, path in (("cross-entropy", folder / "baseline"), ("distilled", folder)):
        if (path / "model.safetensors").exists():
            table[name] = _agreement(Classifier.load(path).predict(texts), teacher_RL, references, clusters, seed)
    ui.note("evaluate: speed and memory of teacher and student, each in a process of its own")
    asked = [vars(_labelled(r, labels)) for r in held_out[: recipe.evaluate.max_prompts]]
    job = {"what": "classify", "teacher": recipe.teacher.model_dump(mode="json"), "requests": asked}
    measured = measure(job)
    measured.pop("texts")
    table["teacher"] |= measured
    table["distilled"] |= measure({"what": "student", "folder": str(folder.resolve()), "texts": texts})
    margin = (table["distilled"]["_agree"] - table["majority class"]["_agree"]).astype(float)
    result = {
        "rows": len(held_out),
        "labels": labels,
        "bootstrap": {"resamples": _RESAMPLES, "seed": seed, "unit": "held-out seed", "interval": 0.95},
        "agreement above majority": _interval(margin, ones, clusters, seed),
        "speed-up": table["distilled"]["rows_per_second"] / table["teacher"]["rows_per_second"],
        "confusion": np.histogram2d(
            choice, Classifier.load(folder).predict(texts).argmax(-1), bins=[np.arange(len(labels) + 1) - 0.5] * 2
        )[0]
        .astype(int)
        .tolist(),
    }
    for entry in table.values():
        entry.pop("_agree", None)
    return {**result, "table": table}


def _agreement(
    probs_RL: Array, teacher_RL: Array, references: Array, clusters: Sequence[str], seed: int
) -> dict[str, Any]:
    """Agreement with the teacher's choice, accuracy against the reference, KL(teacher ‖ model)."""
    ones = np.ones(len(probs_RL))
    choice = probs_RL.argmax(-1)
    agree = (choice == teacher_RL.argmax(-1)).astype(float)
    known = references >= 0
    floor = 1e-9
    kl = (teacher_RL * (np.log(teacher_RL.clip(floor)) - np.log(probs_RL.clip(floor)))).sum(-1)
    return {
        "agreement": _interval(agree, ones, clusters, seed),
        "accuracy": _interval(
            (choice == references)[known].astype(float), ones[known], list(np.array(clusters)[known]), seed
        )
        if known.any()
        else None,
        "kl": _interval(kl, ones, clusters, seed),
        "_agree": agree,
    }


def _labelled(record: Record, labels: list[str]) -> Request:
    return Request(
        kind="classify",
        seed_id=record.seed_id,
        split=record.split,
        prompt=record.prompt,
        teacher_prompt=record.teacher_prompt or record.prompt,
        sampling={},
        sources=[],
        labels=tuple(labels),
        id=record.id,
    )
