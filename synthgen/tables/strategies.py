"""STRATEGIES: the ways to make rows from a seed. An entry holds all facts about a strategy.

To add a strategy, write a generator (see `synthgen.generation.rounds`) and an entry here. REWARDS lists the allowed
values of `steps.choose`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from synthgen.tables.reference import Reference


class Steps(Protocol):
    """The keys of the recipe's section `steps` that an entry reads."""

    @property
    def candidates(self) -> int: ...
    @property
    def rounds(self) -> int: ...
    @property
    def choose(self) -> str: ...


@dataclass(frozen=True)
class Reward:
    """A way to rank completions: a teacher judges each completion, or each completion's answer is compared with the
    reference.
    """

    judge_offers: str = ""
    """The kind of request that the judge gets for each completion; "" when no teacher judges."""
    template: str = ""
    """The template of the judge's prompt; "" when the judge needs no template."""


REWARDS: dict[str, Reward] = {
    "judge": Reward("sample", "judge"),
    "probability": Reward("classify", "judge"),
    "likelihood": Reward("score"),
    "reference": Reward(),
}


def one_request(steps: Steps, teachers: int) -> int:
    """The value of `Strategy.most_requests` for strategies that send one request for each job."""
    return 1


def _two_requests(steps: Steps, teachers: int) -> int:
    return 2


def _candidates(steps: Steps, teachers: int) -> int:
    return steps.candidates


def _judged_candidates(steps: Steps, teachers: int) -> int:
    return steps.candidates * (2 if REWARDS[steps.choose].judge_offers else 1)


def _every_teacher(steps: Steps, teachers: int) -> int:
    return teachers


@dataclass(frozen=True)
class Strategy:
    """One way to make rows. `run` is a generator over rounds of requests; see `synthgen.generation.rounds`."""

    run: Reference
    description: str = ""
    """One sentence for docs/recipe.md that says which rows are made from a seed."""
    answered_by: Literal["one", "every"] = "one"
    """Which completions become rows: for each seed, the completions of one teacher, or of every teacher in the recipe.
    """
    rows: str = "completions"
    """The content of a row for training. A kind of student can learn from these rows if its `learns_from` has the same
    value.
    """
    keeps_distributions: bool = True
    """Whether distributions over completion tokens can be stored, so that the recipe's `logits` apply."""
    frequencies: bool = False
    """Whether the label probabilities of a row are shares of several answers, so that many probabilities are zero."""
    completions_given: bool = False
    """Whether the seeds contain the completions. The teacher then writes nothing; it only computes distributions along
    the completions. A recipe whose seeds contain the completions needs `logits` and exactly one teacher.
    """
    needs_answer_marker: bool = False
    """Whether the recipe needs `generate.answer_marker`."""
    least_labels: int = 0
    """The minimum number of `generate.labels`."""
    least_candidates: int = 1
    """The minimum of `steps.candidates`."""
    steps: tuple[str, ...] = ()
    """Keys of the recipe's section `steps` that the strategy reads."""
    most_requests: Callable[[Steps, int], int] = one_request
    """The maximum number of requests of one job, given the section `steps` and the number of teachers."""
    request_kind: Literal["sample", "classify", "embed", "score"] = "sample"
    """The kind of request whose reply becomes a row. Every teacher whose completions become rows must support this kind
    of request.
    """
    several_samples: bool = True
    """Whether each seed has `generate.num_generations` jobs. Otherwise, each seed has one job."""
    splits_answer: bool = True
    """Whether completions are split into rationale and answer when the recipe has a `generate.answer_marker`."""
    templates: tuple[str, ...] = ()
    """Templates that the task's folder must have in addition to the template that `question` names."""
    template_prefix: str = ""
    """The task's folder must have a template whose name begins with this prefix. "" means that none is required."""
    question: str = "user"
    """The template that renders a seed's question. Seeds with similar questions stay in the same split."""
    question_of: Reference | None = None
    """A function that gets a seed's fields and the `Prompt`, and returns the seed's question. `question_of` is set when
    no single template renders the question.
    """
    rewriter_offers: str = "sample"
    """For a strategy that reads `steps.rewriter`: the kind of request that the rewriter must answer."""

    @property
    def judged(self) -> bool:
        """Whether the strategy ranks completions, by the reward in `steps.choose`."""
        return "choose" in self.steps

    @property
    def rewrites(self) -> bool:
        """Whether the strategy lets a teacher write new questions."""
        return "rewriter" in self.steps


_SINGLE = "synthgen.generation.strategies.single"
_CHOOSING = "synthgen.generation.strategies.choosing"
_ASKING = "synthgen.generation.strategies.asking"
_REWRITES = ("temperature", "max_new_tokens", "rewriter")
_JUDGED = ("candidates", "choose", "judge", "max_new_tokens")

STRATEGIES: dict[str, Strategy] = {
    "answer": Strategy(
        f"{_SINGLE}:answer",
        "The teacher answers the seed's question.",
        splits_answer=False,
    ),
    "rationale": Strategy(
        f"{_SINGLE}:answer",
        "The teacher writes its reasoning, then `generate.answer_marker`, then the answer.",
        needs_answer_marker=True,
    ),
    "classify": Strategy(
        f"{_SINGLE}:classify",
        "The teacher gives the probability of each of `generate.labels`.",
        rows="label probabilities",
        keeps_distributions=False,
        least_labels=2,
        request_kind="classify",
        several_samples=False,
        splits_answer=False,
    ),
    "embed": Strategy(
        f"{_SINGLE}:embed",
        "The row is the seed's text. In training, an embedding model computes the text's vector.",
        rows="texts",
        keeps_distributions=False,
        request_kind="embed",
        several_samples=False,
    ),
    "score": Strategy(
        f"{_SINGLE}:score",
        "The seed contains the completion. The teacher only computes its distributions along that text.",
        completions_given=True,
        request_kind="score",
        several_samples=False,
        question_of=f"{_SINGLE}:given_question",
    ),
    "rationalize": Strategy(
        f"{_CHOOSING}:rationalize",
        "The teacher is asked again after a wrong answer, with the right answer as a hint (STaR).",
        needs_answer_marker=True,
        templates=("hint",),
        most_requests=_two_requests,
    ),
    "vote": Strategy(
        f"{_CHOOSING}:vote",
        "The teacher answers several times, and the most frequent answer is kept (self-consistency).",
        steps=("candidates",),
        most_requests=_candidates,
    ),
    "classify_votes": Strategy(
        f"{_CHOOSING}:classify_votes",
        "The teacher answers several times with one of `generate.labels`. The share of the answers that give a label "
        "is the label's probability.",
        rows="label probabilities",
        keeps_distributions=False,
        frequencies=True,
        least_labels=2,
        least_candidates=2,
        steps=("candidates",),
        most_requests=_candidates,
        several_samples=False,
        splits_answer=False,
    ),
    "best_of_n": Strategy(
        f"{_CHOOSING}:best_of_n",
        "The teacher answers several times, and the answer with the highest reward is kept.",
        least_candidates=2,
        steps=_JUDGED,
        most_requests=_judged_candidates,
    ),
    "preference": Strategy(
        f"{_CHOOSING}:preference",
        "The teacher answers several times. The answers with the highest and the lowest reward become two rows.",
        rows="preference pairs",
        least_candidates=2,
        steps=_JUDGED,
        most_requests=_judged_candidates,
    ),
    "consensus": Strategy(
        f"{_CHOOSING}:consensus",
        "Every teacher answers, and the most frequent answer is kept.",
        answered_by="every",
        most_requests=_every_teacher,
    ),
    "disagreement": Strategy(
        f"{_CHOOSING}:disagreement",
        "Every teacher answers. When the answers differ, each becomes a row.",
        answered_by="every",
        most_requests=_every_teacher,
    ),
    "self_instruct": Strategy(
        f"{_ASKING}:self_instruct",
        "The teacher writes a new question that is similar to some seeds, and answers it.",
        steps=("shown", *_REWRITES),
        templates=("new",),
        most_requests=_two_requests,
    ),
    "evolve": Strategy(
        f"{_ASKING}:evolve",
        "The question is rewritten again and again (Evol-Instruct), and each version is answered.",
        steps=("rounds", *_REWRITES),
        template_prefix="evolve_",
        most_requests=lambda steps, teachers: 2 * steps.rounds,
    ),
    "magpie": Strategy(
        f"{_ASKING}:magpie",
        "The teacher writes a user's message, given only the start of the user's turn, and answers it (Magpie).",
        steps=_REWRITES,
        templates=("turn_system",),
        question="turn_system",
        rewriter_offers="open_turn",
        most_requests=_two_requests,
    ),
    "personas": Strategy(
        f"{_ASKING}:personas",
        "The seed describes a person. The teacher writes what this person would ask, and answers it.",
        steps=_REWRITES,
        templates=("ask",),
        question="ask",
        most_requests=_two_requests,
    ),
    "paraphrase": Strategy(
        f"{_ASKING}:paraphrase",
        "The teacher puts the question in other words and answers it. The reference stays the same.",
        steps=_REWRITES,
        templates=("paraphrase",),
        most_requests=_two_requests,
    ),
    "back_translation": Strategy(
        f"{_ASKING}:back_translation",
        "The question is translated to another language and back, and the result is answered.",
        steps=_REWRITES,
        templates=("translate", "back"),
        most_requests=lambda steps, teachers: 3,
    ),
    "counterfactual": Strategy(
        f"{_ASKING}:counterfactual",
        "The question is answered twice: as it is, and with names and pronouns swapped. Both become rows.",
        most_requests=_two_requests,
    ),
    "extract": Strategy(
        f"{_ASKING}:extract",
        "The teacher writes questions about a document, and answers each.",
        steps=("candidates", *_REWRITES),
        templates=("questions",),
        question="questions",
        most_requests=lambda steps, teachers: 1 + steps.candidates,
    ),
    "conversation": Strategy(
        f"{_ASKING}:conversation",
        "The teacher also writes the user's next turns. Each turn of the assistant becomes a row.",
        steps=("rounds", *_REWRITES),
        templates=("user_turn",),
        most_requests=lambda steps, teachers: 2 * steps.rounds - 1,
    ),
}
