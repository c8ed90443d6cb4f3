"""Stored hidden states: equal to the live teacher's, found by their tokens, made once, and refused when damaged."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from support.layers import META, gradients, narrow, rows, section
from support.small import small_teacher

from distill.targets import hidden_states as states
from distill.targets.hidden import LayerTerms
from distill.targets.hidden_states import States, store
from distill.targets.stored import FromStored
from synthgen import durable
from synthgen.errors import CorpusError, TeacherError, UserError
from synthgen.lm.weights import Weights
from synthgen.tables.engines import TeacherSection
from synthgen.ui import UI

HALF = 2.0**-11  # half of the relative distance between neighboring float16 numbers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_teacher(tmp_path_factory.mktemp("states") / "teacher", layers=3)


@pytest.fixture(scope="module")
def teacher(folder):
    return Weights.load(TeacherSection(model=str(folder)))


def texts(same_prompt: bool = True, count: int = 7):
    return [(tuple(e.teacher_prompt) or tuple(e.prompt), tuple(e.completion)) for e in rows(same_prompt, count)]


def alone(teacher, text) -> list[torch.Tensor]:
    """The states after each layer for one text alone, from the model's own outputs."""
    prompt, completion = text
    with torch.no_grad():
        seen = teacher.model(torch.tensor([[*prompt, *completion]]), output_hidden_states=True).hidden_states
    last = []
    hook = teacher.model.model.layers[-1].register_forward_hook(lambda module, inputs, output: last.append(output))
    with torch.no_grad():
        teacher.model(torch.tensor([[*prompt, *completion]]))
    hook.remove()
    places = slice(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return [h[0, places] for h in (*seen[1:-1], last[0])]


@pytest.fixture
def counted(monkeypatch):
    """A list with the number of texts in each call of the teacher."""
    calls: list[int] = []

    def see(model, head, prompts, *rest, **named):
        calls.append(len(prompts))
        return real(model, head, prompts, *rest, **named)

    real = states.see
    monkeypatch.setattr(states, "see", see)
    return calls


# What is stored


@pytest.mark.parametrize("size", [1e-6, 0.02, 1.0, 24_827.0, 1e12])
def test_numbers_come_back_to_half_a_step(size):
    generator = np.random.default_rng(0)
    h = (generator.standard_normal((9, 64)) * size).astype(np.float32)
    h[3] = 0
    h[4, 1:] *= 1e-3  # channel 0 is far larger than the others
    h[5, 5] = 64**0.5 * 1e3 * size  # nearly the largest possible ratio to the root mean square, √64
    decoded = states._decode(states._encode(h), 64)
    assert decoded.dtype == np.float32
    assert (decoded[3] == 0).all()
    rms = np.sqrt(np.square(h.astype(np.float64)).mean(-1, keepdims=True))
    bound = np.maximum(HALF * np.abs(h), 2.0**-25 * rms) * (1 + 1e-3)
    assert (np.abs(decoded - h.astype(np.float64)) <= bound).all()
    assert (decoded != h).any(), "float16, not float32"


@pytest.mark.parametrize("same_prompt", [True, False])
def test_states_are_those_of_each_text_alone(teacher, tmp_path, same_prompt):
    there = States(tmp_path, teacher)
    there.make(teacher, [0, 2, 1], texts(same_prompt), 4)
    for text in texts(same_prompt):
        for layer, wanted in enumerate(alone(teacher, text)):
            read = there.read(layer, *text)
            assert read.shape == (len(text[1]), 16)
            assert torch.allclose(read, wanted, rtol=2 * HALF, atol=1e-5 * float(wanted.abs().max()))
            assert len(wanted) == 1 or not torch.allclose(read, wanted.flip(0), rtol=0.01)


@pytest.mark.parametrize("terms", [{}, {"loss": "cosine", "weight": 0.5}, {"layers": {0: 1}}])
@pytest.mark.parametrize("same_prompt", [True, False])
def test_they_teach_what_the_live_teacher_teaches(teacher, tmp_path, terms, same_prompt):
    wanted, batch, model = section(hidden=terms), rows(same_prompt), narrow(teacher)
    there = States(tmp_path, teacher)
    results = []
    for source in (teacher.model, there):
        terms_of_layers = LayerTerms(model, source, wanted)
        there.make(teacher, [t for _, t in terms_of_layers.pairs], texts(same_prompt), 4)
        whole = FromStored(model, wanted, META, terms_of_layers)
        model.zero_grad()
        loss, parts = whole(batch, batch)
        loss.backward()
        results.append((parts, gradients(whole)))
    (live, a), (read, b) = results
    assert read["hidden"] == pytest.approx(live["hidden"], rel=1e-3)
    assert read["hidden"] != live["hidden"]
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.allclose(b[name], value, atol=2e-3 * float(value.abs().max())), name


def test_what_is_stored_of_rows_is_what_they_need(teacher, tmp_path):
    """States are stored for the teacher's prompt, even if the student has another prompt."""
    wanted, model = section(hidden={}), narrow(teacher)
    for batch in (rows(False), rows(True)):
        states_of_them = States(tmp_path, teacher)
        terms = LayerTerms(model, states_of_them, wanted)
        store(states_of_them, teacher, [t for _, t in terms.pairs], batch, 4, UI(quiet=True))
        _, parts = FromStored(model, wanted, META, terms)(batch, batch)
        _, live = FromStored(model, wanted, META, LayerTerms(model, teacher.model, wanted))(batch, batch)
        assert parts["hidden"] == pytest.approx(live["hidden"], rel=1e-3)


def test_portions_of_a_step_add_up(teacher, tmp_path):
    wanted, batch, model = section(hidden={}), rows(False), narrow(teacher)
    there = States(tmp_path, teacher)
    terms = LayerTerms(model, there, wanted)
    there.make(teacher, [t for _, t in terms.pairs], texts(False), 4)
    whole = FromStored(model, wanted, META, terms)
    _, parts = whole(batch, batch)
    _, again = whole(batch[::-1], batch)
    pieces = [whole(part, batch)[1] for part in (batch[:3], batch[3:])]
    assert parts["hidden"] == pytest.approx(sum(piece["hidden"] for piece in pieces), rel=1e-5)
    assert parts["hidden"] == pytest.approx(again["hidden"], rel=1e-5)


@pytest.mark.parametrize("group", [1, 2000, 1 << 30])
def test_cut_into_parts_and_groups_alike(teacher, tmp_path, monkeypatch, group):
    whole = States(tmp_path / "whole", teacher)
    whole.make(teacher, [1], texts(), 4)
    monkeypatch.setattr(states, "_PART", 3)
    monkeypatch.setattr(states, "_GROUP_BYTES", group)
    cut = States(tmp_path / "cut", teacher)
    cut.make(teacher, [1], texts(), 4)
    assert len(list(cut.folder.glob("layer-01/*.parquet"))) == 3
    for again in (cut, States(tmp_path / "cut", teacher)):
        for text in texts():
            assert torch.allclose(again.read(1, *text), whole.read(1, *text), rtol=4 * HALF, atol=1e-5)


def test_other_tokens_teacher_or_type_are_not_found(teacher, folder, tmp_path):
    there = States(tmp_path, teacher)
    [one, two] = texts(False)[2:4]
    there.make(teacher, [1], [one], 4)
    (prompt, completion) = one
    moved = (prompt[:-1], (prompt[-1], *completion))
    for other in (two, (prompt, completion[:-1]), ((*prompt[:-1], 9), completion), moved):
        assert there.missing(1, [other]) == [other]
        with pytest.raises(CorpusError, match="no states of layer 1"):
            there.read(1, *other)
    assert there.missing(2, [one]) == [one]
    for name, value in (("revision", "sha256:0"), ("dtype", "bfloat16")):
        changed = Weights.of(
            teacher.model, teacher.name, **{"revision": teacher.revision, "dtype": teacher.dtype, name: value}
        )
        assert States(tmp_path, changed).missing(1, [one]) == [one]
    assert States(tmp_path, Weights.open(TeacherSection(model=str(folder)))).missing(1, [one]) == []


def test_only_what_is_not_there_is_made(teacher, tmp_path, counted):
    there = States(tmp_path, teacher)
    there.make(teacher, [0], [*texts()[:4], texts()[0]], 4)
    assert sum(counted) == 4, "the same text once"
    counted.clear()
    there.make(teacher, [0, 1], texts(), 4)
    assert sum(counted) == 3 + 7, "three more of layer 0, all of layer 1"
    counted.clear()
    States(tmp_path, teacher).make(teacher, [1, 0], texts()[::-1], 4)
    assert counted == []


def test_cut_short_and_begun_again_makes_the_same_bytes(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(states, "_PART", 2)
    States(tmp_path / "whole", teacher).make(teacher, [0, 2], texts(), 4)
    whole = {p.relative_to(tmp_path / "whole"): p.read_bytes() for p in (tmp_path / "whole").rglob("*.parquet")}
    assert len(whole) == 8
    real = durable.write_bytes
    for last in range(8):
        left = [last]

        def write(path, data, left=left):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            real(path, data)

        monkeypatch.setattr(durable, "write_bytes", write)
        with pytest.raises(KeyboardInterrupt):
            States(tmp_path / str(last), teacher).make(teacher, [0, 2], texts(), 4)
        monkeypatch.setattr(durable, "write_bytes", real)
        States(tmp_path / str(last), teacher).make(teacher, [0, 2], texts(), 4)
        again = tmp_path / str(last)
        assert {p.relative_to(again): p.read_bytes() for p in again.rglob("*.parquet")} == whole


@pytest.mark.parametrize("numbers", [1, 16 * 20, 1 << 40])
def test_parts_are_bounded_by_their_numbers(numbers, monkeypatch):
    monkeypatch.setattr(states, "_PART_NUMBERS", numbers)
    monkeypatch.setattr(states, "_PART", 5)
    asked = [((1,), (2,) * n) for n in (3, 9, 1, 1, 1, 30, 2, 2)]
    parts = list(states._parts(asked, 16))
    assert [text for part in parts for text in part] == asked
    assert all(len(part) <= 5 for part in parts)
    assert all(len(part) == 1 or sum(len(c) for _, c in part) * 16 <= numbers for part in parts)
    assert len(parts) == {1: 8, 16 * 20: 3, 1 << 40: 2}[numbers]
    assert list(states._parts([], 16)) == []


def test_another_student_that_stores_is_waited_for_not_written_over(teacher, tmp_path):
    there = States(tmp_path, teacher)
    with durable.lock(there.folder), ThreadPoolExecutor(1) as other, pytest.raises(UserError, match="another process"):
        other.submit(store, there, teacher, [1], rows(), 4, UI(quiet=True)).result()
    store(there, teacher, [1], rows(), 4, UI(quiet=True))
    with durable.lock(there.folder):  # all states exist, so nothing is written
        store(there, teacher, [1], rows(), 4, UI(quiet=True))


def test_damaged_files_are_named(teacher, tmp_path):
    there = States(tmp_path, teacher)
    there.make(teacher, [1], texts(), 4)
    [path] = there.folder.glob("layer-01/*.parquet")
    whole = path.read_bytes()
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata({}), foreign)
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    for what in (whole[:-20], b"", flipped, foreign.read_bytes()):
        path.write_bytes(what)
        with pytest.raises(CorpusError, match=f"{path.name} is damaged") as caught:
            [States(tmp_path, teacher).read(1, *text) for text in texts()]
        same = States(tmp_path, teacher)
        for _ in range(2):
            with pytest.raises(CorpusError, match="is damaged"):
                [same.read(1, *text) for text in texts()]
        assert "delete the file" in caught.value.hint
        assert "\n" not in caught.value.message
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CorpusError, match=f"{path.name} is damaged"):
        [States(tmp_path, teacher).read(1, *text) for text in texts()]
    path.unlink()
    again = States(tmp_path, teacher)
    again.make(teacher, [1], texts(), 4)
    assert path.read_bytes() == whole


def test_no_flipped_byte_teaches(teacher, tmp_path):
    """Changes single bytes of a file. Half of the stored bytes do not compress, so only a checksum detects a change in
    them.
    """
    there = States(tmp_path, teacher)
    there.make(teacher, [1], texts(), 4)
    [path] = there.folder.glob("layer-01/*.parquet")
    whole, right = path.read_bytes(), [there.read(1, *text) for text in texts()]
    seen = 0
    for place in range(4, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            again = States(tmp_path, teacher)
            missing = again.missing(1, texts())
            read = [again.read(1, *text) for text in texts() if text not in missing]
        except CorpusError:
            seen += 1
        else:
            assert all(torch.equal(a, b) for a, b in zip(read, right, strict=False) if not missing), place
    assert seen > 30


def test_states_that_are_not_numbers_are_refused(folder, tmp_path):
    broken = Weights.load(TeacherSection(model=str(folder)))
    with torch.no_grad():
        broken.model.model.layers[1].mlp.down_proj.weight[0, 0] = torch.inf
    there = States(tmp_path, broken)
    there.make(broken, [0], texts(), 4)
    with pytest.raises(TeacherError, match="are not finite"):
        there.make(broken, [1], texts(), 4)
    assert not list(there.folder.glob("layer-01/*"))


def test_a_process_that_does_not_write_waits_for_the_states(teacher, tmp_path, counted, monkeypatch):
    there, waits = States(tmp_path, teacher), []
    monkeypatch.setattr(durable, "writes", lambda: False)

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:  # another process makes the states in the meantime
            States(tmp_path, teacher).make(teacher, [1], texts(), 4)

    monkeypatch.setattr(states.time, "sleep", sleep)
    store(there, teacher, [1], rows(), 4, UI(quiet=True))
    assert waits == [0.5] * 3
    assert sum(counted) == 7
    assert there.complete([1], texts())
    store(there, teacher, [1], rows(), 4, UI(quiet=True))
    assert len(waits) == 3


def test_states_of_unknown_weights_are_refused(teacher, tmp_path):
    for revision in ("unknown", "main", ""):
        vague = Weights.of(teacher.model, teacher.name, revision, teacher.dtype)
        with pytest.raises(TeacherError, match="are not known") as caught:
            States(tmp_path, vague)
        assert "commit" in caught.value.hint
