"""The texts that must be passed on with a corpus or a student: attribution.md of an audit, and NOTICE.md in the folders
that may be shared.

    text = notices(report)
    carry(Path("runs/first/curated"), text)     # writes NOTICE.md, unless it is there already

The text lists first the obligations of all licenses, sorted by duty, then the obligations of each source, and then the
texts of the licenses. A text is included where an installed package ships it, under a name such as
`apache-2.0.LICENSE`. For other licenses, only the address of the text is given.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from synthgen import durable
from synthgen.auditing.result import Finding
from synthgen.cards import environment
from synthgen.files import is_regular
from synthgen.outputs import NOTICE_HEADING

NAME = "NOTICE.md"
"""The name of the file in the folder of a corpus, a student or an export."""
_SHIPS_TEXTS = "license-expression"
DUTIES = {
    "name_prefix": "The name",
    "statement": "What has to be stated",
    "credit": "Who has to be named",
    "flow_down": "Policies of use that have to be passed on",
    "share_alike": "Licenses under which adapted works may be shared",
    "no_further_terms": "Restrictions",
    "notice": "Copies of licenses and notices",
}
"""The heading of each duty, in the order of the text."""


@dataclass(frozen=True)
class Text:
    """The text of a license as a package ships it. `package` is the package's name and version."""

    license: str
    package: str
    text: str


def notices(findings: Iterable[Finding], intended: str) -> str:
    """The text of attribution.md for these findings. `intended` describes the intended use."""
    judged = [one for one in findings if one.obligations or one.texts]
    duties: dict[str, dict[str, list[str]]] = {duty: defaultdict(list) for duty in DUTIES}
    for one in judged:
        for duty, obligation in zip(one.duties, one.obligations, strict=True):
            duties[duty][obligation].append(one.source)
    addresses = sorted({text for one in judged for text in one.texts})
    texts = [found for one in addresses if (found := shipped_text(one.partition(": ")[0]))]
    return (
        environment()
        .get_template("attribution.md.j2")
        .render(
            intended=intended,
            duties={DUTIES[duty]: {key: _named(some) for key, some in found.items()} for duty, found in duties.items()},
            findings=judged,
            addresses=addresses,
            texts=texts,
        )
    )


def carry(folder: Path, text: str) -> None:
    """Write NOTICE.md into a folder. A file with the same text is not written again. A file with another heading is not
    ours, and is left as it is.
    """
    path = folder / NAME
    before = path.read_bytes() if is_regular(path) else None
    if before != text.encode() and (before is None or before.startswith(NOTICE_HEADING)):
        durable.write_text(path, text)


@lru_cache
def shipped_text(license: str) -> Text | None:
    """The text of a license that an installed package ships, or None."""
    files: Mapping[str, metadata.PackagePath] = _shipped()
    found = files.get(f"{license.lower()}.license")
    if found is None:
        return None
    text = found.read_text(encoding="utf-8")
    return Text(license, f"{_SHIPS_TEXTS} {metadata.version(_SHIPS_TEXTS)}", text.strip("\n"))


@lru_cache
def _shipped() -> dict[str, metadata.PackagePath]:
    """The files of the package that ships texts, by their names in lower case."""
    try:
        return {path.name.lower(): path for path in metadata.files(_SHIPS_TEXTS) or ()}
    except metadata.PackageNotFoundError:
        return {}


def _named(sources: list[str]) -> str:
    return ", ".join(dict.fromkeys(sources))
