"""The outlook of a plan: the measurements of a finished run, scaled to more rows and nodes, and the notes on what is
not known.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.serving import write_recipe

import synthgen
from synthgen import corpus
from synthgen.cli import main
from synthgen.errors import UserError
from synthgen.generation.outlook import Measured, Outlook, measure, outlook
from synthgen.recipe import digest_of_rows, dump_recipe, with_values

BILLION = 1_000_000_000


@pytest.fixture
def measured(small_run, tmp_path):
    """(recipe, copy of a finished run whose log has a rate for both stages, number of rows)."""
    recipe, made = small_run(seeds=8)
    run = Path(shutil.copytree(made, tmp_path / "run"))
    rows = corpus.manifest(run / "generated")["counts"]["rows"]
    lines = [
        {"stage": "generate", "seconds": 2.0, "worked": True, "rows": rows, "recipe": digest_of_rows(recipe)},
        {"stage": "generate", "seconds": 0.01, "worked": True},  # a command that did only a part of the work
        {"stage": "curate", "seconds": 0.5, "worked": True, "rows": rows, "recipe": digest_of_rows(recipe)},
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"stage": "cur')
    return recipe, run, rows


def test_times_and_sizes_are_those_of_the_run_scaled(measured):
    recipe, run, rows = measured
    found = outlook(recipe, synthgen.plan(recipe), BILLION, 64, run)
    assert found.seconds() == pytest.approx({"generate": BILLION / (rows / 2.0 * 64), "curate": BILLION / (rows * 128)})
    for name in ("generated", "curated"):
        on_disk = sum(path.stat().st_size for path in (run / name / "data").rglob("*.parquet"))
        assert found.sizes()[f"{name}/data"] == pytest.approx(on_disk / rows * BILLION)
    assert found.sizes()["generated/logits"] > 0
    assert found.shards == 166_666_667, "6 rows a shard"
    files = corpus.manifest(run / "generated")["files"]
    shards = len(list((run / "generated" / "data").iterdir()))
    size = len(json.dumps(files, indent=2))
    assert found.sizes()["manifest.json"] == pytest.approx(size / shards * 166_666_667)
    text = found.text()
    assert "at 1,000,000,000 rows on 64 nodes:" in text
    assert f"{rows / 2:,.1f} rows a second on one node, measured in {run}" in text
    assert "not known" not in text


def test_what_was_not_measured_is_not_known(measured):
    recipe, run, _ = measured
    plan = synthgen.plan(recipe)
    text = outlook(recipe, plan, BILLION, 64).text()
    assert text.count("not known; name a finished run of this recipe with --measured") == 3
    (run / "log.jsonl").unlink()
    found = outlook(recipe, plan, BILLION, 64, run)
    assert found.seconds() == {}
    assert found.sizes()


def test_a_folder_without_a_run_is_one_line(measured, tmp_path):
    with pytest.raises(UserError, match="is not the folder of a run"):
        measure(measured[0], tmp_path / "nowhere")


def test_a_run_of_another_recipe_says_nothing(measured):
    recipe, run, _ = measured
    other = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"batch_size": 3})})
    (run / "recipe.yaml").write_text(dump_recipe(other))
    with pytest.raises(UserError, match="was made with another 'teacher', so its rates say nothing about this recipe"):
        measure(recipe, run)


@pytest.mark.parametrize("key", ["temperature", "max_new_tokens", "json_schema"])
def test_how_the_teacher_is_asked_decides(measured, key):
    recipe, run, _ = measured
    value = {"type": "object"} if key == "json_schema" else 2
    changed = recipe.generate.model_copy(update={key: value})
    with pytest.raises(UserError, match=f"was made with another 'generate.{key}'"):
        measure(recipe.model_copy(update={"generate": changed}), run)


def test_rates_of_another_recipe_do_not_count(measured):
    """A run that was made again with --fresh has the rates of its earlier recipe in log.jsonl."""
    recipe, run, _ = measured
    other = recipe.model_copy(update={"generate": recipe.generate.model_copy(update={"temperature": 0.5})})
    (run / "recipe.yaml").write_text(dump_recipe(other))
    assert measure(other, run).rates == {}
    assert measure(other, run).row_bytes


def test_curation_with_other_rules_is_not_known(measured):
    recipe, run, _ = measured
    other = with_values(recipe, {"curate.near_duplicates": True})
    found = outlook(other, synthgen.plan(other), BILLION, 64, run)
    assert found.seconds().keys() == {"generate"}
    assert not [name for name in found.sizes() if name.startswith("curated")]
    assert "time to curate: not known" in found.text()
    assert "storage of curated rows: not known" in found.text()


def test_a_run_logs_its_rows_once(small_run, tmp_path):
    recipe, _ = small_run(seeds=8)
    recipe = recipe.model_copy(update={"train": None})
    run = tmp_path / "run"
    for number in (1, 2):
        synthgen.run(recipe, run, override_audit=True)
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        rated = [line["stage"] for line in lines if line.get("recipe") == digest_of_rows(recipe)]
        assert (rated, len(lines)) == (["generate", "curate"], 4 * number)


def test_replies_from_the_cache_give_no_rate(serve, tmp_path):
    recipe = synthgen.load_recipe(write_recipe(tmp_path / "task", serve().url))
    for name, stages in (("first", {"generate", "curate"}), ("second", {"curate"})):
        synthgen.run(recipe, tmp_path / name)
        assert set(measure(recipe, tmp_path / name).rates) == stages
    rates = measure(recipe, tmp_path / "first").rates
    found = outlook(recipe, synthgen.plan(recipe), BILLION, 64, tmp_path / "first")
    wanted = {"generate": BILLION / rates["generate"], "curate": BILLION / rates["curate"] / 64}
    assert found.seconds() == pytest.approx(wanted), "all nodes together send as many requests at once as one node"
    assert "all nodes share the teacher's limits (max_in_flight, rpm, tpm)" in found.text()


def test_cost_and_pace_of_a_provider_do_not_depend_on_nodes(tmp_path):
    recipe = synthgen.load_recipe(write_recipe(tmp_path, "http://localhost:9/v1", teacher={"rpm": 600}))
    plan = synthgen.plan(recipe)
    for nodes in (1, 64):
        found = outlook(recipe, plan, BILLION, nodes)
        assert found.cost_usd == pytest.approx(plan.cost_usd / 24 * BILLION)
        assert found.most_usd == pytest.approx(plan.most_usd / 24 * BILLION)
        assert found.paced_seconds == BILLION / 10
        assert "the provider accepts the requests in 1,157.4 days or more (rpm)" in found.text()


def test_the_command(measured, tmp_path):
    recipe, run, rows = measured
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe))
    done = CliRunner().invoke(main, ["plan", str(path), "--nodes", "64"])
    assert done.exit_code == 2
    assert "--nodes is 64, and the executor 'local' uses one machine" in done.output
    command = ["plan", str(path), "--executor", "ray", "--nodes", "64", "--rows", "1e9", "--measured", str(run)]
    done = CliRunner().invoke(main, [*command, "--json", "-q"])
    assert done.exit_code == 0, done.output
    value = json.loads(done.output)
    assert value["rows"] == rows
    assert value["outlook"]["rows"] == BILLION
    assert value["outlook"]["seconds"]["generate"] == pytest.approx(BILLION / (rows / 2.0 * 64))


@pytest.mark.parametrize("words", [["--rows", "90"], ["--executor", "ray", "--nodes", "3"], ["--measured"]])
def test_each_option_alone_asks_for_the_prediction(measured, tmp_path, words):
    recipe, run, rows = measured
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe))
    words = [*words, str(run)] if words == ["--measured"] else words
    done = CliRunner().invoke(main, ["plan", str(path), *words, "--json", "-q"])
    found = json.loads(done.output)["outlook"]
    assert found["rows"] == (90 if "--rows" in words else rows)
    assert found["nodes"] == (3 if "--nodes" in words else 1)
    assert set(found["seconds"]) == ({"generate", "curate"} if "--measured" in words else set())
    done = CliRunner().invoke(main, ["plan", str(path), *words, "-q"])
    assert done.output.count(f"at {found['rows']} rows on {found['nodes']} node") == 1


def test_the_plan_alone_predicts_nothing_and_impossible_numbers_of_rows_are_refused(tmp_path):
    path = write_recipe(tmp_path, "http://localhost:9/v1")
    assert "outlook" not in json.loads(CliRunner().invoke(main, ["plan", str(path), "--json", "-q"]).output)
    for rows in ("0.5", "0", "-3", "nan", "inf", "1e15"):
        done = CliRunner().invoke(main, ["plan", str(path), "--rows", rows])
        assert (done.exit_code, "give a number from 1 to 1e15" in done.output) == (2, True), rows
    for rows in (1, 999_999_999_999_999):
        done = CliRunner().invoke(main, ["plan", str(path), "--rows", str(rows), "--json", "-q"])
        assert json.loads(done.output)["outlook"]["rows"] == rows


def test_lines_of_the_log_that_measure_nothing_give_no_rate(measured):
    recipe, run, _ = measured
    line = {"stage": "generate", "recipe": digest_of_rows(recipe)}
    empty = [{}, {"rows": 9}, {"seconds": 2.0}, {"rows": 0, "seconds": 2.0}, {"rows": 9, "seconds": 0}]
    odd = [{"rows": "9", "seconds": 2.0}, {"rows": 9, "seconds": "2"}, {"rows": None, "seconds": None}]
    lines = [json.dumps(line | more) for more in empty + odd] + ["[]", "3", '{"stage": "gen']
    (run / "log.jsonl").write_text("\n".join(lines))
    assert measure(recipe, run).rates == {}
    last = [line | {"rows": 3, "seconds": 2}, line | {"rows": 9, "seconds": 2}]
    (run / "log.jsonl").write_text("\n".join([*map(json.dumps, last), *lines]))
    assert measure(recipe, run).rates == {"generate": 4.5}, "the last command that made all rows"


def test_times_and_sizes_are_in_units_that_people_read():
    measured = Measured("runs/first", {"generate": 4.0, "curate": 7_200.0}, {"generated/data": 250.0}, 10.0, 2.0)
    found = Outlook(72_000, 2, 36_000, 720, 100, 1234.5, 2000.0, 36_000.0, False, measured)
    assert found.text().splitlines() == [
        "at 72,000 rows on 2 nodes:",
        "  requests: about 36,000; shards: 720 of 100 rows",
        "  cost: about $1,234.50, at most $2,000.00 (not counting retries)",
        "  the provider accepts the requests in 10.0 hours or more (rpm)",
        "  time to generate: about 10.0 hours (4.0 rows a second on one node, measured in runs/first)",
        "  time to curate: about 5.0 seconds (7,200.0 rows a second on one node, measured in runs/first)",
        "  storage: 18.0 MB: generated/data 18.0 MB, manifest.json 14.4 kB",
        "  storage of curated rows: not known; name a finished run of this recipe with --measured",
    ]
    unknown = replace(found, rows=1, nodes=1, cost_usd=None, paced_seconds=None)
    for cost in (unknown, replace(found, most_usd=None)):
        assert "  cost: unknown; set teacher.prices" in cost.text().splitlines()
    assert unknown.text().startswith("at 1 rows on 1 node:")
    assert "time to generate: about 0.2 seconds" in unknown.text()
    assert replace(unknown, rows=240).seconds()["generate"] == 60
    assert "time to generate: about 1.0 minutes" in replace(unknown, rows=240).text()
