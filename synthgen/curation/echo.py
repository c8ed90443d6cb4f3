"""The check `echo`: completions that repeat the prompt instead of answering it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.lists import numbers
from synthgen.curation.plain import plain
from synthgen.curation.verdicts import Rejection, Verdicts
from synthgen.executor import Services
from synthgen.tables.curation_settings import Echo

_BEGINNING = 20  # only pairs that begin with this many equal characters, in plain form, are compared

_LABEL = r"^(?:(?:q|question|instruction|prompt|user|human) ?: ?)?[\"“„«]?"


def echo(batch: pa.RecordBatch, section: Echo, services: Services) -> Verdicts:
    """Reject a completion if a repeated part of the prompt makes up too large a share of the completion. Such a
    completion begins with the whole last message of the prompt, or is itself the beginning of that message. The share
    is the score; it is 0 for other completions. Case, white space and a label or quote before the text, such as
    "Question:", are ignored. A repeated part of fewer than 20 characters is not judged.
    """
    completions, asked = (_unlabelled(texts) for texts in (batch["completion.plain"], plain(_last(batch["prompt"]))))
    same = pc.equal(pc.utf8_slice_codeunits(completions, 0, _BEGINNING), pc.utf8_slice_codeunits(asked, 0, _BEGINNING))
    shares = np.zeros(len(completions))
    for row in np.flatnonzero(numbers(pc.fill_null(same, False))).tolist():
        answer, prompt = completions[row].as_py(), asked[row].as_py()
        if len(answer) >= _BEGINNING and (answer.startswith(prompt) or prompt.startswith(answer)):
            shares[row] = min(len(prompt), len(answer)) / len(answer)
    limit = section.max_share
    rejected = {
        row: Rejection(f"{shares[row]:.0%} of it is the prompt, more than {limit:.0%}", shares[row], "", limit)
        for row in np.flatnonzero(shares > limit).tolist()
    }
    return Verdicts(rejected, {"echo": shares})


def _unlabelled(texts: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(texts, pattern=_LABEL, replacement="", max_replacements=1)


def _last(prompts: pa.Array) -> pa.Array:
    """The content of the last message of each prompt. The content is empty if the prompt has no message."""
    offsets = numbers(prompts.offsets)
    contents = pc.struct_field(prompts.values, "content")
    empty = np.diff(offsets.astype(np.int64)) == 0
    places = pa.array(offsets[1:].astype(np.int64) - 1, mask=empty)
    return pc.fill_null(contents.take(places), "")
