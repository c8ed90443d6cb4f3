"""Writes the card (README.md) of a corpus, using only its manifest. Also has functions that the cards of models use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from synthgen import durable
from synthgen.manifest import Manifest
from synthgen.records import SPLITS
from synthgen.results.measures import Measure, Value, shown
from synthgen.visible import cell, finalize, one_line

_HF_LICENSES = {
    "CC0-1.0": "cc0-1.0",
    "CC-BY-4.0": "cc-by-4.0",
    "CC-BY-SA-4.0": "cc-by-sa-4.0",
    "CC-BY-NC-4.0": "cc-by-nc-4.0",
    "MIT": "mit",
    "Apache-2.0": "apache-2.0",
}


def environment() -> Environment:
    """A Jinja environment that loads `synthgen/templates`. It does not escape HTML, because the output is text or
    Markdown.
    """
    made = Environment(
        loader=PackageLoader("synthgen", "templates"),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=finalize,
    )
    made.filters.update(cell=cell, line=one_line)
    return made


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
    lines = [header, ["---"] * len(header)]
    for name, row in table.items():
        values = [shown(row.get(key), measure.format) for key, measure in measures.items()]
        lines.append([name, *([f"`{files[name]}`"] if files else []), *values])
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def write_dataset_card(folder: Path, manifest: Manifest, title: str) -> None:
    """Write README.md with the YAML that makes `load_dataset(folder)` work.

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
        # "default" names them all. Otherwise `load_dataset(folder)` would return the rows of another configuration.
        named = [split for split, count in rows.items() if count] or (list(rows) if config == "default" else [])
        if named:
            files = [{"split": split, "path": f"{part}/{split}-*.parquet"} for split in named]
            values = {"config_name": config, "description": about, "data_files": files}
            configs.append({**values, **({"default": True} if part == "data" else {})})
    licenses = sorted({source["license"] for source in manifest["sources"]})
    head = {
        "pretty_name": title,
        "license": _HF_LICENSES.get(licenses[0], "other") if len(licenses) == 1 else "other",
        "tags": ["synthetic", "distillation", "synthgen"],
        "configs": configs,
    }
    text = (
        environment()
        .get_template("dataset_card.md.j2")
        .render(
            head=yaml.safe_dump(head, sort_keys=False).strip(),
            title=title,
            manifest=manifest,
            configs=configs,
            is_empty=not sum(_rows_of_splits(manifest, "data").values()),
        )
    )
    durable.write_text(folder / "README.md", text)


def _rows_of_splits(manifest: Manifest, part: str) -> dict[str, int]:
    """The number of rows of each split that has files in the subfolder `part` of a corpus."""
    rows: dict[str, int] = {}
    for split in SPLITS:
        counts = [e["rows"] for name, e in manifest["files"].items() if name.startswith(f"{part}/{split}-")]
        if counts:
            rows[split] = sum(counts)
    return rows
