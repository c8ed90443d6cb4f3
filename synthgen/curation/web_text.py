"""The check `web_text` applies rules that were used to filter large sets of web pages. The rules come in presets.

The rules were made for English web pages. Good instruction rows often break these rules, because such rows may be
short, or end without a period. The formulas come from the papers. Where a paper removes lines, this check measures the
remaining lines, and does not change the text. White space separates words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import pyarrow as pa

from synthgen.curation.lists import lengths
from synthgen.curation.verdicts import Rejection, Verdicts
from synthgen.errors import RecipeError
from synthgen.executor import Services
from synthgen.tables.curation_settings import WebText

_STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
_BULLETS = ("•", "●", "‣", "-", "*", "–", "·", "○", "■")
_ENDS = (".", "?", "!", '"', "”")
_POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_SENTENCE = re.compile(r"[.!?][\"'”’)]*(?=\s|$)")
_PARAGRAPHS = re.compile(r"\n[ \t]*\n+")


class Page:
    """A text with its parts: the words, and the lines and paragraphs that are not blank."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def words(self) -> list[str]:
        return self.text.split()

    @cached_property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.text.splitlines() if line.strip()]

    @cached_property
    def paragraphs(self) -> list[str]:
        return [part.strip() for part in _PARAGRAPHS.split(self.text) if part.strip()]

    @cached_property
    def letters(self) -> int:
        """The number of characters other than white space."""
        return sum(map(len, self.words))


@dataclass(frozen=True)
class Bound:
    """A rule: what it measures, and the values that are allowed. With `strict`, the bound itself is not allowed."""

    name: str
    about: str
    measure: Callable[[Page], float]
    least: float | None = None
    most: float | None = None
    strict: bool = False

    def broken(self, page: Page) -> Rejection | None:
        """Why a page breaks the rule. None if the page does not break the rule."""
        value = self.measure(page)
        for bound, outside, word in ((self.least, -1, "less"), (self.most, 1, "more")):
            if bound is not None and ((value - bound) * outside > 0 or (self.strict and value == bound)):
                than = f"not {'more' if outside < 0 else 'less'} than" if self.strict else f"{word} than"
                return Rejection(f"{self.about}: {value:.3g}, {than} {bound:g}", value, self.name, bound)
        return None


def web_text(batch: pa.RecordBatch, section: WebText, services: Services) -> Verdicts:
    """Reject a text that breaks a rule of the preset. The rejection names the first rule that the text breaks, with the
    measured value as the score. Raises RecipeError for a row that has a prompt.
    """
    if lengths(batch["prompt"]).any():
        raise RecipeError(
            "curate.web_text is for data sets of plain text, and a row has a prompt",
            "set curate.web_text to false; the checks 'length' and 'repetition' are for such rows",
        )
    rejected = {}
    for row, text in enumerate(batch["completion.text"].to_pylist()):
        page = Page(text or "")
        broken = next((found for bound in PRESETS[section.preset] if (found := bound.broken(page))), None)
        if broken:
            rejected[row] = broken
    return Verdicts(rejected)


def _share(count: float, whole: float) -> float:
    return count / whole if whole else 0.0


def _symbols(page: Page) -> float:
    """The number of hash signs or the number of ellipses, whichever is larger, divided by the number of words."""
    ellipses = page.text.count("...") + page.text.count("…")
    return _share(max(page.text.count("#"), ellipses), len(page.words))


def _lines_that(page: Page, is_one: Callable[[str], bool]) -> float:
    """The share of the lines for which `is_one` is true."""
    return _share(sum(map(is_one, page.lines)), len(page.lines))


def _alphabetic(page: Page) -> float:
    """The share of the words with at least one letter."""
    return _share(sum(any(map(str.isalpha, word)) for word in page.words), len(page.words))


def _stop_words(page: Page) -> float:
    return len(_STOP_WORDS & {word.strip(".,;:!?\"'()").lower() for word in page.words})


def _repeated(parts: list[str]) -> list[str]:
    """The parts that equal an earlier part."""
    seen: set[str] = set()
    return [part for part in parts if part in seen or seen.add(part)]  # type: ignore[func-returns-value]


def _same(page: Page, parts: str, characters: bool) -> float:
    """The share of the lines or paragraphs that equal an earlier line or paragraph. With `characters`, the weight of a
    line or paragraph is the number of its characters.
    """
    whole = getattr(page, parts)
    again = _repeated(whole)
    if characters:
        return _share(sum(map(len, again)), sum(map(len, whole)))
    return _share(len(again), len(whole))


def _top_gram(page: Page, size: int) -> float:
    """The share of the page's characters that belong to occurrences of the most frequent sequence of `size` words. If
    several sequences are equally frequent, the longest counts.
    """
    grams = Counter(zip(*(page.words[place:] for place in range(size)), strict=False))
    if not grams:
        return 0.0
    most = max(grams.values())
    return _share(max(sum(map(len, gram)) for gram, count in grams.items() if count == most) * most, page.letters)


def _repeated_grams(page: Page, size: int) -> float:
    """The share of the page's characters that belong to repetitions of earlier sequences of `size` words. A character
    counts once.
    """
    seen: set[tuple[str, ...]] = set()
    end = count = 0
    for place, gram in enumerate(zip(*(page.words[start:] for start in range(size)), strict=False)):
        if gram in seen:
            count += sum(map(len, page.words[max(place, end) : place + size]))
            end = place + size
        seen.add(gram)
    return _share(count, page.letters)


def _c4_sentences(page: Page) -> float:
    """The number of sentences in the lines that C4 keeps: lines of five words or more that end with a mark, but not
    with an ellipsis. A line is left out if it contains a word of more than 1,000 characters, "javascript", or a phrase
    such as "privacy policy" or "use cookies".
    """
    kept = [line for line in page.lines if len(line.split()) >= 5 and line.endswith(_ENDS) and not line.endswith("...")]
    kept = [line for line in kept if max(map(len, line.split())) <= 1000]
    clean = [line for line in kept if not any(phrase in line.lower() for phrase in ("javascript", *_POLICIES))]
    return sum(len(_SENTENCE.findall(line)) for line in clean)


GOPHER = (
    Bound("words", "number of words", lambda page: len(page.words), 50, 100_000),
    Bound("word_length", "mean length of a word", lambda page: _share(page.letters, len(page.words)), 3, 10),
    Bound("symbols", "symbols '#' or '…' for each word", _symbols, most=0.1),
    Bound(
        "bullets",
        "share of lines with a bullet",
        partial(_lines_that, is_one=lambda s: s.startswith(_BULLETS)),
        most=0.9,
    ),
    Bound(
        "ellipses",
        "share of lines that end with '…'",
        partial(_lines_that, is_one=lambda s: s.endswith(("...", "…"))),
        most=0.3,
    ),
    Bound("alphabetic", "share of words with a letter", _alphabetic, 0.8),
    Bound("stop_words", "number of different common words", _stop_words, 2),
    Bound("same_lines", "share of repeated lines", partial(_same, parts="lines", characters=False), most=0.3),
    Bound(
        "same_paragraphs",
        "share of repeated paragraphs",
        partial(_same, parts="paragraphs", characters=False),
        most=0.3,
    ),
    Bound(
        "same_lines_characters",
        "share of characters in repeated lines",
        partial(_same, parts="lines", characters=True),
        most=0.2,
    ),
    Bound(
        "same_paragraphs_characters",
        "share of characters in repeated paragraphs",
        partial(_same, parts="paragraphs", characters=True),
        most=0.2,
    ),
    *(
        Bound(
            f"top_{n}_gram",
            f"share of characters in the most frequent {n}-word sequence",
            partial(_top_gram, size=n),
            most=most,
        )
        for n, most in ((2, 0.2), (3, 0.18), (4, 0.16))
    ),
    *(
        Bound(
            f"repeated_{n}_grams",
            f"share of characters in repeated {n}-word sequences",
            partial(_repeated_grams, size=n),
            most=most,
        )
        for n, most in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.1))
    ),
)
"""The rules for quality and repetition of MassiveText (Rae et al. 2021, "Scaling Language Models: Methods, Analysis &
Insights from Training Gopher", arXiv:2112.11446, appendix A.1.1).
"""

C4 = (
    Bound("lorem_ipsum", "occurrences of 'lorem ipsum'", lambda page: page.text.lower().count("lorem ipsum"), most=0),
    Bound("curly_bracket", "number of curly brackets", lambda page: page.text.count("{"), most=0),
    Bound("sentences", "sentences in lines that C4 keeps", _c4_sentences, 3),
)
"""The rules of C4 for whole pages (Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified
Text-to-Text Transformer", arXiv:1910.10683, section 2.2), without its list of obscene words.
"""

FINEWEB = (
    Bound(
        "punctuated_lines",
        "share of lines with a mark at the end",
        partial(_lines_that, is_one=lambda s: s.endswith(_ENDS)),
        0.12,
        strict=True,
    ),
    Bound(
        "same_lines_characters",
        "share of characters in repeated lines",
        partial(_same, parts="lines", characters=True),
        most=0.1,
        strict=True,
    ),
    Bound(
        "short_lines",
        "share of lines under 30 characters",
        partial(_lines_that, is_one=lambda s: len(s) < 30),
        most=0.67,
        strict=True,
    ),
)
"""The three rules that FineWeb added (Penedo et al. 2024, "The FineWeb Datasets: Decanting the Web for the Finest Text
Data at Scale", arXiv:2406.17557). FineWeb also used rules of C4 and of MassiveText.
"""

PRESETS = {"gopher": GOPHER, "c4": C4, "fineweb": FINEWEB}
"""The rules by preset, in the order in which they are tried."""
