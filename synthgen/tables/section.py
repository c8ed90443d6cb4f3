"""The base class of every section of a recipe, and types for the keys of sections.

A section is a pydantic model. A section's docstring and the docstrings under its keys are the texts of docs/recipe.md
and the descriptions in the JSON Schema. The method `rules` checks rules between keys of the same section:

    class Split(Section):
        \"\"\"Shares of the seeds that are held out.\"\"\"

        test: Share = 0.2
        \"\"\"Share of the seed groups in the test split.\"\"\"

        def rules(self) -> Iterator[Rule]:
            if self.validation + self.test > 1:
                yield "test", "the shares add up to more than 1"

The class of some sections depends on a key that names an entry of a table, such as a teacher's engine or a student's
kind. The class is looked up in the table when a recipe is validated, so entries that other packages add are known:

    teacher: Annotated[AnyTeacher, chosen_by(ENGINES, "engine", "transformers")]
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    JsonValue,
    WithJsonSchema,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, ValidationError, core_schema

from synthgen.errors import nearest

Share = Annotated[float, Field(ge=0, le=1)]


Count = Annotated[int, Field(ge=1)]


# A value of a mapping whose keys the user chooses. JSON must be able to hold the value, because the value is sent or
# stored as JSON.
if TYPE_CHECKING:
    Json = object
else:
    Json = Annotated[JsonValue, WithJsonSchema({})]


# A teacher's name in a recipe. The folder with that teacher's distributions has the same name.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


Rule = tuple[str, str]
"""A broken rule of a section: the key that the rule is about, and a sentence that says what is wrong."""


@dataclass(frozen=True)
class Place:
    """Marks a key that holds a path or the name of a model or data set.

    A value of kind `path` is always a file or folder. A value of kind `model` is a hub id, or a file or folder if it
    begins with `.`, `/` or `~`. When a recipe is resolved, all files and folders become absolute paths.
    """

    kind: Literal["path", "model"]


PathName = Annotated[str, Place("path")]


ModelName = Annotated[str, Place("model")]


class Section(BaseModel):
    """The base class of a section, which is a mapping in the recipe. A section is frozen and refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    def rules(self) -> Iterator[Rule]:
        """Yield the broken rules between keys of this section. Rules across sections are in `synthgen.recipe.check`."""
        yield from ()

    @model_validator(mode="after")
    def _keep_rules(self) -> Section:
        broken = [problem((key,), sentence, getattr(self, key, None)) for key, sentence in self.rules()]
        if broken:
            raise ValidationError.from_exception_data(type(self).__name__, broken)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The JSON Schema of the section. The description of a key is the docstring under the key."""
        described = handler(schema)
        properties = handler.resolve_ref_schema(described).get("properties", {})
        for key, text in key_docs(cls).items():
            if key in properties:
                properties[key]["description"] = text
        return described


def problem(loc: tuple[str | int, ...], sentence: str, value: object = None) -> InitErrorDetails:
    """Make one error of a ValidationError. `loc` is the location of the key, relative to the validated value, and
    `sentence` says what is wrong.
    """
    return InitErrorDetails(
        type=PydanticCustomError("rule", "{sentence}", {"sentence": sentence}), loc=loc, input=value
    )


def key_docs(section: type[BaseModel]) -> dict[str, str]:
    """Maps each key of a section and of its base classes to the docstring under the key, as one line. Docstrings are
    read from the source files.
    """
    found: dict[str, str] = {}
    for owner in reversed(section.__mro__):
        if not issubclass(owner, BaseModel) or owner in (BaseModel, Section):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, text in zip(body.body, body.body[1:], strict=False):
            target = statement.target if isinstance(statement, ast.AnnAssign) else None
            if isinstance(target, ast.Name) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[target.id] = " ".join(str(text.value.value).split())
    return found


SECTION = "x-section"
"""A placeholder in a JSON Schema: a key whose value is the name of a section. When all definitions exist, a reference
to the section's definition replaces the placeholder.
"""


class Entry(Protocol):
    """The attribute that `chosen_by` needs in every table entry."""

    @property
    def section(self) -> type[Section]: ...


@dataclass(frozen=True)
class ChosenBy:
    """The annotation that `chosen_by` returns."""

    table: Mapping[str, Entry]
    key: str
    default: str | None

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.validate, serialization=core_schema.simple_ser_schema("any")
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """A JSON Schema with one branch for each entry. The branch of the default entry also applies when the choosing
        key is left out. `synthgen.recipe.schema` adds the definitions of the entries' sections.
        """
        branches = []
        for name, entry in self.table.items():
            condition: dict[str, object] = {"properties": {self.key: {"const": name}}}
            if name != self.default:
                condition["required"] = [self.key]
            branches.append({"if": condition, "then": {SECTION: entry.section.__name__}})
        return {
            "type": "object",
            "properties": {self.key: {"enum": [*self.table]}},
            "required": [] if self.default else [self.key],
            "allOf": branches,
        }

    def validate(self, value: object) -> Section:
        """Build the section that `value` describes. Raises ValidationError, whose locations are relative to `value`."""
        if isinstance(value, Section):
            entry = self.table.get(str(getattr(value, self.key, None)))
            if entry is None or not isinstance(value, entry.section):
                raise PydanticCustomError("rule", "not a section of this table")
            return value
        if not isinstance(value, dict):
            raise PydanticCustomError("dict_type", "it must be a mapping of keys to values")
        name = value.get(self.key, self.default)
        if name is None:
            raise self._refused(PydanticCustomError("missing", "key is missing"), value)
        if not isinstance(name, str) or name not in self.table:
            raise self._refused(unknown_name(name, self.table), name)
        return self.table[name].section.model_validate({self.key: name, **value})

    def _refused(self, error: PydanticCustomError, value: object) -> ValidationError:
        return ValidationError.from_exception_data(
            self.key, [InitErrorDetails(type=error, loc=(self.key,), input=value)]
        )


def chosen_by(table: Mapping[str, Entry], key: str, default: str | None = None) -> ChosenBy:
    """An annotation for a key of a recipe whose value is a section. The section's own key `key` names an entry of
    `table`, and this entry determines the section's class.

    The table is read when a recipe is validated, so entries that were added to it later are known. `default` is the
    entry that is used when the key is left out; without a default the key is required. An error's location (`loc`) is
    given relative to the section and names the key that is wrong. The error for an unknown name says "did you mean".
    When a recipe is dumped, each section is dumped with all keys of its own class.
    """
    return ChosenBy(table, key, default)


@dataclass(frozen=True)
class NameIn:
    """The annotation that `name_in` returns."""

    table: Mapping[str, object]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.validate, core_schema.str_schema())

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "enum": [*self.table]}

    def validate(self, value: str) -> str:
        """Return the name `value` if it is in the table, otherwise raise an error."""
        if value not in self.table:
            raise unknown_name(value, self.table)
        return value


def name_in(table: Mapping[str, object]) -> NameIn:
    """An annotation for a key that holds the name of an entry of `table`. The table is read when a recipe is
    validated.
    """
    return NameIn(table)


def unknown_name(value: object, table: Mapping[str, object]) -> PydanticCustomError:
    """The error for a name that a table does not have. The error's context holds the known names (`known`) and the hint
    for the user (`hint`).
    """
    return PydanticCustomError(
        "unknown_name", "{hint}", {"hint": nearest(str(value), table).removeprefix("; "), "known": [*table]}
    )


def sections_in(field: FieldInfo) -> dict[str, type[Section]]:
    """The section classes that a key of a recipe may hold. The result maps the name of a table entry to its section
    class. If the class does not depend on a table, its name is ''.
    """
    chooser = chooser_of(field)
    if chooser:
        return {name: entry.section for name, entry in chooser.table.items()}
    found = [part for part in _parts(field) if isinstance(part, type) and issubclass(part, Section)]
    return {"": found[0]} if found else {}


def chooser_of(field: FieldInfo) -> ChosenBy | None:
    """The `chosen_by` annotation of a key, or of the values in its list or mapping; None without such an annotation."""
    return next((part for part in _parts(field) if isinstance(part, ChosenBy)), None)


def place_of(field: FieldInfo) -> Place | None:
    """The `Place` in the annotation of a key; None if there is no `Place`."""
    return next((part for part in _parts(field) if isinstance(part, Place)), None)


def _parts(field: FieldInfo) -> Iterator[object]:
    """Yield the parts of a key's annotation: its types, the types inside these, and all metadata."""
    waiting: list[object] = [field.annotation, *field.metadata]
    while waiting:
        part = waiting.pop(0)
        yield part
        waiting += get_args(part)
