"""Writes the card of an exported data set: README.md with the metadata that the Hugging Face hub reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from synthgen import durable
from synthgen.cards import audit_sections, environment
from synthgen.exporting.files import MESSAGES
from synthgen.manifest import Manifest, SourceTerms
from synthgen.results.audit import StoredAudit
from synthgen.tables.formats import DESCRIPTIONS, ROW_FORMATS

MADE_BY = "Written by `synthgen export`"
"""The text in a card by which a later command recognizes the folder of an export."""

_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
_LANGUAGE_COLUMNS = ("language", "lang")
_MOST_LANGUAGES = 50

# Licenses that the hub knows by these names. For a license that is not in this list, the card has `other` and the
# license's name.
_LICENSES = (
    *("apache-2.0", "mit", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0"),
    *("cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0"),
    *(
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-2.0",
        "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0",
    ),
    *("cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "gpl-2.0", "gpl-3.0", "agpl-3.0", "lgpl-3.0"),
    *("bsd-2-clause", "bsd-3-clause", "mpl-2.0", "unlicense", "wtfpl", "gfdl", "etalab-2.0", "c-uda", "openrail"),
)
_HUB_NAMES = {"odc-by-1.0": "odc-by", "odbl-1.0": "odbl", "pddl-1.0": "pddl"}
_UNKNOWN = "unknown"


@dataclass
class About:
    """What a card says about an export. `rows` holds the number of rows of each split, and `files` holds the path of
    each split's file. `license` is the license that the user stated, or null. `sources` are the sources of a run with
    their terms. `languages` are codes of ISO 639. `has_notice` says whether the export has NOTICE.md, which lists the
    obligations of the sources' licenses. `described` is the entry of DESCRIPTIONS that describes the files, or "".
    `manifest` is the manifest of the run's corpus, `audit` is the corpus's latest audit, and `rejected` is the number
    of rejected rows. A data set has neither a manifest nor an audit nor rejected rows.
    """

    name: str
    to: str
    is_run: bool
    license: str | None
    sources: Sequence[SourceTerms]
    rows: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    columns: dict[str, None] = field(default_factory=dict)
    languages: dict[str, None] = field(default_factory=dict)
    has_tools: bool = False
    has_notice: bool = False
    described: str = ""
    manifest: Manifest | None = None
    audit: StoredAudit | None = None
    rejected: int = 0

    @property
    def corpus_sha256(self) -> str:
        """The hash of the list of the corpus's files, as the audit states it."""
        return durable.digest(self.manifest["files"]) if self.manifest else ""

    def see(self, split: str, row: Mapping[str, object]) -> None:
        """Count one row, and note its columns and languages."""
        self.rows[split] = self.rows.get(split, 0) + 1
        self.columns |= dict.fromkeys(row)
        self.has_tools |= "tools" in row or any("tool_calls" in one for one in _messages(row))
        for column in _LANGUAGE_COLUMNS:
            value = row.get(column)
            if isinstance(value, str) and re.fullmatch(r"[a-z]{2,3}", value):
                self.languages[value] = None

    @property
    def terms(self) -> str:
        """The license of the rows: the license that the user stated, or else the license that all sources of the run
        have. The result is `other` if the sources have several licenses, and `unknown` if there are no sources.
        """
        if self.license:
            return self.license
        licenses = {source["license"] for source in self.sources}
        return licenses.pop() if len(licenses) == 1 else "other" if licenses else _UNKNOWN


def _messages(row: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    for column in MESSAGES:
        value = row.get(column)
        yield from value if isinstance(value, list) else ()


def header(about: About, digest: str) -> dict[str, object]:
    """The metadata of the card. `digest` is a hash of the files; see `synthgen.cards.write_dataset_card`."""
    configs = {
        "config_name": "default",
        "description": f"Rows of the export whose files have the sha256 {digest}",
        "data_files": [{"split": split, "path": path} for split, path in about.files.items()],
    }
    low = re.sub(r"-(only|or-later)$", "", about.terms.lower())
    license = _HUB_NAMES.get(low, low) if low in (*_LICENSES, *_HUB_NAMES, _UNKNOWN, "other") else "other"
    named = {"license_name": re.sub(r"[^a-z0-9.-]+", "-", low)} if license == "other" and low != "other" else {}
    languages = list(about.languages)
    return {
        "pretty_name": about.name,
        "license": license,
        **named,
        **({"language": languages} if 0 < len(languages) <= _MOST_LANGUAGES else {}),
        "size_categories": [size_category(sum(about.rows.values()))],
        "task_categories": ["text-generation"],
        "source_datasets": ["original" if about.is_run else f"extended|{about.name}"],
        "tags": ["synthetic", "distillation", "synthgen"] if about.is_run else ["synthgen"],
        "configs": [configs],
    }


def size_category(rows: int) -> str:
    """The hub's name for a number of rows, such as "1K<n<10K"."""
    for place, size in enumerate(_SIZES):
        number, unit = re.fullmatch(r"(\d+)(\w)", size).groups()  # type: ignore[union-attr]
        if rows < int(number) * {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}[unit]:
            return f"n<{size}" if place == 0 else f"{_SIZES[place - 1]}<n<{size}"
    return f"n>{_SIZES[-1]}"


def write_card(folder: Path, about: About) -> None:
    """Write README.md into the folder of an export."""
    digest = durable.digest({path: durable.sha256(folder / path) for path in about.files.values()})
    text = (
        environment()
        .get_template("export_rows_card.md.j2")
        .render(
            head=yaml.safe_dump(header(about, digest), sort_keys=False, allow_unicode=True).strip(),
            about=about,
            made_by=MADE_BY,
            format=ROW_FORMATS[about.to].about,
            audit_sections=audit_sections(about.audit),
            description=DESCRIPTIONS[about.described] if about.described else None,
        )
    )
    durable.write_text(folder / "README.md", text)
