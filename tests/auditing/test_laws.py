"""Laws that hold for all terms of the catalog, all roles and all intended uses."""

from __future__ import annotations

import datetime
import itertools
import random
from functools import cache

import pytest

from synthgen.auditing.algebra import Obligation, Verdict, conflicts, join
from synthgen.auditing.catalogue import catalogue
from synthgen.auditing.combinations import Term
from synthgen.auditing.judging import judge
from synthgen.auditing.result import STATUSES, worst
from synthgen.auditing.rules import Role, verdict
from synthgen.recipe import AuditSection
from synthgen.records import ROLES

BOOK = catalogue()
TODAY = datetime.date(2026, 1, 15)
TERMS = [BOOK.get(name) for name in BOOK.ids()]
ACTIONS = [["train"], ["share_data"], ["release_weights"], ["serve"], ["train", "share_data", "release_weights"]]
NOTHING = Verdict()
USES = ("research", "commercial")


def intents() -> list[dict]:
    """Intended uses of all kinds, without the key `use`."""
    declared = [
        {},
        {"competes": "no", "monthly_users": 5, "yearly_revenue_usd": 5, "regions": ["US"], "student_family": "llama-3"},
        {
            "competes": "yes",
            "monthly_users": 10**9,
            "regions": ["EU"],
            "student_name": "Nice",
            "student_family": "qwen",
        },
    ]
    return [{"actions": actions, **more} for actions in ACTIONS for more in declared]


@cache
def section(number: int, use: str) -> AuditSection:
    return AuditSection.model_validate({"use": use, **intents()[number]})


@cache
def said(name: str, role: str, account: str, number: int, use: str) -> Verdict:
    return verdict(BOOK.get(name), Role(role, account), section(number, use))


def rank(one: Verdict) -> int:
    return STATUSES.index(one.status)


EVERY = list(itertools.product(range(len(intents())), ("", "third_party")))


def drawn(seed: int, count: int) -> list[Verdict]:
    """Verdicts on random sources for one random intended use."""
    draw = random.Random(seed)
    intent = section(draw.randrange(len(intents())), draw.choice(["research", "commercial"]))
    return [
        verdict(draw.choice(TERMS), Role(draw.choice(ROLES), draw.choice(["", "third_party"])), intent)
        for _ in range(count)
    ]


@pytest.mark.parametrize("start", range(4))
def test_joining_is_free_of_order_and_repetition_and_never_improves(start):
    for seed in range(start * 500, start * 500 + 500):
        verdicts = drawn(seed, 4)
        a, b, c, d = verdicts
        everything = join(verdicts)
        assert join([a]) == a == join([a, a]) == join([a, NOTHING])
        assert join([a, b]) == join([b, a])
        assert join([join([a, b]), join([c, d])]) == join([a, join([b, c, d])]) == everything
        assert join([everything, a]) == everything
        assert rank(everything) >= max(map(rank, verdicts))
        assert join(reversed(verdicts)) == everything


def test_commercial_use_is_never_easier_than_research():
    for terms, role, (number, account) in itertools.product(TERMS, ROLES, EVERY):
        research, commercial = (said(terms.id, role, account, number, use) for use in USES)
        assert rank(research) <= rank(commercial), (terms.id, role, intents()[number], account)


def test_a_judge_is_never_harder_than_a_generator_and_has_no_obligations():
    for terms, use, (number, account) in itertools.product(TERMS, USES, EVERY):
        judging, writing = (said(terms.id, name, account, number, use) for name in ("judge", "generator"))
        assert rank(judging) <= rank(writing), (terms.id, use, intents()[number])
        assert not judging.obligations


def test_a_third_party_is_never_harder_than_our_own_account():
    for terms, role, use, number in itertools.product(TERMS, ROLES, USES, range(len(intents()))):
        theirs, ours = (said(terms.id, role, who, number, use) for who in ("third_party", ""))
        assert rank(theirs) <= rank(ours), (terms.id, role)
        assert terms.contract or theirs == ours


def test_an_unknown_fact_is_unknown_for_every_role_use_and_action():
    unknown = [one for one in TERMS if "unknown" in (one.commercial_use, one.train_on_outputs)]
    assert len(unknown) > 20
    for terms, role, use, (number, account) in itertools.product(unknown, [*ROLES, "new"], USES, EVERY):
        assert rank(said(terms.id, role, account, number, use)) >= STATUSES.index("UNKNOWN"), terms.id


def test_every_verdict_that_is_not_allow_says_why():
    for terms, role, use, (number, account) in itertools.product(TERMS, ROLES, USES, EVERY):
        found = said(terms.id, role, account, number, use)
        assert found.status == "ALLOW" or found.reasons, (terms.id, role)


def test_a_role_that_nobody_knows_is_treated_as_a_generator():
    for terms, use, (number, account) in itertools.product(TERMS, USES, EVERY):
        new, writing = (said(terms.id, role, account, number, use) for role in ("new", "generator"))
        assert new == writing


@pytest.mark.parametrize("seed", range(3))
def test_an_alternative_never_makes_it_worse_and_a_further_license_never_better(seed):
    draw = random.Random(seed)
    names = BOOK.ids()
    for _ in range(150):
        one, other = draw.choice(names), draw.choice(names)
        intent = section(draw.randrange(len(intents())), draw.choice(USES))
        single = judge(Term("x", "generator", one), intent, TODAY, BOOK).verdict
        either = judge(Term("x", "generator", f"{one} OR {other}"), intent, TODAY, BOOK).verdict
        both = judge(Term("x", "generator", f"{one} AND {other}"), intent, TODAY, BOOK).verdict
        assert rank(either) <= rank(single) or BOOK.get(one).kind == "host"
        assert rank(both) >= rank(single) or BOOK.get(one).kind == "host"  # a host's terms grant no rights in a model


@pytest.mark.parametrize("seed", range(2))
def test_alternatives_of_several_sources_pass_only_if_one_choice_of_them_passes(seed):
    """The audit takes the best alternative of each source by itself, so a verdict ALLOW is never wrong. DENY can be
    wrong, because a different alternative may avoid a conflict between two sources.
    """
    draw = random.Random(seed)
    names = [one.id for one in TERMS if one.kind != "host"]
    for _ in range(150):
        intent = section(draw.randrange(len(intents())), draw.choice(USES))
        sources = [[draw.choice(names), draw.choice(names)] for _ in range(3)]
        role = draw.choice(ROLES)
        chosen = join(judge(Term("x", role, " OR ".join(one)), intent, TODAY, BOOK).verdict for one in sources)
        choices = [
            join(judge(Term("x", role, one), intent, TODAY, BOOK).verdict for one in some)
            for some in itertools.product(*sources)
        ]
        assert rank(chosen) >= min(map(rank, choices))


def test_the_worst_status_does_not_depend_on_the_order():
    for some in itertools.permutations(STATUSES, 3):
        assert worst(some) == max(some, key=STATUSES.index)
    assert worst([]) == "ALLOW"


def test_conflicts_are_the_smallest_sets():
    def allows(name: str, licenses: str) -> Obligation:
        return Obligation("share_alike", name, "share alike", tuple(licenses))

    three = [allows("a", "xy"), allows("b", "yz"), allows("c", "xz")]
    assert [sorted(one.of) for one in conflicts(three)] == [["a", "b", "c"]]
    assert [sorted(one.of) for one in conflicts([*three, allows("d", "w")])] == [
        ["a", "b", "c"],
        ["a", "d"],
        ["b", "d"],
        ["c", "d"],
    ]
    assert conflicts(three[:2]) == []
    many = [allows(f"n{number:02}", "x") for number in range(10)] + [allows("z", "y")]
    assert len(conflicts(many)) == 10
