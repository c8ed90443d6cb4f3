"""The check `language`: completions in a language that the recipe does not allow, by the package eldc."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

import pyarrow as pa

from synthgen.curation.verdicts import Rejection, Verdicts
from synthgen.executor import Services
from synthgen.tables.curation_settings import Languages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LETTERS = 30  # a text with fewer letters is not judged; Chinese, Japanese and Korean letters count as four
_PROSE = 0.75  # a text is judged if letters make up at least this share of its characters without white space
_NO_PROSE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`|\$\$.*?\$\$|\w+://\S+|\S+@\S+", re.DOTALL)
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_READ = 2000  # only this many characters at the beginning are read


def language(batch: pa.RecordBatch, section: Languages, services: Services) -> Verdicts:
    """Reject a completion whose language is not allowed. A completion is kept if its language cannot be known: when it
    is short, mostly code or numbers, or when the detector is not sure.
    """
    rejected = {}
    for row, detected in enumerate(languages(batch["completion.text"].to_pylist())):
        if detected and detected not in section.allowed:
            rejected[row] = Rejection(f"language is {detected}, not {' or '.join(section.allowed)}")
    return Verdicts(rejected)


def languages(texts: Sequence[str]) -> list[str | None]:
    """The code of each text's language, such as "en". None for a text whose language cannot be determined."""
    found = map(_prose, texts)
    return [_detector()(prose) if prose else None for prose in found]


def _prose(text: str) -> str | None:
    """The text without code and addresses. None if the text has too few letters, or too many other characters."""
    prose = _NO_PROSE.sub(" ", text[:_READ])
    letters = sum(map(str.isalpha, prose))
    shown = len("".join(prose.split()))
    if letters + 3 * len(_WIDE.findall(prose)) < _LETTERS or letters < _PROSE * shown:
        return None
    return prose


@cache
def _detector() -> Callable[[str], str | None]:
    """A function that returns the code of a text's language, or None where the detector is not sure."""
    import eldc

    eldc.init()
    instance = eldc.instance()

    def detect(text: str) -> str | None:
        result = instance.detect_details(text)
        return str(result.language) if result.reliable and result.language != "und" else None

    return detect
