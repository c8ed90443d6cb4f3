"""Saved students for other programs: end tokens and templates for transformers, and an adapter with its base for peft.
Rows that a student cannot read are refused before training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from support.layers import META, V, rows, section
from support.small import byte_tokenizer, small_teacher
from support.training import changed
from support.unaudited import train
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, MixtralConfig, pipeline

from distill.arms import StudentModel, save
from distill.students.build import with_adapter
from distill.targets.stored import Rows, batch_loss
from synthgen.errors import RecipeError, UserError
from synthgen.lm.turns import template_end
from synthgen.tables.students import Lora

IDS = torch.arange(24)[None] * 7 % 250


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def opened(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def lora_student(small_run, folder: Path, student: dict[str, Any], **lora: Any) -> Path:
    recipe, run = small_run(seeds=8)
    section = {"kind": "decoder", **student, "lora": {"r": 2, **lora}}
    recipe = changed(recipe, student=section, learning_rate=0.05, max_steps=3, baseline=False)
    return train(recipe, run, folder).folder


def check_adapter(student: Path) -> str | None:
    """Asserts that the adapter on its base gives the same output as the student. Returns the name of the base in
    adapter_config.json.
    """
    name = json.loads((student / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    base, whole = opened(Path(name or student / "adapter" / "base")), logits(opened(student))
    assert (logits(base) - whole).abs().max() > 0.01, "the adapter learned nothing"
    assert (logits(PeftModel.from_pretrained(base, student / "adapter")) - whole).abs().max() < 1e-4
    if name:
        loaded = AutoPeftModelForCausalLM.from_pretrained(student / "adapter", dtype=torch.float32)
        assert (logits(loaded) - whole).abs().max() < 1e-4
    return name


def test_the_base_of_an_adapter_on_kept_layers_is_beside_it(small_run, tmp_path):
    """The adapter does not name its base: no model with that name exists elsewhere, and a path would be wrong on
    another machine. The README says where the base is.
    """
    student = lora_student(small_run, tmp_path / "student", {"layers": [1]})
    moved = student.rename(tmp_path / "moved")
    assert check_adapter(moved) is None
    card = (moved / "adapter" / "README.md").read_text()
    assert "BASE is the folder `base` inside this folder" in card
    assert "whether it may be released" in card, "the card of a student that learned canaries forbids its release"


def test_the_base_of_an_adapter_on_a_checkpoint_is_the_checkpoint(small_run, tmp_path, monkeypatch):
    """The adapter names the checkpoint by an absolute path, although the path in the recipe is relative."""
    small_teacher(tmp_path / "mine", seed=4)
    monkeypatch.chdir(tmp_path)
    student = lora_student(small_run, tmp_path / "student", {"model": "mine"})
    assert check_adapter(student) == str((tmp_path / "mine").resolve())
    assert not (student / "adapter" / "base").exists()


def test_the_base_of_an_adapter_on_all_layers_is_the_teacher(small_run, tmp_path):
    student = lora_student(small_run, tmp_path / "student", {"layers": 2})
    assert check_adapter(student) == str(Path(small_run(seeds=8)[0].teacher.model).resolve())


def untied(folder: Path) -> Path:
    """A checkpoint whose output layer has its own weights."""
    model = AutoModelForCausalLM.from_pretrained(small_teacher(folder, seed=5))
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.3)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("targets", [["lm_head"], ["q_proj", "lm_head"], ["embed_tokens"]])
def test_an_adapter_of_tables_of_their_own_learns(small_run, tmp_path, targets):
    model = {"model": str(untied(tmp_path / "untied"))}
    student = lora_student(small_run, tmp_path / "student", model, target_modules=targets)
    check_adapter(student)
    learned = load_file(student / "adapter" / "adapter_model.safetensors")
    second = {name: value for name, value in learned.items() if "lora_B" in name or "embedding_A" in name}
    assert len(learned) == (6 if "q_proj" in targets else 2)
    assert second
    assert all(value.abs().max() > 0 for value in second.values()), "an adapter did not learn"


def test_an_adapter_of_the_output_layer_learns_from_a_live_teacher(small_run, tmp_path):
    recipe, run = small_run(seeds=8)
    section = {"kind": "decoder", "model": str(untied(tmp_path / "untied")), "lora": {"target_modules": ["lm_head"]}}
    recipe = changed(recipe, student=section, online={"mode": "teacher"}, max_steps=3, baseline=False)
    check_adapter(train(recipe, run, tmp_path / "student").folder)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("embed_tokens", "'model.embed_tokens' shares its weights with 'lm_head'"),
        ("lm_head", "'lm_head' shares its weights with 'model.embed_tokens'"),
        ("q_projj", "no module 'q_projj'; did you mean 'q_proj'"),
    ],
)
def test_targets_that_cannot_be_merged_are_refused(tmp_path, target, says):
    model = AutoModelForCausalLM.from_pretrained(small_teacher(tmp_path / "tied"))
    with pytest.raises(RecipeError, match=says) as caught:
        with_adapter(model, Lora(target_modules=("q_proj", target)), 0)
    assert caught.value.hint


def test_a_target_that_peft_does_not_support_is_named_in_one_line():
    config = MixtralConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=2,
    )
    with pytest.raises(RecipeError, match=r"lora: Target module \w+Experts\(…\) is not supported"):
        with_adapter(AutoModelForCausalLM.from_config(config), Lora(target_modules=("experts",)), 0)


def test_a_student_ends_where_its_tokenizer_its_template_and_its_rows_do(tmp_path):
    """The checkpoint ends with token 5. The checkpoint was made for another task, whose settings forbid and force
    tokens.
    """
    tokenizer, model = byte_tokenizer(), AutoModelForCausalLM.from_pretrained(small_teacher(tmp_path / "base"))
    end = tokenizer.eos_token_id
    tokenizer.eos_token = "<|im_start|>"  # the template ends a turn with another token
    assert template_end(tokenizer) == end
    generation = model.generation_config
    generation.eos_token_id, generation.min_length, generation.forced_bos_token_id = 5, 30, 3
    generation.suppress_tokens = [end]
    generation.temperature, generation.do_sample = 0.5, False  # transformers refuses to save these two values together
    save(StudentModel(model), tokenizer, tmp_path / "student", ends=[6, 5])
    saved = json.loads((tmp_path / "student" / "generation_config.json").read_text())
    assert saved["eos_token_id"] == [tokenizer.eos_token_id, end, 5, 6]
    assert not {"min_length", "forced_bos_token_id", "suppress_tokens", "temperature"} & {
        key for key, value in saved.items() if value
    }
    assert not saved.get("_from_model_config"), "transformers would take the end token from config.json"
    plain = AutoTokenizer.from_pretrained(tmp_path / "student")
    assert plain.chat_template == tokenizer.chat_template


def test_a_template_that_ends_a_turn_with_words_names_no_token():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    assert template_end(tokenizer) is None
    tokenizer.chat_template = None
    assert template_end(tokenizer) is None


def test_a_tokenizer_without_an_end_token_is_saved(tmp_path):
    tokenizer, model = byte_tokenizer(), AutoModelForCausalLM.from_pretrained(small_teacher(tmp_path / "base"))
    tokenizer.eos_token, tokenizer.chat_template = None, "{{ messages[-1]['content'] }}"
    model.generation_config.eos_token_id = None
    save(StudentModel(model), tokenizer, tmp_path / "student")
    assert AutoTokenizer.from_pretrained(tmp_path / "student").eos_token_id is None
    assert logits(opened(tmp_path / "student")).equal(logits(model))


def test_the_pipeline_writes_what_generate_writes(small_run, tmp_path):
    recipe, run = small_run(seeds=8)
    folder = train(changed(recipe, baseline=False), run, tmp_path / "student").folder
    asked = [{"role": "user", "content": "1 + 2?"}]
    writer = pipeline("text-generation", model=str(folder))
    text = writer(asked, max_new_tokens=6, do_sample=False)[0]["generated_text"][-1]["content"]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), opened(folder)
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=6, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert text == tokenizer.decode(answer, skip_special_tokens=True)


def student_with_positions(folder: Path, positions: int) -> dict[str, Any]:
    """The section `student` of a recipe, for a student with a table of positions."""
    tokenizer = byte_tokenizer()
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=positions, n_embd=16, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"kind": "decoder", "model": str(folder)}


def test_rows_longer_than_a_table_of_positions_are_refused(small_run, tmp_path):
    recipe, run = small_run(seeds=8)
    student = student_with_positions(tmp_path / "gpt2", 20)
    with pytest.raises(RecipeError, match=r"row [0-9a-f]+ has \d+ tokens.*only 20 positions") as caught:
        train(changed(recipe, student=student), run, tmp_path / "student")
    assert "train.max_length" in caught.value.hint


def test_completions_that_the_student_would_have_no_positions_for_are_refused(small_run, tmp_path):
    recipe, run = small_run(seeds=8)
    student = student_with_positions(tmp_path / "gpt2", 90)
    online = {"mode": "on_policy", "max_new_tokens": 80}
    with pytest.raises(RecipeError, match=r"with those that the student writes.*only 90 positions"):
        train(changed(recipe, student=student, online=online), run, tmp_path / "student")
    shorter = changed(recipe, student=student, online=online | {"max_new_tokens": 4}, baseline=False, max_steps=1)
    train(shorter, run, tmp_path / "student")


def test_rotary_positions_have_no_such_limit(small_run, tmp_path):
    recipe, run = small_run(seeds=8)
    config = {"max_position_embeddings": 8, "num_hidden_layers": 1}
    train(changed(recipe, student={"kind": "decoder", "config": config}), run, tmp_path / "student")


def narrower(folder: Path, rows: int) -> Path:
    """A checkpoint whose embedding tables have only `rows` rows, and whose tokenizer has more tokens."""
    model = AutoModelForCausalLM.from_pretrained(small_teacher(folder))
    model.resize_token_embeddings(rows)
    model.save_pretrained(folder)
    return folder


def test_tokens_that_the_students_table_lacks_are_refused(small_run, tmp_path):
    """The end token of the rows has the id 257."""
    recipe, run = small_run(seeds=8)
    student = {"kind": "decoder", "model": str(narrower(tmp_path / "narrow", 256))}
    with pytest.raises(UserError, match=r"row [0-9a-f]+ has the token '<\|im_.*\|>' \(id 25[67]\).*only 256 rows"):
        train(changed(recipe, student=student), run, tmp_path / "student")


def test_distributions_over_more_tokens_than_the_student_has_are_refused():
    """The teacher's table is padded: the stored distribution of a row has an id that the student's logits lack."""
    example = rows(count=1)[0]
    assert example.target is not None
    example.target.ids[0, 0] = V
    states = torch.zeros(len(example.completion), V)
    with pytest.raises(UserError, match=rf"row 0: .* token id {V}, but the student has only {V} tokens"):
        batch_loss(states, None, Rows([example], [example]), section(), META)
    batch_loss(torch.zeros(len(example.completion), V + 1), None, Rows([example], [example]), section(), META)
