"""Do a student's vectors order pairs of texts as the teacher's do? Spearman's ρ on texts that training did not see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.evaluation.cost import measure
from distill.intervals import Array
from distill.students.classifier import prompt_text
from distill.students.sentence import sentence
from synthgen.errors import UserError
from synthgen.recipe import Recipe, local_teacher
from synthgen.records import Record
from synthgen.tables.engines import TeacherSection
from synthgen.tables.students import SentenceStudent
from synthgen.teachers.embedding import EmbeddingModel, SentenceEncoder
from synthgen.ui import UI

RESAMPLES = 500
_TEXTS = 256  # compared, at most: 32,640 pairs


def evaluate_sentence(recipe: Recipe, folder: Path, held_out: list[Record], ui: UI) -> dict[str, Any]:
    """Teacher, static vectors, the student untrained and distilled: ρ, nearness, speed, memory."""
    section, train = recipe.evaluate, recipe.train
    assert train is not None
    assert isinstance(train.student, SentenceStudent)
    texts = list(dict.fromkeys(prompt_text(r) for r in held_out))[: min(section.max_rows or _TEXTS, _TEXTS)]
    if len(texts) < 3:
        raise UserError(f"{len(texts)} different held-out texts are too few to compare pairs of", "set split.test")
    asked = local_teacher(recipe)
    teacher = EmbeddingModel.open(asked).model
    trained = TeacherSection(model=str(folder.resolve()), batch_size=asked.batch_size, device=asked.device)
    ui.note(f"evaluate: {len(texts)} held-out texts, every pair")
    vectors = {
        "teacher": teacher.vectors(texts, asked.batch_size),
        "static": static(teacher, texts),
        "untrained": sentence(train.student, teacher, train.seed).eval().to(teacher.device).vectors(texts),
        "distilled": EmbeddingModel.open(trained).model.vectors(texts, asked.batch_size),
    }
    similar = {name: cosines(v.double().numpy()) for name, v in vectors.items()}
    table: dict[str, dict[str, Any]] = {name: {} for name in vectors}
    draws = bootstrap(similar, len(texts), section.seed)
    upper = np.triu_indices(len(texts), 1)
    for name, values in draws.items():
        table[name]["spearman"] = spread(spearman(similar["teacher"][upper], similar[name][upper]), values)
        if vectors[name].shape == vectors["teacher"].shape:
            near = torch.nn.functional.cosine_similarity(vectors[name], vectors["teacher"], dim=-1)
            table[name]["cosine"] = float(near.mean())
    ui.note("evaluate: speed and memory of teacher and student, each in a process of its own")
    for name, model in (("teacher", asked), ("distilled", trained)):
        table[name] |= measure({"what": "embed", "teacher": model.model_dump(mode="json"), "texts": texts})
    differences = {
        f"distilled − {other}": spread(
            table["distilled"]["spearman"]["mean"] - table[other]["spearman"]["mean"], draws["distilled"] - draws[other]
        )
        for other in ("untrained", "static")
    }
    return {
        "rows": len(texts),
        "pairs": len(upper[0]),
        "bootstrap": {"resamples": RESAMPLES, "seed": section.seed, "unit": "held-out text", "interval": 0.95},
        "table": table,
        "differences": differences,
        "speed-up": table["distilled"]["rows_per_second"] / table["teacher"]["rows_per_second"],
    }


@torch.no_grad()
def static(teacher: SentenceEncoder, texts: list[str]) -> torch.Tensor:
    """(N, D): means of the teacher's word vectors over the tokens that the text itself has; no context, no layers."""
    table_VD = teacher.model.get_input_embeddings().weight
    special = set(teacher.tokenizer.all_special_ids)
    rows = [[i for i in ids if i not in special] or list(ids) for ids in teacher.tokens(texts)]
    return torch.stack([table_VD[torch.tensor(ids, device=table_VD.device)].mean(0) for ids in rows]).float().cpu()


def cosines(vectors_ND: Array) -> Array:
    """(N, N)."""
    unit_ND = vectors_ND / np.linalg.norm(vectors_ND, axis=-1, keepdims=True).clip(1e-12)
    return np.asarray(unit_ND @ unit_ND.T)


def ranks(values: Array) -> Array:
    """Ranks from 0; equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count + 1) / 2)[place])


def spearman(a: Array, b: Array) -> float:
    """Pearson's correlation of the ranks."""
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def bootstrap(similar: dict[str, Array], count: int, seed: int) -> dict[str, Array]:
    """ρ with the teacher of every other model, (RESAMPLES,), on the same draws of texts; a text is no pair with
    itself."""
    generator = np.random.default_rng(seed)
    found: dict[str, list[float]] = {name: [] for name in similar if name != "teacher"}
    a, b = np.triu_indices(count, 1)
    for _ in range(RESAMPLES):
        drawn = generator.integers(0, count, count)
        left, right = drawn[a], drawn[b]
        other = left != right
        left, right = left[other], right[other]
        teacher = ranks(similar["teacher"][left, right])
        for name, values in found.items():
            values.append(float(np.corrcoef(teacher, ranks(similar[name][left, right]))[0, 1]))
    return {name: np.array(values) for name, values in found.items()}


def spread(mean: float, draws: Array) -> dict[str, float]:
    """The value and its 95% interval."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"mean": mean, "low": float(low), "high": float(high)}
