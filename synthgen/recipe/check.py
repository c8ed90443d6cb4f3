"""Rules across the sections of a recipe."""

from __future__ import annotations

from typing import Any

from synthgen.errors import nearest
from synthgen.recipe.train import TrainSection
from synthgen.tables.divergences import TargetKind, refusal


def speakers(recipe: Any) -> list[str]:
    """Names, in `recipe.teachers`, of those whose completions become rows or whose distributions are kept; [""] for
    a single teacher. A name that nobody has is left to `check`. (`recipe` is a Recipe, which imports this module.)"""
    if not recipe.teachers:
        return [""]
    everybody = recipe.strategy in ("consensus", "disagreement")
    names = [*recipe.teachers] if everybody else [*recipe.mixture] or [*recipe.teachers][:1]
    return [name for name in [*names, *(recipe.logits.score_by if recipe.logits else ())] if name in recipe.teachers]


def check(recipe: Any) -> None:
    """Raise ValueError when strategy, teachers and steps do not go together."""
    marked = ("rationale", "rationalize")
    if recipe.strategy in marked and not recipe.generate.answer_marker:
        raise ValueError(f"strategy '{recipe.strategy}' needs generate.answer_marker")
    if recipe.strategy in ("best_of_n", "preference") and recipe.steps.candidates < 2:
        raise ValueError(f"strategy '{recipe.strategy}' needs two or more steps.candidates")
    if recipe.strategy == "preference" and recipe.train:
        raise ValueError("no student here learns from preference pairs; leave 'train' out")
    _check_names(recipe)
    by = recipe.logits.score_by if recipe.logits else ()
    if recipe.strategy == "score" and (recipe.logits is None or by or len(recipe.mixture) > 1):
        raise ValueError("strategy 'score' needs a 'logits' section, and one teacher")
    if recipe.strategy in ("consensus", "disagreement"):
        if len(recipe.teachers) < 2:
            raise ValueError(f"strategy '{recipe.strategy}' needs two or more 'teachers'")
        if by or recipe.mixture:
            raise ValueError(f"strategy '{recipe.strategy}' asks every teacher: no 'mixture', no logits.score_by")
    if by and recipe.strategy in ("classify", "embed"):
        raise ValueError(f"logits.score_by: strategy '{recipe.strategy}' has no completions to score")


def _check_names(recipe: Any) -> None:
    """Raise ValueError for a teacher that nobody has named, or that is to score its own tokens."""
    by = recipe.logits.score_by if recipe.logits else ()
    named = [("mixture", name) for name in recipe.mixture] + [("logits.score_by", name) for name in by]
    named += [("steps.judge", name) for name in (recipe.steps.judge,) if name]
    named += [("steps.rewriter", name) for name in (recipe.steps.rewriter,) if name]
    for key, name in named:
        if name not in recipe.teachers:
            raise ValueError(f"{key} names the teacher '{name}'{nearest(name, recipe.teachers)}")
    if set(by) & set(recipe.mixture or list(recipe.teachers)[:1]):
        raise ValueError("logits.score_by names a teacher that answers; its distributions are kept anyway")


def refuse_student(train: TrainSection, strategy: str, logits: TargetKind | None) -> None:
    """Raises ValueError for a student that cannot learn from what such a recipe makes; `logits` is their kind."""
    wants = train.student.kind
    if (wants == "sentence") != (strategy == "embed"):
        raise ValueError("a student of kind 'sentence' and strategy 'embed' go together")
    if wants in ("classifier", "encoder") and strategy != "classify":
        raise ValueError(f"a student of kind '{wants}' needs strategy 'classify'")
    if wants == "sentence" and train.loss != "forward_kl":
        raise ValueError("train.loss is between distributions; a sentence student has student.distance")
    if wants == "sentence" and train.kd_weight != TrainSection.model_fields["kd_weight"].default:
        raise ValueError("train.kd_weight mixes in labels, and texts of strategy 'embed' have none")
    if wants == "classifier" and train.loss != "forward_kl":
        raise ValueError(f"train.loss '{train.loss}' is for decoders; a classifier learns by forward_kl")
    if wants not in ("decoder", "seq2seq"):
        if train.rationale:
            raise ValueError(f"train.rationale is for students that write, and a {wants} does not")
        return
    if strategy in ("classify", "embed"):
        raise ValueError(f"a {wants} student needs completions, and strategy '{strategy}' makes none")
    dropped = train.rationale is not None and train.rationale.mode == "dropped"
    if logits is None and train.kd_weight > 0 and not (dropped or train.online or train.across):
        raise ValueError(
            f"a {wants} student learns from a 'logits' section's distributions, or train.online's; without them set "
            "train.kd_weight to 0: the tokens alone"
        )
    if train.across:
        logits = "topk"
    if logits and not train.online and (reason := refusal(train.loss, logits)):
        raise ValueError(f"train.loss and logits.kind do not go together: {reason}")


def check_targets(recipe: Any) -> None:
    """Raise ValueError when the section cannot have the distributions it wants. (`recipe` is a Recipe.)"""
    train, kept = recipe.train, recipe.logits
    if train is None or kept is None or train.online or train.kd_weight == 0:
        return
    if train.student.kind not in ("decoder", "seq2seq"):
        return
    there = [*(recipe.mixture or list(recipe.teachers)[:1]), *kept.score_by]
    several = len(recipe.mixture) > 1 or recipe.strategy in ("consensus", "disagreement")
    if several or (kept.score_by and not (train.teacher or train.ensemble or train.across)):
        how = "leave 'train' out" if several else "name one in train.teacher, or merge them: train.ensemble"
        raise ValueError(f"a {train.student.kind} student learns from the logits of one teacher; {how}")
    named = [("train.teacher", train.teacher)] if train.teacher else []
    ensemble = train.ensemble
    if ensemble:
        named = [("train.ensemble.teachers", name) for name in ensemble.names]
    for key, name in named:
        if name not in there:
            raise ValueError(f"{key} names '{name}', whose logits are not stored{nearest(name, there)}")
    if not ensemble:
        return
    count = len(ensemble.names or there)
    if count < 2:
        raise ValueError("train.ensemble is of two or more teachers; add others to logits.score_by")
    if ensemble.by == "agreement" and count < 3:
        raise ValueError(
            "train.ensemble.by: of two teachers each agrees with the other as much; name three, or uniform"
        )
    if ensemble.by == "validation" and not recipe.split.validation:
        raise ValueError("train.ensemble.by is 'validation': set split.validation, so that there are such rows")
    if kept.kind == "sampled":
        if ensemble.merge == "pool":
            raise ValueError(
                "train.ensemble.merge: a pool is not linear in the probabilities, so draws in their place are biased, "
                "and an id that one teacher never drew would end it; use merge: mean, or logits.kind: topk"
            )
        if ensemble.by in ("validation", "agreement"):
            raise ValueError(
                f"train.ensemble.by is '{ensemble.by}': it needs probabilities, and draws give most of them as zero; "
                "use uniform, give weights, or logits.kind: topk"
            )
