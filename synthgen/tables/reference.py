"""References to functions in other modules, written "module:function". The module is imported when the function is
used.

resolve("distill.students.decoder:train")     # the function
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from synthgen.errors import RecipeError

Reference = str | Callable[..., Any]
"""A function, or its name as "module:function"."""


def resolve(reference: Reference) -> Callable[..., Any]:
    """The function that `reference` names. If `reference` is a function, it is returned unchanged.

    Raises RecipeError when the module or function does not exist. An ImportError that the module raises is passed on,
    because it names a package that is not installed.
    """
    if not isinstance(reference, str):
        return reference
    module, colon, name = reference.partition(":")
    if not (module and colon and name):
        raise RecipeError(f"'{reference}' is not the name of a function", 'write it as "module:function"')
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise RecipeError(
            f"'{reference}': there is no module '{error.name}'", "check the name; the module must be importable"
        ) from None
    function = getattr(loaded, name, None)
    if not callable(function):
        raise RecipeError(f"'{reference}': the module '{module}' has no function '{name}'", "check the name")
    return function
