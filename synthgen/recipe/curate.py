"""Section `curate`: the enabled edits, checks and sweeps, and their settings.

The keys are the names in the tables EDITS, CHECKS, SWEEPS and SELECTIONS of `synthgen.tables.curation`. A recipe may
also have keys for rules that a program adds to these tables after this module was imported.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self, TypeVar

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    TypeAdapter,
    WithJsonSchema,
    create_model,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from synthgen.errors import RecipeError
from synthgen.tables.curation import CHECKS, EDITS, SELECTIONS, SWEEPS, RowRule
from synthgen.tables.reference import resolve
from synthgen.tables.section import Section

Base = TypeVar("Base", bound=Section)


def rules() -> dict[str, RowRule]:
    """Every edit, check, sweep and selection by name, in the order in which they run."""
    return {**EDITS, **CHECKS, **SWEEPS, **SELECTIONS}


class _Rules(Section):
    """The rules that decide whether a row is kept. The value of a rule is false or null (off), true (on), or a mapping
    of settings.
    """

    def settings(self, name: str) -> Section | None:
        """The settings of the rule `name`, or an empty section when it has no settings. None when the rule is off."""
        rule = rules()[name]
        value = getattr(self, name, (rule.section() if rule.section else True) if rule.on else None)
        if isinstance(value, Section):
            return value
        return Section() if value else None

    def values(self) -> dict[str, object]:
        """The value of every rule as JSON. A rule with settings has a mapping of them when it is on, and null when it
        is off. A rule without settings has true or false.
        """
        values: dict[str, object] = {}
        for name, rule in rules().items():
            settings = self.settings(name)
            if rule.section is None:
                values[name] = settings is not None
            else:
                values[name] = settings.model_dump(mode="json") if settings else None
        return values

    @model_validator(mode="wrap")
    @classmethod
    def _with_later_rules(cls, values: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """If `values` has keys for rules that were added to the tables after the import, validate `values` with a
        section class that also has these keys.
        """
        later = {name: rule for name, rule in rules().items() if name not in cls.model_fields}
        if not isinstance(values, dict):
            return handler(values)
        if not later.keys() & values.keys():
            return handler(values)
        return _extended(cls, tuple(later.items())).model_validate(values)


@cache
def _extended(base: type[Base], later: tuple[tuple[str, RowRule], ...]) -> type[Base]:
    return _section(base.__name__, base, dict(later))


@dataclass(frozen=True)
class _Settings:
    """An annotation for the key of a rule that has settings. A key with this annotation also accepts a boolean, or the
    value of the rule's shorthand setting.
    """

    rule: RowRule

    def validate(self, value: object) -> object:
        """Convert a short form in the recipe to a mapping of settings, or to None when the rule is off."""
        if isinstance(value, bool):
            fields = self.rule.section.model_fields if self.rule.section else {}
            needed = [f"'{key}'" for key, field in fields.items() if field.is_required()]
            if value and needed:
                raise PydanticCustomError("rule", "{sentence}", {"sentence": f"give its settings: {', '.join(needed)}"})
            return {} if value else None
        if self.rule.shorthand and not isinstance(value, Mapping | Section | None):
            return {self.rule.shorthand: value}
        return value

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema for the settings, for null, and for the short forms that `validate` accepts."""
        described = handler(schema)
        others: list[JsonSchemaValue] = [{"type": "boolean"}]
        if self.rule.shorthand and self.rule.section:
            annotation = self.rule.section.model_fields[self.rule.shorthand].rebuild_annotation()
            others.append(TypeAdapter(annotation).json_schema())
        return {**described, "anyOf": [*described["anyOf"], *others]}


def _switch(value: object) -> object:
    return False if value is None else value


def _section(name: str, base: type[Base], rules: Mapping[str, RowRule]) -> type[Base]:
    """Make a section class that has the keys of `base` and a key for each of `rules`."""
    fields: dict[str, object] = {}
    for key, rule in rules.items():
        about = Field(description=rule.about)
        if rule.section is None:
            schema = WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "null"}]})
            fields[key] = (Annotated[bool, BeforeValidator(_switch), schema, about], rule.on)
        else:
            section, settings = rule.section, _Settings(rule)
            kind = Annotated[section | None, BeforeValidator(settings.validate), settings, about]  # type: ignore[valid-type]
            fields[key] = (kind, section() if rule.on else None)
    section_class: type[Base] = create_model(name, __base__=base, __module__=__name__, __doc__=base.__doc__, **fields)  # type: ignore[call-overload]
    return section_class


if TYPE_CHECKING:

    class CurateSection(_Rules):
        """The section `curate`. It has a key for each rule that was in the tables of `synthgen.tables.curation` when
        this module was imported.
        """
else:
    CurateSection = _section("CurateSection", _Rules, rules())


def fingerprints(section: CurateSection) -> dict[str, str]:
    """The fingerprints of the enabled rules that have a fingerprint (see `synthgen.tables.curation`). Raises
    RecipeError when one of these rules cannot run.
    """
    settings = {name: section.settings(name) for name, rule in rules().items() if rule.fingerprint}
    chosen = {name: value for name, value in settings.items() if value is not None}
    return {name: resolve(rules()[name].fingerprint or "")(value) for name, value in chosen.items()}


def check_installed(section: CurateSection) -> None:
    """Raise RecipeError when an enabled rule needs a package that is not installed or a file that does not exist, or
    cannot run for another reason. Commands that spend time or money call this before they start.
    """
    fingerprints(section)
    for name, rule in rules().items():
        if rule.needs and section.settings(name) is not None and importlib.util.find_spec(rule.needs) is None:
            raise RecipeError(
                f"curate.{name} needs {rule.needs}, which is not installed", "pip install 'synthgen-distill[curate]'"
            )
    for path in files_read(section):
        if not path.exists():
            raise RecipeError(f"curate: '{path}' does not exist", "correct the path")


def files_read(section: CurateSection) -> list[Path]:
    """The files and folders that the enabled rules read in addition to the corpus."""
    reading = [(rule.reads, section.settings(name)) for name, rule in rules().items() if rule.reads]
    return [path for reads, settings in reading if reads and settings for path in resolve(reads)(settings)]
