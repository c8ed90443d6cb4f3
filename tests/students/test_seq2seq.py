"""Encoder-decoder students: shift, padding, output layer, weights, resuming, and a run with its report."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from support import unaudited
from support.measuring import measured_here
from support.rows import load
from support.small import small_task, small_teacher
from support.statements import check_card, check_page
from support.training import FULL, LOOSE, resumes_everywhere, training_of
from torch.nn import functional
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

import distill
import synthgen
from distill.card import write_model_card
from distill.data import Choice
from distill.output_layer import Head, completion_states, logits_of, output_head
from distill.students.seq2seq import Seq2SeqModel, seq2seq
from distill.targets.stored import FromStored
from synthgen import corpus
from synthgen.errors import CorpusError, RecipeError, TeacherError
from synthgen.lm.forward import completion_logits
from synthgen.lm.model import LanguageModel
from synthgen.requests import Request
from synthgen.tables.students import Seq2SeqStudent

T5 = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
BART = {
    "model_type": "bart",
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 128,
}
CPU = torch.device("cpu")
PROMPTS = [[5, 6, 7, 8, 9], [11, 12], [3, 4, 5]]
COMPLETIONS = [[20, 21], [30, 31, 32, 33], [40]]


def model_of(kind: str, **more):
    torch.manual_seed(1)
    special = {"vocab_size": 64, "pad_token_id": 2, "decoder_start_token_id": 2, "eos_token_id": 1}
    if kind == "bart":
        config = BartConfig(**{**BART, **special, "init_std": 0.3, "forced_eos_token_id": None})
        model = BartForConditionalGeneration(config)
        model.final_logits_bias.normal_()  # this bias is zero in most checkpoints
        return model.eval()
    return T5ForConditionalGeneration(T5Config(**{**T5, **special, **more})).eval()


KINDS = [("t5", {}), ("t5", {"tie_word_embeddings": False}), ("bart", {})]


# Shift, padding, output layer


@pytest.mark.parametrize(("kind", "more"), KINDS)
def test_logits_are_those_that_the_models_own_loss_takes(kind, more):
    """transformers shifts labels to the right by itself. The loss that transformers computes for each row alone is
    compared with the loss from the batch's logits.
    """
    model = model_of(kind, **more)
    for z_TV, prompt, completion in zip(
        completion_logits(model, PROMPTS, COMPLETIONS), PROMPTS, COMPLETIONS, strict=True
    ):
        with torch.no_grad():
            expected = model(torch.tensor([prompt]), labels=torch.tensor([completion]))
        assert torch.allclose(z_TV, expected.logits[0], atol=1e-5)
        assert float(functional.cross_entropy(z_TV.detach(), torch.tensor(completion))) == pytest.approx(
            float(expected.loss), rel=1e-5
        )


def test_the_decoder_begins_with_its_start_token_and_does_not_see_what_it_predicts():
    model, seen = model_of("t5"), []
    model.get_decoder().register_forward_pre_hook(lambda _, args, more: seen.append(more), with_kwargs=True)
    first = completion_logits(model, [PROMPTS[0]], [[20, 21, 22]])[0]
    assert seen[0]["input_ids"].tolist() == [[2, 20, 21]]
    other = completion_logits(model, [PROMPTS[0]], [[20, 21, 50]])[0]
    assert torch.equal(first, other)


@pytest.mark.parametrize(("kind", "more"), KINDS)
def test_the_output_layer_is_found(kind, more):
    """T5 scales the input of its output layer if that layer shares the embeddings. BART adds a bias that is not a
    parameter.
    """
    model = model_of(kind, **more)
    head = output_head(model)
    assert head is not None
    assert head.scale == (0.25 if kind == "t5" and not more else 1.0)
    states = completion_states(model, head, PROMPTS, COMPLETIONS)
    assert states.shape == (7, 16)
    whole = torch.cat(completion_logits(model, PROMPTS, COMPLETIONS))
    assert torch.allclose(logits_of(states, head), whole, atol=1e-4)


def test_an_unknown_output_layer_is_not_taken_for_a_known_one():
    class Odd(T5ForConditionalGeneration):
        def forward(self, *args, **more):
            found = super().forward(*args, **more)
            found.logits = found.logits * 1.5
            return found

    torch.manual_seed(0)
    model = Odd(model_of("t5").config).eval()
    assert output_head(model) is None
    states = completion_states(model, None, PROMPTS, COMPLETIONS)
    assert torch.equal(states, torch.cat(completion_logits(model, PROMPTS, COMPLETIONS)))


def student(config: dict, teacher: LanguageModel, seed: int = 0):
    """A student with random weights."""
    return seq2seq(Seq2SeqStudent(config=config), teacher.tokens, teacher.weights.vocab_size, seed).model


@pytest.mark.parametrize("config", [T5, BART])
def test_gradients_through_the_head_are_those_of_whole_logits(small_run, config):
    recipe, run = small_run(seeds=16, logits=FULL)
    teacher = LanguageModel.open(recipe.teacher, lazy=True)
    data = load(run / "curated", teacher.tokens.render, Choice(512))
    model = student(config, teacher).eval()
    grads = []
    for whole in (False, True):
        objective = FromStored(model, recipe.train, data.meta)
        assert isinstance(objective.head, Head)
        if whole:
            objective.head = None
        model.zero_grad()
        rows = sorted(data.examples, key=lambda e: len(e.prompt))
        rows = [*rows[:2], *rows[-2:]]
        assert len(rows[0].prompt) < len(rows[-1].prompt), "one is padded"
        loss, _ = objective(rows, rows)
        loss.backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert float((grads[0] - grads[1]).norm() / grads[1].norm()) < 1e-5


# Initial weights


def test_random_weights_have_the_teachers_vocabulary_and_special_tokens(small_run, tmp_path):
    teacher = LanguageModel.open(small_run(logits=FULL)[0].teacher, lazy=True)
    model, tokenizer = student(T5, teacher), teacher.tokens.tokenizer
    end = tokenizer.eos_token_id
    assert tokenizer.pad_token_id is None, "the end token stands in for it"
    assert model.config.vocab_size == 258
    assert (model.config.decoder_start_token_id, model.config.pad_token_id, model.config.eos_token_id) == (end,) * 3
    assert model.generation_config.eos_token_id == [end]
    again = student(T5, teacher)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    model.save_pretrained(tmp_path / "checkpoint")
    tokenizer.save_pretrained(tmp_path / "checkpoint")
    loaded = seq2seq(Seq2SeqStudent(model=str(tmp_path / "checkpoint")), teacher.tokens, 258, 5).model
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))


# A whole run


SECTION = {
    "student": {"kind": "seq2seq", "config": T5},
    "batch_size": 16,
    "num_train_epochs": 12,
    "learning_rate": 1e-2,
}


@pytest.fixture(scope="module")
def learned(small_run, tmp_path_factory):
    recipe, shared = small_run(
        seeds=40,
        generate={"num_generations": 3, "max_new_tokens": 10, "shard_size": 64},
        train=SECTION,
        evaluate={"max_prompts": 3, "max_new_tokens": 8},
        curate=LOOSE,
    )
    run = Path(shutil.copytree(shared, tmp_path_factory.mktemp("learned") / "run"))
    unaudited.train(recipe, run)
    with measured_here():
        return recipe, run, distill.evaluate(recipe, run)


def test_a_student_learns_and_is_measured(learned):
    _, run, found = learned
    table = found.table
    print(found)
    assert table["distilled"]["kl"].high < table["untrained"]["kl"].low
    assert table["distilled"]["kl"].mean < table["cross-entropy"]["kl"].mean
    [better] = [c.difference for c in found.comparisons if (c.name, c.measure) == ("distilled − cross-entropy", "kl")]
    assert better.high < 0
    assert table["distilled"]["tokens_per_second"] > 0
    assert table["distilled"]["parameters"] < 30_000
    assert training_of(run / "student").kind == "seq2seq"


def same_alone(folder: Path, model: Seq2SeqModel) -> list[list[int]]:
    """Returns the token ids of answers that were written in one batch. Asserts that stock transformers writes the same
    answers to one prompt at a time.
    """
    stock, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    asked = [[{"role": "user", "content": text}] for text in ("1 + 2?", "17 + 18 and and and so on for long ?", "x")]
    requests = [Request("sample", a, {"max_new_tokens": n}) for a, n in zip(asked, [5, 8, 6], strict=True)]
    replies = model.sample(requests)
    for request, reply in zip(requests, replies, strict=True):
        ids = tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        made = stock.generate(torch.tensor([ids]), max_new_tokens=request.sampling["max_new_tokens"], do_sample=False)
        assert list(reply.token_ids) == made[0, 1:].tolist()
        assert reply.prompt_token_ids == list(ids)
        assert (reply.finish_reason == "stop") == (reply.token_ids[-1] == tokenizer.eos_token_id)
    return [list(reply.token_ids) for reply in replies]


def test_it_is_a_stock_model_and_writes_the_same_in_a_batch(learned):
    folder = learned[1] / "student"
    same_alone(folder, Seq2SeqModel.open(folder, 8, CPU))


def test_what_pads_a_prompt_is_not_read(small_run, tmp_path):
    """The random weights are so large that a padding token, if it were read, would change the answer."""
    teacher = LanguageModel.open(small_run(logits=FULL)[0].teacher, lazy=True)
    teacher.tokens.tokenizer.save_pretrained(tmp_path)
    for seed in range(8):
        student(BART | {"init_std": 0.5}, teacher, seed).eval().save_pretrained(tmp_path)
        same_alone(tmp_path, Seq2SeqModel.open(tmp_path, 8, CPU))


def test_page_and_card_say_it(learned, tmp_path):
    recipe, run, found = learned
    work = Path(shutil.copytree(run, tmp_path / "run"))
    write_model_card(work / "student", recipe, corpus.manifest(work / "curated"))
    card, page = (work / "student" / "README.md").read_text(), synthgen.report(work).path.read_text()
    kl = found.table["distilled"]["kl"]
    assert f"| distilled | {kl.mean:.3f} [{kl.low:.3f}, {kl.high:.3f}]" in card
    assert "encoder and decoder of random weights: model_type t5" in card
    assert f"{kl.mean:.3f} <small>[{kl.low:.3f}, {kl.high:.3f}]</small>" in page
    entries = {one["measure"]: one for one in check_card(work / "student")}
    check_page(work)
    nll = entries["−log q of held-out answers, nats a token"]
    assert nll["minus_base"]["high"] < 0 < nll["minus_teacher"]["low"]
    assert nll["student"]["mean"] == found.table["distilled"]["nll"].mean


def test_resume_is_exact_wherever_it_was_cut(small_run, tmp_path):
    """Dropout is 0.1, and every second step has a checkpoint."""
    section = {**SECTION, "max_steps": 5, "save_steps": 2, "batch_size": 4}
    recipe, run = small_run(train=section)
    teacher = LanguageModel.open(recipe.teacher, lazy=True)
    whole = resumes_everywhere(
        lambda folder, ui: unaudited.train(recipe, run, folder, teacher=teacher, ui=ui), tmp_path, (1, 3, 5, 7)
    )
    assert (whole / "baseline" / "model.safetensors").exists()
    assert not teacher.weights.is_loaded, "random weights on stored distributions need none of the teacher's"


# Errors


def refused(small_run, tmp_path, student: dict, says: str, kind=RecipeError) -> None:
    recipe, run = small_run(logits=FULL)
    section = recipe.train.model_copy(update={"student": Seq2SeqStudent(**student)})
    with pytest.raises(kind, match=says) as caught:
        unaudited.train(recipe.model_copy(update={"train": section}), run, tmp_path / "refused")
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_a_checkpoint_of_another_vocabulary(small_run, tmp_path):
    from support.small import word_tokenizer

    model_of("t5").save_pretrained(tmp_path / "t5")
    word_tokenizer(tmp_path / "t5")
    refused(
        small_run, tmp_path, {"model": str(tmp_path / "t5")}, "gives .* of its .* tokens other ids than the teacher's"
    )


def test_a_checkpoint_that_is_none(small_run, tmp_path):
    folder = small_teacher(tmp_path / "llama")
    refused(small_run, tmp_path, {"model": str(folder)}, "cannot be loaded", TeacherError)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({**T5, "layers": 3}, "t5 configs have no key 'layers'"),
        ({"model_type": "llama"}, "this model cannot be made"),
        ({**BART, "max_position_embeddings": 4}, "the student has 4 positions, but a row has"),
    ],
)
def test_configs_that_cannot_be(small_run, tmp_path, config, says):
    refused(small_run, tmp_path, {"config": config}, says)


def test_no_logits(small_run, tmp_path):
    with pytest.raises(RecipeError, match="a student of kind 'seq2seq' needs distributions"):
        synthgen.load_recipe(small_task(tmp_path / "task", tmp_path, logits=None, train=SECTION))
    recipe, run = small_run(logits=FULL)
    bare = Path(shutil.copytree(run, tmp_path / "bare", ignore=shutil.ignore_patterns("logits", "student")))
    section = recipe.train.model_copy(update={"student": Seq2SeqStudent(config=T5)})
    with pytest.raises(CorpusError, match="has no stored logits"):
        unaudited.train(recipe.model_copy(update={"train": section}), bare)
