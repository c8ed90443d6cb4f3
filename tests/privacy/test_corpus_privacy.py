"""The audit of privacy finds planted personal data of each class and copies of private texts, but no look-alikes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import pytest
from support.corpora import corpus_of, curating, row

import synthgen
from synthgen import corpus, durable
from synthgen.auditing.result import AuditResult, Measurement, Subject
from synthgen.curation.privacy.patterns import ENTITIES
from synthgen.errors import CorpusError, RecipeError
from synthgen.privacy import audit_privacy
from synthgen.recipe import Recipe, SeedSource
from synthgen.recipe.privacy import PrivacySection
from synthgen.records import Record
from synthgen.seeds import load_seeds

PRIVATE = (
    "The board met on the third floor of the old mill and agreed that the river gauge would be read twice a day, that "
    "the two lower gates would stay shut until the first week of April, that nobody would tell the press about the "
    "crack in the northern wall, and that the mayor would sign for the repair before the spring floods came down the "
    "valley and reached the bridge."
)
OWN, OTHER, NOWHERE = "ann@example.org", "bob@example.net", "carl@example.edu"
TERMS = {"terms_date": None, "made_by": None, "account": None, "tools": []}


class Made(TypedDict):
    """A run with its recipe."""

    run: Path
    recipe: Recipe


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def source(name: str = "tests", role: str = "seed") -> list[dict[str, object]]:
    return [{"id": name, "role": role, "license": "CC0-1.0", **TERMS}]


def made(
    folder: Path, records: Sequence[Record], seeds: dict[str, list[dict[str, object]]], *private: str, **audit: object
) -> Made:
    """A run with these rows. `seeds` maps the name of a source to its rows; `private` names the private ones."""
    run = corpus_of(folder / "run", records)
    stated = []
    for name, rows in seeds.items():
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in rows))
        stated.append({"path": str(path), "source": name, "license": "CC0-1.0", "id": "id", "private": name in private})
    values = curating().model_dump()
    recipe = Recipe.model_validate({**values, "seeds": stated, "audit": {"privacy": {}, **audit}})
    load_seeds(recipe.seeds, recipe.split, lambda _: "seed").rows.write(run / "generated")
    manifest = corpus.manifest(run / "generated")
    named = [{"role": "seed", "source": name, "license": "CC0-1.0"} for name in seeds]
    durable.write_json(run / "generated" / "manifest.json", {**manifest, "sources": named})
    return {"run": run, "recipe": recipe}


def audited(one: Made, **section: object) -> AuditResult:
    folder = one["run"] / "generated"
    subject = Subject(folder, corpus.manifest(folder), recipe=one["recipe"])
    return audit_privacy(subject, PrivacySection.model_validate(section))


def named(result: AuditResult, name: str) -> Measurement:
    (found,) = [one for one in result.measurements if name in one.name]
    return found


def said(result: AuditResult) -> str:
    """Everything that a report may show."""
    return repr(result)


@pytest.fixture
def classes(tmp_path) -> Made:
    """Four rows. The first has a value of its own prompt, the second a value of another row's seed, the third a value
    that is in no prompt, and the fourth has no value.
    """
    rows = [
        row(f"Write to {OWN.upper()}.", 0, prompt=asked(f"Who is {OWN}?")),
        row(f"Write to {OTHER}.", 1, prompt=asked("Whom shall I write to?")),
        row(f"Write to {NOWHERE}.", 2, prompt=asked("And who else?")),
        row("Write to nobody.", 3, prompt=asked("Nobody?")),
    ]
    seeds = [{"id": "s0", "q": "a"}, {"id": "s1", "q": "b"}, {"id": "s9", "q": f"Ask {OTHER} about it."}]
    return made(tmp_path, rows, {"tests": seeds})


def test_a_value_is_of_its_prompt_of_another_seed_or_fabricated(classes):
    result = audited(classes)
    for title, row_id in (("its own prompt", "r0"), ("another prompt", "r1"), ("fabricated", "r2")):
        found = named(result, f"e-mail address, {title}" if title == "fabricated" else f"copied from {title}")
        assert (found.outcome, found.n, found.clusters, found.estimate) == ("found", 4, 4, 0.25), title
        assert found.note.endswith(f"row {row_id}"), found.note
    assert named(result, "from elsewhere").estimate == 0.25
    assert result.status == "CONTESTED"
    (finding,) = result.findings
    assert "1 value in 1 row from another prompt" in finding.reasons[0]
    assert result.figures["personal data"] == {"email, fabricated": 1, "email, other": 1, "email, own": 1}
    _, _, kinds = named(result, "of these kinds").name.partition(": ")
    assert kinds == ", ".join(ENTITIES[one].title for one in PrivacySection().entities if one != "email")
    only = audited(classes, entities=["email"])
    assert not [one for one in only.measurements if "of these kinds" in one.name]


def test_no_value_and_no_private_text_is_in_a_result(classes, tmp_path):
    for value in (OWN, OTHER, NOWHERE):
        assert value not in said(audited(classes)).lower()
    rows = [row(PRIVATE, 0, id=f"about {OWN}"), row(f"Write to {NOWHERE}.", 1, id=f"again {OWN}")]
    copied = audited(made(tmp_path / "ids", rows, {"ours": [{"id": "x", "q": PRIVATE}]}, "ours"))
    assert named(copied, "private texts of ours").outcome == "found"
    assert OWN not in said(copied)
    assert "river gauge" not in said(copied)


def test_a_value_of_a_private_seed_is_a_leak_even_in_its_own_prompt(tmp_path):
    rows = [row(f"Write to {OWN}.", 0, prompt=asked(f"Who is {OWN}?"), sources=source("ours"))]
    for private, status in (((), "ALLOW"), (("ours",), "CONTESTED")):
        one = made(tmp_path / str(len(private)), rows, {"ours": [{"id": "s0", "q": f"Who is {OWN}?"}]}, *private)
        result = audited(one)
        assert result.status == status
        assert (named(result, "from elsewhere").outcome == "found") == bool(private)


@pytest.mark.parametrize(
    ("completion", "prompt", "title"),
    [
        ("Call +1 415 555 0132.", "Her phone is (415) 555-0132.", "its own prompt"),
        ("Call 415-555-0132 today.", "Note 4155550132 down.", "its own prompt"),
        ("Call +44 20 7946 0958.", "Her phone is 020 7946 0958.", "its own prompt"),
        ("Call +44 20 7946 0958.", "Her phone is +49 20 7946 0958.", "fabricated"),
        ("Call +1 415 555 0132.", "Her phone is (415) 555-0133.", "fabricated"),
        ("Call +1 415 555 0132.", "The part 94155550132 is missing.", "fabricated"),
        ("Write to ann@example.org.", "Is it ann @ example.org or not?", "its own prompt"),
        ("Write to ann@example.org.", "Is it joann@example.org?", "fabricated"),
        ("Write to ann@example.org.", "Is it ann@example.org.uk?", "fabricated"),
        ("Ping 2001:4860:4860::8888 now.", "It is 2001:4860:4860:0:0:0:0:8888.", "its own prompt"),
        ("Pay to DE89 3704 0044 0532 0130 00.", "The account de89-370400440532013000.", "its own prompt"),
        ("Pay to DE89 3704 0044 0532 0130 00.", "The account DE02 1203 0000 0000 2020 51.", "fabricated"),
    ],
)
def test_spellings_and_look_alikes(tmp_path, completion, prompt, title):
    one = made(tmp_path, [row(completion, 0, prompt=asked(prompt))], {"tests": [{"id": "s", "q": "x"}]})
    (found,) = [one.name for one in audited(one).measurements if one.outcome == "found"]
    assert title in found


def test_a_value_in_a_field_of_its_seed_is_of_its_seed(tmp_path):
    seeds = [{"id": "s0", "q": "x", "contact": {"mail": OTHER}}, {"id": "s1", "q": "y"}]
    one = made(tmp_path, [row(f"Write to {OTHER}.", 0), row(f"Or to {OTHER}.", 1)], {"tests": seeds})
    assert audited(one).figures["personal data"] == {"email, own": 1, "email, other": 1}


def test_seeds_that_are_gone_or_changed_or_not_recorded_leave_the_origin_unknown(classes):
    path = Path(classes["recipe"].seeds[0].path)
    before, record = path.read_text(), classes["run"] / "generated" / ".seed-rows"
    path.write_text(before.replace("Ask", "Tell"))
    changed = audited(classes)
    path.unlink()
    gone = audited(classes)
    path.write_text(before)
    record.unlink()
    unrecorded = audited(classes)
    for result, why in ((changed, "have changed"), (gone, "cannot be read"), (unrecorded, "does not say")):
        unknown = [one for one in result.measurements if "unknown origin" in one.name]
        assert unknown, why
        assert any(why in reason for one in result.findings for reason in one.reasons)
        assert not [one for one in result.measurements if "fabricated" in one.name]
    assert gone.figures["personal data"] == {"email, own": 1, "email, unknown": 2}
    assert unrecorded.figures["personal data"] == {"email, own": 1, "email, other": 1, "email, unknown": 1}
    assert audited(classes, deny=["personal_data"]).status == "DENY"
    path.unlink()
    assert audited(classes, deny=["personal_data"]).status == "UNKNOWN"


def test_a_data_set_made_elsewhere_has_no_known_seeds(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": f"Who is {OWN}?", "completion": f"{OWN}, or {NOWHERE}."}) + "\n")
    stated = SeedSource(path=str(path), license="CC0-1.0", source="theirs", private=True)
    recipe = Recipe.model_validate({**curating().model_dump(), "seeds": [stated.model_dump()]})
    run = tmp_path / "run"
    synthgen.curate_dataset(stated, run, recipe)
    folder = run / "curated"
    result = audit_privacy(Subject(folder, corpus.manifest(folder), recipe=recipe), PrivacySection())
    assert result.figures["personal data"] == {"email, own": 1, "email, unknown": 1}
    assert named(result, "rows made from theirs").estimate == 1
    assert named(result, "private texts of theirs").outcome == "not measurable"
    assert result.status == "CONTESTED"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PRIVATE, 71),
        (PRIVATE.upper().replace(" ", "\n\t "), 71),
        ("He wrote: " + " ".join(PRIVATE.split()[5:57]) + " and more.", 52),
        (" ".join(PRIVATE.split()[5:55]), 50),
        (" ".join(PRIVATE.split()[5:54]), 0),
        (" ".join(PRIVATE.split()[:40]) + " oddly " + " ".join(PRIVATE.split()[40:]), 0),
        ("Nothing of it.", 0),
    ],
)
def test_a_span_of_a_private_text_is_found_whatever_its_case_and_white_space(tmp_path, text, words):
    rows = [row(text, 0), row("Nothing else.", 1)]
    one = made(tmp_path, rows, {"tests": [{"id": "s0", "q": "x"}], "ours": [{"id": "p", "q": PRIVATE}]}, "ours")
    result = audited(one)
    found = named(result, "private texts of ours")
    assert (found.outcome, found.estimate) == (("found", 0.5) if words else ("absent", 0.0))
    assert (f"the longest span has {words} words" in found.note) == bool(words)
    assert result.status == ("CONTESTED" if words else "ALLOW")
    assert audited(one, deny=["private_texts"]).status == ("DENY" if words else "ALLOW")
    if not words:
        assert found.high == pytest.approx(1 - 0.05**0.5)


def test_ninety_percent_of_a_short_private_text_is_a_copy_and_too_short_texts_are_counted(tmp_path):
    short = "one two three four five six seven eight nine ten"
    seeds = {"tests": [{"id": "s0", "q": "x"}], "ours": [{"id": "p", "q": short}, {"id": "r", "q": "too short"}]}
    for number, (text, outcome) in enumerate(
        [
            ("now one two three four five six seven eight nine", "found"),
            (short[4:38], "absent"),
            ("Too short", "absent"),
        ]
    ):
        found = named(audited(made(tmp_path / str(number), [row(text, 0)], seeds, "ours")), "private texts of ours")
        assert found.outcome == outcome, text
        assert "1 text searched" in found.note
        assert "fewer than 8 words" in found.note  # the searched texts are the ids and the text "too short"


def test_each_private_source_is_judged_by_itself(tmp_path):
    other = " ".join(f"word{n}" for n in range(60))
    seeds = {"one": [{"id": "p", "q": PRIVATE}], "two": [{"id": "p", "q": other}], "three": [{"id": "p", "q": PRIVATE}]}
    for name in seeds:
        seeds[name] = [{**seeds[name][0], "id": name}]
    result = audited(made(tmp_path, [row(f"{PRIVATE} And then: {other[:400]}", 0)], seeds, "one", "two", "three"))
    assert {named(result, f"private texts of {name}").outcome for name in seeds} == {"found"}


def test_files_named_in_the_section_are_private(tmp_path):
    one = made(tmp_path, [row(PRIVATE, 0), row(f"Write to {OTHER}.", 1)], {"tests": [{"id": "s0", "q": "x"}]})
    (tmp_path / "memo.jsonl").write_text(json.dumps({"text": f"{PRIVATE} Ask {OTHER}."}) + "\n")
    result = audited(one, private=[str(tmp_path / "memo.jsonl")])
    assert named(result, "private texts of memo.jsonl").outcome == "found"
    assert result.figures["personal data"] == {"email, other": 1}
    assert "1 of them from a private source" in named(result, "another prompt").note
    with pytest.raises(RecipeError, match=r"audit\.privacy\.private: seed file") as raised:
        audited(one, private=[str(tmp_path / "gone.jsonl")])
    assert raised.value.hint == "correct this file, or the key audit.privacy.private"


def test_a_private_file_without_texts_is_said(tmp_path):
    one = made(tmp_path, [row("Fine.", 0)], {"tests": [{"id": "s0", "q": "x"}]})
    for name, content, why in (
        ("empty.jsonl", "", "it has no text"),
        ("null.jsonl", '{"text": null}\n', "it has no text"),
        ("short.jsonl", '{"text": "too short"}\n', "all of its texts (1) have fewer than 8 words"),
    ):
        path = tmp_path / name
        path.write_text(content)
        found = named(audited(one, private=[str(path)]), f"private texts of {name}")
        assert (found.outcome, found.note) == ("not measurable", why)
        assert audited(one, private=[str(path)]).status == "ALLOW"
        assert audited(one, private=[str(path)], deny=["private_texts"]).status == "UNKNOWN"


def test_a_private_file_that_was_searched_in_full_is_free_of_copies(tmp_path):
    """The rows copy nothing from the only private file, and no text of the file is too short for the search."""
    one = made(tmp_path, [row("Fine.", 0)], {"tests": [{"id": "s0", "q": "x"}]})
    (tmp_path / "memo.jsonl").write_text(json.dumps({"text": PRIVATE}) + "\n")
    result = audited(one, private=[str(tmp_path / "memo.jsonl")], deny=["private_texts"])
    assert (result.status, result.findings) == ("ALLOW", ())
    found = [each for each in result.measurements if each.name.startswith("private texts")]
    assert [(each.name, each.outcome) for each in found] == [("private texts of memo.jsonl", "absent")]
    assert "1 text searched" in found[0].note
    assert "not searched" not in found[0].note
    nothing = audited(one).measurements
    assert [each.outcome for each in nothing if each.name == "private texts"] == ["not measurable"]


def test_a_private_source_that_changed_since_the_run_is_not_known_to_be_free_of_copies(tmp_path):
    """Otherwise a text that was copied could be deleted from the source, and `deny` would not find it."""
    ours = [{"id": "p", "q": PRIVATE}, {"id": "q", "q": "another text of the same private source, for the test"}]
    one = made(tmp_path, [row(PRIVATE, 0)], {"tests": [{"id": "s0", "q": "x"}], "ours": ours}, "ours")
    assert audited(one, deny=["private_texts"]).status == "DENY"
    Path(one["recipe"].seeds[1].path).write_text(json.dumps(ours[1]) + "\n")
    assert audited(one).status == "ALLOW"
    result = audited(one, deny=["private_texts"])
    assert result.status == "UNKNOWN"
    assert "the seeds have changed" in result.findings[0].reasons[0]


def test_rows_that_were_made_from_private_seeds_are_counted(tmp_path):
    rows = [row("Yes.", 0, sources=source("ours")), row("No.", 1, sources=source()), row("No.", 2)]
    seeds = {"ours": [{"id": "s0", "q": "x"}], "tests": [{"id": "s1", "q": "y"}]}
    for actions, status in ((["train", "share_data"], "CONTESTED"), (["train"], "ALLOW")):
        result = audited(made(tmp_path / actions[-1], rows, seeds, "ours", actions=actions))
        assert named(result, "rows made from ours").estimate == pytest.approx(1 / 3)
        assert result.status == status


def test_nothing_to_search_is_said_and_not_passed_over(tmp_path):
    seeds = {"tests": [{"id": "s0", "q": "x"}]}
    empty = audited(made(tmp_path / "empty", [row("", 0, split="train")][:0], seeds))
    assert {one.outcome for one in empty.measurements} == {"not measurable"}
    without = audited(made(tmp_path / "without", [row("", 0, completion=[])], seeds))
    assert {one.outcome for one in without.measurements} == {"not measurable"}
    none = audited(made(tmp_path / "none", [row("", 0), row("Fine.", 1)], seeds))
    assert named(none, "of these kinds").high == pytest.approx(1 - 0.05**0.5)
    assert named(none, "private texts").note.startswith("no source is marked as private")
    assert not none.findings


def test_rows_of_one_seed_count_as_one_unit(tmp_path):
    rows = [row("Fine.", n, seed_id="s0") for n in range(20)]
    found = named(audited(made(tmp_path, rows, {"tests": [{"id": "s0", "q": "x"}]})), "of these kinds")
    assert (found.n, found.clusters, found.high) == (20, 1, pytest.approx(0.95))


def test_a_missing_column_is_an_error(classes):
    import pyarrow.parquet as pq

    path = next((classes["run"] / "generated" / "data").glob("*.parquet"))
    pq.write_table(pq.read_table(path).drop_columns(["teacher_prompt"]), path)
    with pytest.raises(CorpusError):
        audited(classes)


def test_a_value_of_another_kept_rows_prompt_is_from_elsewhere(tmp_path):
    rows = [row(f"Write to {OTHER}.", 0), row("Yes.", 1, prompt=asked(f"Is it {OTHER}?"))]
    one = made(tmp_path, rows, {"tests": [{"id": "s0", "q": "x"}]})
    assert audited(one).figures["personal data"] == {"email, other": 1}


def test_a_value_that_its_public_prompt_gives_is_no_leak_of_a_private_seed(tmp_path):
    rows = [row(f"Write to {OWN}.", 0, prompt=asked(f"Who is {OWN}?"), sources=source())]
    seeds = {"tests": [{"id": "s0", "q": "x"}], "ours": [{"id": "p", "q": f"Ask {OWN}."}]}
    assert audited(made(tmp_path, rows, seeds, "ours")).status == "ALLOW"


def test_the_longest_span_may_be_in_the_reasoning(tmp_path):
    words = PRIVATE.split()
    message = {"role": "assistant", "reasoning_content": PRIVATE, "content": " ".join(words[:52])}
    one = made(tmp_path, [row("", 0, completion=[message])], {"ours": [{"id": "p", "q": PRIVATE}]}, "ours")
    assert "the longest span has 71 words" in named(audited(one), "private texts of ours").note


def test_five_rows_are_named_and_the_others_counted(tmp_path):
    rows = [row(f"{PRIVATE} Write to {OTHER}.", n, sources=source()) for n in range(7)]
    seeds = {"tests": [{"id": "s0", "q": f"Ask {OTHER}."}], "ours": [{"id": "s1", "q": PRIVATE}]}
    result = audited(made(tmp_path, rows, seeds, "ours"))
    shown = "rows r0, r1, r2, r3, r4 and 2 more"
    assert named(result, "private texts of ours").note.split("; ")[:3] == [
        "the longest span has 71 words",
        "in 1 row, the longest span is of the row's own seed",
        shown,
    ]
    assert named(result, "copied from another prompt").note == "6 values; rows r1, r2, r3, r4, r5 and 1 more"
    assert named(result, "copied from its own prompt").note == "1 value; row r0"
