"""The checks `truncated`, `answer`, `echo`, `broken_text`, `language`, `pattern` and `function`."""

from __future__ import annotations

import importlib
import json
import sys

import pyarrow as pa
import pytest
import yaml
from click.testing import CliRunner
from support.corpora import contents, corpus_of, curating, parts, row
from test_curate import said

import synthgen
from synthgen import curation
from synthgen.cli import main
from synthgen.curation.broken import RULES
from synthgen.errors import RecipeError, UserError
from synthgen.recipe.load import recipe_of_values
from synthgen.records import Record
from synthgen.tables.curation import CHECKS
from synthgen.tables.curation_settings import LANGUAGES, BrokenText


def rejected(check: str, *texts: str, prompt: str = "Question?", **settings) -> dict[int, str]:
    """The reason for each completion that a check rejects, by the completion's number."""
    asked = [{"role": "user", "content": prompt}]
    records = [row(text, number, prompt=asked, finish_reason=None) for number, text in enumerate(texts)]
    return {number: found.reason for number, found in said(check, records, **settings).rejected.items()}


def rule(check: str, text: str, **settings) -> str | None:
    found = said(check, [row(text, 0, finish_reason=None)], **settings).rejected
    return found[0].rule if found else None


def refusal_of(**rules) -> str:
    """The error message for a recipe that has these keys under `curate`."""
    source = {"path": "none.jsonl", "source": "tests", "license": "CC0-1.0"}
    with pytest.raises(RecipeError) as caught:
        recipe_of_values({"task": "t", "seeds": [source], "curate": rules})
    return caught.value.message


# truncated

PROSE = "The boat left at six. Nobody saw it again. The old man waited on the shore."


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        (f"{PROSE} Every evening he lit a lamp and looked at", "sentence"),
        (f"{PROSE} Every evening he lit the", "sentence"),
        (f"{PROSE} He lit lamps", "sentence"),
        (f"{PROSE} He slept", None),
        (f"{PROSE} Every evening he lit a lamp,", "sentence"),
        (f"{PROSE}\nEvery evening he lit a lamp and", "sentence"),
        (f"{PROSE}\n\nEvery evening he lit a lamp and looked at the", "sentence"),
        ("It is red. It is", "sentence"),
        ("Use this:\n```python\nprint(1)\n", "code"),
        ("```\na\n```\n```\nb", "code"),
        (PROSE, None),
        (f"{PROSE} Ask: why not", None),
        (f"{PROSE}\n\nKind regards,\nAnna", None),
        (f"{PROSE}\n\nSincerely,", None),
        (f"{PROSE} #sea #boats #lamp", None),
        (f"{PROSE}\n- a lamp\n- a boat and", None),
        (f"{PROSE}\n#### 42", None),
        ("Use this:\n```python\nprint(1)\n```", None),
        ("Paris", None),
        ("red, green and blue", None),
        ("", None),
        ("def f(x):\n    return x", None),
    ],
)
def test_truncated_from_text(text, broken):
    assert rule("truncated", text, from_text=True) == broken
    assert rule("truncated", text) is None
    record = row(text, 0, finish_reason="stop")
    assert not said("truncated", [record], from_text=True).rejected


def test_truncated_says_how_a_text_ends():
    text = f"{PROSE} Every evening he lit a lamp and looked at"
    assert rejected("truncated", text, from_text=True) == {
        0: "ends in the middle of a sentence: '… lamp and looked at'"
    }


# answer


def test_a_row_without_an_answer_has_the_score_of_a_wrong_one():
    rows = [row("It is 4.", n, answer=given, reference=["4"]) for n, given in enumerate((None, "", "5", "4"))]
    found = said("answer", rows)
    assert {n: (one.score, one.reason) for n, one in found.rejected.items()} == {
        0: (0, "no answer found in the completion"),
        1: (0, "no answer found in the completion"),
        2: (0, "answer '5' is not '4'"),
    }
    assert found.scores["answer"].tolist() == [0, 0, 0, 1]


# echo

ASK = "Name three rivers that flow through Germany and end in the North Sea."


def test_echo():
    texts = [ASK, ASK.upper() + " ", ASK[:40], f"{ASK} Rhine.", f"{ASK} {'The Rhine, the Elbe and the Weser. ' * 3}"]
    texts += ["Rhine, Elbe and Weser.", "Name three rivers? The Rhine, the Elbe, the Weser.", "", "Name"]
    found = said("echo", [row(text, n, prompt=[{"role": "user", "content": ASK}]) for n, text in enumerate(texts)])
    assert sorted(found.rejected) == [0, 1, 2, 3]
    assert found.rejected[3].reason == "91% of it is the prompt, more than 80%"
    assert found.scores["echo"].tolist()[5:] == [0, 0, 0, 0]
    assert 0.3 < found.scores["echo"][4] < 0.5
    assert not rejected("echo", "What?", prompt="What?")
    assert rejected("echo", f"{ASK} Rhine.", prompt=ASK, max_share=0.95) == {}


def test_echo_compares_with_the_last_message():
    turns = [{"role": "user", "content": "Hello, my friend, how are you?"}, {"role": "user", "content": ASK}]
    rows = [row("Hello, my friend, how are you?", 0, prompt=turns), row(ASK, 1, prompt=turns), row(ASK, 2, prompt=[])]
    assert sorted(said("echo", rows).rejected) == [1]


# broken_text


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("Der KÃ¶nig lÃ¤chelt.", "mojibake"),
        ("Itâ€™s late.", "mojibake"),
        ("Price: Â£5", "mojibake"),
        ("ðŸ˜€ hello", "mojibake"),
        ("caf\ufffd", "replacement_character"),
        ("a\x00b", "control_character"),
        ("a\x1b[31mb", "control_character"),
        ("a\x85b", "control_character"),
        ("a\ufdd0b", "control_character"),
        ("a\uffffb", "control_character"),
        ("锟斤拷", "replacement_character"),
        ("РџСЂРёРІРµС‚, РєР°Рє РґРµР»Р°?", "mojibake"),
        ("Ã–sterreich", "mojibake"),
        ("voilÃ\xa0 tout", "mojibake"),
        ("prÃ” ", "mojibake"),
        ("CAFÃ‰", "mojibake"),
        ("It is old.<|endoftext|>", "special_token"),
        ("[INST] Name a river.", "special_token"),
        ("<start_of_turn>model\nThe Rhine.", "special_token"),
        ("Tom &amp; Anna\ufffd", "replacement_character"),
        ("Tom &amp; Anna", "html"),
        ("one&nbsp;two", "html"),
        ("It is <b>bold.", "html"),
        ("It is bold</b>.", "html"),
        ('See <a href="https://example.org">this page.', "html"),
        ("It is <b>bold</b>, not <i>slanted</i>.", None),
        ("<p>One.</p><p>Two.</p>", None),
        ("| a<br>b | c |", None),
        ("Write `&nbsp;` or ```\n<div>\n``` in the file.", None),
        ("The <p> tag begins a paragraph.", None),
        ("if a < b and c > d: e", None),
        ("A List<String> of names; x &y; AT&T", None),
        ("Le mot “CAFÉ” et «LIBERTÉ», „Ä“, CAFÉ’S, LIBERTÉ\xa0! MAÇÃ” É… Ü–Boot CAFÉ™", None),
        ("СССР, РСФСР, «Р» – «С», С… Р…", None),
        ("In ChatML, a turn ends with <|im_end|>.", None),
        ("Print `<|im_end|>` or\n```\n<|im_end|>\n```", None),
        ("f <| x and x |> g", None),
        ("São Paulo, NÃO, Ã, Â, “quotes” – dashes…", None),
        ("Ελληνικά, 中文, ไทย, 😀\tand\r\nlines", None),
    ],
)
def test_broken_text(text, broken):
    assert rule("broken_text", text) == broken


def test_broken_text_says_what_is_broken_and_rules_can_be_left_out():
    texts = ["Der KÃ¶nig", "caf\ufffd\ufffd", "a\x07", "a<|im_end|>", "&amp;", "<b>x", "x</b>"]
    assert list(rejected("broken_text", *texts).values()) == [
        "wrongly decoded letters: 'Ã¶' for 'ö'",
        "replacement characters (U+FFFD): 2",
        "control character U+0007",
        "mark of a chat template: '<|im_end|>'",
        "leftover HTML: '&amp;'",
        "leftover HTML: '<b>' is not closed",
        "leftover HTML: '</b>' closes nothing",
    ]
    for number, name in enumerate(RULES):
        assert number not in rejected("broken_text", *texts, skip=[name])
    assert rejected("broken_text", *texts, skip=list(RULES)) == {}
    names = BrokenText.model_json_schema()["properties"]["skip"]["items"]["enum"]
    assert names == list(RULES)


# language


def test_language():
    eldc = pytest.importorskip("eldc")
    eldc.init()
    assert list(eldc.LANGUAGES) == LANGUAGES
    english = "The boat left the harbor at six, and nobody saw it again."
    texts = [
        english,
        "Das Boot verließ den Hafen um sechs, und niemand sah es wieder.",
        "小船六点离开港口，后来再也没有人见过它。",
        "Ja.",
        "def add(first, second):\n    return first + second  # {'a': [1, 2]}\nprint(add(1, 2) == 3)",
        "```\nfür = 1; größe = länge(straße); rückgabe(größe, länge, straße)\n```\nhttps://example.org/straße",
        "12 + 30 = 42",
        "Anna Berta Carla Dora Emil Friedrich Gustav Heinrich",
        "",
    ]
    assert rejected("language", *texts, allowed=["en"]) == {1: "language is de, not en", 2: "language is zh, not en"}
    assert rejected("language", *texts, allowed=["zh", "fr"]) == {
        0: "language is en, not zh or fr",
        1: "language is de, not zh or fr",
    }


@pytest.mark.parametrize("codes", [[], ["english"], ["ga"], "en"])
def test_a_language_that_cannot_be_detected_is_refused(codes):
    assert "curate.language" in refusal_of(language={"allowed": codes})


@pytest.mark.parametrize(
    "rules", ["language: [no]", "language: [en, no]", "language: {allowed: [no]}", "language: {allowed: no}"]
)
def test_norwegian_without_quotes_is_false_in_yaml(rules):
    says = "in YAML, `no` without quotes means false; write the code of Norwegian with quotes: 'no'"
    assert says in refusal_of(**yaml.safe_load(rules))
    assert yaml.safe_load("language: no") == {"language": False}, "which switches the check off"


# pattern


def test_pattern():
    texts = ["Call 555-0100.", "call me", "Answer: 4", ""]
    assert rejected("pattern", *texts, reject=[r"\d{3}-\d{4}", "(?i)CALL"]) == {
        0: r"matches '\d{3}-\d{4}'",
        1: "matches '(?i)CALL'",
    }
    assert sorted(rejected("pattern", *texts, require=["^Answer: ", r"\d$"])) == [0, 1, 3]
    assert rule("pattern", "no", require=["yes"]) == "require"
    assert rule("pattern", "no", reject=["no"], require=["yes"]) == "reject"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"reject": ["(a"]}, "'(a' is no regular expression of RE2: missing ): (a"),
        ({"reject": ["fine", r"(a)\1"]}, r"'(a)\1' is no regular expression of RE2: invalid escape sequence"),
        ({"require": ["(?<=a)b"]}, "'(?<=a)b' is no regular expression of RE2: invalid perl operator"),
        ({"require": [""]}, "an expression is empty"),
        ({}, "there is no expression"),
        ({"reject": ["a{9999}"]}, "invalid repetition size"),
    ],
)
def test_a_pattern_that_cannot_be_read_is_refused_in_one_line(settings, says):
    message = refusal_of(pattern=settings or True)
    assert says in message
    assert "curate.pattern" in message
    assert "\n" not in message


def test_a_pattern_takes_time_in_proportion_to_the_text():
    assert rejected("pattern", "a" * 50_000 + "b", reject=["^(a+)+$", "(a|a)*c"]) == {}


# function

CODE = """
calls = []

def long(batch):
    calls.append(batch.schema.names)
    return ["too long" if len(text) > 8 else None for text in batch["completion.text"].to_pylist()]

def graded(batch):
    return [None if grade else "no grade" for grade in batch["grade"].to_pylist()]

def fails(batch):
    raise ValueError("bad\\nluck")

def few(batch):
    return [None]

def numbers(batch):
    return [1] * len(batch)

def empty(batch):
    return [""] * len(batch)

def nothing(batch):
    return None
"""


@pytest.fixture
def rules(tmp_path, monkeypatch):
    """The current folder, which contains modules with rules."""
    (tmp_path / "my_rules.py").write_text(CODE)
    (tmp_path / "broken_rules.py").write_text("import no_such_package\n")
    (tmp_path / "wrong_rules.py").write_text("def f(:\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("my_rules", "broken_rules", "wrong_rules"):
        sys.modules.pop(name, None)


GRADES = pa.schema([("grade", pa.int64())])


def made(**settings) -> list[Record]:
    return [row(text, n, own={"grade": grade}) for n, (text, grade) in enumerate([("short", 1), ("a long text", 0)])]


def test_a_users_function_decides(rules):
    run = corpus_of(rules / "run", made(), own=GRADES)
    synthgen.curate(curating(function="my_rules:long"), run)
    kept, gone = parts(run)
    assert (sorted(kept), gone["r1"].verdicts[0]["reason"], gone["r1"].verdicts[0]["check"]) == (
        ["r0"],
        "too long",
        "function",
    )
    synthgen.curate(curating(function={"function": "my_rules:graded", "columns": ["grade"]}), run, rules / "graded")
    assert sorted(parts(rules, "graded")[1]) == ["r1"]
    assert str(rules) not in sys.path


def test_a_node_with_other_code_is_refused(rules, monkeypatch):
    run = corpus_of(rules / "run", made(), own=GRADES)
    monkeypatch.setattr(curation, "fingerprints", lambda section: {"function": "of another module"})
    with pytest.raises(UserError, match=r"curate\.function: this process imports other code than the command"):
        synthgen.curate(curating(function="my_rules:long"), run)


def test_a_changed_function_is_not_taken_for_the_old_one(rules, monkeypatch):
    run = corpus_of(rules / "run", made(), own=GRADES)
    synthgen.curate(curating(function="my_rules:long"), run)
    before = contents(run / "curated")
    synthgen.curate(curating(function="my_rules:long"), run)
    assert contents(run / "curated") == before
    (rules / "my_rules.py").write_text(CODE.replace("> 8", "> 3") + "\n# changed\n")
    with pytest.raises(RecipeError, match="the module 'my_rules' was changed after it was imported"):
        synthgen.curate(curating(function="my_rules:long"), run, rules / "other")
    monkeypatch.syspath_prepend(rules)
    importlib.reload(sys.modules["my_rules"])
    with pytest.raises(synthgen.errors.RunChanged, match="code"):
        synthgen.curate(curating(function="my_rules:long"), run)
    synthgen.curate(curating(function="my_rules:long"), run, rules / "other")
    assert sorted(parts(rules, "other")[1]) == ["r0", "r1"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("my_rules:fails", "'my_rules:fails' raised ValueError: bad"),
        ("my_rules:few", "'my_rules:few' returned 1 values for 2 rows"),
        ("my_rules:numbers", "'my_rules:numbers' returned 1 for a row"),
        ("my_rules:empty", "'my_rules:empty' returned '' for a row"),
        ("my_rules:nothing", "'my_rules:nothing' raised TypeError: 'NoneType' object is not iterable"),
        ("my_rules:absent", "'my_rules:absent': the module 'my_rules' has no function 'absent'"),
        ("no_rules:f", "'no_rules:f': there is no module 'no_rules'"),
        (
            "broken_rules:f",
            "'broken_rules:f' cannot be imported, ModuleNotFoundError: No module named 'no_such_package'",
        ),
        ("wrong_rules:f", "'wrong_rules:f' cannot be imported, SyntaxError: invalid syntax (wrong_rules.py, line 1)"),
    ],
)
def test_a_function_that_does_not_work_is_one_line(rules, name, says):
    run = corpus_of(rules / "run", made(), own=GRADES)
    with pytest.raises(RecipeError) as caught:
        synthgen.curate(curating(function=name), run)
    assert caught.value.message == f"curate.function: {says}"
    assert caught.value.hint


@pytest.mark.parametrize("name", ["os.system", "a:b:c", "a b:c", ":f", "f:"])
def test_what_is_no_name_of_a_function_is_refused(name):
    assert "curate.function" in refusal_of(function=name)


def test_an_unknown_column_is_named(rules):
    run = corpus_of(rules / "run", made(), own=GRADES)
    with pytest.raises(RecipeError, match=r"curate\.function reads the column 'grades'"):
        synthgen.curate(curating(function={"function": "my_rules:long", "columns": ["grades"]}), run)


def test_code_that_only_a_runs_folder_names_is_not_run(rules):
    (rules / "rows.jsonl").write_text(
        "".join(json.dumps({"prompt": "Q", "completion": text}) + "\n" for text in ("a long text", "short"))
    )
    arguments = ["--license", "MIT", "--set", "curate.function=my_rules:long"]
    done = CliRunner().invoke(main, ["curate", "rows.jsonl", "-o", "run", *arguments])
    assert done.exit_code == 0, done.output
    assert len(parts(rules / "run")[1]) == 1
    sys.modules.pop("my_rules")
    refused = CliRunner().invoke(main, ["curate", "run", "-o", "again"])
    assert (refused.exit_code, "code that a folder names is not run" in refused.output) == (2, True)
    assert "my_rules" not in sys.modules
    for more in (["--recipe", "run/recipe.yaml"], ["--set", "curate.function=my_rules:long"]):
        assert CliRunner().invoke(main, ["curate", "run", "-o", f"again-{len(more[1])}", *more]).exit_code == 0
    assert CliRunner().invoke(main, ["curate", "run", "-o", "off", "--set", "curate.function=false"]).exit_code == 0


@pytest.mark.parametrize("name", ["echo", "broken_text", "language", "pattern", "function"])
def test_the_new_checks_are_off(name):
    assert not CHECKS[name].on
