"""The Batch API with the loopback server's /v1/files and /v1/batches: partial, expired, killed and costly batches."""

from __future__ import annotations

import importlib
import json
import os
import shutil

import pytest
from support.reading import read
from support.serving import KEY, write_recipe

import synthgen
from synthgen.errors import CorpusError, TeacherError, UserError
from synthgen.generation import ledger


def batched(tmp_path, server, name="run", **recipe):
    path = write_recipe(tmp_path / "task", server.url, **recipe)
    return read(synthgen.generate(synthgen.load_recipe(path), tmp_path / name, batch=True).folder)


def test_a_batch_makes_the_rows_that_asking_makes_at_half_the_price(serve, tmp_path, monkeypatch):
    server = serve(batch={"polls": 1}, script=[["What is 3?", ["400"]]])
    rows, failures, _ = batched(tmp_path, server, seeds=20)
    assert len(rows) == 19
    assert [f["kind"] for f in failures] == ["bad_request"]
    assert list(server.stats()["batches"].values()) == ["completed"]
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "another"))
    path = write_recipe(tmp_path / "task", server.url, seeds=20, teacher={"max_in_flight": 1})
    asked, _, _ = read(synthgen.generate(synthgen.load_recipe(path), tmp_path / "asked").folder)
    assert [r.text for r in asked] == [r.text for r in rows]
    assert [r.id for r in asked] == [r.id for r in rows]
    assert sum(r.cost_usd for r in rows) == pytest.approx(sum(r.cost_usd for r in asked) / 2, rel=1e-6)


def test_what_a_batch_leaves_is_sent_again(serve, tmp_path):
    server = serve(batch={"polls": 0, "answered": 0.7, "status": "expired"})
    rows, failures, _ = batched(tmp_path, server, seeds=8)
    stats = server.stats()
    print(f"\n{stats['batches']}")
    assert len(rows) == 8
    assert not failures
    assert stats["paid_twice"] == 0
    assert set(stats["batches"].values()) == {"expired"}
    assert len(stats["batches"]) > 1


def test_a_batch_that_answers_nothing_ends_in_a_clear_state(serve, tmp_path):
    server = serve(batch={"polls": 0, "answered": 0.0, "status": "expired"})
    with pytest.raises(UserError, match="6 requests are unanswered after 3 rounds"):
        batched(tmp_path, server, seeds=6)
    server.set(batch={"polls": 0})
    rows, _, _ = batched(tmp_path, server, seeds=6)
    assert len(rows) == 6
    assert spent(tmp_path) == pytest.approx(sum(r.cost_usd for r in rows))  # no reservation remains


def test_killed_after_create_the_batch_is_found_again(serve, tmp_path):
    """Puts the journal into the state after a kill that comes between the creation of a batch and the storing of its
    id.
    """
    server = serve(batch={"polls": 2})
    path = write_recipe(tmp_path / "task", server.url, seeds=10)
    recipe = synthgen.load_recipe(path)
    module = importlib.import_module("synthgen.generation.batch")
    whole = module.durable.write_json
    journal = tmp_path / "run/generated/batches.json"

    def killed(target, value) -> None:
        if target == journal and any("batch" in entry for entry in value):
            raise KeyboardInterrupt
        whole(target, value)

    module.durable.write_json = killed
    try:
        with pytest.raises(KeyboardInterrupt):
            synthgen.generate(recipe, tmp_path / "run", batch=True)
    finally:
        module.durable.write_json = whole
    (entry,) = json.loads(journal.read_text())
    assert "file" in entry
    assert "batch" not in entry
    rows, _, _ = read(synthgen.generate(recipe, tmp_path / "run", batch=True).folder)
    stats = server.stats()
    assert len(rows) == 10
    assert len(stats["batches"]) == stats["uploads"] == 1
    assert stats["paid"] == 10
    assert spent(tmp_path) == pytest.approx(sum(r.cost_usd for r in rows))


@pytest.mark.parametrize("text", ["", "{}", '["a"]', '[{"batch"', None])
def test_a_damaged_journal_is_named_before_anything_is_sent(serve, tmp_path, text):
    server = serve(batch={"polls": 0})
    batched(tmp_path, server, seeds=3)
    journal = tmp_path / "run/generated/batches.json"
    journal.unlink()
    if text is None:
        os.mkfifo(journal)
    else:
        journal.write_text(text)
    (tmp_path / "run/generated/manifest.json").unlink()
    shutil.rmtree(tmp_path / "run/generated/data")
    before = server.stats()
    with pytest.raises(CorpusError, match=r"batches\.json is damaged") as stopped:
        batched(tmp_path, server, seeds=3)
    assert "would be paid again" in stopped.value.hint
    assert server.stats() == before


def spent(tmp_path) -> float:
    return ledger.spent(tmp_path / "run/ledger").usd / 1e12


def test_budget_bounds_a_batch(serve, tmp_path):
    server = serve(batch={"polls": 0})
    with pytest.raises(UserError, match="budget is reached"):
        batched(tmp_path, server, seeds=100, generate={"budget": {"usd": 0.0002}})
    # A batch costs half of the usual price. The budget reserves the most that each request can cost, so the bill stays
    # below it.
    assert 0 < server.stats()["usd_pico"] / 1e12 / 2 <= 0.0002
    rows, _, _ = batched(tmp_path, server, seeds=100, generate={"budget": {"usd": 1.0}})
    assert len(rows) == 100
    assert server.stats()["paid"] == 100


def test_a_server_without_batches_is_one_line(serve, tmp_path):
    server = serve(key="another")
    with pytest.raises(TeacherError, match="batches at") as stopped:
        batched(tmp_path, server, seeds=3)
    assert KEY not in str(stopped.value)
