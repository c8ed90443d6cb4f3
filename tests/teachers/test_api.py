"""The API teacher with a real HTTP server in a separate process: requests, cache, costs, retries and failures."""

from __future__ import annotations

import pytest
import yaml
from support.serving import KEY, generated, read_generated, write_recipe

import synthgen
from synthgen import corpus
from synthgen.errors import GateDenied, RecipeError, TeacherError, UserError
from synthgen.generation.cache import Cache
from synthgen.generation.pacing import Bucket, Concurrency, Quota
from synthgen.generation.scheduler import BudgetReached
from synthgen.teachers.chat import retry_after


def test_every_request_is_a_row_and_is_paid_once(serve, tmp_path):
    server = serve(latency=0.01)
    rows, failures, manifest = generated(tmp_path, server, seeds=40, generate={"num_generations": 2})
    stats = server.stats()
    assert len(rows) == 80
    assert not failures
    assert stats["paid"] == stats["requests"] == 80
    assert len({r.id for r in rows}) == 80
    assert all(r.completion[0]["content"] == r.answer for r in rows)
    assert {r.finish_reason for r in rows} == {"stop"}
    # Rows, manifest and server have the same costs. In the recipe, cached tokens have the same price as other tokens.
    paid = stats["usd_pico"] / 1e12
    assert sum(r.cost_usd for r in rows) == pytest.approx(paid, abs=1e-12)
    assert manifest["cost_usd"] == pytest.approx(paid, abs=1e-6)
    assert rows[0].usage["cached_tokens"] == 2
    assert manifest["counts"]["tokens"] == sum(r.usage["completion_tokens"] for r in rows)
    # A second call sends nothing, and neither does another run of the same recipe.
    generated(tmp_path, server, seeds=40, generate={"num_generations": 2})
    again, _, _ = generated(tmp_path, server, name="second", seeds=40, generate={"num_generations": 2})
    assert server.stats()["requests"] == 80
    assert [vars(r) for r in again] == [vars(r) for r in rows]


def test_samples_differ_and_ids_do_not_depend_on_shards(serve, tmp_path):
    server = serve()
    small, _, _ = generated(tmp_path, server, name="small", seeds=6, generate={"num_generations": 3, "shard_size": 2})
    large, _, _ = generated(tmp_path, server, name="large", seeds=6, generate={"num_generations": 3, "shard_size": 100})
    assert [r.id for r in small] == [r.id for r in large]
    by_seed = {}
    for r in small:
        by_seed.setdefault(r.seed_id, set()).add(r.text)
    assert all(len(texts) == 3 for texts in by_seed.values())


def test_one_changed_seed_is_the_only_one_asked_again(serve, tmp_path):
    server = serve()
    rows = [{"id": f"q{i}", "question": f"What is {i}?"} for i in range(20)]
    generated(tmp_path, server, seeds=rows, generate={"num_generations": 2})
    before = server.stats()["requests"]
    rows[7]["question"] = "What is seven?"
    changed, _, _ = generated(tmp_path, server, name="edited", seeds=rows, generate={"num_generations": 2})
    assert server.stats()["requests"] - before == 2
    assert len(changed) == 40


def test_identical_requests_in_flight_are_sent_once(serve, tmp_path):
    server = serve(latency=0.2)
    rows = [{"id": f"q{i}", "question": "The same?"} for i in range(16)]
    made, _, _ = generated(tmp_path, server, seeds=rows)
    assert len(made) == 16
    assert server.stats()["requests"] == 1


def test_identical_requests_one_after_another_are_sent_once(serve, tmp_path):
    # One query of the cache looks up several requests. A reply that is stored after this query must still be found.
    server = serve()
    rows = [{"id": f"q{i}", "question": f"What is {i % 4}?"} for i in range(60)]
    for name in ("run", "all-from-the-cache"):
        made, _, _ = generated(tmp_path, server, name=name, seeds=rows, teacher={"max_in_flight": 1})
        assert len(made) == 60
        assert server.stats()["requests"] == server.stats()["paid"] == 4


def test_budget_is_never_exceeded_and_more_goes_on(serve, tmp_path):
    server = serve(latency=0.02)
    limit = 0.0010
    path = write_recipe(tmp_path / "task", server.url, seeds=200, generate={"budget": {"usd": limit}})
    with pytest.raises(BudgetReached) as stopped:
        synthgen.generate(synthgen.load_recipe(path), tmp_path / "run")
    assert stopped.value.exit_code == 2
    spent = server.stats()["usd_pico"] / 1e12
    paid = server.stats()["paid"]
    most_of_one = 0.00008  # dollars: one token for each byte of the prompt, the template, and 16 tokens of answer
    assert limit - most_of_one < spent <= limit
    # With the same budget nothing is sent. With a larger budget only the missing requests are sent.
    with pytest.raises(BudgetReached):
        synthgen.generate(synthgen.load_recipe(path), tmp_path / "run")
    assert server.stats()["paid"] == paid
    path = write_recipe(tmp_path / "task", server.url, seeds=200, generate={"budget": {"usd": 1.0}})
    rows, _, _ = read_generated(synthgen.generate(synthgen.load_recipe(path), tmp_path / "run").folder)
    assert len(rows) == 200
    assert server.stats()["paid"] == 200


def test_budget_counts_what_may_have_been_billed(serve, tmp_path):
    """The server bills a request and then breaks the connection. The run still keeps its budget."""
    server = serve(faults={"reset": 0.5, "half": 0.4})
    path = write_recipe(
        tmp_path / "task", server.url, seeds=60, teacher={"max_retries": 8}, generate={"budget": {"usd": 0.0004}}
    )
    with pytest.raises(BudgetReached):
        synthgen.generate(synthgen.load_recipe(path), tmp_path / "run")
    assert 0 < server.stats()["usd_pico"] / 1e12 <= 0.0004


def test_budget_in_tokens_and_a_server_without_usage(serve, tmp_path):
    server = serve(usage=False)
    path = write_recipe(tmp_path / "task", server.url, seeds=60, generate={"budget": {"tokens": 6000}})
    with pytest.raises(BudgetReached):
        synthgen.generate(synthgen.load_recipe(path), tmp_path / "run")
    assert 0 < server.stats()["tokens"] <= 6000


def test_dollars_without_a_price_are_refused_before_anything_is_sent(serve, tmp_path):
    server = serve()
    with pytest.raises(RecipeError, match=r"price of 'm' is not known"):
        generated(tmp_path, server, teacher={"prices": None}, generate={"budget": {"usd": 1}})
    assert server.stats()["requests"] == 0
    rows, _, manifest = generated(tmp_path, server, name="free", teacher={"prices": None})
    assert manifest["cost_usd"] is None, "no price is not the price 0"
    found = synthgen.generate(synthgen.load_recipe(tmp_path / "task" / "recipe.yaml"), tmp_path / "free")
    assert found.text().endswith(", cost unknown")
    assert {r.cost_usd for r in rows} == {None}


def test_plan_bounds_the_cost(serve, tmp_path):
    server = serve()
    recipe = synthgen.load_recipe(write_recipe(tmp_path / "task", server.url, seeds=30))
    found = synthgen.plan(recipe)
    synthgen.generate(recipe, tmp_path / "run")
    assert 0 < server.stats()["usd_pico"] / 1e12 <= found.most_usd
    assert 0 < found.cost_usd < found.most_usd


@pytest.mark.parametrize("after", ["1", "date"])
def test_retry_after_is_obeyed(serve, tmp_path, after):
    server = serve(script=[["What is 3?", [f"429:{after}", "ok"]]])
    rows, failures, _ = generated(tmp_path, server, seeds=8)
    assert len(rows) == 8
    assert not failures
    stats = server.stats()
    assert stats["requests"] == 9
    (waited,) = stats["again_after"]
    assert waited > (0.98 if after == "1" else 0.5)  # if `retry-after` is a date, it has no fractions of seconds


def test_retry_after_forms():
    assert retry_after({"retry-after": "2.5"}) == 2.5
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    for nothing in ({}, {"retry-after": "soon"}, {"retry-after": "inf"}, {"retry-after": "nan"}):
        assert retry_after(nothing) is None


def test_concurrency_cuts_once_a_burst_and_climbs_back():
    pace = Concurrency(64, limit=16)
    for _ in range(16):
        pace.success()
    assert pace.limit == 32  # the limit doubled in one round trip
    for _ in range(10):  # one burst: all requests were sent before the limit was cut
        pace.refused(sent=1.0, in_flight=32, now=2.0)
    assert (pace.limit, pace.cuts) == (24, 1)
    pace.refused(sent=3.0, in_flight=24, now=4.0)
    assert (pace.limit, pace.cuts) == (18, 2)
    for _ in range(5):
        pace.success()
    assert pace.limit == 19  # the limit grows fast below the ceiling of 24
    for _ in range(2000):
        pace.success()
    assert pace.limit == 64
    for number in range(50):
        pace.refused(sent=10.0 + number, in_flight=1, now=10.5 + number)
    assert pace.limit == 1.0


def test_bucket_paces_evenly_and_gives_back():
    bucket = Bucket(600, now=0.0)  # ten requests a second
    sent, now = 0, 0.0
    while now < 60:
        wait = bucket.wait(1, now)
        if wait > 1e-9:
            now += wait
        else:
            bucket.take(1)
            sent += 1
    assert 0.95 * 600 <= sent <= 600
    quota = Quota(None, 6000, now=0.0)
    assert quota.wait(1000, 0.0)[1] == "tpm"
    now = quota.wait(1000, 0.0)[0]
    held = quota.reserve(1000)
    before = quota.tokens.level
    quota.correct(held, 1000, 100)
    assert quota.tokens.level == pytest.approx(before + 900)
    assert quota.used < 1  # the correction makes later reservations smaller


def test_poison_is_asked_once_and_again_only_when_told(serve, tmp_path):
    server = serve(script=[["What is 3?", ["400"]], ["What is 5?", ["context"]], ["What is 6?", ["filter"]]])
    rows, failures, manifest = generated(tmp_path, server, seeds=12, teacher={"max_in_flight": 1})
    assert len(rows) == 9
    assert {f["kind"] for f in failures} == {"bad_request", "context", "content_filter"}
    assert manifest["counts"]["failures"] == 3
    generated(tmp_path, server, name="second", seeds=12, teacher={"max_in_flight": 1})
    assert server.stats()["requests"] == 12
    server.set(script=[])
    rows, failures, _ = generated(tmp_path, server, retry_failed=True, seeds=12, teacher={"max_in_flight": 1})
    assert len(rows) == 12
    assert not failures
    assert server.stats()["requests"] == 15
    assert not list((tmp_path / "run/generated/failures").glob("*.parquet"))


def test_too_many_failures_stop_the_run(serve, tmp_path):
    server = serve(latency=0.01, script=[[f"What is {i}?", ["400"]] for i in range(4, 30)])
    path = write_recipe(tmp_path / "task", server.url, seeds=100, generate={"max_failures": "5%"})
    with pytest.raises(GateDenied, match="bad_request") as stopped:
        synthgen.generate(synthgen.load_recipe(path), tmp_path / "run")
    assert stopped.value.exit_code == 1
    assert not (tmp_path / "run/generated/manifest.json").exists()
    path = write_recipe(tmp_path / "task", server.url, seeds=100, generate={"max_failures": 50})
    _, failures, _ = read_generated(synthgen.generate(synthgen.load_recipe(path), tmp_path / "run").folder)
    assert len(failures) == 26


def test_a_dead_server_ends_in_a_clear_state_and_the_run_goes_on_later(serve, tmp_path):
    server = serve(dead_after=20, latency=0.01)
    path = write_recipe(tmp_path / "task", server.url, seeds=60, teacher={"max_in_flight": 8, "max_retries": 2})
    with pytest.raises(TeacherError, match="is not answering"):
        synthgen.generate(synthgen.load_recipe(path), tmp_path / "run")
    server.set(dead_after=None)
    rows, failures, _ = read_generated(synthgen.generate(synthgen.load_recipe(path), tmp_path / "run").folder)
    assert len(rows) + len(failures) == 60
    assert len(failures) < 3
    assert server.stats()["paid_twice"] == 0
    server.stop()
    (tmp_path / "cache/replies.sqlite").unlink()
    with pytest.raises(TeacherError, match="no connection"):
        synthgen.generate(synthgen.load_recipe(path), tmp_path / "other")


KINDS = {
    "400": "bad_request",
    "context": "context",
    "filter400": "content_filter",
    "filter": "content_filter",
    "500": "server",
    "503": "server",
    "timeout": "timeout",
    "reset": "connection",
    "half": "connection",
    "badjson": "schema",
    "wrongschema": "schema",
    "emptychoices": "empty",
    "emptytext": "empty",
    "huge": "too_large",
}


def test_each_fault_has_its_kind(serve, tmp_path):
    script = [[f"What is {10 + i}?", [fault]] for i, fault in enumerate(KINDS)]
    server = serve(latency=0.01, script=script)
    teacher = {"timeout": 3, "max_retries": 1, "max_in_flight": 8}
    rows, failures, _ = generated(tmp_path, server, seeds=30, teacher=teacher)
    assert len(rows) == 30 - len(KINDS)
    kinds = {f["seed_id"]: f["kind"] for f in failures}
    assert kinds == {f"q{10 + i}": kind for i, kind in enumerate(KINDS.values())}
    assert all(f["reason"] for f in failures)


def test_rows_that_break_a_living_server_are_failures(serve, tmp_path):
    """All rows fail, so synthgen asks whether the server is alive. The server is alive, so the run ends with failures
    and without an error.
    """
    server = serve(script=[[f"What is {i}?", ["500"]] for i in range(5)])
    rows, failures, _ = generated(tmp_path, server, seeds=5, teacher={"max_retries": 1})
    assert not rows
    assert [f["kind"] for f in failures] == ["server"] * 5


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"key": "another"}, "401"),
        ({"script": [["What", ["quota"]]]}, "exceeded your current quota"),
        ({"script": [["What", ["400"]]]}, "refused the first"),
    ],
)
def test_what_no_request_can_survive_stops_the_run(serve, tmp_path, config, words):
    server = serve(**config)
    with pytest.raises(TeacherError, match=words) as stopped:
        generated(tmp_path, server, seeds=60)
    assert KEY not in str(stopped.value)
    assert server.stats()["paid"] == 0


def test_no_key_is_one_line(serve, tmp_path, monkeypatch):
    server = serve()
    monkeypatch.delenv("LOOPBACK_KEY")
    with pytest.raises(TeacherError, match="LOOPBACK_KEY must hold"):
        generated(tmp_path, server)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"logits": {"kind": "sampled"}}, "whole distribution"),
        ({"logits": {"kind": "topk", "temperature": 2.0}}, "temperature"),
        ({"logits": {"kind": "topk"}}, "teacher.tokenizer"),
        ({"teacher": {"base_url": "http://user:pw@host/v1"}}, "must not contain a password or key"),
        ({"teacher": {"engine": "opanai"}}, "opanai"),
        ({"teacher": {"rpn": 5}}, "rpm"),
        ({"teacher": {"extra": {"n": 5}}}, "'n' cannot be set"),
        ({"generate": {"max_failures": "many"}}, "max_failures"),
        ({"generate": {"budget": {"usd": -1}}}, "budget.usd"),
    ],
)
def test_recipes_that_cannot_be_are_refused_with_their_key(tmp_path, change, words):
    path = write_recipe(tmp_path / "task", "http://127.0.0.1:1/v1", **change)
    with pytest.raises(RecipeError, match=words):
        synthgen.load_recipe(path)


def test_the_resolved_recipe_loads_and_pace_may_change(serve, tmp_path):
    from synthgen.generation.claim import begin

    server = serve()
    recipe = synthgen.load_recipe(write_recipe(tmp_path / "task", server.url))
    begin(recipe, tmp_path / "run", False)
    assert not (tmp_path / "run").exists(), "a command that has not begun claims no folder"
    synthgen.generate(recipe, tmp_path / "run")
    assert synthgen.load_recipe(tmp_path / "run/recipe.yaml") == recipe
    faster = synthgen.load_recipe(write_recipe(tmp_path / "task", server.url, teacher={"rpm": 500, "max_in_flight": 9}))
    begin(faster, tmp_path / "run", False)
    synthgen.generate(faster, tmp_path / "run")
    assert synthgen.load_recipe(tmp_path / "run/recipe.yaml") == faster
    with pytest.raises(UserError, match="model"):
        begin(
            synthgen.load_recipe(write_recipe(tmp_path / "task", server.url, teacher={"model": "n"})),
            tmp_path / "run",
            False,
        )


def test_parts_of_a_run_merge(serve, tmp_path):
    import shutil

    server = serve()
    recipe = synthgen.load_recipe(write_recipe(tmp_path / "task", server.url, seeds=50))
    whole = synthgen.generate(recipe, tmp_path / "whole").folder
    for i in (1, 2, 3):
        folder = synthgen.generate(recipe, tmp_path / f"part{i}", part=(i, 3)).folder
        assert not (folder / "manifest.json").exists()
        shutil.copytree(folder / "data", tmp_path / "merged/generated/data", dirs_exist_ok=True)
    shutil.copy(tmp_path / "part1/generated/inputs.json", tmp_path / "merged/generated/inputs.json")
    shutil.copy(tmp_path / "part1/recipe.yaml", tmp_path / "merged/recipe.yaml")
    merged = synthgen.generate(recipe, tmp_path / "merged").folder
    assert corpus.manifest(merged) == corpus.manifest(whole)
    assert server.stats()["requests"] == 50


def test_a_damaged_cache_is_one_clear_line(serve, tmp_path):
    server = serve()
    generated(tmp_path, server, seeds=30)
    path = tmp_path / "cache/replies.sqlite"
    blob = bytearray(path.read_bytes())
    for offset in range(4096, len(blob)):
        blob[offset] = 0x5A
    path.write_bytes(blob)
    with pytest.raises(UserError, match=r"reply cache .* is damaged"):
        generated(tmp_path, server, name="second", seeds=30)
    path.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(UserError, match=r"reply cache .* is damaged"):
        Cache(path)


def test_the_key_is_written_nowhere(serve, tmp_path, capfd, monkeypatch):
    from synthgen.cli import main

    # The server quotes the key in its errors, first a wrong key and then the right key.
    server = serve(latency=0.01, faults={"500": 0.2}, script=[["What is 3?", ["400"]]])
    path = write_recipe(tmp_path / "task", server.url, seeds=30)
    assert KEY not in path.read_text()
    monkeypatch.setenv("LOOPBACK_KEY", "sk-wrong-key-9911")
    with pytest.raises(SystemExit) as ended:
        main(["generate", str(path), "-o", str(tmp_path / "run")], standalone_mode=False)
    assert ended.value.code == 2
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    main(["generate", str(path), "-o", str(tmp_path / "run")], standalone_mode=False)
    said = "".join(capfd.readouterr())
    assert "Error: " in said
    assert "[key]" in said
    places = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert any(p.suffix == ".sqlite" for p in places)
    for secret in (KEY, "sk-wrong-key-9911"):
        assert secret not in said
        for p in places:
            assert secret.encode() not in p.read_bytes(), p
    # The cache compresses the bodies of replies, so they are decompressed before the search.
    import sqlite3

    from synthgen.generation.cache import _unpack

    with sqlite3.connect(tmp_path / "cache/replies.sqlite") as db:
        for (body,) in db.execute("SELECT body FROM reply WHERE body IS NOT NULL"):
            assert KEY.encode() not in _unpack(body, tmp_path)


def test_replay_goes_through_the_same_scheduler(serve, tmp_path):
    server = serve()
    rows, _, _ = generated(tmp_path, server, seeds=20)
    path = write_recipe(tmp_path / "task", server.url, seeds=20)
    recipe = yaml.safe_load(path.read_text())
    recipe["teacher"] = {"engine": "replay", "path": str(tmp_path / "run/generated"), "license": "Apache-2.0"}
    path.write_text(yaml.safe_dump(recipe))
    again, failures, _ = read_generated(synthgen.generate(synthgen.load_recipe(path), tmp_path / "again").folder)
    assert not failures
    assert [r.text for r in again] == [r.text for r in rows]
    assert server.stats()["requests"] == 20
