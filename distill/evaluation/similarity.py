"""Compares a sentence encoder's similarities of text pairs with the teacher's, by Spearman's ρ on held-out texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from distill.cost import MEASURES as COSTS
from distill.cost import measure, row_of
from distill.evaluation import timing
from distill.evaluation.asking import student_section
from distill.evaluation.lost import BASE, OF_ITSELF
from distill.evaluation.subject import Subject
from distill.intervals import Array, spread
from distill.students.sentence import sentence
from synthgen.errors import UserError
from synthgen.recipe import local_teacher
from synthgen.results.evaluation import Comparison, Evaluation
from synthgen.results.measures import Bootstrap, Figure, Interval, Measure, Table, shown
from synthgen.results.statement import Entry, Statement
from synthgen.tables.students import SentenceStudent
from synthgen.teachers.embedding import EmbeddingModel, SentenceEncoder

RESAMPLES = 500
_TEXTS = 256  # maximum number of texts to compare, which gives 32,640 pairs

MEASURES = {
    "spearman": Measure(
        "Spearman's ρ with the teacher",
        lower_is_better=False,
        caption="Agreement with the teacher's order of the pairs: value and 95% interval.",
    ),
    "cosine": Measure("cosine with the teacher's vector", lower_is_better=False),
    **COSTS,
}

MODELS = {
    "teacher": "the teacher's vectors",
    "static": "the mean of the teacher's word vectors",
    "untrained": "the student before its first step",
    "distilled": "the student",
}


def evaluate_sentence(subject: Subject) -> Evaluation:
    """Compare a sentence encoder with its teacher, with the untrained student, and with the teacher's word vectors.

    Raises UserError when there are fewer than three different held-out texts.
    """
    recipe, section = subject.recipe, subject.recipe.evaluate
    assert recipe.train is not None
    assert isinstance(recipe.train.student, SentenceStudent)
    most = min(section.max_rows or _TEXTS, _TEXTS)
    texts = list(dict.fromkeys(row.text for row in subject.held_out()))[:most]
    if len(texts) < 3:
        raise UserError(
            f"there are only {len(texts)} different held-out texts, but the comparison needs 3", "increase split.test"
        )
    local = local_teacher(recipe)
    teacher = EmbeddingModel.open(local).model
    trained = student_section(subject.folder, local)
    subject.ui.note(f"evaluate: every pair of {len(texts)} held-out texts")
    vectors = {
        "teacher": teacher.vectors(texts, local.batch_size),
        "static": static(teacher, texts),
        "untrained": sentence(recipe.train.student, teacher, recipe.train.seed)
        .eval()
        .to(teacher.device)
        .vectors(texts),
        "distilled": EmbeddingModel.open(trained).model.vectors(texts, local.batch_size),
    }
    table, comparisons = _quality(vectors, section.seed)
    subject.ui.note("evaluate: speed and memory of teacher and student, each in a separate process")
    for name, model in (("teacher", local), ("distilled", trained)):
        table[name] |= row_of(measure(timing.VECTORS, {"teacher": model.model_dump(mode="json"), "texts": texts}))
    faster = _number(table, "distilled", "rows_per_second") / _number(table, "teacher", "rows_per_second")
    rho, pairs = table["distilled"]["spearman"], len(texts) * (len(texts) - 1) // 2
    assert isinstance(rho, Interval)
    return Evaluation(
        kind=subject.training.kind,
        rows=len(texts),
        unit="texts",
        headline=f"On {len(texts)} held-out texts the student's order of pairs has Spearman's ρ "
        f"{shown(rho, 'number')} with the teacher's order, at {shown(faster, 'rate')} times the teacher's speed.",
        measures=MEASURES,
        table=table,
        notes=[
            f"Spearman's ρ compares the cosines that a model and the teacher give to {pairs:,} pairs of texts.",
            "Speed and peak memory were measured in a separate process for each model.",
        ],
        models={name: MODELS[name] for name in table},
        figures=[
            Figure("Spearman's ρ with the teacher", rho.mean),
            Figure("times the teacher's speed", faster, "rate"),
        ],
        comparisons=comparisons,
        bootstrap=Bootstrap(RESAMPLES, section.seed, "held-out text"),
        counts={"pairs": pairs, "speed_up": faster},
        learned_from=subject.training.learned_from,
        statement=_statement(table, comparisons, len(texts)),
    )


def _statement(table: Table, comparisons: Sequence[Comparison], count: int) -> Statement:
    """What the student gained over the untrained student: the difference of Spearman's ρ with the teacher."""
    against = next(c.difference for c in comparisons if c.name == "distilled − untrained")
    entry = Entry(
        dimension="agreement",
        measure=MEASURES["spearman"].title,
        better="higher",
        base=table["untrained"]["spearman"],
        student=table["distilled"]["spearman"],
        minus_base=against,
        n=count,
        unit="texts",
        note="the correlation of ranks between the cosines that the model and the teacher give to all pairs of texts.",
        missing=OF_ITSELF,
    )
    return Statement([entry], models={"teacher": "the model that the student imitates", "base": BASE})


def _quality(vectors: dict[str, torch.Tensor], seed: int) -> tuple[Table, list[Comparison]]:
    """Compute ρ and the mean cosine between each model's vectors (N, D) and the teacher's. Returns the table, and the
    student's differences from the other models.
    """
    count = len(vectors["teacher"])
    similar = {name: cosines(v.double().numpy()) for name, v in vectors.items()}
    draws = bootstrap(similar, count, seed)
    upper = np.triu_indices(count, 1)
    values = {name: spearman(similar["teacher"][upper], similar[name][upper]) for name in draws}
    table: Table = {name: {} for name in vectors}
    for name in draws:
        table[name]["spearman"] = _spread(values[name], draws[name], 1)
        if vectors[name].shape == vectors["teacher"].shape:
            near = torch.nn.functional.cosine_similarity(vectors[name], vectors["teacher"], dim=-1)
            table[name]["cosine"] = float(near.mean())
    comparisons = [
        Comparison(
            f"distilled − {other}",
            "spearman",
            _spread(values["distilled"] - values[other], draws["distilled"] - draws[other], 2),
        )
        for other in ("untrained", "static")
    ]
    return table, comparisons


def _spread(value: float, draws: Array, most: float) -> Interval:
    """The value and its 95% interval. A draw that is not known could be any number from −`most` to `most`, so each end
    of the interval is the farthest that is possible.
    """
    known = ~np.isnan(draws)
    low, high = (spread(value, np.where(known, draws, end)) for end in (-most, most))
    return Interval(value, low.low, high.high)


def _number(table: Table, model: str, measure: str) -> float:
    value = table[model][measure]
    assert isinstance(value, float)
    return value


@torch.no_grad()
def static(teacher: SentenceEncoder, texts: list[str]) -> torch.Tensor:
    """Return (N, D): for each text, the mean of the teacher's input embeddings over the text's tokens.

    Special tokens are left out. If a text has only special tokens, the mean is over the special tokens.
    """
    table_VD = teacher.model.get_input_embeddings().weight
    special = set(teacher.tokenizer.all_special_ids)
    rows = [[i for i in ids if i not in special] or list(ids) for ids in teacher.tokens(texts)]
    return torch.stack([table_VD[torch.tensor(ids, device=table_VD.device)].mean(0) for ids in rows]).float().cpu()


def cosines(vectors_ND: Array) -> Array:
    """Return (N, N): the cosine of every pair of vectors."""
    unit_ND = vectors_ND / np.linalg.norm(vectors_ND, axis=-1, keepdims=True).clip(1e-12)
    return np.asarray(unit_ND @ unit_ND.T)


def ranks(values: Array) -> Array:
    """Return the ranks of the values, counted from 0. Equal values get the mean of their ranks."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count + 1) / 2)[place])


def spearman(a: Array, b: Array) -> float:
    """Return Spearman's ρ: Pearson's correlation of the ranks. NaN when all values of `a` or of `b` are equal."""
    return _correlation(ranks(a), ranks(b))


def _correlation(a: Array, b: Array) -> float:
    if not len(a) or not np.ptp(a) or not np.ptp(b):
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def bootstrap(similar: dict[str, Array], count: int, seed: int) -> dict[str, Array]:
    """For every model except the teacher, return (RESAMPLES,): the model's ρ in each resample.

    All models get the same draws of texts. A text that was drawn twice is not paired with itself. The result is NaN for
    a resample in which all pairs are equally similar, for example because it has only two different texts.
    """
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
            values.append(_correlation(teacher, ranks(similar[name][left, right])))
    return {name: np.array(values) for name, values in found.items()}
