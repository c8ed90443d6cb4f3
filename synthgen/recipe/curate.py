"""Section `curate`: which edits, checks and sweeps are on, and their settings.

The keys are the names in the tables EDITS, CHECKS and SWEEPS of `synthgen.tables.curation`. A rule that is added to a
table later, by a program that uses this package, is known too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    create_model,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails

from synthgen.tables.curation import CHECKS, EDITS, SWEEPS, RowRule
from synthgen.tables.section import Section


def rules() -> dict[str, RowRule]:
    """Every edit, check and sweep by its name, in the order in which they run."""
    return {**EDITS, **CHECKS, **SWEEPS}


class _Rules(Section):
    """Which rules decide that a row is kept. A rule's value is false or null (off), true (on), or its settings."""

    # "allow" is for rules that were added later. `_known` and the JSON Schema refuse all other keys.
    model_config = ConfigDict(extra="allow", json_schema_extra={"additionalProperties": False})

    def settings(self, name: str) -> Section | None:
        """The settings of the rule `name`, or an empty section where it has none; None when the rule is off."""
        value = getattr(self, name)
        if isinstance(value, Section):
            return value
        return Section() if value else None

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: object) -> object:
        """Refuse keys that are no rule, and validate those of rules that were added later."""
        if not isinstance(values, dict):
            return values
        later = {name: rule for name, rule in rules().items() if name not in cls.model_fields}
        wrong = [_unknown(str(key), values[key]) for key in values if key not in {*later, *cls.model_fields}]
        if wrong:
            raise ValidationError.from_exception_data("curate", wrong)
        added = _section("Later", Section, later).model_validate({k: v for k, v in values.items() if k in later})
        return {**values, **{name: getattr(added, name) for name in later}}


@dataclass(frozen=True)
class _Settings:
    """An annotation of the key of a rule that has settings: what else may stand there."""

    rule: RowRule

    def validate(self, value: object) -> object:
        """What stands in the recipe, as a mapping of settings, or None for a rule that is off."""
        if isinstance(value, bool):
            return {} if value else None
        if self.rule.shorthand and not isinstance(value, Mapping | Section | None):
            return {self.rule.shorthand: value}
        return value

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema of the settings or null, and the other values that `validate` takes."""
        described = handler(schema)
        others: list[JsonSchemaValue] = [{"type": "boolean"}]
        if self.rule.shorthand and self.rule.section:
            annotation = self.rule.section.model_fields[self.rule.shorthand].rebuild_annotation()
            others.append(TypeAdapter(annotation).json_schema())
        return {**described, "anyOf": [*described["anyOf"], *others]}


def _switch(value: object) -> object:
    return False if value is None else value


def _section(name: str, base: type[Section], rules: Mapping[str, RowRule]) -> type[Section]:
    """A section with a key for each of the rules."""
    fields: dict[str, object] = {}
    for key, rule in rules.items():
        about = Field(description=rule.about)
        if rule.section is None:
            schema = WithJsonSchema({"type": ["boolean", "null"]})
            fields[key] = (Annotated[bool, BeforeValidator(_switch), schema, about], rule.on)
        else:
            section, settings = rule.section, _Settings(rule)
            kind = Annotated[section | None, BeforeValidator(settings.validate), settings, about]  # type: ignore[valid-type]
            fields[key] = (kind, section() if rule.on else None)
    made: type[Section] = create_model(name, __base__=base, __module__=__name__, __doc__=base.__doc__, **fields)  # type: ignore[call-overload]
    return made


def _unknown(key: str, value: object) -> InitErrorDetails:
    """The error for a key that no rule has."""
    return InitErrorDetails(type="extra_forbidden", loc=(key,), input=value)


if TYPE_CHECKING:

    class CurateSection(_Rules):
        """The section, with a key for each rule that the tables had when this module was imported."""
else:
    CurateSection = _section("CurateSection", _Rules, rules())
