"""Makes the entries of the loss statement about the texts that models wrote: refusals, diversity, languages and length.

    said(rows, {"teacher": texts, "base": others, "student": own}, scale)     # a list of entries

Refusals and languages are determined by the checks `refusal` and `language` of curation.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from distill.evaluation.diversity import diverse, words
from distill.evaluation.grouped import Scale
from distill.evaluation.lost import compared
from distill.held_out import HeldOut
from distill.intervals import Array
from synthgen.lm.tokens import Tokens
from synthgen.results.statement import Entry
from synthgen.tables.curation import CHECKS, LANGUAGES_OF, REFUSED
from synthgen.tables.reference import resolve

REFUSALS = Entry(
    dimension="refusals",
    measure="answers that refuse",
    format="percent",
    unit="prompts",
    note="the share of answers that decline the request, as the check “refusal” of curation finds them. It reads "
    "English, German, Spanish, French and Chinese. Neither more nor fewer refusals are better in themselves.",
)
LANGUAGES = Entry(
    dimension="languages",
    measure="answers in the prompt's language",
    format="percent",
    better="higher",
    unit="prompts",
    note="the share of answers whose language is that of the prompt, as the check “language” of curation finds it. "
    "Short texts, code and texts of doubtful language are left out",
)
LENGTH = Entry(
    dimension="length",
    measure="words of an answer",
    format="rate",
    unit="prompts",
    note="words and punctuation marks; in scripts without spaces, characters.",
)


def said(
    rows: Sequence[HeldOut],
    texts: Mapping[str, Sequence[str]],
    scale: Scale,
    *,
    missing: Mapping[str, str] | None = None,
    most: int | None = None,
) -> list[Entry]:
    """The entries for the answers of each model to the prompts of `rows`. `scale` has the groups of the rows. `missing`
    has the reasons why models have no answers. `most` is the number of tokens at which the answers of all models were
    cut off.
    """
    whole = ["\n".join(str(message.get("content") or "") for message in row.prompt) for row in rows]
    refused = {role: np.array(resolve(REFUSED)(whole, some), float) for role, some in texts.items()}
    lengths = {role: np.array([len(words(text)) for text in some], float) for role, some in texts.items()}
    limit = f" All answers were cut off at {most:,} tokens (evaluate.max_new_tokens)." if most else ""
    return [
        compared(REFUSALS, refused, scale, missing=missing),
        *(replace(one, missing={**one.missing, **_others(missing, texts)}) for one in diverse(texts, scale)),
        _languages([row.text for row in rows], texts, scale, missing),
        compared(replace(LENGTH, note=LENGTH.note + limit), lengths, scale, missing=missing),
    ]


def begun(texts: Sequence[str], tokens: Tokens, most: int) -> list[str]:
    """The first `most` tokens of each text, by the tokenizer `tokens`. A recorded answer can be longer than the answers
    that models wrote, which end at `most` tokens. Without the cut, it would seem that the student writes less.
    """
    split = [(text, tokens.ids(text)) for text in texts]
    return [text if len(ids) <= most else tokens.decode(ids[:most]) for text, ids in split]


def _others(missing: Mapping[str, str] | None, texts: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {role: why for role, why in (missing or {}).items() if role not in texts}


def _languages(
    prompts: Sequence[str],
    texts: Mapping[str, Sequence[str]],
    scale: Scale,
    missing: Mapping[str, str] | None,
) -> Entry:
    package = CHECKS["language"].needs
    if package and importlib.util.find_spec(package) is None:
        return replace(LANGUAGES, missing={"student": f"the package {package} is not installed"})
    find = resolve(LANGUAGES_OF)
    asked = find(prompts)
    same = {role: _same(find(some), asked) for role, some in texts.items()}
    known = ", ".join(f"{int((~np.isnan(array)).sum()):,} ({role})" for role, array in same.items())
    note = f"{LANGUAGES.note}: of {len(prompts):,} answers, this left {known}."
    nothing = "the prompts or answers are too short, or not prose, so their languages cannot be told"
    return compared(replace(LANGUAGES, note=note), same, scale, missing=missing, nothing=nothing)


def _same(answered: Sequence[str | None], asked: Sequence[str | None]) -> Array:
    """For each answer: 1 if its language is that of the prompt, 0 if it is another language, and NaN if one of both
    languages is unknown.
    """
    pairs = zip(answered, asked, strict=True)
    return np.array([np.nan if a is None or b is None else float(a == b) for a, b in pairs], float)
