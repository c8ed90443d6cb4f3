"""The addresses of stores: URLs such as `s3://bucket/runs/first`, as a user writes them in place of a folder.

A path object removes one of two slashes, so `s3:/bucket/runs/first` is also an address.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from synthgen.durable import cache_folder
from synthgen.errors import UserError
from synthgen.outputs import STAGES

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,3}(.*)")
READ_ONLY = ("hf", "http", "https")
"""Stores that are only read: each write to `hf://` would be a commit, and a web server takes no writes."""


@dataclass(frozen=True)
class Address:
    """The address of a run, a corpus, a student or a data set in a store.

    `root` is the URL of the run, or of the folder that belongs to no run. `inside` is the path below `root`: `curated`
    for `s3://bucket/runs/first/curated`, and often empty.
    """

    root: str
    inside: str = ""

    @property
    def scheme(self) -> str:
        """The kind of the store, such as `s3`."""
        return self.root.partition("://")[0]

    @property
    def url(self) -> str:
        """The whole URL."""
        return f"{self.root}/{self.inside}" if self.inside else self.root

    @property
    def state(self) -> Path:
        """The folder on this machine's disk with the working folder of this store and what is known about it."""
        return cache_folder() / "stores" / hashlib.sha256(self.root.encode()).hexdigest()[:16]

    @property
    def working(self) -> Path:
        """The working folder. It has the last name of the URL, since some files hold the name of their folder."""
        return self.state / self.root.rpartition("/")[2]


def address(place: object) -> Address | None:
    """The address that a text or path names, or None for a place on a disk. Raises UserError for an address that cannot
    be used, such as one with a password.
    """
    found = _URL.fullmatch(str(place)) if isinstance(place, str | Path) else None
    if found is None:
        return None
    scheme, rest = found[1].lower(), found[2].strip("/")
    if scheme == "file":
        return None
    parts = rest.split("/")
    if "@" in parts[0] or ":" in parts[0] or "?" in rest:
        raise UserError(
            f"the {scheme}:// address holds a user name, a password or a query, which would be written to files",
            "leave it out; docs/scale.md says from where credentials are read",
        )
    if not rest or not all(part.strip(".") for part in parts):
        raise UserError(f"'{scheme}://{rest}' names no folder of a store", "name one, such as s3://bucket/runs/first")
    inside = parts[-1] if parts[-1] in STAGES and len(parts) > 2 else ""
    return Address(f"{scheme}://{'/'.join(parts[:-1] if inside else parts)}", inside)


def path_of(place: str | Path) -> Path:
    """The path of a place on a disk, which may be written as `file:///data/runs/first`."""
    found = _URL.fullmatch(str(place))
    return Path("/" + found[2].lstrip("/")) if found and found[1].lower() == "file" else Path(place)
