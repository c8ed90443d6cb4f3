"""`synthgen init` makes a recipe and templates from a user's file. The recipe runs without further edits."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from support.commands import call, cold, warm
from support.small import small_teacher

import synthgen
from synthgen.errors import RecipeError
from synthgen.generation.inputs import read_inputs
from synthgen.recipe import load_recipe, shipped

QUESTIONS = [
    "What is the capital of France?",
    "Who wrote Hamlet?",
    "What gas do plants take in?",
    "How many legs does a spider have?",
    "Which planet is known as the red planet?",
    "What is the largest ocean?",
    "At how many degrees Celsius does water freeze?",
    "Who painted the Mona Lisa?",
    "What language is spoken in Brazil?",
    "What is the chemical symbol for gold?",
    "How many days are in a leap year?",
    "What is the tallest mountain?",
    "Which animal is the largest mammal?",
    "What currency is used in Japan?",
    "What do bees make?",
    "Which organ pumps blood?",
    "How many continents are there?",
    "At how many degrees Celsius does water boil?",
    "Which metal is liquid at room temperature?",
    "What is the square root of eighty-one?",
]
ANSWERS = (
    "Paris,Shakespeare,CO2,8,Mars,Pacific,0,Leonardo,Portuguese,Au,366,Everest,whale,yen,honey,heart,7,100,mercury,9"
)
KNOWN = dict(zip(QUESTIONS, ANSWERS.split(","), strict=True))
TOPICS = ["delivery", "payment", "technical"]


def rows_of(question: str = "question", answer: str | None = "answer", **more: Callable[[int], object]) -> list[dict]:
    """Twenty rows with these columns."""
    return [
        {**{name: make(n) for name, make in more.items()}, question: text, **({answer: known} if answer else {})}
        for n, (text, known) in enumerate(KNOWN.items())
    ]


def write(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    return path


SUMS = [{"question": f"What is {n} plus {n + 3}?", "answer": 2 * n + 3} for n in range(20)]
TICKETS = [
    {"text": f"My {word} is late again, order {n}", "label": TOPICS[n % 3]} for n, word in enumerate("abcdefghij" * 2)
]
ALPACA = [
    {"instruction": f"Translate to {language}", "input": text, "output": "x"}
    for language, text in zip(["French", "German", "Dutch", "Greek"] * 5, QUESTIONS, strict=True)
]

# (rows of the file, the columns that `init` must find for question, known answer, id and context)
FILES = [
    (rows_of(), ("question", "answer", None, None)),
    (rows_of(answer=None), ("question", None, None, None)),
    (rows_of("prompt", "completion", id=lambda n: f"q{n}"), ("prompt", "completion", "id", None)),
    (rows_of("text", None), ("text", None, None, None)),
    (rows_of("Frage", "Antwort"), ("Frage", "Antwort", None, None)),
    (rows_of("Pregunta del cliente", "Respuesta"), ("Pregunta del cliente", "Respuesta", None, None)),
    (rows_of("質問", "回答"), ("質問", "回答", None, None)),
    (rows_of("User Question", "expected_output", id=lambda n: n % 5), ("User Question", "expected_output", None, None)),
    (rows_of("Die Sache: neu", "#", Land=lambda n: "Frankreich"), ("Die Sache: neu", None, None, None)),
    (SUMS, ("question", "answer", None, None)),
    (TICKETS, ("text", "label", None, None)),
    (ALPACA, ("instruction", "output", None, "input")),
]


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(("rows", "columns"), FILES, ids=[f"{c[0]}-{c[1]}" for _, c in FILES])
def test_columns_are_detected_and_the_recipe_holds(tmp_path, rows, columns, kind):
    made = synthgen.init(write(tmp_path / f"file{kind}", rows), license="MIT", out=tmp_path / "task")
    detected = (made.columns.question, made.columns.reference, made.columns.id, made.columns.context)
    assert detected == columns
    assert made.rows == len(rows)
    assert f"questions in column '{columns[0]}'" in made.text()
    recipe = load_recipe(made.recipe)
    assert recipe.license == recipe.seeds[0].license == "MIT"
    assert recipe.seeds[0].path == str((tmp_path / f"file{kind}").resolve())
    assert (recipe.seeds[0].reference, recipe.seeds[0].id) == columns[1:3]
    values = yaml.safe_load(made.recipe.read_text(encoding="utf-8"))
    schema = json.loads((shipped("data") / "recipe.schema.json").read_text(encoding="utf-8"))
    assert [*Draft202012Validator(schema).iter_errors(values)] == []
    planned = synthgen.plan(recipe)
    assert planned.requests == made.splits, "the counts that init told are those of the run"
    asked = planned.student_prompt[-1]["content"]
    assert any(asked.startswith(str(row[columns[0]])) for row in rows)
    assert 2 <= made.splits["test"] <= 7
    assert made.splits["train"] + made.splits["test"] == len(rows)


def test_the_question_and_its_context_are_in_the_templates(tmp_path):
    synthgen.init(write(tmp_path / "a.csv", ALPACA), license="MIT", out=tmp_path / "task")
    assert (tmp_path / "task" / "user.j2").read_text() == "{{ question }}\n\n{{ context }}\n"
    synthgen.init(write(tmp_path / "t.csv", TICKETS), license="MIT", out=tmp_path / "topics")
    recipe = load_recipe(tmp_path / "topics")
    assert recipe.strategy == "classify"
    assert recipe.generate.labels == tuple(TOPICS)
    assert "delivery, payment, technical?" in synthgen.plan(recipe).prompt[-1]["content"]


def test_rows_that_differ_in_numbers_only_are_split_all_the_same(tmp_path):
    made = synthgen.init(write(tmp_path / "sums.csv", SUMS), license="MIT", out=tmp_path / "task")
    assert load_recipe(made.recipe).seeds[0].group == "question"
    assert made.splits == {"train": 16, "test": 4}
    two = [{"question": "What is one?"}, {"question": "What is two?"}]
    assert synthgen.init(write(tmp_path / "two.csv", two), license="MIT", out=tmp_path / "two").splits == {
        "train": 1,
        "test": 1,
    }


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("semicolons.csv", "Frage;Antwort\na?;b\nc?;d\n", "its columns are separated by ';'"),
        ("one.csv", "question\na?\n", "one.csv has 1 rows"),
        ("none.csv", "question\n", "none.csv has 0 rows"),
        ("same.csv", "id,question\n1,a?\n2,a?\n", "all rows have the same text in column 'question'"),
        ("twice.csv", "question,question\na?,b\nc?,d\n", "line 1: the column 'question' occurs twice"),
        ("numbers.csv", "x,y\n1,2\n3,4\n", "no column holds text; its columns are: x, y"),
        ("cells.csv", "question,answer\na?,b,c\n", "line 2: more or fewer cells than the header has"),
        ("chat.jsonl", '{"messages": []}\n{"messages": []}\n', "no column holds text; its columns are: messages"),
        ("bad.jsonl", "{\n", "bad.jsonl, line 1"),
        ("a.xlsx", "", "is not one of .jsonl, .csv, .parquet"),
        ("missing.csv", None, "is not a file"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, name, text, said):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / name).write_text(text)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RecipeError) as caught:
        synthgen.init(name, license="MIT")
    assert said in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_is_overwritten(tmp_path):
    file = write(tmp_path / "q.csv", rows_of())
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "user.j2").write_text("mine")
    with pytest.raises(RecipeError, match=r"task/user.j2 exists already, and nothing is overwritten"):
        synthgen.init(file, license="MIT", out=tmp_path / "task")
    assert [path.name for path in (tmp_path / "task").iterdir()] == ["user.j2"]
    assert (tmp_path / "task" / "user.j2").read_text() == "mine"
    (tmp_path / "task" / "user.j2").rename(tmp_path / "task" / "notes.txt")
    synthgen.init(file, license="MIT", out=tmp_path / "task")
    assert (tmp_path / "task" / "notes.txt").read_text() == "mine", "other files may be there"
    with pytest.raises(RecipeError, match="exists already"):
        synthgen.init(file, license="MIT", out=file)


def test_a_license_that_nobody_knows_is_told(tmp_path):
    file = write(tmp_path / "q.csv", rows_of())
    notes = synthgen.init(file, license="Apache2.0", out=tmp_path / "a").notes
    unknown = "the license 'Apache2.0' is not in data/licenses.yaml, so the audit will say UNKNOWN"
    assert notes[0] == f"{unknown}; did you mean 'Apache-2.0'?"
    assert not [note for note in synthgen.init(file, license="cc0", out=tmp_path / "b").notes if "license" in note]
    unnamed = synthgen.init(write(tmp_path / "x.csv", rows_of("x", None)), license="MIT", out=tmp_path / "c").notes
    assert unnamed[0] == "no column has a name such as 'question'; 'x' is used as the question"


def test_an_empty_question_is_refused_and_an_empty_context_is_left_out(tmp_path):
    empty = [*rows_of(), {"question": "", "answer": "x"}]
    with pytest.raises(RecipeError, match=r"e.csv, line 22: template e/user.j2: the question is empty"):
        synthgen.init(write(tmp_path / "e.csv", empty), license="MIT", out=tmp_path / "d")
    assert not (tmp_path / "d").exists()
    some = [{**row, "context": None if n % 3 == 0 else f"Garden {n}."} for n, row in enumerate(rows_of())]
    synthgen.init(write(tmp_path / "c.jsonl", some), license="MIT", out=tmp_path / "c")
    recipe = load_recipe(tmp_path / "c")
    asked = {seed.question.count("Garden") for seed in read_inputs(recipe).seeds}
    assert asked == {0, 1}


def test_the_command(tmp_path):
    write(tmp_path / "questions.csv", rows_of())
    done = cold("synthgen", "init", "questions.csv", "--license", "CC0-1.0", cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.out.splitlines()[:3] == [
        "questions: recipe.yaml, user.j2, system.j2",
        "20 rows: questions in column 'question', known answers in 'answer'",
        "strategy: answer; split: train 17, test 3",
    ]
    assert "synthgen run questions/recipe.yaml -o runs/questions" in done.err
    again = cold(
        "synthgen", "init", "questions.csv", "--license", "MIT", "-o", "other", "--task", "x", "--json", cwd=tmp_path
    )
    result = json.loads(again.out)
    assert result["recipe"] == "other/recipe.yaml"
    assert result["columns"]["question"] == "question"
    assert load_recipe(tmp_path / "other").task == "x"
    assert cold("synthgen", "init", "questions.csv", cwd=tmp_path).code == 2, "a license is asked for"


def run_of(folder: Path, rows: list[dict], *settings: str) -> Path:
    """Runs `init` on these rows, then the recipe. Returns the folder of the run."""
    made = synthgen.init(write(folder / "q.csv", rows), license="CC0-1.0", out=folder / "q")
    options = [part for setting in settings for part in ("--set", setting)]
    done = warm("synthgen", "run", made.recipe, "-o", folder / "run", *options)
    assert done.code == 0, done.err
    assert "audit ALLOW" in done.out
    for file in ("report.html", "student/README.md", "student/evaluation.json"):
        assert (folder / "run" / file).is_file(), file
    return folder / "run"


# labels that the small teacher writes often
LETTERS = [{**row, "label": "CQj"[n % 3]} for n, row in enumerate(TICKETS)]


@pytest.mark.parametrize("rows", [rows_of("Frage", "Antwort"), LETTERS], ids=["questions", "labels"])
def test_the_recipe_runs_without_another_edit(tmp_path, rows):
    """The test uses a very small teacher instead of the demo's teacher, and a short training."""
    call(small_teacher, tmp_path / "teacher")
    small = ["generate.max_new_tokens=4", "train.student.layers=1", "train.baseline=false", "evaluate.max_prompts=1"]
    few = ["curate.truncated=false"]  # a teacher with random weights rarely ends an answer
    few += ["train.num_train_epochs=1", "evaluate.max_rows=2", f"teacher.model={tmp_path / 'teacher'}"]
    run_of(tmp_path, rows, *few, *(small if rows is not LETTERS else []))


@pytest.mark.slow
@pytest.mark.parametrize("rows", [rows_of(), rows_of(answer=None), TICKETS], ids=["answers", "questions", "labels"])
def test_it_runs_as_it_is(tmp_path, rows):
    run_of(tmp_path, rows)
