"""Reads the JSON file of a result into an object of its class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from synthgen.errors import CorpusError
from synthgen.files import read_object

T = TypeVar("T")
_ADAPTERS: dict[object, TypeAdapter[Any]] = {}


def read(path: Path, kind: type[T], again: str, rename: Callable[[Any], Any] = lambda values: values) -> T:
    """Read the result in the file `path`. Raises CorpusError, with the hint `again`, when the file is damaged or of
    another version.

    `rename` converts the values of the JSON document before they are checked.
    """
    value = read_object(path, again)
    try:
        return parse(rename(value), kind)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = f"'{where}': {first['msg']}" if where else first["msg"]
        raise CorpusError(f"{path} was written by another version, or is damaged: {reason}", again) from None
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:  # errors of `rename`
        raise CorpusError(f"{path} is damaged: {error}", again) from None


def parse(values: object, kind: type[T]) -> T:
    """Make a result from the values of its JSON document. Raises Pydantic's ValidationError when the values do not fit
    the class `kind`.
    """
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    result: T = _ADAPTERS[kind].validate_python(values)
    return result
