"""Measures whether secrets in seeds pass into the teacher's texts, with canary seeds.

A canary seed is a copy of one of the recipe's seeds. One sentence is added to one of its fields, with the access code
of a made-up person (see `synthgen.auditing.privacy.canaries`). The teacher is asked about canary seeds with the
templates, the strategy and the sampling of the recipe. The canary seeds have a run of their own in a temporary folder,
which is deleted afterwards. So no canary is ever a row of the corpus.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from synthgen import corpus
from synthgen.auditing.privacy.canaries import DIGITS, Canary, make
from synthgen.auditing.privacy.onesided import OneSided, judged
from synthgen.auditing.result import AuditResult, Finding, Measurement, Subject
from synthgen.auditing.statistics import share_interval
from synthgen.errors import RecipeError, UserError
from synthgen.generation.driver import generate
from synthgen.generation.inputs import question, read_inputs
from synthgen.prompts import Fields, load_prompt
from synthgen.recipe import Recipe, SeedSource
from synthgen.recipe.privacy import PrivacySection
from synthgen.records import Record

MARGIN = 0.05
"""The smallest share of secrets that matters: one in twenty."""
NAME = "secrets of seeds in the teacher's texts"
_GAPS = re.compile(r"(?<=\d)[ .,_-](?=\d)")


def audit_passing(subject: Subject, section: PrivacySection) -> AuditResult:
    """Ask the recipe's teachers about canary seeds, and count the secrets in the answers.
    `audit.privacy.teacher_canaries` is the number of canary seeds. If it is 0, no teacher is asked.
    """
    if not section.teacher_canaries:
        return AuditResult("ALLOW")
    if subject.recipe is None:
        return _refused("the recipe is not known")
    try:
        test = passing(subject.recipe, section.teacher_canaries, section.seed)
    except UserError as error:
        return _refused(error.message)
    (measured,) = judged([test], "seeds to the teacher's texts")
    if measured.outcome != "found":
        return AuditResult("ALLOW", measurements=(measured,))
    reason = f"{measured.about}: {test.value:.0%}, {test.note}"
    return AuditResult(
        "CONTESTED", (Finding("teacher", "privacy", NAME, "CONTESTED", (reason,)),), measurements=(measured,)
    )


def _refused(why: str) -> AuditResult:
    measured = Measurement(
        NAME, "teacher", "whether secrets of seeds are in completions", "", "not measurable", note=why
    )
    return AuditResult("ALLOW", measurements=(measured,))


def passing(recipe: Recipe, most: int, seed: int) -> OneSided:
    """The share of canary seeds whose secret is in a completion. `most` is the number of canary seeds; there are fewer
    if the recipe has fewer seeds.

    Raises UserError when there are no seeds or templates, or the teacher does not answer.
    """
    inputs = read_inputs(recipe, hashed=False)
    asked = question(recipe, load_prompt(recipe.prompts, recipe.task))
    canaries = make(min(most, len(inputs.seeds)), (1,), seed)
    step = max(1, len(inputs.seeds) // max(1, len(canaries)))  # takes seeds from all parts of the files
    rows = [with_secret(inputs.seeds[n * step].fields, one, asked) for n, one in enumerate(canaries)]
    with tempfile.TemporaryDirectory(prefix="synthgen-canaries-") as folder:
        path = Path(folder) / "seeds.jsonl"
        lines = (json.dumps({**row, "id": f"canary-{n}"}, ensure_ascii=False) for n, row in enumerate(rows))
        path.write_text("".join(f"{line}\n" for line in lines))
        generate(_for_canaries(recipe, path), Path(folder) / "run")
        return counted(canaries, _rows(Path(folder) / "run" / "generated"))


def with_secret(fields: Fields, canary: Canary, asked: Callable[[Fields], str]) -> dict[str, object]:
    """A copy of a seed's fields. The canary's sentence is added to the end of the longest text that the question shows.

    Raises RecipeError when the question shows no field of text.
    """
    texts = sorted(
        (name for name, value in fields.items() if isinstance(value, str)), key=lambda n: -len(str(fields[n]))
    )
    for name in texts:
        changed = {**fields, name: f"{fields[name]} {canary.before} {canary.secret}."}
        if canary.secret in asked(changed):
            return changed
    raise RecipeError("the question shows no field of text, so no secret can be put into a seed", "")


def _for_canaries(recipe: Recipe, path: Path) -> Recipe:
    """The recipe of the run with canary seeds. It asks for one sample of each seed, without stored distributions and
    without a student.
    """
    first = recipe.seeds[0]
    source = SeedSource(path=str(path), source="canaries", license=first.license, id="id")
    return recipe.model_copy(
        update={
            "seeds": (source,),
            "logits": None,
            "train": None,
            "generate": recipe.generate.model_copy(update={"num_generations": 1}),
        }
    )


def _rows(folder: Path) -> Iterator[Record]:
    for _, records in corpus.records(folder):
        yield from records


def counted(canaries: Sequence[Canary], rows: Iterator[Record]) -> OneSided:
    """The test of how many secrets are in the completions of their own rows. A secret also counts if there are spaces,
    points, commas or hyphens between its digits. A canary without a row, for example after a failure, is not counted.

    If one secret passes, the outcome is "found". The margin is used only for the outcome "absent".
    """
    hits: dict[int, bool] = {}
    windows = 0
    for row in rows:
        number = int(row.seed_id.partition("#")[0].removeprefix("canary-"))
        text = _GAPS.sub("", " ".join(str(message.get("content") or "") for message in row.completion))
        windows += max(0, len(text) - DIGITS + 1)
        hits[number] = hits.get(number, False) or canaries[number].secret in text
    found, count = sum(hits.values()), len(hits)
    return OneSided(
        NAME,
        "teacher",
        "the share of canary seeds whose secret is in the teacher's text",
        unit="share",
        value=found / count if count else float("nan"),
        null=0.0,
        # A random text has the code at a given place with the probability 10^-DIGITS.
        p=min(1.0, windows / 10**DIGITS) if found else 1.0,
        interval=share_interval(found, count) if count else (float("nan"), float("nan")),
        upper=share_interval(found, count, 0.9)[1] if count else float("nan"),
        margin=0.0 if found else MARGIN,
        n=count,
        detectable=1 - 0.2 ** (1 / count) if count else float("nan"),
        note=f"{found:,} of {count:,} secrets",
        why_not="" if count else "the teacher answered no canary seed",
    )
