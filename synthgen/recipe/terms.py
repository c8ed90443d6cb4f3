"""The facts about one license, or about the terms of one provider. data/licenses.yaml holds the facts that come with
the package; `audit.terms` in a recipe adds your own facts.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from synthgen.tables.section import Rule, Section

CONTRACTS = ("service", "host", "policy")
"""The kinds of terms that bind only the holder of an account. Terms of other kinds bind everybody who has a copy."""
_DAYS = {True: 180, False: 720}  # days for which the facts of a contract (True) or a license (False) count as fresh


def _iso(value: object) -> object:
    """Convert a date to text, because YAML reads an unquoted 2026-01-31 as a date."""
    return value.isoformat() if isinstance(value, datetime.date) else value


def word(value: object) -> object:
    """Convert a boolean to "yes" or "no", because YAML reads an unquoted `yes` or `no` as a boolean."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


Day = Annotated[str, BeforeValidator(_iso), Field(pattern=r"^\d{4}-\d{2}-\d{2}$"), WithJsonSchema({"type": "string"})]


class Threshold(Section):
    """A limit on scale in the text of a license."""

    measure: Literal["monthly_users", "yearly_revenue_usd", "monthly_revenue_usd"]
    """The number that is limited: users a month, or revenue a year or a month in US dollars."""
    above: Annotated[float, Field(gt=0)]
    """The limit. A number that equals the limit is not above the limit."""
    then: Literal["deny", "statement"] = "deny"
    """The consequence above the limit: the license grants nothing, or a statement must be shown."""
    text: str
    """The consequence in words, such as "ask Meta for a license"."""


class Terms(Section):
    """Facts about one version of a license, or of the terms of one provider. Nothing here is legal advice."""

    id: str
    """Name of these terms: an SPDX id, or a name with the version's date, such as `gemma-2026-04-01`."""
    aliases: tuple[str, ...] = ()
    """Other names of the same text: tags of the Hugging Face Hub, SPDX ids, short names."""
    kind: Literal["data", "software", "model", "service", "host", "policy"]
    """A license of data, software or model weights; a contract of a provider, or of a company that hosts the models of
    others; or a policy that a provider adds to its contract."""
    version: str = "-"
    """Version or date of the text."""
    surface: str = ""
    """For contracts: the products that the contract is about, such as `API`."""
    family: str = ""
    """Model family that the terms belong to. Terms with `train_on_outputs: family` allow students of this family."""
    commercial_use: Annotated[
        Literal["yes", "no", "conditional", "unknown"],
        BeforeValidator(word),
        WithJsonSchema({"enum": ["yes", "no", "conditional", "unknown", True, False]}),
    ]
    """Whether commercial use is granted. The key `condition` says on what a conditional grant depends."""
    condition: str = ""
    """The condition of a conditional grant."""
    train_on_outputs: Literal["allow", "silent", "contested", "noncompete", "family", "research", "deny", "unknown"]
    """Whether a model may be trained on the licensed data, or on what the licensed model writes. `silent`: the text
    does not answer this question. `contested`: the text can be read both ways. `noncompete`: only models that do not
    compete with the provider. `family`: only models of the same family. `research`: only for research.
    """
    unless_competing: str = ""
    """With `train_on_outputs: deny`: what the provider says elsewhere about models that do not compete with the
    provider. With `audit.competes: "no"`, the verdict is then CONTESTED instead of DENY.
    """
    student_terms: Literal["none", "credit", "contested", "flow_down"]
    """Whether the terms also bind a student that learned from the rows. `credit`: nothing binds the student, except
    perhaps the duty to give credit. `flow_down`: the text says that the terms bind the student.
    """
    credit: str = ""
    """Whom to name, and how, when rows or weights are passed on."""
    notice: str = ""
    """Which copies of the license and of notices must go with each copy of the rows or weights."""
    statement: str = ""
    """The text that the student's documentation or name must contain, such as "Built with Llama"."""
    use_policy: str = ""
    """Restrictions of use that are passed on with the weights."""
    name_prefix: str = ""
    """The text with which the name of a student must begin."""
    share_alike: tuple[str, ...] = ()
    """Ids of the licenses under which an adapted work may be shared. When empty, any license is allowed."""
    no_further_terms: bool = False
    """Whether an adapted work must not carry further restrictions, as in the GPL."""
    no_derivatives: bool = False
    """Whether changed data may not be shared."""
    no_redistribution: bool = False
    """Whether data may not be passed on at all."""
    thresholds: tuple[Threshold, ...] = ()
    """Limits on scale."""
    excluded_regions: tuple[str, ...] = ()
    """Regions in which nothing is granted, such as `EU`."""
    tools: dict[str, Literal["deny", "unknown"]] = {}
    """Name of a tool of the provider → whether rows that were made with it may be trained on."""
    supersedes: str = ""
    """For contracts: id of the version before this one. The date of a source's terms then says which version applies.
    Without a date, all versions apply.
    """
    joined_with: tuple[str, ...] = ()
    """Ids of other terms that apply together with these."""
    source: str = ""
    """Where the text was read."""
    sha256: str = ""
    """The first characters of the SHA-256 of the text that was read, if it was kept."""
    confidence: Literal["high", "medium", "low", "unread"] = "high"
    """`high`: the text was read. `medium`: the text was read in part, or others quoted it. `low`: only secondary
    sources were read. `unread`: only the name is known. Facts that nobody has read have the value `unknown`.
    """
    seen: Day | None = None
    """Date of the copy of the text that was read."""
    stale_after: Annotated[int, Field(ge=1)] | None = None
    """Number of days after `seen` until the text must be read again; when left out, 180 for contracts and 720 for
    licenses.
    """
    note: str = ""
    """Further remarks for readers."""

    @property
    def contract(self) -> bool:
        """Whether the terms bind only the holder of an account. Terms of other kinds bind everybody who has a copy."""
        return self.kind in CONTRACTS

    def age(self, today: datetime.date) -> int | None:
        """Days since the text was seen; None if that is not known."""
        return (today - datetime.date.fromisoformat(self.seen)).days if self.seen else None

    def stale(self, today: datetime.date) -> bool:
        """Whether the text must be read again."""
        age = self.age(today)
        return age is not None and age > (self.stale_after or _DAYS[self.contract])

    def rules(self) -> Iterator[Rule]:
        if (self.commercial_use == "conditional") != bool(self.condition):
            yield "condition", "'condition' and 'commercial_use: conditional' are given together"
        if self.train_on_outputs == "family" and not self.family:
            yield "family", "'train_on_outputs: family' needs 'family'"
        if self.unless_competing and self.train_on_outputs != "deny":
            yield "unless_competing", "'unless_competing' is for 'train_on_outputs: deny'"
        if self.no_further_terms and not self.share_alike:
            yield "no_further_terms", "'no_further_terms' needs 'share_alike'"
        if self.student_terms == "flow_down" and not self.use_policy:
            yield "use_policy", "'student_terms: flow_down' needs 'use_policy', which is what flows down"
        if self.confidence in ("low", "unread") and self.train_on_outputs != "unknown":
            yield "train_on_outputs", "a text that was not read has 'train_on_outputs: unknown'"
