"""Stored hidden states: beside the live teacher's, found by what was read, made once, damaged, refused."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import weakref

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from support.small import small_runs, small_task, small_teacher
from test_hidden import META, gradients, narrow, rows, section, trained

import synthgen
from distill import train
from distill.targets import hidden_states as states
from distill.targets.hidden import Inside
from distill.targets.hidden_states import States, store
from distill.targets.stored import FromShards
from synthgen import durable
from synthgen.errors import CorpusError, RecipeError, TeacherError, UserError
from synthgen.lm import load
from synthgen.recipe import TrainSection
from synthgen.tables.engines import TeacherSection
from synthgen.teachers.transformers import LocalModel
from synthgen.ui import UI

HALF = 2.0**-11  # half of the distance of two float16 numbers, relative


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_teacher(tmp_path_factory.mktemp("states") / "teacher", layers=3)


@pytest.fixture(scope="module")
def teacher(folder):
    return LocalModel.open(TeacherSection(model=str(folder)))


def texts(same_prompt: bool = True, count: int = 7):
    return [(tuple(e.teacher_prompt) or tuple(e.prompt), tuple(e.completion)) for e in rows(same_prompt, count)]


def alone(teacher, text) -> list[torch.Tensor]:
    """States after each layer, of one text by itself, from the model's own outputs."""
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
    """Texts that the teacher was made to read, by call."""
    calls: list[int] = []

    def see(model, head, prompts, *rest, **more):
        calls.append(len(prompts))
        return real(model, head, prompts, *rest, **more)

    real = states.see
    monkeypatch.setattr(states, "see", see)
    return calls


# What is stored


@pytest.mark.parametrize("size", [1e-6, 0.02, 1.0, 24_827.0, 1e12])
def test_numbers_come_back_to_half_a_step(size):
    generator = np.random.default_rng(0)
    h = (generator.standard_normal((9, 64)) * size).astype(np.float32)
    h[3] = 0
    h[4, 1:] *= 1e-3  # one channel far above the others
    h[5, 5] = 64**0.5 * 1e3 * size  # as large beside the rest as a channel can be
    found = states._decode(states._encode(h), 64)
    assert found.dtype == np.float32
    assert (found[3] == 0).all()
    rms = np.sqrt(np.square(h.astype(np.float64)).mean(-1, keepdims=True))
    bound = np.maximum(HALF * np.abs(h), 2.0**-25 * rms) * (1 + 1e-3)
    assert (np.abs(found - h.astype(np.float64)) <= bound).all()
    assert (found != h).any(), "float16, not float32"


@pytest.mark.parametrize("same_prompt", [True, False])
def test_states_are_those_of_each_text_alone(teacher, tmp_path, same_prompt):
    there = States(tmp_path, teacher)
    there.make(teacher, [0, 2, 1], texts(same_prompt))
    for text in texts(same_prompt):
        for layer, wanted in enumerate(alone(teacher, text)):
            found = there.read(layer, *text)
            assert found.shape == (len(text[1]), 16)
            assert torch.allclose(found, wanted, rtol=2 * HALF, atol=1e-5 * float(wanted.abs().max()))
            assert len(wanted) == 1 or not torch.allclose(found, wanted.flip(0), rtol=0.01)


@pytest.mark.parametrize("terms", [{}, {"loss": "cosine", "weight": 0.5}, {"layers": {0: 1}}])
@pytest.mark.parametrize("same_prompt", [True, False])
def test_they_teach_what_the_live_teacher_teaches(teacher, tmp_path, terms, same_prompt):
    wanted, batch, model = section(hidden=terms), rows(same_prompt), narrow(teacher)
    there = States(tmp_path, teacher)
    found = []
    for stored in (None, there):
        inside = Inside(model, None if stored else teacher.model, wanted, stored)
        if stored:
            there.make(teacher, [t for _, t in inside.pairs], texts(same_prompt))
        whole = FromShards(model, META, wanted, inside=inside)
        model.zero_grad()
        loss, parts = whole(batch, batch)
        loss.backward()
        found.append((parts, gradients(whole)))
    (live, a), (read, b) = found
    assert read["hidden"] == pytest.approx(live["hidden"], rel=1e-3)
    assert read["hidden"] != live["hidden"]
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.allclose(b[name], value, atol=2e-3 * float(value.abs().max())), name


def test_what_is_stored_of_rows_is_what_they_need(teacher, tmp_path):
    """The prompt that the teacher was sent, where it was another."""
    wanted, model = section(hidden={}), narrow(teacher)
    for batch in (rows(False), rows(True)):
        states_of_them = States(tmp_path, teacher)
        inside = Inside(model, None, wanted, states_of_them)
        store(states_of_them, teacher, [t for _, t in inside.pairs], batch, UI(quiet=True))
        _, parts = FromShards(model, META, wanted, inside=inside)(batch, batch)
        _, live = FromShards(model, META, wanted, inside=Inside(model, teacher.model, wanted))(batch, batch)
        assert parts["hidden"] == pytest.approx(live["hidden"], rel=1e-3)


def test_portions_of_a_step_add_up(teacher, tmp_path):
    wanted, batch, model = section(hidden={}), rows(False), narrow(teacher)
    there = States(tmp_path, teacher)
    inside = Inside(model, None, wanted, there)
    there.make(teacher, [t for _, t in inside.pairs], texts(False))
    whole = FromShards(model, META, wanted, inside=inside)
    _, parts = whole(batch, batch)
    _, again = whole(batch[::-1], batch)
    pieces = [whole(some, batch)[1] for some in (batch[:3], batch[3:])]
    assert parts["hidden"] == pytest.approx(sum(piece["hidden"] for piece in pieces), rel=1e-5)
    assert parts["hidden"] == pytest.approx(again["hidden"], rel=1e-5)


@pytest.mark.parametrize("group", [1, 2000, 1 << 30])
def test_cut_into_parts_and_groups_alike(teacher, tmp_path, monkeypatch, group):
    whole = States(tmp_path / "whole", teacher)
    whole.make(teacher, [1], texts())
    monkeypatch.setattr(states, "_PART", 3)
    monkeypatch.setattr(states, "_GROUP_BYTES", group)
    cut = States(tmp_path / "cut", teacher)
    cut.make(teacher, [1], texts())
    assert len(list(cut.folder.glob("layer-01/*.parquet"))) == 3
    for again in (cut, States(tmp_path / "cut", teacher)):
        for text in texts():
            assert torch.allclose(again.read(1, *text), whole.read(1, *text), rtol=4 * HALF, atol=1e-5)


def test_other_tokens_teacher_or_type_are_not_found(teacher, folder, tmp_path):
    there = States(tmp_path, teacher)
    [one, two] = texts(False)[2:4]
    there.make(teacher, [1], [one])
    (prompt, completion) = one
    moved = (prompt[:-1], (prompt[-1], *completion))
    for other in (two, (prompt, completion[:-1]), ((*prompt[:-1], 9), completion), moved):
        assert there.missing(1, [other]) == [other]
        with pytest.raises(CorpusError, match="no states of layer 1"):
            there.read(1, *other)
    assert there.missing(2, [one]) == [one]
    for name, value in (("revision", "sha256:0"), ("dtype", "bfloat16")):
        changed = LocalModel(teacher.model, teacher.tokenizer, {**teacher.identity, name: value}, 4)
        assert States(tmp_path, changed).missing(1, [one]) == [one]
    assert States(tmp_path, LocalModel.open(TeacherSection(model=str(folder)), lazy=True)).missing(1, [one]) == []


def test_only_what_is_not_there_is_made(teacher, tmp_path, counted):
    there = States(tmp_path, teacher)
    there.make(teacher, [0], [*texts()[:4], texts()[0]])
    assert sum(counted) == 4, "the same text once"
    counted.clear()
    there.make(teacher, [0, 1], texts())
    assert sum(counted) == 3 + 7, "three more of layer 0, all of layer 1"
    counted.clear()
    States(tmp_path, teacher).make(teacher, [1, 0], texts()[::-1])
    assert counted == []


def test_cut_short_and_begun_again_makes_the_same_bytes(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(states, "_PART", 2)
    States(tmp_path / "whole", teacher).make(teacher, [0, 2], texts())
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
            States(tmp_path / str(last), teacher).make(teacher, [0, 2], texts())
        monkeypatch.setattr(durable, "write_bytes", real)
        States(tmp_path / str(last), teacher).make(teacher, [0, 2], texts())
        found = {p.relative_to(tmp_path / str(last)): p.read_bytes() for p in (tmp_path / str(last)).rglob("*.parquet")}
        assert found == whole


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
    with durable.lock(there.folder), pytest.raises(UserError, match="another process"):
        store(there, teacher, [1], rows(), UI(quiet=True))
    store(there, teacher, [1], rows(), UI(quiet=True))
    with durable.lock(there.folder):  # all is there: nothing is written
        store(there, teacher, [1], rows(), UI(quiet=True))


def test_damaged_files_are_named(teacher, tmp_path):
    there = States(tmp_path, teacher)
    there.make(teacher, [1], texts())
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
        assert "remove it" in caught.value.hint
        assert "\n" not in caught.value.message
    path.unlink()
    again = States(tmp_path, teacher)
    again.make(teacher, [1], texts())
    assert path.read_bytes() == whole


def test_no_flipped_byte_teaches(teacher, tmp_path):
    """Half of what is stored does not compress: without a checksum, another number would be as good."""
    there = States(tmp_path, teacher)
    there.make(teacher, [1], texts())
    [path] = there.folder.glob("layer-01/*.parquet")
    whole, right = path.read_bytes(), [there.read(1, *text) for text in texts()]
    seen = 0
    for place in range(4, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            again = States(tmp_path, teacher)
            missing = again.missing(1, texts())
            found = [again.read(1, *text) for text in texts() if text not in missing]
        except CorpusError:
            seen += 1
        else:
            assert all(torch.equal(a, b) for a, b in zip(found, right, strict=False) if not missing), place
    assert seen > 30


def test_states_that_are_not_numbers_are_refused(folder, tmp_path):
    broken = LocalModel.open(TeacherSection(model=str(folder)))
    with torch.no_grad():
        broken.model.model.layers[1].mlp.down_proj.weight[0, 0] = torch.inf
    there = States(tmp_path, broken)
    there.make(broken, [0], texts())
    with pytest.raises(TeacherError, match="not numbers"):
        there.make(broken, [1], texts())
    assert not list(there.folder.glob("layer-01/*"))


# Weights that come when they are wanted


def loads_of(monkeypatch) -> list[int]:
    """Grows when weights are loaded."""
    found = []
    real = load._from_pretrained
    monkeypatch.setattr(load, "_from_pretrained", lambda *some: found.append(1) or real(*some))
    return found


def test_a_teacher_without_its_weights_is_the_same_teacher(folder, teacher, monkeypatch):
    loads = loads_of(monkeypatch)
    lazy = LocalModel.open(TeacherSection(model=str(folder)), lazy=True)
    assert lazy.identity == teacher.identity
    assert (lazy.eos, lazy.context, lazy.device) == (teacher.eos, teacher.context, teacher.device)
    assert lazy.config.to_dict() == teacher.config.to_dict()
    assert not loads
    [prompt, completion] = texts()[3]
    a, b = (t.logprobs([prompt], [completion])[0] for t in (lazy, teacher))
    assert torch.equal(a, b)
    assert loads == [1]
    assert lazy.shares_prefix == teacher.shares_prefix
    gone = weakref.ref(lazy.model)
    lazy.unload()
    gc.collect()
    assert gone() is None
    assert torch.equal(lazy.logprobs([prompt], [completion])[0], b)
    teacher.unload()
    assert teacher.is_loaded, "what was opened whole stays"


@pytest.mark.parametrize("given", [True, False])
def test_ends_of_turns_are_known_without_the_weights(folder, tmp_path, given):
    """From generation_config.json, or, where there is none, from the config."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    name = "generation_config.json" if given else "config.json"
    values = json.loads((tmp_path / name).read_text())
    (tmp_path / "generation_config.json").unlink()
    (tmp_path / name).write_text(json.dumps({**values, "eos_token_id": [7, values["eos_token_id"]]}))
    section = TeacherSection(model=str(tmp_path))
    assert LocalModel.open(section, lazy=True).eos == LocalModel.open(section).eos == {7, values["eos_token_id"]}


@pytest.mark.parametrize("wrong", ["weights", "tokenizer", "config", "template"])
def test_a_folder_that_is_not_whole_is_refused_at_once(folder, tmp_path, wrong):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    patterns = {"weights": "*.safetensors", "tokenizer": "tokenizer*", "config": "config.json", "template": "*.jinja"}
    pattern = patterns[wrong]
    assert list(tmp_path.glob(pattern))
    for path in tmp_path.glob(pattern):
        path.unlink()
    with pytest.raises(TeacherError) as caught:
        LocalModel.open(TeacherSection(model=str(tmp_path)), lazy=True)
    assert "\n" not in caught.value.message


_HUB = """
import sys
from synthgen.sections import TeacherSection
from synthgen.teachers.transformers import LocalModel
for name in sys.argv[1:]:
    for revision in (None, "main"):
        section = TeacherSection(model=name, revision=revision, device="cpu")
        lazy, whole = LocalModel.open(section, lazy=True), LocalModel.open(section)
        assert lazy.identity == whole.identity, (lazy.identity, whole.identity)
        print(lazy.identity["revision"])
"""


def test_of_a_hub_id_the_commit_is_known(folder, tmp_path):
    """Without it, one model's stored states, or an older commit's, would be taken for another's."""
    commits = {"org/one": "a1" * 20, "org/two": "b2" * 20}
    for name, commit in commits.items():
        place = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        shutil.copytree(folder, place / "snapshots" / commit)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text(commit)
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", _HUB, *commits], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [commit for commit in commits.values() for _ in range(2)]


def test_states_of_who_knows_which_weights_are_refused(teacher, tmp_path):
    for revision in ("unknown", "main", ""):
        vague = LocalModel(teacher.model, teacher.tokenizer, {**teacher.identity, "revision": revision}, 4)
        with pytest.raises(TeacherError, match="is not known") as caught:
            States(tmp_path, vague)
        assert "commit" in caught.value.hint


def test_the_text_model_of_a_composite_checkpoint_is_described(folder, tmp_path):
    """As it is loaded: with the text model's config, in which layers and context are found."""
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    text = {"vocab_size": size, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "head_dim": 8}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 1, "layer_types": ["full_attention"] * 4}
    text |= dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2)
    text |= dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8) | {"max_position_embeddings": 256}
    sight = {"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 16}
    config = Qwen3_5Config(text_config=text, vision_config={**sight, "num_position_embeddings": 16})
    Qwen3_5ForConditionalGeneration(config).save_pretrained(tmp_path)
    whole, lazy = (LocalModel.open(TeacherSection(model=str(tmp_path)), lazy=on) for on in (False, True))
    assert (lazy.context, lazy.config.num_hidden_layers) == (whole.context, whole.config.num_hidden_layers) == (256, 4)
    assert (lazy.identity, lazy.eos) == (whole.identity, whole.eos)
    assert type(lazy.config) is type(whole.config) is type(lazy.model.config)


# From the recipe to the student


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return small_runs(tmp_path_factory.mktemp("stored"))


@pytest.fixture
def loads(monkeypatch):
    return loads_of(monkeypatch)


FEW = {"max_steps": 4, "baseline": False, "kd_weight": 0.5, "save_steps": 1}


def curve(out, name="hidden"):
    return [json.loads(line)[name] for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_student_by_stored_states(made, tmp_path, loads, counted):
    out = trained(made, tmp_path / "stored", hidden={"stored": True}, eval_steps=2, **FEW)
    run = made("one", logits={"kind": "topk", "k": 9}, split={"test": 0.25, "validation": 0.25}, seeds=16)[1]
    live = trained(made, tmp_path / "live", hidden={}, eval_steps=2, **FEW)
    assert curve(out) == pytest.approx(curve(live), rel=5e-3)
    assert [p.name for p in (run / "hidden" / "teacher").glob("layer-*")] == ["layer-01"], "the one that is wanted"
    for folder, words in ((out, "of the teacher, stored"), (live, "of the live teacher")):
        assert words in (folder / "README.md").read_text()
        assert words in json.loads((folder / "training.json").read_text())["learned from"]
    counted.clear()
    loads.clear()
    again = trained(made, tmp_path / "again", hidden={"stored": True, "loss": "cosine"}, **FEW)
    assert (loads, counted) == ([], []), "another student of the same rows asks nobody"
    assert curve(again) != curve(out)
    kept = [record for _, some in synthgen.corpus.records(run / "curated", split="test") for record in some]
    there = States(run / "hidden", LocalModel.open(TeacherSection(model=str(run.parent / "teacher")), lazy=True))
    asked = [(record.prompt_token_ids, record.token_ids) for record in kept]
    assert there.missing(1, asked) == asked, "held-out rows are not read"


def test_a_student_of_the_teachers_layers_lets_its_weights_go(made, tmp_path, monkeypatch):
    from distill.students import decoder

    seen = []
    real = decoder.fit
    opened = []

    def fit(*some, **more):
        gc.collect()
        seen.append([ref() is not None and ref().is_loaded for ref in opened])
        return real(*some, **more)

    def opening(*some, **more):
        found = real_open(*some, **more)
        opened.append(weakref.ref(found))
        return found

    real_open = LocalModel.open
    monkeypatch.setattr(decoder, "fit", fit)
    monkeypatch.setattr(LocalModel, "open", opening)
    for number, changes in enumerate(({"hidden": {"stored": True}}, {}, {"hidden": {}})):
        opened.clear()
        seen.clear()
        trained(made, tmp_path / str(number), {"layers": 1}, **changes, **{**FEW, "baseline": True})
        assert seen == [[changes == {"hidden": {}}]] * 2, "loaded while a student learns"


def test_killed_between_two_parts_of_the_states(made, tmp_path, monkeypatch):
    """In one process; the real SIGKILL is in test_kill."""
    monkeypatch.setattr(states, "_PART", 4)
    more = {**FEW, "hidden": {"stored": True, "layers": {0: 0}}}
    with pytest.raises(KeyboardInterrupt):
        trained(made, tmp_path / "cut", cut=2, **more)
    whole = trained(made, tmp_path / "whole", **more)
    out = trained(made, tmp_path / "cut", **more)
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_relations_beside_stored_states_make_no_sense(tmp_path):
    path = small_task(
        tmp_path / "task", tmp_path, train={"student": {"kind": "decoder"}, "hidden": {"stored": True}, "relations": {}}
    )
    with pytest.raises(RecipeError, match=r"relations.*asks the live teacher"):
        synthgen.load_recipe(path)


def test_a_datasets_states_outlive_a_fresh_start(made, tmp_path, counted):
    recipe, _ = made("one", logits={"kind": "topk", "k": 9}, split={"test": 0.25, "validation": 0.25}, seeds=16)
    rows_file = tmp_path / "rows" / "train.jsonl"
    rows_file.parent.mkdir()
    rows_file.write_text(
        "".join(json.dumps({"prompt": f"{i}?", "completion": f"{i + 1}", "split": "train"}) + "\n" for i in range(8))
    )
    values = recipe.train.model_dump(mode="json", exclude_none=True) | {
        **FEW,
        "kd_weight": 0,
        "hidden": {"stored": True},
        "student": {"kind": "decoder", "config": {"hidden_size": 8}},
    }
    recipe = recipe.model_copy(update={"train": TrainSection.model_validate(values), "logits": None})
    out = train(recipe, rows_file.parent, tmp_path / "student")
    assert sum(counted) == 8
    first = (out / "model.safetensors").read_bytes()
    train(recipe, rows_file.parent, out, fresh=True)
    assert sum(counted) == 8
    assert (out / "model.safetensors").read_bytes() == first
