"""The settings of the rules of curation: the sections that the entries of `synthgen.tables.curation` name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator

from synthgen.tables.json_schemas import JsonSchema
from synthgen.tables.section import Count, Name, PathName, Rule, Section, Share

Entity = Literal["email", "phone", "ip_address", "card", "iban", "national_id", "secret"]
"""A kind of personal data, or a secret such as a key; see `synthgen.curation.privacy.patterns`."""


class Length(Section):
    """Bounds on the number of words of a completion. If a completion is mostly in a script without spaces (Chinese,
    Japanese, Thai, Lao, Khmer, Burmese, Tibetan), its letters and digits are counted instead of words.
    """

    min_words: int | None = 1
    """Minimum number of words in a completion; null for no bound."""
    max_words: int | None = 1000
    """Maximum number of words in a completion; null for no bound."""
    min_characters: int | None = 1
    """Minimum number of letters and digits in a completion of a script without spaces; null for no bound."""
    max_characters: int | None = 3000
    """Maximum number of letters and digits in a completion of a script without spaces; null for no bound."""


class Repetition(Section):
    """How much a completion may repeat itself."""

    max_share: Share = 0.3
    """Maximum share of the 4-word sequences that occurred before in the same completion. In a script without spaces, a
    sequence has 8 characters (Chinese and Japanese) or 16 characters (all other such scripts). Rows of tables, items of
    lists, code and refrains do not count, unless whole lines repeat again and again.
    """


class Truncated(Section):
    """Which completions are not complete."""

    from_text: bool = False
    """Whether the text is judged in rows without a finish reason, such as rows of data sets. A completion is then
    rejected if a block of code is not closed, or if prose ends in the middle of a sentence.
    """


class Echo(Section):
    """How much of a completion may be a copy of the prompt."""

    max_share: Share = 0.8
    """Maximum share of the completion that repeats the last message of the prompt."""


class BrokenText(Section):
    """Which kinds of broken text lead to a rejection."""

    skip: tuple[Literal["mojibake", "replacement_character", "control_character", "special_token", "html"], ...] = ()
    """Rules that are left out. `mojibake` finds "Ã©" instead of "é", `replacement_character` finds U+FFFD,
    `control_character` finds characters that cannot be shown, `special_token` finds marks of chat templates such as
    "<|im_end|>", and `html` finds entities and tags that are not closed.
    """


class WebText(Section):
    """Which rules for web pages are applied."""

    preset: Literal["gopher", "c4", "fineweb"]
    """The rules of MassiveText (`gopher`: length, symbols, bullets, common English words and repetition), of C4 (`c4`:
    three sentences in complete lines, no curly brackets, no "lorem ipsum"), or the rules that FineWeb added (`fineweb`:
    ends of lines, repeated lines, short lines).
    """


class Format(Section):
    """The form of a completion: a JSON document, and nothing else."""

    json_schema: JsonSchema | None = None
    """A JSON Schema that the document must match; null for any JSON. The schema may not refer to other documents."""
    in_block: bool = True
    """Whether the document may stand in a block of code that begins with ```json. Text around this block is ignored. A
    completion with two such blocks is rejected.
    """


class Arithmetic(Section):
    """Whether wrong equations lead to a rejection."""

    min_share: Share | None = None
    """Minimum share of right equations; null to reject nothing. The share is stored as the score `arithmetic` in any
    case. A row without equations is kept.
    """


LANGUAGES = [
    "am",
    "ar",
    "az",
    "be",
    "bg",
    "bn",
    "ca",
    "cs",
    "da",
    "de",
    "el",
    "en",
    "es",
    "et",
    "eu",
    "fa",
    "fi",
    "fr",
    "gu",
    "he",
    "hi",
    "hr",
    "hu",
    "hy",
    "is",
    "it",
    "ja",
    "ka",
    "kn",
    "ko",
    "ku",
    "lo",
    "lt",
    "lv",
    "ml",
    "mr",
    "ms",
    "nl",
    "no",
    "or",
    "pa",
    "pl",
    "pt",
    "ro",
    "ru",
    "sk",
    "sl",
    "sq",
    "sr",
    "sv",
    "ta",
    "te",
    "th",
    "tl",
    "tr",
    "uk",
    "ur",
    "vi",
    "yo",
    "zh",
]
"""The codes of the languages that eldc detects (ISO 639-1)."""


class Languages(Section):
    """Which languages are allowed."""

    allowed: Annotated[tuple[str, ...], Field(min_length=1)]
    """The codes of the languages that are kept (ISO 639-1), such as `en` or `de`. Completions whose language cannot be
    determined are kept too: short completions, code, and completions for which the detector is not sure.
    """

    @field_validator("allowed", mode="before")
    @classmethod
    def _quoted(cls, value: object) -> object:
        """In YAML, `no` without quotes means false."""
        if any(one is False for one in (value if isinstance(value, list) else [value])):
            raise ValueError("in YAML, `no` without quotes means false; write the code of Norwegian with quotes: 'no'")
        return value

    def rules(self) -> Iterator[Rule]:
        """Every code must stand for a language that can be detected."""
        for code in self.allowed:
            if code not in LANGUAGES:
                yield "allowed", f"'{code}' is no language that can be detected; these are: {', '.join(LANGUAGES)}"


class Pattern(Section):
    """Regular expressions in the syntax of RE2, without look-around and backreferences. `(?i)` at the beginning ignores
    case, `(?s)` lets a dot match the end of a line, and `(?m)` lets `^` and `$` match at each line.
    """

    reject: tuple[str, ...] = ()
    """A completion that one of these expressions matches anywhere is rejected."""
    require: tuple[str, ...] = ()
    """A completion that one of these expressions does not match anywhere is rejected."""

    def rules(self) -> Iterator[Rule]:
        """There must be at least one expression, and Arrow must be able to read each expression."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if not (self.reject or self.require):
            yield "reject", "there is no expression; give `reject` or `require`"
        for key, expressions in (("reject", self.reject), ("require", self.require)):
            for expression in expressions:
                try:
                    pc.match_substring_regex(pa.array([""]), pattern=expression)
                except pa.ArrowInvalid as error:
                    why = str(error).removeprefix("Invalid regular expression: ")
                    yield key, f"'{expression}' is no regular expression of RE2: {why}"
                if not expression:
                    yield key, "an expression is empty, which matches every text"


class Function(Section):
    """A Python function of yours. The command runs the code of this function. The function gets a `pyarrow.RecordBatch`
    with the named columns and returns a list with None (keep) or a reason (reject) for each row. The function's result
    for a row must depend only on this row, because the batches may differ from run to run.
    """

    function: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
    """The function, as `module:function`. The module is looked for where Python finds modules and in the current
    folder.
    """
    columns: Annotated[tuple[str, ...], Field(min_length=1)] = ("completion.text",)
    """The columns that the function gets: columns of the rows, `completion.text` or `prompt.text`."""


class Confidence(Section):
    """How confident the teacher must be in its own tokens. Each bound is about a mean over the tokens of a completion,
    at temperature 1. The scores are `teacher_logprob`, `teacher_probability`, `teacher_entropy_at_least` and
    `teacher_margin`. docs/design.md says when these scores are known; a row whose score is not known is kept. Without
    bounds, the scores are stored, and no row is rejected.
    """

    min_logprob: Annotated[float, Field(le=0)] | None = None
    """Minimum of the mean log-probability, in nats; null for no bound. This bound needs `logits.kind: topk`."""
    min_probability: Share | None = None
    """Minimum of the mean probability; null for no bound."""
    max_entropy: Annotated[float, Field(ge=0)] | None = None
    """Maximum of the mean entropy, in nats; null for no bound. This bound needs `logits.kind: topk`. All tokens outside
    the top-k count as one token, so the true entropy of a rejected row is at least the value in its reason.
    """
    min_margin: Share | None = None
    """Minimum of the mean margin of the two largest probabilities; null for no bound. Needs `logits.kind: topk`."""


class Duplicates(Section):
    """Which rows are the same."""

    ignore_case: bool = False
    """Whether rows that differ only in upper and lower case are the same."""


class SplitCopies(Section):
    """Which row of the split `train` is a copy of a row of `validation` or `test`."""

    of: Literal["row", "prompt", "completion"] = "row"
    """Which text is compared. `row` is the prompt together with the completion. Do not use `prompt` if many rows have
    the same prompt, such as "Write a story.". If a row with this prompt is in `test`, no row with this prompt is left
    in `train`.
    """


class SplitTwins(Section):
    """Which row of the split `train` is nearly the same as a row of `validation` or `test`."""

    threshold: Annotated[float, Field(ge=0.5, le=1)] = 0.8
    """Minimum similarity for which the row of `train` is rejected. The similarity is the Jaccard similarity of the two
    sets of word sequences: the number of common sequences, divided by the number of sequences that at least one of them
    has.
    """
    words: Count = 5
    """Number of words of a sequence. In scripts without spaces, each character counts as a word."""
    of: Literal["row", "prompt", "completion"] = "prompt"
    """Which text is compared. `row` is the prompt followed by the completion."""


class NearDuplicates(Section):
    """Which rows are nearly the same."""

    threshold: Annotated[float, Field(ge=0.5, le=1)] = 0.8
    """Minimum similarity for which one of two rows is rejected. The similarity is the Jaccard similarity of their sets
    of word sequences: the number of common sequences, divided by the number of sequences that at least one of them has.
    """
    words: Count = 5
    """Number of words of a sequence. In scripts without spaces, each character counts as a word."""
    of: Literal["row", "prompt", "completion"] = "row"
    """Which text is compared. `row` is the prompt followed by the completion."""
    exact: bool = False
    """Whether every pair of similar rows is found. If false, one in a million of the pairs at the threshold may be
    missed. Finding every pair takes about twice as long.
    """


class Select(Section):
    """How many rows of the split `train` are kept, and which. Give either `rows` or `share`. Rows of one group are kept
    or rejected together. A group is left out if it has more rows than are still wanted. So with groups, fewer rows may
    be kept.
    """

    rows: Count | None = None
    """Number of rows of `train` to keep. If fewer rows are left, all are kept."""
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the rows of `train` to keep, among the rows that all other rules kept. The number is rounded down."""
    by: Literal["score", "spread", "random"]
    """`score` keeps the rows with the highest score. `spread` keeps rows whose texts have few words in common: the
    first row is drawn at random, and each further row is the row that is farthest from all rows chosen before. `random`
    draws rows. Compare every other choice with `random`.
    """
    score: str | None = None
    """Name of the score, for `by: score`: a score in the column `scores`, such as `teacher_logprob`, `answer` or
    `length`. A row without this score comes last. The score of a group is the mean of its rows' scores.
    """
    lowest: bool = False
    """Whether the rows with the lowest score are kept."""
    column: str | None = None
    """Column whose values divide the rows into strata. Each stratum gets a part of the number of rows to keep, and rows
    are chosen within each stratum. Rows without a value are a stratum of their own.
    """
    shares: Literal["proportional", "equal"] = "proportional"
    """The parts of the strata: in proportion to their rows, or equal. If a stratum has fewer rows than its part, the
    other strata get the rest of this part.
    """
    of: Literal["row", "prompt", "completion"] = "row"
    """Which text is compared by `spread`. `row` is the prompt followed by the completion. A group of rows is compared
    by the text of its first row.
    """
    seed: int = 0
    """Seed of the draws, and of the order of rows with the same score."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that this selection reads in addition to the columns that every selection reads."""
        parts = {"row": ("prompt.said", "completion.said"), "prompt": ("prompt.said",)}
        texts = parts.get(self.of, ("completion.said",)) if self.by == "spread" else ()
        scores = ("scores",) if self.by == "score" else ()
        return (*scores, *texts, *((self.column,) if self.column else ()))

    def rules(self) -> Iterator[Rule]:
        if (self.rows is None) == (self.share is None):
            yield "rows", "give either `rows` or `share`"
        if self.by == "score" and not self.score:
            yield "score", "name the score, such as `teacher_logprob`"
        if self.by != "score" and (self.score or self.lowest):
            yield "by", "`score` and `lowest` are about `by: score`"


class EvaluationSet(Section):
    """A data set on which models are evaluated, and that must not be in the training data."""

    name: Name
    """Name of the set in reasons and counts."""
    path: PathName
    """A file or folder of rows in any format that `synthgen curate` takes, or a text file (`.txt`) with a question in
    each line.
    """
    question: str | None = None
    """Column with the question. Without this key, the messages of the user are the question, and the completion is the
    answer."""
    answer: str | None = None
    """Column with the answer; it needs the key `question`. Without `answer`, only questions are looked for."""
    id: str | None = None
    """Column with the ids of the rows. Without this key, the column `id` is used, or else the number of the line."""

    def rules(self) -> Iterator[Rule]:
        if self.answer and not self.question:
            yield "answer", "name the column of the question too"


class Decontamination(Section):
    """Which rows hold a question or an answer of an evaluation set."""

    sets: tuple[EvaluationSet, ...] = Field(min_length=1)
    """The evaluation sets."""
    ngram: Literal[8, 13] = 13
    """Length of the compared sequences, in words. A row is compared with questions and answers by the sequences that
    both contain. With 8, more of the changed questions are found, but more common phrases are wrongly taken for a
    question.
    """
    min_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Minimum share of the words of a question or an answer that must be in common sequences. If a question has fewer
    than `ngram` words, all its words must be found together. An answer with fewer than `ngram` words does not count.
    """

    def rules(self) -> Iterator[Rule]:
        names = [one.name for one in self.sets]
        if len({*names}) < len(names):
            yield "sets", "two sets have the same name"


class PersonalData(Section):
    """Which personal data and secrets are searched."""

    entities: Annotated[tuple[Entity, ...], Field(min_length=1)] = get_args(Entity)
    """Kinds of values. `email`: e-mail addresses. `phone`: telephone numbers. `ip_address`: addresses of IPv4 and IPv6
    on the internet. `card`: payment cards. `iban`: bank accounts. `national_id`: personal numbers of the United States,
    the United Kingdom, Spain, France, Italy, Brazil and the Netherlands. `secret`: private keys, tokens of services,
    and passwords in addresses. Names of persons are not found.
    """
