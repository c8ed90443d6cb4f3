"""The data that all jobs of a run share: recipe, templates, seeds and teachers, and what was removed from the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from synthgen.generation import casting
from synthgen.prompts import Prompt
from synthgen.recipe import MadeBy, Recipe
from synthgen.records import Source
from synthgen.removed import NOTHING, Removed
from synthgen.seeds import Seed, Seeds
from synthgen.sources import own_license, stated_sources
from synthgen.tables.engines import AnyTeacher
from synthgen.tables.strategies import REWARDS, STRATEGIES, Strategy


class LeftOut(Exception):
    """Raised when a job would use something that was removed from the run. The job then makes nothing."""


@dataclass(frozen=True)
class Setting:
    """Settings that all jobs of a run share. `versions` holds the model and revision of each teacher, by the teacher's
    name. Row ids depend on these versions.
    """

    recipe: Recipe
    prompt: Prompt
    seeds: Seeds
    versions: Mapping[str, str]
    identified: bool = True
    """Whether requests get ids. Estimates do not need ids."""
    removed: Removed = NOTHING
    """What was removed from the run. A job that uses a removed source or seed makes nothing."""
    _sources: dict[tuple[str, ...], Source] = field(default_factory=dict)
    _seeds: dict[tuple[str, str, MadeBy | None, str | None], list[Source]] = field(default_factory=dict)

    @cached_property
    def sections(self) -> dict[str, AnyTeacher]:
        """The recipe's sections of all teachers, by the teacher's name."""
        return casting.cast(self.recipe)

    @cached_property
    def answerers(self) -> list[str]:
        """Names of the teachers whose completions become rows."""
        return casting.answerers(self.recipe)

    @cached_property
    def strategy(self) -> Strategy:
        """The table entry of the recipe's strategy."""
        return STRATEGIES[self.recipe.strategy]

    @cached_property
    def shows_user(self) -> bool:
        """Whether a seed's `question` is the text that the template user.j2 renders for the seed."""
        return self.strategy.question == "user" and self.strategy.question_of is None

    def source(self, role: str, teacher: str) -> Source:
        """The entry for `teacher` in a row's sources, with the given role."""
        if (role, teacher) not in self._sources:
            self._sources[role, teacher] = casting.teacher_source(self.sections[teacher], self.versions[teacher], role)
        return self._sources[role, teacher]

    def seed_sources(self, seed: Seed) -> list[Source]:
        """The entries in a row's sources for the file or data set of a seed, for the license that the seed states, and
        for the model that wrote the seed.
        """
        stated, own = seed.source, own_license(seed.fields)
        key = (stated.source, stated.license, stated.made_by, own)
        if key not in self._seeds:
            self._seeds[key] = stated_sources(stated, stated.source, "seed", own)
        return self._seeds[key]

    @cached_property
    def left_out(self) -> bool:
        """Whether every job is left out, because something that all jobs use was removed: a template, or a teacher that
        judges, rewrites, scores or answers every seed.
        """
        recipe, strategy = self.recipe, self.strategy
        named = [("logits", name) for name in casting.scorers(recipe)]
        if strategy.judged and REWARDS[recipe.steps.choose].judge_offers:
            named.append(("judge", casting.judge(recipe)))
        if strategy.rewrites and recipe.steps.rewriter:
            named.append(("rewriter", recipe.steps.rewriter))
        if strategy.answered_by == "every" or len(self.answerers) == 1:
            named += [("generator", name) for name in self.answerers]
        used = [*self.template_sources, *(self.source(role, name) for role, name in named)]
        return any(self.removed.has_source(one["id"], one["role"]) for one in used)

    @cached_property
    def template_sources(self) -> tuple[Source, ...]:
        """The entries for the templates, and for the examples if there are any, in a row's sources."""
        return tuple(casting.prompt_sources(self.recipe, self.prompt))
