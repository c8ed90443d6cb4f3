"""STRATEGIES: ways to make rows from a seed. An entry owns every fact of a strategy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from synthgen.tables.reference import Reference


@dataclass(frozen=True)
class Strategy:
    """One way to make rows. `run` is a generator over rounds of requests: see `synthgen.generation.rounds`."""

    run: Reference
    description: str = ""
    """One sentence for docs/recipe.md: what becomes of a seed."""
    answered_by: Literal["one", "every"] = "one"
    """Whose completions become rows: one teacher's a seed, or those of every teacher of the recipe."""
    rows: str = "completions"
    """What a row teaches with. A kind of student whose `learns_from` is the same word can learn from it."""
    keeps_distributions: bool = True
    """Whether the recipe's `logits` apply: distributions over the tokens of completions are kept."""
    completions_given: bool = False
    """Whether the seeds bring the completions. The teacher then writes nothing and gives distributions along them, so
    the recipe needs `logits`, and one teacher."""
    needs_answer_marker: bool = False
    """Whether the recipe needs `generate.answer_marker`."""
    least_labels: int = 0
    """How many `generate.labels` the recipe needs at least."""
    least_candidates: int = 1
    """The least `steps.candidates` with which the strategy makes sense."""
    steps: tuple[str, ...] = ()
    """Keys of the recipe's section `steps` that it reads."""


_SINGLE = "synthgen.generation.strategies.single"
_CHOOSING = "synthgen.generation.strategies.choosing"
_ASKING = "synthgen.generation.strategies.asking"
_REWRITES = ("temperature", "max_new_tokens", "rewriter")
_JUDGED = ("candidates", "choose", "judge", "max_new_tokens")

STRATEGIES: dict[str, Strategy] = {
    "answer": Strategy(f"{_SINGLE}:answer", "The teacher answers the seed's question."),
    "rationale": Strategy(
        f"{_SINGLE}:answer",
        "The teacher answers with its reasoning first; the answer is what follows `generate.answer_marker`.",
        needs_answer_marker=True,
    ),
    "classify": Strategy(
        f"{_SINGLE}:classify",
        "The teacher gives the probability of each of `generate.labels`.",
        rows="label probabilities",
        keeps_distributions=False,
        least_labels=2,
    ),
    "embed": Strategy(
        f"{_SINGLE}:embed",
        "The text itself is the row; an embedding model's vectors are computed when a student is trained.",
        rows="texts",
        keeps_distributions=False,
    ),
    "score": Strategy(
        f"{_SINGLE}:score",
        "The seed brings the completion; the teacher gives its distributions along it and writes nothing.",
        completions_given=True,
    ),
    "rationalize": Strategy(
        f"{_CHOOSING}:rationalize",
        "Where the teacher's answer is wrong it is asked again with the right one as a hint (STaR).",
        needs_answer_marker=True,
    ),
    "vote": Strategy(
        f"{_CHOOSING}:vote",
        "The teacher answers several times, and the answer of most is kept (self-consistency).",
        steps=("candidates",),
    ),
    "best_of_n": Strategy(
        f"{_CHOOSING}:best_of_n",
        "The teacher answers several times, and the answer with the highest reward is kept.",
        least_candidates=2,
        steps=_JUDGED,
    ),
    "preference": Strategy(
        f"{_CHOOSING}:preference",
        "The teacher answers several times; the answers with the highest and the lowest reward are two rows.",
        rows="preference pairs",
        least_candidates=2,
        steps=_JUDGED,
    ),
    "consensus": Strategy(
        f"{_CHOOSING}:consensus", "Every teacher answers, and the answer of most is kept.", answered_by="every"
    ),
    "disagreement": Strategy(
        f"{_CHOOSING}:disagreement",
        "Every teacher answers; where the answers differ, each is a row.",
        answered_by="every",
    ),
    "self_instruct": Strategy(
        f"{_ASKING}:self_instruct",
        "The teacher writes a new question like some of the seeds, and answers it.",
        steps=("shown", *_REWRITES),
    ),
    "evolve": Strategy(
        f"{_ASKING}:evolve",
        "The question is rewritten again and again (Evol-Instruct), and each version is answered.",
        steps=("rounds", *_REWRITES),
    ),
    "magpie": Strategy(
        f"{_ASKING}:magpie",
        "The teacher writes what it expects where a user's turn begins, and answers it.",
        steps=_REWRITES,
    ),
    "personas": Strategy(
        f"{_ASKING}:personas", "The teacher writes what a described person would ask, and answers it.", steps=_REWRITES
    ),
    "paraphrase": Strategy(
        f"{_ASKING}:paraphrase",
        "The question is asked in other words; the known answer still holds.",
        steps=_REWRITES,
    ),
    "back_translation": Strategy(
        f"{_ASKING}:back_translation",
        "The question is translated to another language and back, and then asked.",
        steps=_REWRITES,
    ),
    "counterfactual": Strategy(
        f"{_ASKING}:counterfactual",
        "The question is asked as it is, and with names and pronouns swapped: two rows.",
    ),
    "extract": Strategy(
        f"{_ASKING}:extract",
        "The teacher writes questions about a document, and answers each.",
        steps=("candidates", *_REWRITES),
    ),
    "conversation": Strategy(
        f"{_ASKING}:conversation",
        "The teacher also writes the user's next turns; each turn of the assistant is a row.",
        steps=("rounds", *_REWRITES),
    ),
}
