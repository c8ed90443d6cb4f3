"""Personal data and secrets: planted values are found, look-alikes are left alone, and redacted rows stay whole.

The values and look-alikes are in `support/planted.py` and `support/lookalikes.py`.
"""

from __future__ import annotations

import json
import time

import pyarrow as pa
import pytest
from support.corpora import corpus_of, curating, parts, row
from support.lookalikes import lookalikes
from support.planted import PLANTS, plants

import synthgen
from synthgen.curation.columns import Columns
from synthgen.curation.privacy.find import Hit, hits_in
from synthgen.curation.privacy.likely import hint_bits, hint_names
from synthgen.curation.privacy.patterns import ENTITIES, HINTS
from synthgen.errors import RecipeError
from synthgen.executor import Services
from synthgen.recipe import CurateSection
from synthgen.records import to_table
from synthgen.tables.curation import CHECKS, EDITS
from synthgen.tables.reference import resolve

COUNT = 400


def found(texts: list[str]) -> list[list[Hit]]:
    bits = hint_bits(pa.array(texts))
    return [hits_in(text, hint_names(int(hints))) for text, hints in zip(texts, bits, strict=True)]


def values(text: str) -> list[tuple[str, str]]:
    """The personal data that is found in a text, as pairs (value, entity)."""
    return [(text[hit.start : hit.stop], hit.entity) for hit in found([text])[0]]


# Recall and precision


@pytest.mark.parametrize("entity", PLANTS)
def test_planted_values_are_found_and_lookalikes_are_not(entity):
    """A value counts as found if its place and its entity are exactly right. Precision is the share of right hits among
    all hits, in texts with planted values and in look-alikes.
    """
    planted, others = plants(entity, COUNT, seed=5), lookalikes(entity, COUNT, seed=5)
    hits = found([one.text for one in planted])
    places = [{(hit.start, hit.stop) for hit in one if hit.entity == entity} for one in hits]
    right = sum((one.start, one.stop) in place for one, place in zip(planted, places, strict=True))
    wrong = sum(len(one) for one in found(others)) + sum(len(one) for one in hits) - right
    print(f"\n{entity}: recall {right / COUNT:.3f}, precision {right / (right + wrong):.3f} of {2 * COUNT} texts")
    assert right / COUNT >= 0.995
    assert right / (right + wrong) >= 0.995


@pytest.mark.parametrize("entity", PLANTS)
def test_a_hint_matches_every_text_with_a_value(entity):
    """The quick search with `HINTS` selects every text with a value, in every form of the text."""
    texts = [one.text for one in plants(entity, COUNT, seed=6)] + lookalikes(entity, COUNT, seed=6)
    assert [hits_in(text, HINTS) for text in texts] == found(texts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Call 555-0100 or +44 (0)20 7946 0958.", [("555-0100", "phone"), ("+44 (0)20 7946 0958", "phone")]),
        ("+33 6 12 34 56 78 2024", [("+33 6 12 34 56 78", "phone")]),
        ("call me in 2020-2021, or text 5000000 people", []),
        ("250 300 1200 75 and 212 555 0123.", [("212 555 0123", "phone")]),
        ("IBAN DE89 3704 0044 0532 0130 00 THEN GO", [("DE89 3704 0044 0532 0130 00", "iban")]),
        ("ann@example.org.Then", [("ann@example.org", "email")]),
        ("https://ann:pa55@example.org/x", [("ann:pa55", "secret")]),
        ("ask 54.8.4.4 with version 54.8.4.4", [("54.8.4.4", "ip_address")]),
        ("IP 1.2.3.4\nSee 1.2.3.4", [("1.2.3.4", "ip_address")]),
        ("at 2001:db8::1: yes, 2001::1", [("2001:db8::1", "ip_address"), ("2001::1", "ip_address")]),
        ("٤١١١١١١١١١١١١١١١ and 4111111111111111", [("4111111111111111", "card")]),
        ("4111 1111 1111 1111 = 2 * x", []),
        ("card 4222222222222\nnumber 4222222222222", [("4222222222222", "card")]),
        ("BSN 111222333 and 111222333", [("111222333", "national_id")]),
        ("078-05-1120 and 666-05-1120", [("078-05-1120", "national_id")]),
        ("BSN 111222334, BSN 000000000, CPF 11144477736, CPF 11111111111", []),
        ("RSSMRA85T71A562X, RSSMRA85T32A562Y, RSSMRA85T81A562Y", [("RSSMRA85T71A562X", "national_id")]),
        ("212 155 0123, or 212-155-0123", [("212-155-0123", "phone")]),
        ("+12121550123 and +1 212 155 0123", [("+1 212 155 0123", "phone")]),
        ("519-859-8211-45008 and 911-555-0100", []),
        ("call 2125550 12 times, or call 21255501 12 times", [("2125550", "phone"), ("21255501", "phone")]),
        ("call 12 345 6789 0 1", [("12 345 6789", "phone")]),
        ("call 123456789012 or call 1234567890123", [("123456789012", "phone")]),
        ("0161 496 0000 x 5, 0161 496 0000x5", [("0161 496 0000", "phone"), ("0161 496 0000x5", "phone")]),
        ("03 12 25 33 41 and 03 12 25 33 14", [("03 12 25 33 14", "phone")]),
        ("请联系13812345678，号：13912345678, x13812345678", [("13812345678", "phone"), ("13912345678", "phone")]),
        ("иван@почта.рф, a@b.zz, a@b.png, git@example.org:a/b.git", [("иван@почта.рф", "email")]),
        ("a..b@example.org and a.@example.org", []),
        ("0049 1701234567, 00491701234567", [("0049 1701234567", "phone")]),
        ("1:2:3:4:5:6:7:abc, 1:2:3:4:5:6:7:ab", [("1:2:3:4:5:6:7:abc", "ip_address")]),
        ("185057800608491 and 185057800608492, 185057800608491 + 1", [("185057800608491", "national_id")]),
        ("::ffff:54.3.2.1 and ::ffff:10.3.2.1", [("54.3.2.1", "ip_address")]),
        ("54.3.2.256, 54.03.2.1, 172.16.0.1 and 172.32.0.1", [("172.32.0.1", "ip_address")]),
        ("fc00::1, ff02::1, fe80::1, a::b, 2001:db8::g", []),
        ("1.2.3.4:8080 1.2.3.4", [("1.2.3.4", "ip_address")]),
    ],
)
def test_the_words_around_a_number_count(text, expected):
    assert values(text) == expected


def test_a_private_key_without_its_last_line_ends_with_its_content():
    lines = "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n" * 3
    assert values(f"{lines}\nThat was it.") == [(lines.rstrip(), "secret")]
    assert values(f"-----BEGIN PRIVATE KEY-----\n{'Ab1/' * 10}")
    assert not values(f"-----BEGIN PRIVATE KEY-----\n{'Ab1/' * 9}xyz")


@pytest.mark.parametrize(
    ("entity", "spellings", "others"),
    [
        ("email", ["Ann@example.org", "ann@EXAMPLE.org"], ["bob@example.org"]),
        ("phone", ["+1 212-555-0123", "(212) 555-0123 x12", "1-212-555-0123", "001-212-555-0123"], ["212-555-0124"]),
        ("phone", ["+44 (0)20 7946 0958", "0044 20 7946 0958"], ["020 7946 0958"]),
        ("phone", ["请联系13812345678"], ["(381) 234-5678"]),
        ("card", ["4111 1111 1111 1111", "4111111111111111"], ["5555555555554444"]),
        ("iban", ["DE89 3704 0044 0532 0130 00", "de89370400440532013000"], ["GB82WEST12345698765432"]),
        ("national_id", ["12345678-Z", "12.345.678-Z"], ["X1234567L"]),
        ("ip_address", ["2001:DB8:0:0:0:0:0:1234", "2001:db8::1234"], ["2001:db8::1235"]),
    ],
)
def test_two_spellings_of_a_value_are_the_same(entity, spellings, others):
    hits = [hit for one in found(spellings) for hit in one]
    assert [hit.entity for hit in hits] == [entity] * len(spellings)
    assert len({hit.same for hit in hits}) == 1
    assert hits[0].same not in {hit.same for one in found(others) for hit in one}


def test_many_values_take_linear_time():
    began = time.process_time()
    assert len(found(["ann@example.org, +49 30 1234567; " * 5000])[0]) == 10_000
    assert not found(["glpat-" * 40_000 + " 1" * 20_000 + " " + "a@" * 20_000])[0]
    assert time.process_time() - began < 4


# JSON


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"phone_number": 2125550123, "n": 3.5}, {"phone_number": "#", "n": 3.5}),
        ({"cardNumber": "4222222222222"}, {"cardNumber": "#"}),
        ({"x": "4222222222222", "n": 4222222222222}, None),
        ({"ann@example.org": ["Ann", 1]}, {"#": ["Ann", 1]}),
        ({'é "ann@example.org"': 1}, {'é "#"': 1}),
        ({"text": 'é "😀" \\ bob@example.org'}, {"text": 'é "😀" \\ #'}),
        ([{"text": "one\nbob@example.org\ntwo"}], [{"text": "one\n#\ntwo"}]),
    ],
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_json_stays_json(given, expected, ascii_only):
    """JSON stays valid, even if it is a string inside other JSON, as the arguments of tool calls are."""
    expected = given if expected is None else expected
    text = json.dumps(given, ensure_ascii=ascii_only)
    outer = json.dumps([{"function": {"name": "f", "arguments": text}}], ensure_ascii=ascii_only)
    for whole, inner in (
        (text, json.loads),
        (outer, lambda new: json.loads(json.loads(new)[0]["function"]["arguments"])),
    ):
        new = whole
        for hit in reversed(found([whole])[0]):
            new = f"{new[: hit.start]}{hit.quote}#{hit.quote}{new[hit.stop :]}"
        assert inner(new) == expected


# The rules


def people() -> list:
    """Rows with personal data in all their texts."""
    call = {
        "id": "1",
        "function": {"name": "send", "arguments": json.dumps({"to": "bob@example.org", "card": 4111111111111111})},
    }
    chat = [
        {"role": "user", "content": "I am Ann, ANN@example.org."},
        {"role": "assistant", "content": None, "tool_calls": json.dumps([call])},
        {"role": "tool", "content": '{"sent": "bob@example.org"}', "tool_call_id": "1"},
    ]
    said = [
        {
            "role": "assistant",
            "content": "Sent to ann@example.org.",
            "reasoning_content": "His address is bob@example.org.",
        },
        {"role": "assistant", "content": "Bye, +44 20 7946 0958 and carl@example.org"},
    ]
    rows = [row("nothing here", 0, token_ids=[1, 2]), row("see 1.2.3.4", 1, token_ids=[1, 2])]
    rows.append(
        row(
            "",
            2,
            prompt=chat,
            completion=said,
            answer="bob@example.org",
            rationale="carl@example.org",
            token_ids=[1, 2],
        )
    )
    rows.append(
        row(
            "fine",
            3,
            prompt=[{"role": "user", "content": "key AKIAIOSFODNN7EXAMPLE"}],
            prompt_token_ids=[1],
            token_ids=[1],
        )
    )
    rows.append(row("[EMAIL_4] and ann@example.org", 4, reference=["ann@example.org"], answer="ann@example.org"))
    rows += [row(one.text, 5 + n) for n, one in enumerate(plants("email", 40, seed=7) + plants("secret", 40, seed=7))]
    return rows


def test_the_same_value_has_the_same_pseudonym_in_all_texts_of_a_row(tmp_path):
    run = corpus_of(tmp_path / "run", people())
    done = synthgen.curate(curating(redact=True, answer=False, duplicates=False, length=False, repetition=False), run)
    rows, rejected = parts(run)
    assert not rejected
    assert done.counts["edited"] == len(rows) - 2
    for name in ("r0", "r1"):
        assert (list(rows[name].token_ids), rows[name].edits) == ([1, 2], [])
    chat = rows["r2"]
    arguments = json.loads(json.loads(chat.prompt[1]["tool_calls"])[0]["function"]["arguments"])
    assert chat.prompt[0]["content"] == "I am Ann, [EMAIL_1]."
    assert arguments == {"to": "[EMAIL_2]", "card": "[CARD_1]"}
    assert json.loads(chat.prompt[2]["content"]) == {"sent": "[EMAIL_2]"}
    assert chat.completion[0]["content"] == "Sent to [EMAIL_1]."
    assert chat.completion[0]["reasoning_content"] == "His address is [EMAIL_2]."
    assert chat.completion[1]["content"] == "Bye, [PHONE_1] and [EMAIL_3]"
    assert (chat.answer, chat.rationale, chat.token_ids) == ("[EMAIL_2]", "[EMAIL_3]", None)
    before = "Sent to ann@example.org.\nBye, +44 20 7946 0958 and carl@example.org"
    cut = [before[edit["start"] : edit["end"]] for edit in chat.edits if edit["start"] is not None]
    assert cut == ["ann@example.org", "+44 20 7946 0958", "carl@example.org"]
    assert [edit["edit"] for edit in chat.edits] == ["redact"] * 4
    assert {edit["before_sha256"] for edit in chat.edits} == {None}
    assert rows["r3"].prompt[0]["content"] == "key [SECRET_1]"
    assert (rows["r3"].prompt_token_ids, rows["r3"].token_ids) == (None, None)
    assert [(edit["start"], edit["end"]) for edit in rows["r3"].edits] == [(None, None)]
    assert (rows["r4"].text, rows["r4"].reference, rows["r4"].answer) == (
        "[EMAIL_4] and [EMAIL_5]",
        ["[EMAIL_5]"],
        "[EMAIL_5]",
    )


def test_a_second_redaction_changes_nothing_and_nothing_is_left(tmp_path):
    """In the first text, the second number is recognized only after the first one is removed."""
    beside = "+33 6 12 34 56 78 212 555 0123"
    texts = [beside, *(one.text for entity in PLANTS for one in plants(entity, 60, seed=8))]
    batch = batch_of([row(text, number) for number, text in enumerate(texts)])
    once = edited(batch)
    assert once["completion"][0].as_py()[0]["content"] == "[PHONE_1] [PHONE_2]"
    assert once["completion"] != batch["completion"]
    assert edited(once).equals(once)
    assert not judged(once)


def batch_of(rows: list) -> pa.RecordBatch:
    (batch,) = to_table(rows).combine_chunks().to_batches()
    return batch


def edited(batch: pa.RecordBatch, **settings) -> pa.RecordBatch:
    section = CurateSection(redact=settings or True).settings("redact")
    given = Columns(batch).select([*EDITS["redact"].columns, "edits"])
    return resolve(EDITS["redact"].run)(given, section, Services())


def judged(batch: pa.RecordBatch, **settings) -> dict:
    section = CurateSection(personal_data=settings or True).settings("personal_data")
    given = Columns(batch).select(CHECKS["personal_data"].columns)
    return resolve(CHECKS["personal_data"].run)(given, section, Services()).rejected


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_size_of_a_batch_does_not_matter(size):
    table = to_table(people() * 2)
    whole = edited(batch_of(people() * 2))
    rejected = judged(batch_of(people() * 2))
    batches = table.combine_chunks().to_batches(max_chunksize=size)
    assert pa.Table.from_batches([edited(batch) for batch in batches]).to_pylist() == whole.to_pylist()
    parts_of = [
        (number * size + index, one) for number, batch in enumerate(batches) for index, one in judged(batch).items()
    ]
    assert dict(parts_of) == rejected


def test_a_reason_names_the_place_and_never_the_value():
    rows = people()
    rejected = judged(batch_of(rows))
    assert sorted(rejected) == list(range(2, len(rows)))
    for number, rejection in rejected.items():
        secret = {value for text in (rows[number].text, str(rows[number].prompt)) for value, _ in values(text)}
        assert not any(value in rejection.reason for value in secret)
        assert rejection.reason.startswith(ENTITIES[rejection.rule].title)
    first = rejected[2]
    assert first.reason == "e-mail address at characters 9–23 of the completion, and 9 more"
    assert (first.rule, first.span, first.score) == ("email", {"start": 8, "stop": 23}, 10)
    assert rows[2].text[8:23] == "ann@example.org"
    assert (rejected[3].reason, rejected[3].span) == ("secret at characters 5–24 of the prompt", None)
    assert CHECKS["personal_data"].teaches == "nothing"
    assert CHECKS["personal_data"].on is EDITS["redact"].on is False


def test_the_place_of_a_value_outside_the_completion():
    chat = [{"role": "user", "content": "x"}, {"role": "user", "content": "call 555-0100", "name": "a"}]
    thought = [{"role": "assistant", "content": "x", "reasoning_content": "ann@example.org"}]
    later = row(
        "x", 2, completion=[{"role": "assistant", "content": "one"}, {"role": "assistant", "content": "a@example.org"}]
    )
    rejected = judged(batch_of([row("x", 0, prompt=chat), row("x", 1, completion=thought), later]))
    assert rejected[0].reason == "phone number at characters 6–13 of message 2 of the prompt"
    assert rejected[1].reason == "e-mail address at characters 1–15 of the reasoning in message 1 of the completion"
    assert (rejected[2].span, later.text[4:17]) == ({"start": 4, "stop": 17}, "a@example.org")


def test_only_the_chosen_entities_count():
    batch = batch_of([row("ann@example.org at 8.8.4.4 knows https://bob:pa55word@example.org", 0, answer=None)])
    assert edited(batch, entities=["ip_address"])["completion"][0].as_py()[0]["content"].split()[2] == "[IP_1]"
    assert {one.rule for one in judged(batch, entities=["secret"]).values()} == {"secret"}
    assert not judged(batch, entities=["card", "iban"])
    (only_mail,) = judged(batch, entities=["email"]).values()
    assert only_mail.score == 1, "the address after a password is no e-mail address"
    assert CurateSection(redact=["email"]).settings("redact").entities == ("email",)
    with pytest.raises((RecipeError, ValueError), match="entities"):
        curating(redact={"entities": ["name"]})


def test_rows_without_texts(tmp_path):
    empty = row("", 0, prompt=[], completion=[], answer=None)
    assert edited(batch_of([empty])).num_rows == 1
    assert judged(batch_of([empty])) == {}
    for rows in ([], [None], [None, ""]):
        assert hint_bits(pa.array(rows, pa.string())).tolist() == [0] * len(rows)
