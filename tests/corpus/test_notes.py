"""The notes of a recipe are on the cards of every corpus that is made with it, and on the cards of exports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import synthgen
from synthgen import corpus
from synthgen.recipe import load_recipe

NOTES = ["Not for\n# advice.", "Terms: none."]
SHOWN = "## Use and limits\n\n- Not for # advice.\n- Terms: none.\n"


def run_of(folder: Path, **sections: object) -> Path:
    """Generates and curates rows with a teacher that replays recorded replies."""
    numbers = range(4)
    seeds = [{"id": f"q{n}", "question": f"{n} + {n}?"} for n in numbers]
    replies = [{"prompt": f"{n} + {n}?", "text": str(2 * n)} for n in numbers]
    for name, rows in (("seeds.jsonl", seeds), ("replies.jsonl", replies)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "user.j2").write_text("{{ question }}")
    recipe = {
        "task": "sums",
        "license": "CC0-1.0",
        "seeds": [{"path": "seeds.jsonl", "source": "tests", "id": "id", "group": "id"}],
        "split": {"test": 0.0},
        "teacher": {"engine": "replay", "path": "replies.jsonl", "license": "CC0-1.0"},
        **sections,
    }
    path, run = folder / "recipe.yaml", folder / "run"
    path.write_text(yaml.safe_dump(recipe))
    synthgen.generate(load_recipe(path), run)
    synthgen.curate(load_recipe(path), run)
    return run


def card(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def test_every_corpus_of_the_run_has_the_notes(tmp_path):
    run = run_of(tmp_path, notes=NOTES)
    for stage in ("generated", "curated"):
        assert corpus.manifest(run / stage).get("notes") == NOTES
        assert SHOWN in card(run / stage)
    synthgen.export(run, "messages", tmp_path / "rows")
    assert SHOWN in card(tmp_path / "rows")
    synthgen.remove(run, "q1")
    assert corpus.manifest(run / "generated").get("notes") == NOTES
    assert SHOWN in card(run / "generated")


@pytest.mark.parametrize("sections", [{}, {"notes": []}])
def test_a_recipe_without_notes_adds_no_section(tmp_path, sections):
    run = run_of(tmp_path, **sections)
    assert "Use and limits" not in card(run / "generated") + card(run / "curated")
