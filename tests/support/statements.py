"""Reads the loss statement of a card or a page, and compares it with evaluation.json.

check_card(student)                 # RUN/student/README.md has each value of RUN/student/evaluation.json, and no other
check_page(run)                     # RUN/report.html has the same table as the card
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

VALUES = ("teacher", "base", "student", "minus_teacher", "minus_base")
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")
_POINTS = ("%", " points")


def section(card: str) -> str:
    """The loss statement of a card."""
    return card.partition("## What the student lost or gained\n")[2].partition("\n## ")[0]


def card_rows(card: str) -> list[list[str]]:
    """The cells of the table in the loss statement of a card."""
    lines = [line for line in section(card).splitlines() if line.startswith("|")]
    return [[one.strip() for one in line.strip("|").split("|")] for line in lines[2:]]


def page_rows(page: str) -> list[list[str]]:
    """The cells of the table in the loss statement of a page."""
    found = page.partition("What the student lost or gained</h2>")[2].partition("<h2>")[0]
    body = found.partition("<tbody>")[2].partition("</tbody>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    return [[html.unescape(one) for one in re.findall(r"<t[hd]>(.*?)</t[hd]>", row, re.DOTALL)] for row in rows]


def check_card(student: Path) -> list[dict[str, Any]]:
    """Asserts that the table of the card has a row for each measured entry of evaluation.json, with the numbers of this
    entry, and that the card names each dimension that was not measured. Returns the entries.
    """
    card = (student / "README.md").read_text()
    statement = json.loads((student / "evaluation.json").read_text())["statement"]
    entries = [one for one in statement["entries"] if one["student"] is not None]
    rows = card_rows(card)
    assert len(rows) == len(entries), rows
    for row, entry in zip(rows, entries, strict=True):
        assert row[0].endswith(f": {entry['measure']}")
        for cell, name in zip(row[1:6], VALUES, strict=True):
            _check_cell(cell, entry[name])
        assert row[6].startswith(f"{entry['n']:,} {entry['unit']}")
    text = re.sub(r"\\(.)", r"\1", section(card))
    for reason in statement["not_measured"].values():
        assert reason in text
    for entry in statement["entries"]:
        for role, reason in entry["missing"].items():
            assert reason in text or (entry["student"] is None and role != "student"), (entry["measure"], role)
    return statement["entries"]


def _check_cell(cell: str, value: Any) -> None:
    """Asserts that a cell shows a value of evaluation.json, rounded to the digits that the cell has."""
    if value is None:
        assert cell == "not measured"
        return
    expected = [value["mean"], value["low"], value["high"]] if isinstance(value, dict) else [value]
    shown = [one.replace(",", "") for one in _NUMBER.findall(cell)]
    factor = 100 if any(unit in cell for unit in _POINTS) else 1
    assert len(shown) == len(expected), cell
    for text, number in zip(shown, expected, strict=True):
        digits = len(text.partition(".")[2])
        assert abs(float(text) - factor * number) <= 0.51 * 10**-digits, (cell, number)


def check_page(run: Path) -> None:
    """Asserts that the page of a run shows the statement of the card."""
    card, page = (run / "student" / "README.md").read_text(), (run / "report.html").read_text()
    assert page_rows(page) == card_rows(card) != []
    for line in section(card).splitlines():
        text = re.sub(r"\\(.)", r"\1", line).removeprefix("- ").replace("&lt;", "<").replace("&amp;", "&")
        if text and not line.startswith("|") and not text.endswith((":", "computed:")):
            assert text in html.unescape(page), text
