"""`synthgen export`: in each format, every row can be read back unchanged, or is refused. The command changes only the
files that it exports.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner, Result
from support.corpora import corpus_of, curating, row

import synthgen
from synthgen.cli import main
from synthgen.datasets import open_dataset, records, source_of
from synthgen.errors import CorpusError, GateDenied, RunChanged, UserError
from synthgen.exporting.card import size_category
from synthgen.tables.formats import DATASET_FORMATS, ROW_FORMATS, RowFormat

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Bergen", "day": None}}}
AS_TEXT = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":  "Bergen"}'}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "default": None}}}]


def said(role: str, content: str | None, **more) -> dict:
    return {"role": role, "content": content, **more}


def asked(number: int) -> dict:
    return said("user", f"question {number}?")


OWN = {"topic": "sea", "score": 0.5, "tags": ["a", "b"], "about": {"page": 3}}
PAIR = {"chosen": [said("assistant", "good")], "rejected": [said("assistant", "bad")]}
ROWS = {
    "messages": [
        {"id": 7, "messages": [asked(0), said("assistant", "yes")], **OWN},
        {
            "id": "c",
            "messages": [asked(3), said("assistant", "a"), asked(4), said("assistant", "b")],
            "teaches": "last",
        },
        {
            "id": "b",
            "messages": [
                said("system", "Be brief."),
                asked(1),
                said("assistant", "", tool_calls=[AS_TEXT], reasoning_content="Look it up."),
                said("tool", "rain", name="weather", tool_call_id="c1"),
                said("assistant", "Rain.", reasoning_content="So it rains."),
                asked(2),
                said("assistant", None, tool_calls=[CALL]),
            ],
            "tools": TOOLS,
            "split": "test",
            "reference": ["rain", "wet"],
            **dict.fromkeys(OWN),
        },
    ],
    "sharegpt": [
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "question 1?"},
                {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Bergen"}}'},
                {"from": "observation", "value": "rain"},
                {"from": "gpt", "value": "Rain."},
            ],
            "tools": '[{"name": "weather", "parameters": {"type": "object"}}]',
            **OWN,
        },
        {"conversations": [{"from": "user", "value": "question 2?"}, {"from": "assistant", "value": "no"}], **OWN},
    ],
    "alpaca": [
        {"instruction": "Add.", "input": "1 + 1", "output": "2", **OWN},
        {"instruction": "Next.", "output": "3", "system": "Count.", "history": [["One?", "1"], ["Two?", "2"]], **OWN},
    ],
    "prompt-completion": [
        {"prompt": [asked(0), said("assistant", "It is")], "completion": [said("assistant", " blue")], **OWN},
        {"prompt": "question 1?", "completion": "yes", "group_id": "g", "rationale": "r", "answer": "yes", **OWN},
    ],
    "text": [{"text": " Once upon a time.\n", "language": "en", **OWN}, {"text": "The end.", "language": "en", **OWN}],
    "preference": [
        {"id": "p", "prompt": "question 0?", "chosen": "good", "rejected": "bad", "score_chosen": 5, **OWN},
        {"id": "q", "prompt": [asked(1)], **PAIR, "score_chosen": 4, "group_id": "g", "tools": TOOLS, **OWN},
        {"id": "q2", "score_chosen": 4, **{side: [asked(2), *PAIR[side]] for side in PAIR}},
    ],
    "unpaired-preference": [
        {"prompt": "question 0?", "completion": "good", "label": True, **OWN},
        {"prompt": "question 1?", "completion": "bad", "label": False, **OWN},
    ],
}


def written(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def read(path: Path) -> list[dict]:
    """The records of a data set as dictionaries, with tools and tool calls as lists."""
    found = [vars(record) for _, record in records(open_dataset(source_of(path)), "", None)]
    for one in found:
        del one["sources"]
        one["tools"] = one["tools"] and json.loads(one["tools"])
        for message in (*one["prompt"], *one["completion"]):
            if "tool_calls" in message:
                message["tool_calls"] = json.loads(message["tool_calls"])
    return found


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_format_that_is_read_is_written():
    assert {entry.reads for entry in ROW_FORMATS.values()} - {""} == set(DATASET_FORMATS) == set(ROWS)


@pytest.mark.parametrize("to", list(ROWS))
def test_a_round_trip_loses_nothing(tmp_path, to):
    path = written(tmp_path / "rows.jsonl", ROWS[to])
    done = synthgen.export(path, to, tmp_path / "out")
    before = read(path)
    assert read(tmp_path / "out") == before
    assert sum(done.rows.values()) == len(ROWS[to])
    again = synthgen.export(tmp_path / "out", to, tmp_path / "again.jsonl")
    assert read(tmp_path / "again.jsonl") == before
    assert again.columns == done.columns
    for one, original in zip(lines(tmp_path / "again.jsonl"), ROWS[to], strict=True):
        assert {name: one[name] for name in OWN} == {name: original.get(name) for name in OWN}
        assert str(original.get("id", one["id"])) == one["id"]


@pytest.mark.parametrize("name", [name for name in ROWS if name != "unpaired-preference"])
def test_the_hub_gets_every_row_back(tmp_path, name):
    """The rows that `load_dataset` returns are saved and read again too; their tools are lists."""
    path = written(tmp_path / "rows.jsonl", ROWS[name])
    synthgen.export(path, "hub", tmp_path / "out", license="MIT")
    before = read(path)
    assert read(tmp_path / "out") == before
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == synthgen.export(path, "hub", tmp_path / "twice").rows
    loaded.save_to_disk(str(tmp_path / "saved"))
    assert read(tmp_path / "saved") == before


def test_tools_are_lists_for_readers_of_the_hub(tmp_path):
    synthgen.export(written(tmp_path / "rows.jsonl", ROWS["messages"]), "hub", tmp_path / "out")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["test"][0]
    assert loaded["tools"] == TOOLS
    assert loaded["prompt"][2]["tool_calls"] == [AS_TEXT]


def test_the_card_says_what_the_rows_are(tmp_path):
    rows = [{**one, "split": split} for one, split in zip(ROWS["text"], ("test", "train"), strict=True)]
    path = written(tmp_path / "rows.jsonl", rows)
    synthgen.export(path, "hub", tmp_path / "out", license="CC-BY-4.0")
    head = yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---")[1])
    assert head["license"] == "cc-by-4.0"
    assert (head["language"], head["size_categories"]) == (["en"], ["n<1K"])
    assert head["source_datasets"] == ["extended|rows.jsonl"]
    (config,) = head["configs"]
    assert [(entry["split"], entry["path"]) for entry in config["data_files"]] == [
        ("train", "data/train-00000-of-00001.parquet"),
        ("test", "data/test-00000-of-00001.parquet"),
    ]
    for license, named in ((None, "unknown"), ("GPL-3.0-or-later", "gpl-3.0"), ("LicenseRef-Ours", "other")):
        folder = tmp_path / str(license)
        done = synthgen.export(path, "text", folder, license=license)
        head = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
        assert head["license"] == named
        assert done.license == (license or "unknown")
    assert head["license_name"] == "licenseref-ours"
    assert [size_category(n) for n in (0, 999, 1000, 10**4 - 1, 10**6, 10**12)] == [
        *("n<1K", "n<1K", "1K<n<10K", "1K<n<10K", "1M<n<10M", "n>1T"),
    ]


@pytest.mark.parametrize(
    ("rows", "to", "words", "hint"),
    [
        ([ROWS["messages"][2]], "alpaca", "the row has tools", "--to messages"),
        ([ROWS["messages"][2]], "sharegpt", "the assistant has a tool call|tool call and something else", "messages"),
        (
            [{"messages": [asked(0), said("tool", "x", name="f"), said("assistant", "y")]}],
            "sharegpt",
            "name",
            "messages",
        ),
        (
            [{"messages": [asked(0), said("assistant", "y", reasoning_content="r")]}],
            "alpaca",
            "more than text",
            "--to messages",
        ),
        (
            [{"messages": [asked(0), asked(1), said("assistant", "y")]}],
            "alpaca",
            "turns do not alternate",
            "--to messages",
        ),
        (
            [{"messages": [said("developer", "x"), asked(1), said("assistant", "y")]}],
            "sharegpt",
            "developer",
            "messages",
        ),
        ([ROWS["prompt-completion"][0]], "messages", "continues the last message", "--to prompt-completion"),
        (ROWS["text"], "messages", "plain text", "--to text"),
        (ROWS["alpaca"], "text", "a conversation", "--to messages"),
        (ROWS["alpaca"], "preference", "not in a pair", "another format"),
        (ROWS["unpaired-preference"], "messages", "line 2.*the rejected side of a pair", "--to unpaired-preference"),
        (ROWS["unpaired-preference"], "hub", "line 2.*the rejected side of a pair", "--to unpaired-preference"),
        (ROWS["alpaca"], "unpaired-preference", "neither chosen nor rejected", "--to messages"),
        (ROWS["preference"], "prompt-completion", "'p-rejected'.*the rejected side", "--to unpaired-preference"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_by_row(tmp_path, rows, to, words, hint):
    path = written(tmp_path / "rows.jsonl", rows)
    with pytest.raises(CorpusError, match=words) as error:
        synthgen.export(path, to, tmp_path / "out")
    assert "rows.jsonl, line " in error.value.message
    assert hint in error.value.hint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rows.jsonl"]


@pytest.mark.parametrize("seed", range(60))
def test_a_row_comes_back_as_it_was_or_is_refused(tmp_path, seed, monkeypatch):
    """Random conversations, in every format. `_check` in rows.py compares each row, so it notices every loss."""
    monkeypatch.setattr("os.fsync", lambda handle: None)  # the test skips fsync, because fsync waits for the disk
    draw = random.Random(seed)
    messages = [said("system", draw.choice(["Be brief.", ""]))] if draw.random() < 0.3 else []
    for number in range(draw.randrange(1, 4)):
        messages.append(draw.choice([asked(number), said("user", " x\n"), said("user", "x", name="me")]))
        if draw.random() < 0.3:
            messages.append(
                said("assistant", draw.choice([None, "", "So."]), tool_calls=[draw.choice([CALL, AS_TEXT])])
            )
            messages.append(said("tool", draw.choice(["rain", ""]), **draw.choice([{}, {"name": "w"}])))
        more = {"reasoning_content": "Hm."} if draw.random() < 0.2 else {}
        messages.append(said("assistant", draw.choice(["yes", " no ", "[1]"]), **more))
    one = {"messages": messages, "tools": draw.choice([None, [], TOOLS]), "teaches": draw.choice([None, "all", "last"])}
    one |= draw.choice([{}, {"level": None, "place": 3}, {"value": [1], "id": "x"}, {"source_id": 1, "parents": 2}])
    path = written(tmp_path / "rows.jsonl", [one])
    before = read(path)
    held = 0
    for to in ("messages", "sharegpt", "alpaca", "prompt-completion", "hub"):
        try:
            synthgen.export(path, to, tmp_path / to)
        except CorpusError:
            continue
        held += 1
        assert read(tmp_path / to) == before, to
    assert held >= 3


def test_own_columns_with_names_of_the_format_get_a_prefix(tmp_path):
    """Preference pairs may have a column `messages`, as in UltraFeedback. Without the prefix `source_`, this column
    would be read as the conversation.
    """
    rows = [{**ROWS["preference"][0], "messages": [asked(9)], "system": "Linux", "label": "x"}]
    path = written(tmp_path / "rows.jsonl", rows)
    before = read(path)
    assert before[0]["own"]["messages"][0]["content"] == "question 9?"
    synthgen.export(path, "preference", tmp_path / "out")
    assert read(tmp_path / "out") == before
    (one,) = lines(tmp_path / "out" / "train.jsonl")
    assert one["messages"] == [asked(9)]
    path = written(tmp_path / "more.jsonl", [{"prompt": "a?", "completion": "b", "system": "Linux"}])
    synthgen.export(path, "messages", tmp_path / "more")
    assert lines(tmp_path / "more" / "train.jsonl")[0]["source_system"] == "Linux"
    path = written(
        tmp_path / "text.jsonl", [{"messages": [asked(0), said("assistant", "x")], "chosen": 1, "rejected": 2}]
    )
    with pytest.raises(UserError, match=r"no chosen \(text, or messages"):
        synthgen.export(path, "messages", tmp_path / "text")


def test_columns_that_the_user_names(tmp_path):
    path = written(tmp_path / "rows.jsonl", [{"question": "a?", "response": "b", "prompt": "own", "lang": "en"}])
    with pytest.raises(UserError, match="the columns are lang, prompt, question, response") as error:
        synthgen.export(path, "messages", tmp_path / "out")
    assert "fields: {prompt: question" in error.value.hint
    assert "--field" in error.value.hint
    fields = {"prompt": "question", "completion": "response"}
    synthgen.export(path, "messages", tmp_path / "out", fields=fields)
    (one,) = lines(tmp_path / "out" / "train.jsonl")
    assert one["messages"] == [said("user", "a?"), said("assistant", "b")]
    assert (one["source_prompt"], one["lang"]) == ("own", "en")
    with pytest.raises(UserError, match="line 1: no column 'qestion'; did you mean 'question'"):
        synthgen.export(path, "messages", tmp_path / "no", fields={**fields, "prompt": "qestion"})


def run_of(tmp_path: Path) -> Path:
    own = pa.schema([("topic", pa.string()), ("scores", pa.list_(pa.float64()))])
    more = {"own": {"topic": "sea", "source_scores": [0.5]}, "reference": ["4"]}
    words = ("it", "was", "a", "calm", "and", "clear", "day")
    texts = [" ".join(words[:number]) for number in range(1, 8)]
    rows = [row(text, number, prompt=[asked(number)], **more) for number, text in enumerate(texts, 1)]
    rows[1].split = "test"
    rows[2].completion[0]["reasoning_content"] = "So."
    run = corpus_of(tmp_path / "run", rows, own=own)
    synthgen.curate(curating(length={"min_words": 3}, duplicates=False, answer=False), run)
    return run


def test_a_run_gives_its_kept_rows_and_says_how_many_were_rejected(tmp_path):
    run = run_of(tmp_path)
    done = synthgen.export(run, "messages", tmp_path / "out")
    assert (done.rejected, done.rows, done.license) == (2, {"train": 5}, "CC0-1.0")
    assert "2 rejected rows were left out" in done.text()
    rows = lines(tmp_path / "out" / "train.jsonl")
    assert [one["id"] for one in rows] == [f"r{n}" for n in range(3, 8)]
    assert rows[0]["messages"] == [asked(3), said("assistant", "it was a", reasoning_content="So.")]
    assert (rows[0]["topic"], rows[0]["scores"], rows[0]["seed_id"], rows[0]["reference"]) == (
        "sea",
        [0.5],
        "s3",
        ["4"],
    )
    assert "strategy" not in rows[0]
    with pytest.raises(GateDenied, match=r"no rows to export .*test"):
        synthgen.export(run, "messages", tmp_path / "none", split="test")
    synthgen.export(run, "hub", tmp_path / "hub")
    (one, *_) = datasets.load_dataset(str(tmp_path / "hub"), cache_dir=str(tmp_path / "cache"), split="train")
    assert (one["teacher"], one["strategy"], one["source_scores"]) == ("t", "answer", [0.5])
    with pytest.raises(UserError, match="is a run"):
        synthgen.export(run, "messages", tmp_path / "named", fields={"prompt": "x"})


def test_pairs_of_a_run_keep_the_ids_of_both_sides(tmp_path):
    sides = [("chosen", 0), ("rejected", 1)]
    rows = [
        row(f"answer {n}", n, pair_role=role, group_id="g", seed_id="s", prompt=[asked(0)])
        for role, n in reversed(sides)
    ]
    run = corpus_of(tmp_path / "run", rows)
    synthgen.export(run, "preference", tmp_path / "out")
    (one,) = lines(tmp_path / "out" / "train.jsonl")
    assert (one["id"], one["id_chosen"], one["id_rejected"]) == ("g", "r0", "r1")
    assert (one["chosen"][0]["content"], one["rejected"][0]["content"]) == ("answer 0", "answer 1")
    assert (one["answer_chosen"], one["answer_rejected"], one["seed_id"]) == ("answer 0", "answer 1", "s")
    corpus_of(tmp_path / "half", rows[:1])
    with pytest.raises(CorpusError, match="the pair 'g' has no other side"):
        synthgen.export(tmp_path / "half", "preference", tmp_path / "no")
    for one in rows:
        one.pair_role = "chosen"
    with pytest.raises(CorpusError, match="two sides that are chosen"):
        synthgen.export(corpus_of(tmp_path / "twice", rows), "preference", tmp_path / "no")


def test_the_output_is_never_an_input_or_somebody_elses(tmp_path):
    path = written(tmp_path / "rows" / "rows.jsonl", ROWS["alpaca"])
    run = run_of(tmp_path)
    for source, out, words in (
        (path, path, "is an input"),
        (path.parent, path.parent, "is an input"),
        (path.parent, tmp_path, "contains"),
        (path.parent, path.parent / "out", "lies in"),
        (run, run / "curated" / "out", "lies in"),
        (run, run / "generated" / "out", "lies in"),
        (run, run, "is an input"),
    ):
        with pytest.raises(UserError, match=words):
            synthgen.export(source, "messages", out)
    mine = written(tmp_path / "mine" / "notes.txt", [])
    for fresh in (False, True):
        with pytest.raises(RunChanged, match="did not make"):
            synthgen.export(path, "messages", mine.parent, fresh=fresh)
    there = written(tmp_path / "there.jsonl", [{}])
    with pytest.raises(RunChanged, match="is there already"):
        synthgen.export(path, "messages", there, fresh=True)
    with pytest.raises(UserError, match="is the name of a file"):
        synthgen.export(path, "hub", tmp_path / "new.jsonl")
    with pytest.raises(UserError, match="no format 'mesages'; did you mean 'messages'"):
        synthgen.export(path, "mesages", tmp_path / "out")
    assert lines(there) == [{}]


def test_an_earlier_export_is_replaced_only_with_fresh(tmp_path):
    path = written(tmp_path / "rows.jsonl", ROWS["alpaca"])
    synthgen.export(path, "hub", tmp_path / "out")
    with pytest.raises(RunChanged, match="earlier export"):
        synthgen.export(path, "messages", tmp_path / "out")
    (tmp_path / ".tmp-out" / "data").mkdir(parents=True)
    (tmp_path / ".tmp-out" / "data" / "train.parquet").write_text("of a killed process")
    synthgen.export(path, "messages", tmp_path / "out", fresh=True)
    assert sorted(p.name for p in (tmp_path / "out").rglob("*")) == ["README.md", "train.jsonl"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "rows.jsonl"]
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(RunChanged, match=r"mine\.txt"):
        synthgen.export(path, "messages", tmp_path / "out", fresh=True)


def command(*words: object) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, words)])


def test_the_command(tmp_path):
    path = written(tmp_path / "rows.jsonl", [{"question": "a?", "response": "b", "topic": "sea"}])
    named = ["--field", "prompt=question", "--field", "completion=response"]
    done = command(path, "--to", "alpaca", "-o", tmp_path / "out.jsonl", *named, "--license", "MIT")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        f"{tmp_path}/out.jsonl: 1 rows as alpaca (train 1)",
        "columns: id, instruction, input, output, topic",
        "license: MIT",
    ]
    said = "rows.jsonl: format prompt-completion, 1 rows; columns: prompt, completion; own columns: topic"
    assert done.stderr == f"{said}\n"
    assert lines(tmp_path / "out.jsonl")[0]["output"] == "b"
    for words, code, message in (
        (["--to", "text", "-o", tmp_path / "no", *named], 2, "line 1: text cannot hold the row"),
        (["--to", "messages", "-o", tmp_path / "no"], 2, "unknown format of rows"),
        (["--to", "messages", "-o", tmp_path / "no", "--field", "prompt"], 2, "'prompt' is not COLUMN=NAME"),
        (["--to", "messages", "-o", tmp_path / "no", *named, "--split", "test"], 1, "there are no rows to export"),
    ):
        done = command(path, *words)
        assert (done.exit_code, message in done.stderr) == (code, True), done
    assert not (tmp_path / "no").exists()
    done = command(path, "--to", "hub", "-o", tmp_path / "hub", *named, "--json")
    assert json.loads(done.stdout)["files"] == {"train": "data/train-00000-of-00001.parquet"}


def test_a_row_that_would_be_read_as_another_is_refused(tmp_path, monkeypatch):
    """A row is refused if the writer loses a value, or if the user's own columns make the row look like a row of
    another format.
    """

    def forgetful(sides: list) -> dict:
        (record,) = sides
        return {
            "messages": [{"role": m["role"], "content": m.get("content")} for m in [*record.prompt, *record.completion]]
        }

    entry = RowFormat(about="", cannot_hold="", write=forgetful, reads="messages")
    monkeypatch.setitem(ROW_FORMATS, "forgetful", entry)
    more = {"reasoning_content": "So."}
    path = written(tmp_path / "rows.jsonl", [{"messages": [asked(0), said("assistant", "yes", **more)]}])
    with pytest.raises(CorpusError, match="the completion would change"):
        synthgen.export(path, "forgetful", tmp_path / "out")
    own = pa.schema([("label", pa.bool_())])
    run = corpus_of(tmp_path / "run", [row("yes", own={"label": True})], own=own)
    with pytest.raises(CorpusError, match="the row would be read as unpaired-preference"):
        synthgen.export(run, "prompt-completion", tmp_path / "out")


def test_a_number_that_is_missing_is_null_on_both_sides_of_a_pair(tmp_path):
    """NaN is not equal to itself, and would give each side of the pair a column of its own, with a value that JSON does
    not have.
    """
    rows = [{**ROWS["preference"][0], "score": score} for score in (float("nan"), 0.5)]
    for place, one in enumerate(rows):
        one["id"] = str(place)
    synthgen.export(written(tmp_path / "rows.jsonl", rows), "preference", tmp_path / "out")
    found = [json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / "out" / "train.jsonl").open()]
    assert [row["score"] for row in found] == [None, 0.5]
    assert found[0].keys() == found[1].keys()


def test_numbers_that_json_does_not_have(tmp_path):
    """NaN inside a list or an object means missing, so it becomes null. An infinite number is refused."""
    own = {"scores": [0.5, float("nan")], "about": {"best": float("nan"), "all": [[float("nan"), 1.0]]}}
    rows = tmp_path / "rows.parquet"

    def exported(**own):
        table = pa.Table.from_pylist([{"id": "a", "prompt": "one?", "completion": "yes", **own}])
        pq.write_table(table, rows)
        (tmp_path / "out.jsonl").unlink(missing_ok=True)
        synthgen.export(rows, "messages", tmp_path / "out.jsonl")
        return json.loads((tmp_path / "out.jsonl").read_text(), parse_constant=pytest.fail)

    found = exported(**own)
    assert (found["scores"], found["about"]) == ([0.5, None], {"best": None, "all": [[None, 1.0]]})
    with pytest.raises(CorpusError, match="row 'a' has an infinite number in column 'scores'") as caught:
        exported(scores=[float("-inf")])
    assert "--to hub" in caught.value.hint
