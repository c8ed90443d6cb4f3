"""A data set with planted faults of many kinds: each is caught by the rule that is meant for it, and good rows stay."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import synthgen
from synthgen.datasets import source_of
from synthgen.display import show
from synthgen.pipeline import recipe_of_rows

pytest.importorskip("numba")
pytest.importorskip("eldc")

RIVERS = ["Danube", "Rhine", "Volga", "Loire", "Ebro", "Elbe", "Oder", "Tagus", "Rhone", "Seine", "Po", "Dnieper"]
CITIES = ["Vienna", "Cologne", "Kazan", "Nantes", "Zaragoza", "Hamburg", "Wroclaw", "Lisbon", "Lyon", "Paris"]
GOODS = ["grain", "timber", "salt", "coal", "wine", "stone", "wool", "iron", "paper", "glass", "fruit", "cloth"]
EVALUATION = (
    "A baker sells forty loaves in the morning and thirty in the afternoon. How many loaves does the baker sell?"
)
CUT = (
    "The mill stands beside the river and has three wheels. It grinds the grain of the whole town. The stones were cut "
    "by hand. In the year of the great flood, the miller and his"
)
LONG_STORY = (
    "Boats have carried goods on this river since the first towns were built beside it, and the old harbor still shows "
    "where the merchants kept their barrels, their ropes and the heavy stones that held the ships against the current."
)

ODD_ROWS = [json.loads(line) for line in Path(__file__).with_name("odd_rows.jsonl").read_text("utf-8").splitlines()]
"""Rows with faults of each kind, and good rows that look like them. `expect` is the check or sweep that rejects the
row, or "kept". `text` is the completion after the edits, if the edits change it. The first letters of an id name the
kind of fault.
"""


def good_rows(count: int) -> list[dict[str, str]]:
    """Questions with different answers of one or two sentences."""
    draw = random.Random(4)
    rows: dict[str, dict[str, str]] = {}
    while len(rows) < count:
        river, city, good, year = (
            draw.choice(RIVERS),
            draw.choice(CITIES),
            draw.choice(GOODS),
            draw.randrange(1200, 1990),
        )
        question = f"Which goods came to {city} on the {river} in {year}, and who bought them?"
        trade = draw.choice(
            ["sold at the market", "kept in the cellars", "taken on to the mountains", "paid for in silver"]
        )
        answer = f"In {year}, ships on the {river} brought {good} to {city}. Most of the {good} was {trade}."
        rows[question] = {"id": f"good-{len(rows)}", "prompt": question, "completion": answer, "split": "train"}
    return list(rows.values())


def faults() -> dict[str, dict[str, str]]:
    """Maps ids to rows. An id begins with the name of the rule that rejects the row."""
    copied = {"prompt": "Name the harbor.", "completion": "It is the old harbor of the lower town.", "split": "train"}
    told = {"prompt": "Tell a story about the river.", "completion": LONG_STORY, "split": "train"}
    near = {**told, "completion": LONG_STORY.replace("the current", "the flood")}
    held = {"prompt": "Who built the bridge over the Elbe?", "completion": "The citizens built it.", "split": "test"}
    rows = {
        "answer": {"prompt": "What is 6 times 7?", "completion": "6 times 7 is 43.\nAnswer: 43", "reference": "42"},
        "rationale": {
            "prompt": "How much are three barrels of wine at 12 coins?",
            "completion": "Each barrel costs 12 coins. So three barrels cost 3 * 12 = 36 coins.\n#### 38",
        },
        "arithmetic": {"prompt": "How many ships came?", "completion": "In May 14 + 9 = 24 ships came to the harbor."},
        "length": {"prompt": "Describe the market.", "completion": "The market is wide. " + "word other " * 600},
        "repetition": {"prompt": "Describe the sea.", "completion": "It is wide and blue and deep. " * 9},
        "refusal": {"prompt": "Who sold the salt?", "completion": "I’m sorry, but I cannot fulfill this request."},
        "truncated": {"prompt": "Describe the mill.", "completion": CUT},
        "echo": {"prompt": "Explain how salt was made in the town in the old days, step by step.", "completion": ""},
        "broken_text": {"prompt": "Where is the inn?", "completion": "The inn is near the cafÃ© in the upper town."},
        "language": {
            "prompt": "Who rules the town?",
            "completion": "Der Rat der Stadt regiert die Stadt seit vielen Jahren.",
        },
        "pattern": {"prompt": "What is the code?", "completion": "The internal code is TICKET-4821 as always."},
        "personal_data": {
            "prompt": "Whom do I ask?",
            "completion": "Write to anna.weber@stadtarchiv-wien.at about it.",
        },
        "decontamination": {"prompt": EVALUATION, "completion": "The baker sells seventy loaves."},
        "duplicates": {**copied, "prompt": "Name  the harbor."},
        "near_duplicates": near,
        "split_copies": {**held, "split": "train"},
    }
    rows["echo"]["completion"] = rows["echo"]["prompt"]
    kept = {"kept-copied": copied, "kept-told": told, "kept-held": held}
    kept["kept-next_turn"] = {
        "prompt": "Who owns the mill?",
        "completion": "The miller does.\nQ: Who else?\nA: Nobody.",
    }
    kept["kept-opening"] = {
        "prompt": "What did the inn serve?",
        "completion": "Sure! Here is what it served:\nBread and wine.",
    }
    kept["kept-white_space"] = {"prompt": "Who keeps the inn?", "completion": "The widow.\r\n\r\n\r\nShe is old.  "}
    return {**kept, **rows}


def test_each_planted_fault_is_caught_by_its_rule(tmp_path):
    (tmp_path / "evaluation.txt").write_text(EVALUATION + "\n")
    planted = [{"split": "train", **row, "id": name} for name, row in faults().items()]
    rows = [*good_rows(60), *planted]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = source_of(path, "CC0-1.0")
    sets = [{"name": "bakery", "path": str(tmp_path / "evaluation.txt")}]
    settings = {
        "next_turn": True,
        "opening": True,
        "white_space": True,
        "truncated": {"from_text": True},
        "echo": True,
        "broken_text": True,
        "rationale": True,
        "arithmetic": 1.0,
        "language": ["en"],
        "pattern": {"reject": [r"TICKET-\d+"]},
        "personal_data": True,
        "near_duplicates": True,
        "decontamination": {"sets": sets},
    }
    recipe = recipe_of_rows(source, [f"curate.{name}={json.dumps(value)}" for name, value in settings.items()])
    done = synthgen.curate_dataset(source, tmp_path / "out", recipe)
    rejected = show(tmp_path / "out", 1000, rejected=True).records
    caught = {row.id: row.verdicts[0]["check"] for row in rejected}
    assert caught == {name: name for name in faults() if not name.startswith("kept-")}
    kept = {row.id: row for row in show(tmp_path / "out", 1000).records}
    assert len(kept) + len(caught) == len(rows) == done.counts["kept"] + done.counts["rejected"]
    assert kept["kept-next_turn"].text == "The miller does."
    assert kept["kept-opening"].text == "Bread and wine."
    assert kept["kept-white_space"].text == "The widow.\n\nShe is old."
    assert [row.id for row in kept.values() if row.edits] == ["kept-next_turn", "kept-opening", "kept-white_space"]
    assert all(one["reason"] for row in rejected for one in row.verdicts)


def caught_in(tmp_path, rows: dict[str, dict[str, str]], settings: dict) -> dict[str, str]:
    """Maps the id of each rejected row to `check.rule` of its first verdict."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": name, **row}) + "\n" for name, row in rows.items()))
    source = source_of(path, "CC0-1.0")
    recipe = recipe_of_rows(source, [f"curate.{name}={json.dumps(value)}" for name, value in settings.items()])
    synthgen.curate_dataset(source, tmp_path / "out", recipe)
    found = show(tmp_path / "out", 1000, rejected=True).records
    return {row.id: f"{row.verdicts[0]['check']}.{row.verdicts[0]['rule']}" for row in found}


def test_planted_faults_of_json(tmp_path):
    """Rows whose completions must be JSON with a city and the year of its foundation."""
    schema = {"type": "object", "required": ["city", "year"], "properties": {"year": {"type": "integer"}}}
    texts = {f"good-{city}": json.dumps({"city": city, "year": 1200 + number}) for number, city in enumerate(CITIES)}
    texts |= {"good-block": '```json\n{"city": "Graz", "year": 1128}\n```'}
    texts |= {
        "format.json": "The city of Linz was founded in 799, as far as we know.",
        "format.schema": '{"city": "Linz", "year": "799"}',
    }
    rows = {name: {"prompt": f"Facts about {name}, as JSON.", "completion": text} for name, text in texts.items()}
    caught = caught_in(tmp_path, rows, {"format": {"json_schema": schema}})
    assert caught == {name: name for name in rows if not name.startswith("good-")}


def test_odd_rows(tmp_path):
    """Each faulty row is rejected by the rule that is meant for it, each good row is kept, and edits cut only surplus
    text.
    """
    (tmp_path / "evaluation.txt").write_text(EVALUATION + "\n")
    rows = {row["id"]: {"split": "train", **row} for row in ODD_ROWS}
    assert len(rows) == len(ODD_ROWS) > 380
    sets = [{"name": "bakery", "path": str(tmp_path / "evaluation.txt")}]
    settings = {
        **dict.fromkeys(("next_turn", "opening", "white_space", "echo", "broken_text", "rationale"), True),
        **dict.fromkeys(("personal_data", "near_duplicates", "split_twins"), True),
        "truncated": {"from_text": True},
        "arithmetic": 1.0,
        "decontamination": {"sets": sets},
    }
    texts = {"id", "prompt", "completion", "split", "reference"}
    given = {name: {key: row[key] for key in texts & row.keys()} for name, row in rows.items()}
    caught = {name: rule.partition(".")[0] for name, rule in caught_in(tmp_path, given, settings).items()}
    expected = {name: row["expect"] for name, row in rows.items()}
    assert {name: caught.get(name, "kept") for name in rows} == expected
    left = {row.id: row.text for row in show(tmp_path / "out", 1000).records}
    assert left == {name: row.get("text", row["completion"]) for name, row in rows.items() if row["expect"] == "kept"}
