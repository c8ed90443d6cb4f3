"""An audit in plain sentences. The page, the cards, Croissant and SPDX use the same sentences, because they take them
from this module.

said = verdict(read_audit(path))      # "This corpus may be used to train a student, for commercial use. …"
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from synthgen.results.audit import Finding, Intent, Measurement, StoredAudit
from synthgen.tables.audits import AUDITS

NOT_AUDITED = "No audit of these rows was made, so it is not known what their licenses allow."
NOT_MEASURED = "Bias was not measured."
PRIVACY_NOT_MEASURED = "Privacy was not measured."
NOT_ADVICE = "The audit reports what the texts of licenses state. It is not legal advice."
_DONE = {
    "train": "train a student",
    "share_data": "share the rows",
    "release_weights": "publish the student",
    "serve": "offer the student as a service",
}
"""Each action of an intended use, in words that complete "This corpus may be used to …"."""
OUTCOMES = {
    "found": "Differences that were found",
    "inconclusive": "Too few data to tell",
    "not measurable": "Not measurable",
    "absent": "No difference that matters was found",
}
"""The outcome of a test of bias → a heading for tests with this outcome, in the order in which they are shown."""
SAYS = {
    "found": "found",
    "absent": "not found",
    "inconclusive": "too few data to tell",
    "not measurable": "not measured",
}
"""The outcome of a test of privacy, in words."""
MEANINGS = {
    "DENY": "a license forbids the intended use, or two licenses contradict each other",
    "UNKNOWN": "a license, a fact, or the intended use is not known",
    "CONTESTED": "a license can be read in more than one way, or it is disputed whether it binds us",
    "ALLOW": "the licenses state nothing against the intended use",
}
"""The meaning of each status, from worst to best."""
STATUSES = tuple(MEANINGS)
_NO_SOURCES = {"UNKNOWN": "because there are rows that name no source"}
"""Why a corpus has a status that none of its sources has."""
_BIAS = "bias"  # role of the findings of tests of bias, which are about groups and not about licenses
_PRIVACY = "privacy"  # role of the findings of tests of privacy
_MOST_STEPS = 12  # maximum number of repairs and notes that are shown
_NAMED = 3  # maximum number of findings that the sentence with the verdict names


def intended(intent: Intent) -> str:
    """The intended use in words: "train a student and share the rows, for commercial use"."""
    return f"{listed([_DONE.get(one, one.replace('_', ' ')) for one in intent.actions])}, for {intent.use} use"


def listed(words: Sequence[str]) -> str:
    """The words as a list in a sentence: "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def verdict(audit: StoredAudit) -> str:
    """The verdict in one or two sentences, with the findings that decided it."""
    use = intended(audit.intent)
    worst = _worst(audit)
    differ, leaks = (sum(one.role == role for one in audit.findings) for role in (_BIAS, _PRIVACY))
    found = f" Tests of bias found {_several(differ, 'difference')} between groups." if differ else ""
    found += f" Tests of privacy found {_several(leaks, 'leak')}: read the section on privacy." if leaks else ""
    if audit.status == "ALLOW" or (audit.status == "CONTESTED" and (differ or leaks) and not worst):
        return f"This corpus may be used to {use}. The texts that were read state nothing against it.{found}"
    because = "; and because of ".join(_because(one) for one in worst[:_NAMED])
    because = f"because of {because}" if worst else _NO_SOURCES.get(audit.status, "")
    more = len(worst) - _NAMED
    because += f"; and because of {more} more" if more > 0 else ""
    accepted = f" A person accepted this: {'; '.join(audit.waivers)}." if audit.passed and audit.waivers else ""
    begin = {
        "CONTESTED": f"This corpus may be used to {use}, but this is disputed",
        "UNKNOWN": f"It is not known whether this corpus may be used to {use}",
        "DENY": f"This corpus may not be used to {use}",
    }.get(audit.status, f"The status of this corpus is {audit.status} for this use: {use}")
    return _sentence(f"{begin}, {because}" if because else begin) + accepted + found


def _worst(audit: StoredAudit) -> list[Finding]:
    """The findings with the status of the whole audit. If this status is ALLOW or CONTESTED, findings of tests of bias
    and privacy are left out.
    """
    tested = () if audit.status in ("UNKNOWN", "DENY") else (_BIAS, _PRIVACY)
    return [one for one in audit.findings if one.status == audit.status and one.role not in tested]


def _because(finding: Finding) -> str:
    """Why a source has its status."""
    reasons = ", ".join(finding.reasons) or MEANINGS.get(finding.status, finding.status)
    return f"{finding.source} ({finding.role.replace('_', ' ')}, {finding.terms}): {reasons}"


def obligations(audit: StoredAudit) -> dict[str, list[str]]:
    """Each duty when the rows or the student are passed on → the sources whose licenses require it."""
    found: dict[str, list[str]] = {}
    for one in audit.findings:
        for duty in one.obligations:
            of = f"{one.source} ({one.terms})"
            if of not in found.setdefault(duty, []):
                found[duty].append(of)
    return found


def credits(audit: StoredAudit) -> list[str]:
    """The sources that must be named when rows or student are passed on, with the addresses of their terms."""
    return list(dict.fromkeys(_credited(one) for one in audit.findings if "credit" in one.duties))


def _credited(finding: Finding) -> str:
    texts = f": {', '.join(finding.texts)}" if finding.texts else ""
    return f"{finding.source} ({finding.terms}){texts}"


def rows(audit: StoredAudit) -> str:
    """The number of rows with each status, from worst to best; "" if the audit did not count rows."""
    known = [status for status in (*STATUSES, *audit.rows) if audit.rows.get(status)]
    return ", ".join(f"{int(audit.rows[status]):,} {status}" for status in dict.fromkeys(known))


def told(audit: StoredAudit) -> dict[str, list[str]]:
    """The notes of audits that the cards and the page show: the heading of an audit → its notes as sentences."""
    every = {AUDITS[name].heading: one.notes for name, one in audit.audits.items() if name in AUDITS}
    return {heading: [_sentence(note) for note in notes] for heading, notes in every.items() if heading and notes}


def next_steps(audit: StoredAudit) -> list[tuple[str, str]]:
    """The steps to do next, as pairs (sentence, command or ""): first the repairs, then the audit's notes about sources
    (the worst status first), and the last step.
    """
    steps = [(_sentence(f"{one.text} ({_several(one.rows, 'row')})"), one.command) for one in audit.repairs]
    order = {status: place for place, status in enumerate(STATUSES)}
    noted = sorted(audit.findings, key=lambda one: order.get(one.status, -1))
    steps += [(f"{one.source}: {note}.", "") for one in noted for note in one.notes]
    steps = list(dict.fromkeys(steps))
    if len(steps) > _MOST_STEPS:
        steps = [*steps[:_MOST_STEPS], (f"{len(steps) - _MOST_STEPS} more are in audit/report.md.", "")]
    if not audit.passed:
        steps.append(("Then audit again. Until the audit passes, no student is trained on these rows.", ""))
    elif obligations(audit):
        steps.append(("Fulfill the obligations before the rows or the student are passed on.", ""))
    if any(one.role == _BIAS for one in audit.findings):
        steps.append(("Read the differences that the tests of bias found, and some of the rows behind them.", ""))
    steps += [(f"{one.source}: {'; '.join(one.reasons)}.", "") for one in audit.findings if one.role == _PRIVACY]
    return steps or [("Nothing is to be done for this use. Another use needs its own audit.", "")]


def _several(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def by_outcome(tests: Sequence[Measurement]) -> dict[str, list[Measurement]]:
    """The tests of bias by outcome, first the tests that found something. Empty when nothing was measured."""
    names = dict.fromkeys([*(one.outcome for one in tests if one.outcome not in OUTCOMES), *OUTCOMES])
    sorted_tests = {name: [one for one in tests if one.outcome == name] for name in names}
    return {name: some for name, some in sorted_tests.items() if some}


def measured(one: Measurement) -> str:
    """A test of bias in a few sentences: what was measured, and what it says. If the result is inconclusive, one
    sentence says how large an effect must be to be found in these data.
    """
    effect = with_unit(one, one.estimate) if one.estimate is not None else ""
    if effect and one.low is not None and one.high is not None:
        effect += f" (95% interval {_plain(one, one.low)} to {_plain(one, one.high)})"
    limit = _limit(one, one.margin) if one.margin is not None else ""
    says = {
        "found": "A difference was found" + (f": {effect}" if effect else ""),
        "absent": "No difference that matters was found"
        + (f": {effect}" if effect else "")
        + (f". Effects {limit} do not matter here" if limit else ""),
        "inconclusive": "There are too few data to tell" + (f": {effect}" if effect else ""),
        "not measurable": "This cannot be measured here",
    }.get(one.outcome, f"The outcome is “{one.outcome}”" + (f": {effect}" if effect else ""))
    parts = [one.about, says]
    if one.detectable is not None and one.outcome == "inconclusive":
        least = with_unit(one, one.detectable)
        parts.append(f"The smallest effect that these data would show in 80 of 100 cases is {least}")
    return " ".join(_sentence(part) for part in [*parts, one.note] if part.strip())


@dataclass(frozen=True)
class PrivacyLine:
    """One line of the table of privacy. `subject` is the corpus or model that was tested. `about` says what the test
    measures, and `says` is the result in words. `value` has its 95% interval. `null` is the value of a corpus or model
    that reveals nothing. `n` is the number of rows or items. If a number is missing, its text is "–".
    """

    subject: str
    test: str
    about: str
    says: str
    value: str
    null: str
    p: str
    n: str
    note: str


def privacy_summary(tests: Sequence[Measurement]) -> str:
    """How many tests of privacy found something, for each corpus or model. Tests that could not be done are not
    counted.
    """
    done = [one for one in tests if one.outcome != "not measurable"]
    subjects = dict.fromkeys(one.subject for one in done)
    counts = {name: [one.outcome == "found" for one in done if one.subject == name] for name in subjects}
    parts = [f"{sum(found)} of {len(found)} in the {name}" for name, found in counts.items()]
    return f"Tests that found something: {listed(parts)}." if parts else "No test could be made."


def privacy_lines(tests: Sequence[Measurement]) -> list[PrivacyLine]:
    """The table of privacy, with the tests of each corpus or model together."""
    subjects = list(dict.fromkeys(one.subject for one in tests))
    return [_privacy_line(one) for name in subjects for one in tests if one.subject == name]


def _privacy_line(one: Measurement) -> PrivacyLine:
    value = "–" if one.estimate is None else with_unit(one, one.estimate)
    if one.estimate is not None and one.low is not None and one.high is not None:
        value += f" ({_plain(one, one.low)} to {_plain(one, one.high)})"
    p = one.p if one.corrected_p is None else one.corrected_p
    notes = [one.note]
    if one.detectable is not None and one.outcome == "inconclusive":
        notes.append(
            f"The smallest effect that these data would show in 80 of 100 cases: {with_unit(one, one.detectable)}"
        )
    return PrivacyLine(
        subject=one.subject,
        test=one.name,
        about=_sentence(one.about),
        says=SAYS.get(one.outcome, one.outcome),
        value=value,
        null="–" if one.null is None else with_unit(one, one.null),
        p=number(p),
        n=f"{one.n:,}" if one.n else "–",
        note=" ".join(_sentence(note) for note in notes if note.strip()),
    )


def is_ratio(unit: str) -> bool:
    """Whether effects with this unit are logarithms to the base 2 of ratios. People read the ratios more easily."""
    return unit.startswith("log2")


def _plain(one: Measurement, value: float) -> str:
    """A value of a test as a ratio, in percent, or as it is."""
    if is_ratio(one.unit):
        return number(2.0**value)
    return number(100 * value) if one.unit.startswith("share") else number(value)


def with_unit(one: Measurement, value: float) -> str:
    """A value of a test with its unit: "1.3 times", "2 percentage points", "5%", "0.2 nats"."""
    if is_ratio(one.unit):
        return f"{_plain(one, value)} times"
    if one.unit == "share":
        return f"{_plain(one, value)}%"
    plain = _plain(one, value)
    points = f"percentage point{'' if plain == '1' else 's'}"
    return f"{plain} {points if one.unit.startswith('share') else one.unit}".strip()


def _limit(one: Measurement, margin: float) -> str:
    """Which effects do not matter, in words that follow "Effects"."""
    least = f"between {_plain(one, -margin)} and" if is_ratio(one.unit) else "below"
    return f"{least} {with_unit(one, margin)}"


def number(value: float | None) -> str:
    """A number with three significant digits, or "–" if the value is None."""
    return "–" if value is None else re.sub(r"^-(?=.*[1-9])", "−", f"{value:.3g}")


def _sentence(text: str) -> str:
    """The text with a capital letter at the beginning and a full stop at the end."""
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}" if text else ""
