"""Writes the card (README.md) of a corpus, using only its manifest. This module also has functions for the cards of
models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from synthgen import durable
from synthgen.errors import CorpusError
from synthgen.manifest import Manifest
from synthgen.records import SPLITS
from synthgen.results import audit_text
from synthgen.results.audit import Measurement, StoredAudit, audit_of
from synthgen.results.measures import Measure, Value, shown
from synthgen.tables.audits import TOPICS, Topic
from synthgen.tables.strategies import STRATEGIES
from synthgen.visible import cell, finalize, one_line

_HUB_LICENSES = frozenset(
    re.findall(
        r"\S+",
        """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
    lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
    openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
    fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 gemma
    """,
    )
)
"""The license tags of the Hugging Face hub, from https://huggingface.co/docs/hub/repositories-licenses."""

_OTHER_SPELLINGS = {
    "odc-by-1.0": "odc-by",
    "odbl-1.0": "odbl",
    "pddl-1.0": "pddl",
    "llama-2": "llama2",
    "llama-3": "llama3",
    "llama-3.1": "llama3.1",
    "gemma-2025-03-24": "gemma",
}
_UNKNOWN = ("", "unknown", "other", "none")
_HUB_ID = re.compile(r"(?!.*(--|\.\.))(\w[\w.-]*/)?\w[\w.-]{0,95}", re.ASCII)

_TASKS = {"completions": "text-generation", "label probabilities": "text-classification", "texts": "feature-extraction"}
"""The content of a strategy's rows → the task category of the hub."""

_MOST_TESTS = 20  # maximum number of tests of bias with the same outcome that a card shows

_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
    (10**12, "1B<n<1T"),
)


def hub_license(terms: Iterable[str]) -> dict[str, str]:
    """The keys `license` and `license_name` of a card's header for these licenses, which are SPDX ids or keys of
    data/licenses.yaml.

    A license without a tag on the hub is written as `other` with its name. Several different licenses are written as
    `other` with the name `several-see-the-sources`. Empty when a license is unknown, or when there are no licenses.
    """
    plain = {_spelling(one) for one in terms}
    if not plain or plain & set(_UNKNOWN):
        return {}
    if len(plain) > 1:
        return {"license": "other", "license_name": "several-see-the-sources"}
    [name] = plain
    return {"license": name} if name in _HUB_LICENSES else {"license": "other", "license_name": _slug(name)}


def _spelling(license: str) -> str:
    name = license.strip().lower()
    name = _OTHER_SPELLINGS.get(name, name)
    return re.sub(r"^(a?gpl|lgpl|gfdl)(-[\d.]+)-(only|or-later)$", r"\1\2", name)


def _slug(text: str) -> str:
    """The text in lower case, with only letters, digits, dots and dashes, as the hub's ids have them."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "unnamed"


def is_hub_id(name: str) -> bool:
    """Whether the name of a model or data set is an id of the hub, and not a folder, a file or a package."""
    return bool(_HUB_ID.fullmatch(name)) and not name.endswith((".gguf", ".git")) and not Path(name).exists()


def header(values: Mapping[str, object]) -> str:
    """The YAML header of a card. Values that are None or empty are left out. Texts lose hidden characters and line
    breaks, and are quoted where YAML needs it.
    """
    kept = {key: _shown(value) for key, value in values.items() if value not in (None, "", [], {}, ())}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=float("inf")).strip()


def _shown(value: object) -> object:
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, Mapping):
        return {key: _shown(one) for key, one in value.items()}
    return [_shown(one) for one in value] if isinstance(value, list | tuple) else value


def environment() -> Environment:
    """A Jinja environment that loads `synthgen/templates`. HTML is not escaped: the output is text or Markdown."""
    made = Environment(
        loader=PackageLoader("synthgen", "templates"),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=finalize,
    )
    made.filters.update(cell=cell, line=one_line, plain=_plain)
    return made


def _plain(text: str) -> str:
    """The text as one line of Markdown that contains neither links nor HTML."""
    return re.sub(r"([\[\]`])", r"\\\1", one_line(text).replace("&", "&amp;").replace("<", "&lt;"))


def audit_sections(audit: StoredAudit | None, of_student: StoredAudit | None = None) -> str:
    """The sections "License and terms", "Bias" and "Privacy" of a card. Without an audit, the sections say so.
    `of_student` is the audit of the student, which may have more tests than the audit of the corpus.
    """
    bias, privacy = (tests_about(topic, audit, of_student) for topic in TOPICS)
    template = environment().get_template("audit_sections.md.j2")
    return template.render(audit=audit, tests=bias, privacy=privacy, text=audit_text, most=_MOST_TESTS).strip()


def tests_about(topic: Topic, audit: StoredAudit | None, of_student: StoredAudit | None) -> list[Measurement]:
    """The tests of a corpus and its student about a topic. The audit of a student repeats the tests of its corpus. So
    if it has tests about the topic, they replace the tests of the audit of the corpus.
    """
    return next((some for one in (of_student, audit) if one and (some := one.about(topic))), [])


def markdown_table(
    measures: Mapping[str, Measure],
    table: Mapping[str, Mapping[str, Value]],
    files: Mapping[str, str] | None = None,
) -> str:
    """Format `table` as a Markdown table with a line for each row and a column for each of `measures`.

    `files` maps the name of each row to a file. With `files`, the table has a second column, which shows each row's
    file.
    """
    header = ["", *(["file"] if files else []), *(measure.title for measure in measures.values())]
    lines = []
    for name, row in table.items():
        values = [shown(row.get(key), measure.format) for key, measure in measures.items()]
        lines.append([name, *([f"`{files[name]}`"] if files else []), *values])
    return markdown_rows(header, lines)


def markdown_rows(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Format a table in Markdown. `lines` are rows of texts."""
    every = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in every)


def write_dataset_card(folder: Path, manifest: Manifest, title: str) -> None:
    """Write README.md with the YAML that makes `load_dataset(folder)` work, and the findings of the latest audit of
    exactly these rows, if there is an audit. A damaged report counts as a missing report.

    Each configuration in the YAML has a `description`, which holds a hash of the corpus's files. (`description` is a
    field of every dataset builder.) The library `datasets` finds the cached data of a local folder only by these
    configurations, not by path, time or content. Without the hash, `datasets` would return the cached rows of another
    corpus that has the same splits.
    """
    about = f"Rows of the corpus whose files have the sha256 {durable.digest(manifest['files'])}"
    configs = []
    for config, part in (("default", "data"), ("rejected", "rejected"), ("failures", "failures")):
        rows = _rows_of_splits(manifest, part)
        # A split without rows is left out, because `datasets` cannot load it. If no split has rows, the configuration
        # "default" names all splits. Otherwise `load_dataset(folder)` would return the rows of another configuration.
        named = [split for split, count in rows.items() if count] or (list(rows) if config == "default" else [])
        if named:
            files = [{"split": split, "path": f"{part}/{split}-*.parquet"} for split in named]
            values = {"config_name": config, "description": about, "data_files": files}
            configs.append({**values, **({"default": True} if part == "data" else {})})
    total = sum(entry["rows"] for name, entry in manifest["files"].items() if name.startswith("data/"))
    strategy = STRATEGIES.get(manifest["strategy"])
    head = {
        "pretty_name": title,
        **hub_license(source["license"] for source in manifest["sources"]),
        "size_categories": [next((name for most, name in _SIZES if total < most), "n>1T")],
        "task_categories": [task] if (task := _TASKS.get(strategy.rows if strategy else "completions")) else [],
        "source_datasets": _source_datasets(manifest),
        "tags": ["synthetic", "distillation", "synthgen"],
        "configs": configs,
    }
    audit = None
    with suppress(CorpusError):
        audit = audit_of(folder, durable.digest(manifest["files"]))
    text = (
        environment()
        .get_template("dataset_card.md.j2")
        .render(
            head=header(head),
            has_license="license" in head,
            title=title,
            manifest=manifest,
            configs=configs,
            audit_sections=audit_sections(audit),
            is_empty=not sum(_rows_of_splits(manifest, "data").values()),
        )
    )
    durable.write_text(folder / "README.md", text)


def _source_datasets(manifest: Manifest) -> list[str]:
    """The hub ids of the data sets from which the seeds or rows come, if their sources are addresses on the hub."""
    addresses = (f"https://{host}/datasets/" for host in ("huggingface.co", "hf.co"))
    found = [
        source["source"].removeprefix(address).strip("/")
        for address in addresses
        for source in manifest["sources"]
        if source["role"] in ("seed", "dataset") and source["source"].startswith(address)
    ]
    return sorted({name for name in found if is_hub_id(name)})


def _rows_of_splits(manifest: Manifest, part: str) -> dict[str, int]:
    """The number of rows of each split that has files in the subfolder `part` of a corpus."""
    rows: dict[str, int] = {}
    for split in SPLITS:
        counts = [e["rows"] for name, e in manifest["files"].items() if name.startswith(f"{part}/{split}-")]
        if counts:
            rows[split] = sum(counts)
    return rows
