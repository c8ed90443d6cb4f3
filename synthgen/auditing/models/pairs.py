"""Reads pairs of sentences that differ only in the gender of their pronouns: WinoBias and Winogender.

In each pair, one sentence follows the stereotype of an occupation, and the other sentence does not. The readers are
strict: they refuse a line of another form, and name the number of the line. Sentences without a partner are left out
and counted.

Sources: WinoBias (Zhao et al., 2018) and Winogender (Rudinger et al., 2018). Both papers are called "Gender Bias in
Coreference Resolution".
"""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from synthgen.auditing.models.files import lines, refuse
from synthgen.errors import UserError

FEMALE = {"she": "he", "her": "his him", "hers": "his", "herself": "himself"}
"""Female pronouns, with the male pronouns that can stand in their place."""
_FILE = re.compile(r"(pro|anti)_stereotyped_type([12])(\.txt)?\.(dev|test)(\.txt)?")
_LINE = re.compile(r"(\d+) (.+)")
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_ARTICLE = re.compile(r"^(?:the|an?)\s+")
_SENTENCE_ID = re.compile(r"([a-z ]+)\.([a-z ]+)\.([01])\.(male|female|neutral)(?:\.txt)?")


@dataclass(frozen=True)
class Pair:
    """Two sentences that differ only in pronouns. `test` names the set, such as "WinoBias type 2". `cluster` names the
    occupations in the sentences: pairs about the same occupations are not independent. `weight` is the pair's weight in
    a mean. The pairs with stereotypes of women and the pairs with stereotypes of men have the same sum of weights, so
    that a model that always prefers one gender has no bias.
    """

    test: str
    cluster: str
    stereotyped: str
    other: str
    weight: float = 1.0


@dataclass(frozen=True)
class PairSet:
    """The pairs of one test set, and the number of its sentences that have no partner."""

    pairs: tuple[Pair, ...]
    unmatched: int


@dataclass(frozen=True)
class _Sentence:
    """A sentence of WinoBias. `frame` is the sentence with a gap for each pronoun in brackets."""

    text: str
    frame: str
    pronouns: tuple[str, ...]
    occupation: str


def read_winobias(folder: Path) -> PairSet:
    """Read the files `{pro,anti}_stereotyped_type{1,2}.txt.dev` (or `.test`, or `.dev.txt`) of a folder.

    Raises UserError when a file has no partner, or when a line lacks a number or a sentence with an occupation and
    pronouns in brackets.
    """
    files: dict[tuple[str, str], dict[str, Path]] = defaultdict(dict)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := _FILE.fullmatch(path.name):
            files[match[2], match[4]][match[1]] = path
    if not files:
        raise UserError(
            f"'{folder}' has no files of WinoBias",
            "give the folder with pro_stereotyped_type1.txt.dev and its companions",
        )
    for sides in files.values():
        if len(sides) < 2:
            raise UserError(
                f"{next(iter(sides.values()))} has no partner", "get both the file pro_… and the file anti_…"
            )
    read = {key: {side: list(_sentences(path)) for side, path in sides.items()} for key, sides in files.items()}
    sentences = [one for sides in read.values() for one in chain(*sides.values())]
    longest_first = sorted({re.escape(one.occupation) for one in sentences}, key=len, reverse=True)
    names = re.compile(rf"\b(?:{'|'.join(longest_first)})\b")
    pairs: list[Pair] = []
    for (kind, _), both in read.items():
        found = _matched(both["pro"], both["anti"])
        pairs += [Pair(f"WinoBias type {kind}", _cluster(names, a.text), a.text, b.text) for a, b in found]
    return PairSet(tuple(pairs), len(sentences) - 2 * len(pairs))


def _sentences(path: Path) -> Iterator[_Sentence]:
    for number, line in lines(path):
        match = _LINE.fullmatch(line)
        marked = _BRACKETS.findall(match[2]) if match else []
        pronouns = [one.lower() for one in marked if _gender(one.lower())]
        occupations = [one for one in marked if not _gender(one.lower())]
        rest = _BRACKETS.sub("", line)
        if not match or not pronouns or len(occupations) != 1 or "[" in rest or "]" in rest:
            refuse(path, number, "not a number and a sentence with one occupation and its pronouns in brackets")
        frame = _BRACKETS.sub(lambda found: "[]" if _gender(found[1].lower()) else found[1], match[2])
        occupation = _ARTICLE.sub("", occupations[0].strip().lower())
        yield _Sentence(_BRACKETS.sub(r"\1", match[2]), frame, tuple(pronouns), occupation)


def _gender(word: str) -> str:
    male = {one for group in FEMALE.values() for one in group.split()}
    return "female" if word in FEMALE else "male" if word in male else ""


def _matched(pro: list[_Sentence], anti: list[_Sentence]) -> Iterator[tuple[_Sentence, _Sentence]]:
    """Pairs of sentences that differ only in their pronouns, where each pronoun has the other gender in the other
    sentence.
    """
    waiting: dict[str, list[_Sentence]] = defaultdict(list)
    for one in anti:
        waiting[one.frame].append(one)
    for one in pro:
        partner = next((other for other in waiting[one.frame] if _swapped(one.pronouns, other.pronouns)), None)
        if partner:
            waiting[one.frame].remove(partner)
            yield one, partner


def _swapped(some: tuple[str, ...], others: tuple[str, ...]) -> bool:
    def fit(a: str, b: str) -> bool:
        return b in FEMALE.get(a, "").split() or a in FEMALE.get(b, "").split()

    return len(some) == len(others) and all(map(fit, some, others))


def _cluster(names: re.Pattern[str], text: str) -> str:
    return " and ".join(sorted(set(names.findall(text.lower()))))


def read_winogender(folder: Path) -> PairSet:
    """Read `all_sentences.tsv` (columns sentid and sentence) and `occupations-stats.tsv` (columns occupation and
    bls_pct_female) of a folder. The stereotype of an occupation is the gender of most people who have it. Only
    sentences whose pronoun stands for the occupation (the id ends in .0.male or .0.female) are pairs.

    Raises UserError when a line has another form, or an occupation has no share.
    """
    shares = {name: share for name, share in _shares(folder / "occupations-stats.tsv")}
    path = folder / "all_sentences.tsv"
    found: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for number, row in _rows(path, ("sentid", "sentence")):
        match = _SENTENCE_ID.fullmatch(row["sentid"])
        if not match:
            refuse(path, number, f"'{row['sentid']}' is not an id such as nurse.patient.0.male.txt")
        if match[1] not in shares:
            refuse(path, number, f"the occupation '{match[1]}' is not in occupations-stats.tsv")
        sides = found[match[1], match[2]]
        if match[3] == "0" and match[4] != "neutral":
            if match[4] in sides:
                refuse(path, number, f"the id '{row['sentid']}' occurs twice")
            sides[match[4]] = row["sentence"]
    pairs: list[tuple[str, Pair]] = []
    unmatched = 0
    for (occupation, _), sides in found.items():
        if len(sides) < 2 or shares[occupation] == 50:
            unmatched += len(sides)
            continue
        stereotyped, other = ("female", "male") if shares[occupation] > 50 else ("male", "female")
        pairs.append((stereotyped, Pair("Winogender", occupation, sides[stereotyped], sides[other])))
    counts = Counter(side for side, _ in pairs)
    weighed = [replace(pair, weight=len(pairs) / (len(counts) * counts[side])) for side, pair in pairs]
    return PairSet(tuple(weighed), unmatched)


def _shares(path: Path) -> Iterator[tuple[str, float]]:
    for number, row in _rows(path, ("occupation", "bls_pct_female")):
        try:
            share = float(row["bls_pct_female"])
        except ValueError:
            share = -1.0
        if not 0 <= share <= 100:
            refuse(path, number, f"'{row['bls_pct_female']}' is not a percentage")
        yield row["occupation"], share


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a TSV file that has these columns, with their line numbers."""
    head: list[str] = []
    for number, line in lines(path):
        cells = next(csv.reader([line], delimiter="\t", quoting=csv.QUOTE_NONE))
        if not head:
            head = cells
            if missing := [name for name in columns if name not in head]:
                refuse(path, number, f"there is no column '{missing[0]}'")
        elif len(cells) != len(head):
            refuse(path, number, f"{len(cells)} columns, and not {len(head)}")
        else:
            yield number, dict(zip(head, cells, strict=True))
