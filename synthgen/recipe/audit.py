"""Section `audit`: the intended use that the audit judges."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from synthgen.errors import RecipeError
from synthgen.recipe.bias import BiasSection
from synthgen.recipe.exceptions import Action, Permission, Waiver
from synthgen.recipe.privacy import PrivacySection
from synthgen.recipe.terms import Terms, word
from synthgen.tables.audits import AUDITS
from synthgen.tables.section import Count, ModelName, PathName, Rule, Section


class ModelsSection(Section):
    """What the audit of models measures: the bias of a student and, for comparison, the bias of other models on the
    same items. The test sets are not part of this package; docs/bias-of-models.md says where to get them.
    """

    winobias: PathName | None = None
    """Folder with the files of WinoBias, such as pro_stereotyped_type1.txt.dev."""
    winogender: PathName | None = None
    """Folder with all_sentences.tsv and occupations-stats.tsv of Winogender."""
    bbq: tuple[PathName, ...] = ()
    """Files of BBQ, one for each category, such as Age.jsonl."""
    items: Count | None = 300
    """Number of questions of each category, drawn evenly from its templates. null means all questions."""
    seed: int = 0
    """Seed that draws the questions."""
    teacher: ModelName | None = None
    """The student's teacher. Its name has one of the forms that `teacher.model` accepts."""
    untrained: ModelName | None = None
    """The student before training. When left out, the checkpoint in `train.student.model` is used, if the recipe names
    one.
    """
    students: tuple[ModelName, ...] = ()
    """Folders of further students that were trained with the same settings and other values of `train.seed`. With fewer
    than 3 students in all, a difference is known to hold only for the random seeds of these students.
    """

    def rules(self) -> Iterator[Rule]:
        if not (self.winobias or self.winogender or self.bbq):
            yield "winobias", "give at least one of 'winobias', 'winogender' and 'bbq'"


Competes = Annotated[
    Literal["yes", "no", "unknown"],
    BeforeValidator(word),
    WithJsonSchema({"enum": ["yes", "no", "unknown", True, False]}),
]


class AuditSection(Section):
    """The intended use that the audit judges."""

    use: Literal["research", "commercial"] = "commercial"
    """Whether the corpus and the student are for research or for commercial use."""
    actions: tuple[Action, ...] = (
        "train",
        "share_data",
        "release_weights",
    )
    """The planned actions: train a student, share the corpus, release the student's weights, serve the student."""
    competes: Competes | dict[str, Competes] = "unknown"
    """Whether the student competes with the teacher's provider. The terms of some providers forbid such students. With
    several providers, a mapping: `{openai: no, google: yes}`. The keys of the mapping are the families of
    data/licenses.yaml; for a provider that the mapping does not name, the answer is unknown.
    """
    student_family: str = ""
    """Model family of the student, for terms that allow the teacher's output to train only models of the teacher's
    family.
    """
    student_name: str = ""
    """Name under which the student will be released, for licenses that require the name to begin with some prefix."""
    monthly_users: Annotated[int, Field(ge=0)] | None = None
    """Users of your products in a month. Some licenses grant nothing above a limit, such as 700 million for Llama."""
    yearly_revenue_usd: Annotated[float, Field(ge=0)] | None = None
    """Your revenue in a year, in US dollars. Some licenses grant nothing above a limit."""
    regions: tuple[str, ...] = ()
    """Where you are and where the student is used, such as `[EU, US]`. Some licenses exclude a region."""
    terms: tuple[Terms, ...] = ()
    """Facts about licenses that data/licenses.yaml does not have, such as your own contract with a provider."""
    bias: BiasSection | None = None
    """Tests for bias. The tests run only if the recipe has this section; `bias: {}` compares the groups that come with
    the package.
    """
    models: ModelsSection | None = None
    """Tests of the student's bias. These tests take minutes, and do not decide whether the audit passes."""
    privacy: PrivacySection | None = None
    """Tests of a corpus for personal data and private texts, and tests of what a student reveals about its training
    rows. The tests run only if the recipe has this section; `privacy: {}` uses the default values. The tests of a
    student take minutes.
    """
    permissions: tuple[Permission, ...] = ()
    """Written permissions of rights holders. A permission allows the actions that it names, even if the terms forbid
    them.
    """
    waivers: tuple[Waiver, ...] = ()
    """Findings that a named person accepts. These findings keep their verdicts, but do not close the gate of training.
    """

    def competes_with(self, provider: str) -> tuple[Literal["yes", "no", "unknown"], str]:
        """Whether the student competes with a provider, and the key of the recipe that says so."""
        if isinstance(self.competes, str):
            return self.competes, "audit.competes"
        stated = {name.lower(): answer for name, answer in self.competes.items()}
        return stated.get(provider.lower(), "unknown"), f"audit.competes.{provider}"


def check_audits(section: AuditSection) -> None:
    """Raise RecipeError when an audit that the section asks for needs a package that is not installed or a file that
    does not exist. Commands that spend time or money call this before they start.
    """
    for audit in AUDITS.values():
        if not audit.key or getattr(section, audit.key, None) is None:
            continue
        for package in audit.needs:
            if importlib.util.find_spec(package) is None:
                raise RecipeError(
                    f"audit.{audit.key} needs {package}, which is not installed",
                    "pip install 'synthgen-distill[audit]'",
                )
    for key, path in _files(section):
        if "://" not in path and not Path(path).exists():
            raise RecipeError(f"{key}: '{path}' does not exist", "correct the path")


def _files(section: AuditSection) -> Iterator[tuple[str, str]]:
    """Each file or folder that the audits read in addition to the corpus, after the key that names it."""
    for path in section.privacy.private if section.privacy else ():
        yield "audit.privacy.private", path
    if section.models:
        named = [("winobias", section.models.winobias), ("winogender", section.models.winogender)]
        for key, name in [*named, *(("bbq", path) for path in section.models.bbq)]:
            if name:
                yield f"audit.models.{key}", name
