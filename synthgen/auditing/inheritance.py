"""The audit of inheritance: were the student and its teacher made from the same model?

If they do, a teacher can pass traits to its student through rows that do not show these traits, such as lists of
numbers (Cloud et al. 2025, arXiv 2507.14805; Nature, s41586-026-10319-8). A filter over the rows cannot remove such
traits. The experiment `inheritance` in docs/experiments.md measures this with small models.

The audit reads which models the student's checkpoint and the teachers were made from. If a model is a folder, the audit
reads the field `base_model` of the model card, and the field `base_model_name_or_path` of an adapter's config. If a
model is a name, such as a hub id, nothing is downloaded, and the answer may be "not known". The status is always ALLOW,
because no license depends on the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from synthgen.auditing.result import AuditResult, Subject
from synthgen.errors import CorpusError, UserError
from synthgen.files import parse_json, read_text
from synthgen.recipe import AuditSection

_MOST = 20  # the search for the models behind a model ends after this number of models
_WHAT_TO_DO = (
    "To lower the risk, let the student begin with another model (train.student.model), leave out tokens at which a "
    "second teacher differs (train.mask_divergence), or let another model rewrite the rows"
)


def audit_inheritance(subject: Subject, section: AuditSection) -> AuditResult:
    """Compare each teacher with each model with whose weights the student begins. For each pair, a note says that they
    were made from the same model, or that this is not known. There are no notes when no student is trained.
    """
    if subject.begins_with is None:
        return AuditResult("ALLOW")
    if not subject.begins_with:
        note = "the student begins with random weights, so it was not made from the same model as a teacher"
        return AuditResult("ALLOW", notes=(f"{note}. The student still learns every trait that the rows show",))
    sources = [one for one in subject.manifest["sources"] if one["role"] in ("generator", "logits")]
    sources += [one for one in subject.of_student if one["role"] == "logits"]
    teachers = dict.fromkeys(one["source"] for one in sources)
    if not teachers:
        return AuditResult(
            "ALLOW",
            notes=(
                "it is not known which models wrote the rows. So it is not known whether the student was made from the "
                "same model as one of them",
            ),
        )
    return AuditResult("ALLOW", notes=tuple(compared(base, one) for base in subject.begins_with for one in teachers))


def compared(base: str, teacher: str) -> str:
    """Say whether the models `base` and `teacher` were made from the same model. The student begins with the weights of
    `base`.
    """
    ours, theirs = ancestors(base), ancestors(teacher)
    common = next((name for name in ours if name in theirs), None)
    if common is not None:
        how = "is that model" if common == _place(base) == _place(teacher) else f"comes from {common} too"
        return (
            f"the student begins with the weights of {base}, and the teacher {teacher} {how}. Therefore hidden traits "
            "of the teacher can pass to the student through rows that do not show these traits. A filter over the rows "
            f"does not remove such traits. {_WHAT_TO_DO}"
        )
    return (
        f"it is not known whether {base}, with whose weights the student begins, and the teacher {teacher} come from "
        f"the same model: nothing says what {ours[-1]} and {theirs[-1]} were made from. If they do, "
        "hidden traits of the teacher can pass to the student through rows that do not show these traits. "
        f"{_WHAT_TO_DO}"
    )


def ancestors(name: str) -> list[str]:
    """The model, the models that it was made from, the models that those were made from, and so on, as far as local
    files state them. Folders are named by their absolute paths. Damaged files are ignored.
    """
    found = [_place(name)]
    for one in found:
        found += [_place(base) for base in _bases_of(Path(one)) if _place(base) not in found]
        if len(found) > _MOST:
            break
    return found


def _place(name: str) -> str:
    path = Path(name)
    return str(path.resolve()) if path.exists() else name


def _bases_of(folder: Path) -> Sequence[str]:
    """The models that the model in a folder was made from, according to its adapter's config or its model card."""
    if not folder.is_dir():
        return ()
    try:
        adapter = folder / "adapter_config.json"
        values = parse_json(read_text(adapter, "")) if adapter.is_file() else {}
        stated = values.get("base_model_name_or_path") if isinstance(values, dict) else None
        card = folder / "README.md"
        if not stated and card.is_file():
            _, mark, rest = read_text(card, "").partition("---\n")
            head = yaml.safe_load(rest.partition("\n---")[0]) if mark else None
            stated = head.get("base_model") if isinstance(head, dict) else None
    except (CorpusError, UserError, ValueError, OSError, yaml.YAMLError):
        return ()
    listed = stated if isinstance(stated, list) else [stated]
    return [one for one in listed if isinstance(one, str) and one]
