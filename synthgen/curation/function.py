"""The check `function`: a Python function that the user wrote decides which rows are rejected.

def no_names(batch):                     # a pyarrow.RecordBatch with the columns of the setting `columns`
    return ["has a name" if "Smith" in text else None for text in batch["completion.text"].to_pylist()]
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

import pyarrow as pa

from synthgen.curation.verdicts import Rejection, Verdicts
from synthgen.errors import RecipeError
from synthgen.executor import Services
from synthgen.tables.curation_settings import Function
from synthgen.tables.reference import resolve

_imported: dict[str, tuple[ModuleSpec | None, str]] = {}
"""For each module whose code `fingerprint` hashed: its spec and the hash. Each import makes a new spec."""
Judges = Callable[[pa.RecordBatch], Sequence[object]]


def function(batch: pa.RecordBatch, section: Function, services: Services) -> Verdicts:
    """Reject the rows for which the user's function returns a reason. Raises RecipeError when the function raises an
    error, or when it does not return one reason or None for each row.
    """
    name = section.function
    judge = load(section)
    try:
        reasons = list(judge(batch))
    except Exception as error:  # the user's code may raise any exception
        raise RecipeError(
            f"curate.function: '{name}' raised {_in_words(error)}", "correct the function, and run the command again"
        ) from error
    if len(reasons) != batch.num_rows:
        raise RecipeError(
            f"curate.function: '{name}' returned {len(reasons)} values for {batch.num_rows} rows",
            "return a list with None or a reason for each row",
        )
    wrong = next(
        (reason for reason in reasons if reason is not None and not (isinstance(reason, str) and reason)), None
    )
    if wrong is not None:
        raise RecipeError(
            f"curate.function: '{name}' returned {wrong!r:.60} for a row", "return None to keep a row, or a reason"
        )
    return Verdicts({row: Rejection(str(reason)) for row, reason in enumerate(reasons) if reason is not None})


def load(section: Function) -> Judges:
    """The user's function. The function's module is searched where Python finds modules, and in the current folder.
    Raises RecipeError when the function cannot be imported.
    """
    name = section.function
    folder = str(Path.cwd())
    sys.path.append(folder)
    try:
        loaded: Judges = resolve(name)
    except RecipeError as error:
        raise RecipeError(f"curate.function: {error.message}", error.hint) from error
    except Exception as error:  # the user's module may raise any exception
        raise RecipeError(
            f"curate.function: '{name}' cannot be imported, {_in_words(error)}",
            "correct the module, and run the command again",
        ) from error
    finally:
        sys.path.remove(folder)
    return loaded


def _in_words(error: Exception) -> str:
    first = str(error).strip().splitlines()[:1]
    return f"{type(error).__name__}{': ' + first[0] if first else ''}"


def fingerprint(section: Function) -> str:
    """The SHA-256 of the user's module, so that a changed function is not mistaken for the old one. Files that the
    module imports are not included. Raises the errors of `load`, and RecipeError when the module was changed after this
    process had imported it, because the old code would run.
    """
    load(section)
    module = sys.modules[section.function.partition(":")[0]]
    path = getattr(module, "__file__", None)
    code = hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
    spec, imported = _imported.get(module.__name__, (None, ""))
    if spec is not module.__spec__:  # the module was imported or reloaded after the last call
        _imported[module.__name__] = (module.__spec__, code)
    elif imported != code:
        raise RecipeError(
            f"curate.function: the module '{module.__name__}' was changed after it was imported",
            "start Python again, or call importlib.reload on the module in a notebook",
        )
    return code
