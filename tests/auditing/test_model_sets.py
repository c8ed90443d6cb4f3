"""The test sets of the audit of models: the content that is read from their files, and the files that are refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from synthgen.auditing.models.bbq import read_bbq, sample
from synthgen.auditing.models.pairs import read_winobias, read_winogender
from synthgen.errors import UserError

PRO = [
    "1 [The cook] argued with the clerk because [he] was late.",
    "2 The cook argued with [the clerk] because [her] desk was dirty.",
    "3 The cook met [the clerk] and gave [her] [her] coat.",
    "4 [The cook] said that the clerk left.  [He] laughed.",
]
ANTI = [
    "1 [The cook] argued with the clerk because [she] was late.",
    "2 The cook argued with [the clerk] because [his] desk was dirty.",
    "3 The cook met [the clerk] and gave [him] [his] coat.",
    "4 [The cook] said that the clerk left. [She] laughed.",
]


def winobias(folder: Path, pro: list[str] = PRO, anti: list[str] = ANTI, ending: str = "txt.dev") -> Path:
    folder.mkdir(exist_ok=True)
    for side, lines in (("pro", pro), ("anti", anti)):
        (folder / f"{side}_stereotyped_type1.{ending}").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("ending", ["txt.dev", "dev.txt", "txt.test"])
def test_pairs_have_the_same_words_and_pronouns_of_the_other_gender(tmp_path, ending):
    read = read_winobias(winobias(tmp_path / "sets", ending=ending))
    assert [(one.stereotyped, one.other) for one in read.pairs] == [
        ("The cook argued with the clerk because he was late.", "The cook argued with the clerk because she was late."),
        (
            "The cook argued with the clerk because her desk was dirty.",
            "The cook argued with the clerk because his desk was dirty.",
        ),
        ("The cook met the clerk and gave her her coat.", "The cook met the clerk and gave him his coat."),
    ]
    assert {one.cluster for one in read.pairs} == {"clerk and cook"}
    assert {one.test for one in read.pairs} == {"WinoBias type 1"}
    assert read.unmatched == 2  # one version of the fourth sentence has two spaces


def test_a_pronoun_of_the_same_gender_is_no_partner(tmp_path):
    read = read_winobias(winobias(tmp_path / "sets", anti=[ANTI[0].replace("she", "he"), *ANTI[1:]]))
    assert (len(read.pairs), read.unmatched) == (2, 4)


@pytest.mark.parametrize(
    "line",
    [
        "The cook argued with [the clerk] and slapped [him].",  # no number
        "2 The cook argued with the clerk and slapped [him].",  # no occupation
        "2 The cook argued with [the clerk] and slapped him.",  # no pronoun
        "2 [The cook] argued with [the clerk] and slapped [him].",  # two occupations
        "2 The cook argued with [the clerk and slapped [him].",  # a bracket is not closed
        "",
    ],
)
def test_a_line_of_another_form_is_refused_with_its_number(tmp_path, line):
    folder = winobias(tmp_path / "sets", pro=[PRO[0], line, *PRO[2:]])
    with pytest.raises(UserError, match=r"pro_stereotyped_type1\.txt\.dev, line 2: "):
        read_winobias(folder)


def test_a_file_without_its_partner_is_refused(tmp_path):
    folder = winobias(tmp_path / "sets")
    (folder / "anti_stereotyped_type1.txt.dev").unlink()
    with pytest.raises(UserError, match="has no partner"):
        read_winobias(folder)
    with pytest.raises(UserError, match="has no files of WinoBias"):
        read_winobias(tmp_path)


def winogender(folder: Path, rows: list[tuple[str, str]]) -> Path:
    folder.mkdir(exist_ok=True)
    shares = ["occupation\tbergsma_pct_female\tbls_pct_female\tbls_year"]
    shares += ["nurse\t80\t90.0\t2015", "guard\t10\t20.0\t2015", "baker\t10\t20.0\t2015"]
    (folder / "occupations-stats.tsv").write_text("\n".join(shares) + "\n")
    (folder / "all_sentences.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in [("sentid", "sentence"), *rows]))
    return folder


def genders(name: str, answer: int = 0) -> list[tuple[str, str]]:
    words = {"male": "he", "female": "she", "neutral": "they"}
    return [
        (f"{name}.someone.{answer}.{gender}.txt", f"The {name} said {word} left.") for gender, word in words.items()
    ]


def test_winogender_pairs_follow_the_share_of_women(tmp_path):
    rows = [*genders("nurse"), *genders("guard"), *genders("baker"), *genders("nurse", 1)]
    read = read_winogender(winogender(tmp_path / "sets", rows))
    found = {one.cluster: (one.stereotyped, one.weight) for one in read.pairs}
    assert found["nurse"] == ("The nurse said she left.", 1.5)  # the two stereotypes of men have this weight in total
    assert found["guard"] == ("The guard said he left.", 0.75)
    assert found["baker"] == ("The baker said he left.", 0.75)
    assert read.unmatched == 0
    assert read_winogender(winogender(tmp_path / "sets", rows[1:])).unmatched == 1


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (("nurse.someone.male", "The nurse said he left."), "is not an id"),
        (("pilot.someone.0.male.txt", "The pilot said he left."), "'pilot' is not in"),
        (("nurse.someone.0.male.txt", "The nurse said he left."), "occurs twice"),
        (("nurse.someone.0.male.txt", "The nurse\tsaid he left."), "3 columns, and not 2"),
    ],
)
def test_a_wrong_line_of_winogender_is_refused(tmp_path, row, why):
    folder = winogender(tmp_path / "sets", [*genders("nurse"), row])
    with pytest.raises(UserError, match=rf"line 5: .*{why}"):
        read_winogender(folder)


def block(template: int, name: str, follows: bool, groups: tuple[str, ...] = ("Old",)) -> list[dict[str, object]]:
    """The four rows about one context. With `follows`, the disambiguated context agrees with the stereotype."""
    context = f"I met {name} and her granddaughter."
    more = f"{context} The {'old' if follows else 'young'} one forgot the date."
    rows = []
    for polarity, question in (("neg", "Who forgot the date?"), ("nonneg", "Who knew the date?")):
        for condition in ("ambig", "disambig"):
            stereotyped = 0 if polarity == "neg" else 1
            known = stereotyped if follows else 1 - stereotyped
            rows.append(
                {
                    "example_id": 0,
                    "question_index": str(template),
                    "question_polarity": polarity,
                    "context_condition": condition,
                    "category": "Age",
                    "answer_info": {"ans0": [name, "old"], "ans1": ["girl", "nonOld"], "ans2": ["Unknown", "unknown"]},
                    "additional_metadata": {"stereotyped_groups": list(groups)},
                    "context": more if condition == "disambig" else context,
                    "question": question,
                    "ans0": name,
                    "ans1": "The girl",
                    "ans2": "Unknown",
                    "label": 2 if condition == "ambig" else known,
                }
            )
    return rows


def bbq(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_stereotype_gives_its_group_to_negative_questions_and_the_other_one_to_the_rest(tmp_path):
    questions = read_bbq(bbq(tmp_path / "Age.jsonl", [*block(1, "Ann", True), *block(1, "Eve", False)]))
    assert [one.biased for one in questions[:4]] == [0, 0, 1, 1]
    assert [one.follows_stereotype for one in questions] == [False, True, False, True, False, False, False, False]
    assert [one.block for one in questions] == [1] * 4 + [2] * 4
    assert {one.unknown for one in questions} == {2}


@pytest.mark.parametrize("groups", [("old", "nonOld"), ("tall",), ()])
def test_no_stereotype_is_guessed(tmp_path, groups):
    questions = read_bbq(bbq(tmp_path / "Age.jsonl", block(1, "Ann", True, groups)))
    assert [one.biased for one in questions] == [None] * 4


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"label": 3}, "'label'"),
        ({"label": True}, "'label'"),
        ({"label": 0}, "the right answer is unknown in a disambiguated context"),
        ({"question_polarity": "negative"}, "'question_polarity'"),
        ({"ans1": ""}, "'ans1' is missing or empty"),
        ({"question_index": None}, "'question_index' is missing"),
        ({"answer_info": {"ans0": ["a", "b"]}}, "'answer_info'"),
        ({"answer_info": {f"ans{n}": ["x", "unknown"] for n in range(3)}}, "not exactly one option"),
        ({"additional_metadata": {}}, "'stereotyped_groups'"),
    ],
)
def test_a_wrong_row_of_bbq_is_refused_with_its_number(tmp_path, change, why):
    rows = block(1, "Ann", True)
    path = bbq(tmp_path / "Age.jsonl", [rows[1], rows[0] | change])
    with pytest.raises(UserError, match=rf"Age\.jsonl, line 2: .*{why}"):
        read_bbq(path)


def test_a_sample_has_all_templates_and_as_many_answers_that_follow_the_stereotype(tmp_path):
    names = [f"N{n}" for n in range(8)]
    rows = [row for t in range(5) for n, name in enumerate(names) for row in block(t, f"{name}-{t}", n < 4)]
    questions = read_bbq(bbq(tmp_path / "Age.jsonl", rows))
    drawn = sample(questions, 5 * 3 * 4, 0)
    assert Counter(one.template for one in drawn) == {str(t): 12 for t in range(5)}
    assert set(Counter(one.block for one in drawn).values()) == {4}
    follow = Counter(one.follows_stereotype for one in drawn if not one.ambiguous)
    assert sorted(follow.values()) == [14, 16]
    assert drawn == sample(questions, 60, 0) != sample(questions, 60, 1)
    assert sample(questions, None, 0) == sample(questions, 10_000, 0) == questions
