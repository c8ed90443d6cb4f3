"""The JSON Schema of a recipe, generated from the classes and tables that validate it. Editors use the schema to
complete and check recipes.

data/recipe.schema.json holds this schema. `python docs/recipe.py` writes this file, and the first line of every recipe
refers to it.
"""

from __future__ import annotations

from typing import TypeAlias

from pydantic.json_schema import GenerateJsonSchema

from synthgen.recipe.root import Recipe
from synthgen.tables.section import SECTION, Section, sections_in

Json: TypeAlias = "dict[str, Json] | list[Json] | str | float | bool | None"


class _Untitled(GenerateJsonSchema):
    """Pydantic's schema generator without the titles that it derives from keys."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def recipe_schema() -> dict[str, Json]:
    """The JSON Schema of a recipe. The schema refuses unknown keys, and has the description and the default of each
    key.

    The rules across sections are not part of the schema; `synthgen plan` checks them.
    """
    definitions: dict[str, Json] = {}
    for section in sections():
        described: dict[str, Json] = section.model_json_schema(schema_generator=_Untitled)
        described.pop("$defs", None)
        if section.__name__ in definitions:
            raise ValueError(f"two sections are called {section.__name__}: the schema needs a name for each")
        definitions[section.__name__] = described
    schema = _mapping(_closed(definitions.pop(Recipe.__name__)))
    definitions = _mapping(_closed(definitions))
    # The schema does not require this key, because validation fills it in: a seed source inherits the recipe's license.
    _required(_mapping(definitions["SeedSource"])).remove("license")
    _mapping(_mapping(schema["properties"])["teacher"]).pop("default")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "synthgen recipe",
        "anyOf": [{"required": ["teacher"]}, {"required": ["teachers"]}, {"required": ["train"]}],
        "if": {"not": {"required": ["license"]}},
        "then": {"properties": {"seeds": {"items": {"required": ["license"]}}}},
        "$defs": dict(sorted(definitions.items())),
    }


def sections() -> list[type[Section]]:
    """The classes of all sections of a recipe, `Recipe` first. The section of every table entry is included."""
    found: list[type[Section]] = [Recipe]
    for section in found:
        inner = [s for field in section.model_fields.values() for s in sections_in(field).values()]
        found += [s for s in dict.fromkeys(inner) if s not in found]
    return found


def _closed(schema: Json) -> Json:
    """The schema in its final form. Placeholders are replaced by references to the sections of tables, keys that match
    no pattern are refused, and each description is on one line.
    """
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if SECTION in schema:
        return {"$ref": f"#/$defs/{schema[SECTION]}"}
    closed = {key: _closed(part) for key, part in schema.items()}
    if "patternProperties" in closed:
        closed.setdefault("additionalProperties", False)
    if isinstance(closed.get("description"), str):
        closed["description"] = " ".join(str(closed["description"]).split())
    return closed


def _mapping(value: Json) -> dict[str, Json]:
    assert isinstance(value, dict)
    return value


def _required(section: dict[str, Json]) -> list[Json]:
    required = section["required"]
    assert isinstance(required, list)
    return required
