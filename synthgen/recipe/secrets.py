"""Finds secrets, such as API keys, in the text of a recipe.

A recipe is shared, and parts of it are copied into the run folder. So a recipe may name the environment variable that
holds a key, but never hold the key itself, not even in a comment. No message shows the secret.
"""

from __future__ import annotations

import os
import re

HINT = "name the environment variable that holds the key in teacher.api_key_env, and remove the key from the recipe"

_SHAPES = re.compile(
    r"""(?<![A-Za-z0-9])(
    sk-(?!learn)[A-Za-z0-9_-]{16,} | (sk|rk|pk)_(live|test)_\w{16,} |
    (gsk|hf|ghp|gho|ghs|ghu|xai|fw|r8|pplx|csk|dsk)[_-][A-Za-z0-9]{20,} |
    (nvapi|glpat|github_pat|tgp_v1)[_-][A-Za-z0-9_-]{20,} |
    AIza[A-Za-z0-9_-]{30,} | AKIA[A-Z0-9]{16} | xox[abpors]-[A-Za-z0-9-]{10,} |
    eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}
    )|(?i:bearer\s+[a-z0-9._~+/=-]{16,})|-----BEGIN[ A-Z]*PRIVATE[ ]KEY-----""",
    re.VERBOSE,
)
"""The shapes of keys of well-known providers, of JSON web tokens and of private keys."""
_SECRET_NAME = re.compile(r"(^|_)(API_?KEYS?|KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$")
_NAMES = re.compile(
    r"(x_|ocp_apim_)?(api|access|auth|bearer|client|id|private|refresh|secret|subscription)?_?"
    r"(key|keys|token|secret|password|passwd|passphrase|authorization|auth|bearer|credentials?)"
)
"""Names of parameters that hold a secret, in lower case and with `_`."""
_SHORTEST = 12  # minimum number of characters; a shorter value of an environment variable may be a common word


def secret_in(text: str) -> bool:
    """Whether `text` contains something with the shape of a key, or the value of an environment variable whose name
    says that it holds a secret.
    """
    return _holds(text, _in_environment())


def names_secret(name: str) -> bool:
    """Whether a parameter of this name holds a secret."""
    return bool(_NAMES.fullmatch(name.strip().lower().replace("-", "_")))


def secret_at(value: object, place: str = "") -> str | None:
    """The dotted key below which a value of a recipe holds a secret, or None. The names of keys are searched too.

    If a key of `extra` has the name of a secret, such as api_key, its value always counts as a secret.
    """
    return _secret_at(value, place, _in_environment())


def _secret_at(value: object, place: str, secrets: list[str]) -> str | None:
    if isinstance(value, str):
        return place if _holds(value, secrets) else None
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(key, str) and _holds(key, secrets):
                return place
            below = f"{place}.{key}" if place else str(key)
            if ".extra." in f"{below}." and names_secret(str(key)) and inner not in (None, ""):
                return below
            if found := _secret_at(inner, below, secrets):
                return found
    if isinstance(value, list | tuple):
        return next(
            (found for n, inner in enumerate(value) if (found := _secret_at(inner, f"{place}.{n}", secrets))), None
        )
    return None


def _holds(text: str, secrets: list[str]) -> bool:
    return bool(_SHAPES.search(text)) or any(secret in text for secret in secrets)


def _in_environment() -> list[str]:
    found = []
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name.upper()) and len(value.strip()) >= _SHORTEST:
            found.append(value.strip())
    return found
