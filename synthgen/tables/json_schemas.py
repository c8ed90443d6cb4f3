"""JSON schemas in a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator

from synthgen.tables.section import Json


def _readable(schema: dict[str, Json]) -> dict[str, Json]:
    """Raises ValueError if the value is no JSON schema, or if it refers to something outside itself."""
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    try:
        validator_for(schema).check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"not a JSON schema: {error.message}") from None
    resource = DRAFT202012.create_resource(schema)
    name = resource.id() or ""
    resolver = Registry().with_resource(name, resource).resolver(name)
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except Unresolvable:
            raise ValueError(
                f"the schema refers to '{reference}', which it does not define, and other documents are not read"
            ) from None
    return schema


def _references(value: object) -> Iterator[str]:
    """All values of `$ref` in a schema."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            reference = part.get("$ref")
            if isinstance(reference, str):
                yield reference
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


JsonSchema = Annotated[dict[str, Json], AfterValidator(_readable)]
"""A JSON schema. References within the schema are followed, and other documents are never fetched."""
