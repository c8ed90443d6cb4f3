"""Turns what was found in a corpus into measurements and findings. The intervals are about further rows that are made
in the same way. Rows of one seed are not independent, so the intervals count seeds, not rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from synthgen.auditing.result import Finding, Measurement, Status, Subject
from synthgen.auditing.statistics import bound_of_none, wilson
from synthgen.curation.privacy.patterns import ENTITIES
from synthgen.privacy.copies import Copies
from synthgen.privacy.origins import TITLES, Group, Origins
from synthgen.privacy.seeds import Known
from synthgen.recipe.privacy import Denied, PrivacySection

ROLE = "privacy"
"""The role of findings about privacy."""
_CORPUS = "corpus"
_DATA: Denied = "personal_data"
_TEXTS: Denied = "private_texts"
_SHARED = "share_data"
_NO_ROWS = "no kept row has a completion"
_NO_TEXT = "it has no text"
_ALL_SHORT = "all its texts are too short for the search (`audit.privacy.shortest`)"
_NONE_PRIVATE = "no source is marked as private: set `private` in `seeds`, or set `audit.privacy.private`"
_IN_COMPLETION = "the share of kept rows with such a value in the completion"


def of_data(found: Origins, section: PrivacySection) -> Iterator[Measurement]:
    """Yield one measurement for each kind and class of values that were found, one for the kinds that were not found,
    and one for all values that were copied from elsewhere.
    """
    for entity in section.entities:
        for origin, title in TITLES.items():
            if group := found.groups.get((entity, origin)):
                private = f"{group.private} of them from a private source; " if group.private else ""
                note = f"{_several(group.values, 'value')}; {private}{_rows(group)}"
                yield _share(f"{ENTITIES[entity].title}, {title}", _IN_COMPLETION, found, group.rows, note)
    absent = [ENTITIES[one].title for one in section.entities if not any(key[0] == one for key in found.groups)]
    if absent:
        yield _share(f"personal data of these kinds: {', '.join(absent)}", _IN_COMPLETION, found, 0)
    if section.entities:
        about = "the share of kept rows with a value from another prompt, another seed or a private source"
        note = f"{_several(found.leaks.values, 'value')}; {_rows(found.leaks)}" if found.leaks.values else ""
        yield _share("personal data from elsewhere, all kinds", about, found, found.leaks.rows, note)


def of_texts(found: Origins, copied: Sequence[Copies], known: Known, section: PrivacySection) -> Iterator[Measurement]:
    """Yield the measurements of each private source: how many completions copy its texts, and how many rows were made
    from it.
    """
    words = f"{section.min_words} consecutive words of a text of this source, or {section.min_share:.0%} of a short one"
    for one in copied:
        name = f"private texts of {one.source}"
        if not one.searched:
            why = (
                f"all of its texts ({one.short:,}) have fewer than {section.shortest} words" if one.short else _NO_TEXT
            )
            yield Measurement(name, _CORPUS, f"copies of {words}", "share", "not measurable", note=why)
            continue
        about = f"the share of kept rows whose completion has {words}"
        yield _share(name, about, found, one.rows, "; ".join(_notes(one, known, section)))
    for source in sorted(known.private - {one.source for one in copied}):
        why = known.why_not or _NO_TEXT
        yield Measurement(
            f"private texts of {source}", _CORPUS, f"copies of {words}", "share", "not measurable", note=why
        )
    for source in sorted(known.of_rows):
        name, about = f"rows made from {source}", "the share of kept rows that were made from this private source"
        yield _share(
            name, about, found, found.made_from[source], "whoever gets these rows also gets texts of this source"
        )
    if not copied and not known.private:
        yield Measurement(
            "private texts", _CORPUS, "copies of private texts", "share", "not measurable", note=_NONE_PRIVATE
        )


def findings(
    subject: Subject, found: Origins, copied: Sequence[Copies], known: Known, section: PrivacySection
) -> Iterator[Finding]:
    """A finding for each leak. The status is CONTESTED, or DENY if the recipe's key `deny` names this kind of leak. If
    `deny` names a kind of leak that cannot be searched for, the finding says so, and its status is UNKNOWN.
    """
    name = subject.corpus.name
    bad: dict[Denied, Status] = {one: "DENY" if one in section.deny else "CONTESTED" for one in (_DATA, _TEXTS)}
    if found.leaks.values:
        kinds = ", ".join(f"{ENTITIES[one].title} {count}" for one, count in found.kinds.items())
        reason = (
            f"{_in_rows(found.leaks)} from another prompt, another seed or a private source ({kinds}); "
            f"{_rows(found.leaks)}"
        )
        yield _finding(f"{name}: personal data", bad[_DATA], reason)
    if found.unknown.values:
        status: Status = "UNKNOWN" if _DATA in section.deny else "CONTESTED"
        reason = (
            f"{_in_rows(found.unknown)} that are in no prompt of the corpus; {known.why_not}; {_rows(found.unknown)}"
        )
        yield _finding(f"{name}: personal data", status, reason)
    for one in copied:
        if one.rows:
            reason = f"the completions of {_several(one.rows, 'row')} copy private texts of {one.source}"
            yield _finding(f"{name}: private texts", bad[_TEXTS], "; ".join([reason, *_notes(one, known, section)]))
    shared = subject.recipe is not None and _SHARED in subject.recipe.audit.actions
    for source in sorted(known.of_rows) if shared else ():
        if count := found.made_from[source]:
            reason = f"{_several(count, 'row')} were made from a private source, and the rows are to be shared"
            yield _finding(source, bad[_TEXTS], reason)
    for source, why in sorted(_not_known(copied, known).items()) if _TEXTS in section.deny else ():
        yield _finding(source, "UNKNOWN", f"it is not known whether completions copy its texts: {why}")


def _not_known(copied: Sequence[Copies], known: Known) -> dict[str, str]:
    """Each private source whose texts are not known as they were in the run, with the reason."""
    empty = {one.source: _ALL_SHORT if one.short else _NO_TEXT for one in copied if not one.searched}
    unread = known.private if known.why_not else known.private - {one.source for one in copied}
    return empty | dict.fromkeys(unread, known.why_not or _NO_TEXT)


def _share(name: str, about: str, found: Origins, hits: int, note: str = "") -> Measurement:
    """The share of kept rows in which something was found. If `hits` is 0, the upper end of the interval is
    `bound_of_none`.
    """
    if not found.rows:
        return Measurement(name, _CORPUS, about, "share", "not measurable", note=_NO_ROWS)
    low, high = wilson(hits / found.rows, found.units) if hits else (0.0, bound_of_none(found.units))
    return Measurement(
        name,
        _CORPUS,
        about,
        "share",
        "found" if hits else "absent",
        n=found.rows,
        clusters=found.units,
        estimate=hits / found.rows,
        low=low,
        high=high,
        null=0.0,
        note=note,
    )


def _notes(one: Copies, known: Known, section: PrivacySection) -> Iterable[str]:
    """Further facts about the copies from one source."""
    if one.rows:
        yield f"the longest span has {one.longest} words"
    if one.own:
        yield f"in {_several(one.own, 'row')}, the longest span is of the row's own seed"
    if one.rows:
        yield _ids(one.ids, one.rows)
    yield f"{_several(one.searched, 'text')} searched"
    if one.short:
        yield f"{_several(one.short, 'text')} with fewer than {section.shortest} words not searched"
    if known.why_not and one.source in known.private:
        yield known.why_not


def _finding(source: str, status: Status, reason: str) -> Finding:
    return Finding(source, ROLE, ROLE, status, (reason,))


def _in_rows(group: Group) -> str:
    return f"{_several(group.values, 'value')} in {_several(group.rows, 'row')}"


def _rows(group: Group) -> str:
    return _ids(group.ids, group.rows)


def _ids(ids: Sequence[str], rows: int) -> str:
    more = f" and {rows - len(ids):,} more" if rows > len(ids) else ""
    return f"{'row' if rows == 1 else 'rows'} {', '.join(ids)}{more}"


def _several(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
