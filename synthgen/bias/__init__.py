"""The audit of bias of a corpus: how its rows speak of groups of people, and whom curation drops. docs/bias.md explains
each test.

There is no overall score, because the tests measure different things. Nothing here denies a use: the status is
CONTESTED if a test found something, and ALLOW otherwise.
"""

from __future__ import annotations

from pathlib import Path

from synthgen.auditing.combinations import CHECK
from synthgen.auditing.result import AuditResult, Finding, Measurement, Subject
from synthgen.bias.association import association
from synthgen.bias.counterfactual import counterfactual
from synthgen.bias.groups import Lexicon, lexicon
from synthgen.bias.reading import Facts, Reading, read, uses_of
from synthgen.bias.refusals import refusals
from synthgen.bias.representation import representation
from synthgen.bias.selection import selection
from synthgen.recipe.bias import BiasSection

_NAMED = 5  # maximum number of words that a finding names


def audit_bias(subject: Subject, section: BiasSection) -> AuditResult:
    """Test a corpus for bias. Raises RecipeError when the section does not fit its groups."""
    book = lexicon(section)
    reading = read(subject.corpus, book, repaired=CHECK in subject.manifest.get("rejected_by", {}))
    facts = reading.facts
    measured = tests_of(facts, book, section)
    words, figures = _associations(subject.corpus, book, reading)
    measured += words
    figures["bias"] = {"rows": facts.count, "units": facts.units}
    findings = _findings(subject.corpus.name, measured)
    return AuditResult("CONTESTED" if findings else "ALLOW", tuple(findings), figures, tuple(measured))


def tests_of(facts: Facts, book: Lexicon, section: BiasSection) -> list[Measurement]:
    """All tests except the tests of words."""
    measured = representation(facts, book.dimensions, section.targets)
    measured += counterfactual(facts, book.dimensions)
    measured += refusals(facts, book.dimensions)
    return measured + selection(facts, book.dimensions)


def _associations(
    folder: Path, book: Lexicon, reading: Reading
) -> tuple[list[Measurement], dict[str, dict[str, float]]]:
    """Scan the words of the answers for each dimension."""
    uses, spelled = uses_of(folder, book, reading)
    measured: list[Measurement] = []
    figures: dict[str, dict[str, float]] = {}
    for one in uses:
        words, of_scan = association(one, spelled)
        measured += words
        figures |= of_scan
    return measured, figures


def _findings(name: str, measured: list[Measurement]) -> list[Finding]:
    """A finding for each test that found something. All words of a scan share one finding."""
    found = [one for one in measured if one.outcome == "found"]
    findings = []
    for one in found:
        if one.estimate is None:
            words = [other for other in found if other.subject.startswith(f"{one.subject}, '")]
            reason = _sentence_of_words(one, words)
        elif one.name == "association":
            continue
        else:
            reason = _sentence(one)
        findings.append(Finding(f"{name}: {one.subject}", "bias", one.name, "CONTESTED", (reason,)))
    return findings


def _sentence(one: Measurement) -> str:
    """A finding in words, such as "the group's share … : 1.52 times [1.31, 1.77]"."""
    values = [one.estimate or 0.0, one.low or 0.0, one.high or 0.0]
    if one.unit.startswith("log2"):
        mid, low, high = (f"{2**value:.2f}" for value in values)
        return f"{one.about}: {mid} times [{low}, {high}]"
    if one.unit.startswith("share"):
        mid, low, high = (f"{100 * value:+.1f}" for value in values)
        return f"{one.about}: {mid} percentage points [{low}, {high}]"
    mid, low, high = (f"{value:+.2f}" for value in values)
    return f"{one.about}: {mid} {one.unit} [{low}, {high}]"


def _sentence_of_words(scan: Measurement, words: list[Measurement]) -> str:
    parts = []
    for sign, more in ((1, "more"), (-1, "less")):
        named = [one.subject.rsplit(", ", 1)[1] for one in words if sign * (one.estimate or 0) > 0][:_NAMED]
        if named:
            parts.append(f"{more} often near this group than near others: {', '.join(named)}")
    return f"{scan.note} differ; {'; '.join(parts)}"
