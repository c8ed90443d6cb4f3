"""Computes which tokens may come next in an answer that must follow a JSON schema or match a regular expression, and
explains why a text does not have the required form.

For the 'transformers' teacher, the llguidance library computes the allowed tokens. vLLM computes them itself. The
stored distribution of a row is the teacher's own distribution, before tokens are excluded.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from synthgen.errors import TeacherError, missing_extra

_JSON: Any = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}  # with flexible whitespace, small models would write long sequences of spaces
_DIGITS = 400  # a whole number of a JSON text has at most this many digits; larger numbers do not fit into a float


class Form:
    """The required form of a model's answers. The end tokens `eos` are allowed only when the answer is complete."""

    def __init__(self, tokenizer: Any, eos: set[int], size: int, schema: Any, regex: str | None) -> None:
        try:
            from llguidance import LLMatcher
            from llguidance.hf import from_tokenizer
        except ModuleNotFoundError as error:
            raise missing_extra(str(error.name), "train") from None
        try:
            self._tokens = from_tokenizer(tokenizer, n_vocab=size, eos_token=sorted(eos))
        except ValueError as error:
            raise TeacherError(f"this model's tokenizer cannot be used with json_schema or regex: {error}") from None
        grammar = LLMatcher.grammar_from_json_schema(schema, overrides=_JSON) if regex is None else None
        self._grammar = grammar or LLMatcher.grammar_from_regex(regex or "")
        self._eos = sorted(eos)
        self._schema, self._regex, self._size, self._matcher = schema, regex, size, LLMatcher
        problem = LLMatcher.validate_grammar(self._grammar, self._tokens)
        if problem and not problem.startswith("WARNING"):
            key = "json_schema" if regex is None else "regex"
            raise TeacherError(
                f"generate.{key} cannot be used: {problem.splitlines()[0]}", "use a simpler schema or expression"
            )

    def begin(self) -> Any:
        """The state of a new answer."""
        return self._matcher(self._tokens, self._grammar, log_level=0)

    def allowed(self, answers: Sequence[Any]) -> np.ndarray[Any, Any]:
        """An array (B, V): for each answer, True for each token that may come next. After a complete answer that cannot
        continue, only end tokens may come next.
        """
        from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

        bits = allocate_token_bitmask(len(answers), self._size)
        over = [answer.is_stopped() or answer.is_error() for answer in answers]
        for row, answer in enumerate(answers):
            if not over[row]:
                fill_next_token_bitmask(answer, bits, row)
        found = np.unpackbits(bits.view(np.uint8), axis=1, bitorder="little")[:, : self._size].astype(bool)
        found[over] = False
        found[np.ix_(over, self._eos)] = True
        return found

    def wrong(self, text: str) -> str:
        """Why a complete text does not have the required form. Empty when the text has this form."""
        return mismatch(text, self._schema) if self._regex is None else unmatched(text, self._regex)


def mismatch(text: str, schema: dict[str, Any]) -> str:
    """Why a text does not follow the schema. Empty when the text follows the schema. Other files to which the schema
    refers are not fetched.
    """
    from referencing.exceptions import Unresolvable

    try:
        value = parsed_json(text)
    except ValueError as error:
        return f"the answer is not JSON: {error}"
    try:
        problem = next(iter(_validator(json.dumps(schema)).iter_errors(value)), None)
    # the text is nested too deeply, or a number is too large
    except (RecursionError, ArithmeticError, Unresolvable) as error:
        return f"the answer cannot be compared with the schema: {type(error).__name__}"
    if problem is None:
        return ""
    where = "".join(f"[{part!r}]" for part in problem.absolute_path)
    return f"the answer does not follow the schema: {where}{': ' if where else ''}{problem.message[:200]}"


def parsed_json(text: str) -> object:
    """The value of a JSON text. Raises ValueError for everything that is not JSON (RFC 8259), such as NaN and Infinity.
    ValueError is also raised for a number that is too large for a float, for two equal keys of an object, and for text
    that is nested too deeply to be read.
    """
    try:
        return json.loads(
            text, parse_constant=_refuse, parse_int=_whole, parse_float=_finite, object_pairs_hook=_distinct
        )
    except json.JSONDecodeError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"the number {text[:40]}… has {len(text)} digits")
    return int(text)


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        double = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key '{double[:40]}' occurs twice in an object")
    return found


@lru_cache(maxsize=8)
def _validator(schema: str) -> Any:
    from jsonschema.validators import validator_for
    from referencing import Registry

    value = json.loads(schema)
    return validator_for(value)(value, registry=Registry())


def unmatched(text: str, regex: str) -> str:
    """A message that a text does not match the regular expression. Empty when the text matches. A text that was cut off
    at the maximum length may fail to match.
    """
    return "" if re.fullmatch(regex, text) else "the answer does not match generate.regex"
