"""The scores of texts under a model, compared with a plain loop of transformers. The scores are tested for trees of any
size, and for models whose rows are padded.
"""

from __future__ import annotations

import numpy as np
import pytest
from support.small import byte_tokenizer, small_teacher

from synthgen.auditing.models.bbq import Question
from synthgen.auditing.models.job import open_model
from synthgen.auditing.models.pairs import Pair
from synthgen.auditing.models.scores import TooLong, score_options, score_pairs

TEXTS = ["she left", "he left", "she left early", "a", "the cook met the clerk and thanked her", "the cook met him"]


def plain(model, prompt: list[int], text: list[int]) -> float:
    """The log-probability of `text`, from one forward pass of transformers over one row without padding."""
    import torch

    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *text]])).logits[0].double()
    logp = logits.log_softmax(-1)
    return sum(float(logp[len(prompt) - 1 + n, token]) for n, token in enumerate(text))


def loaded(folder):
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_teacher(tmp_path_factory.mktemp("small") / "model", width=32)


@pytest.fixture(scope="module")
def windowed(tmp_path_factory):
    """A model whose rows may not be packed: a Mistral with a sliding window."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    folder, tokenizer = tmp_path_factory.mktemp("windowed") / "model", byte_tokenizer()
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=8,
        max_position_embeddings=256,
        initializer_range=0.5,
    )
    MistralForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["small", "windowed"])
def test_scores_are_those_of_a_plain_loop_whatever_is_computed_together(name, request):
    from synthgen.lm.tree import log_likelihoods

    folder = request.getfixturevalue(name)
    model, _ = open_model(str(folder))
    prompts = [model.tokens.ids(text) for text in ("x", "who?", "who? where?")]
    rows = [(prompt, model.tokens.ids(text)) for prompt in prompts for text in TEXTS]
    reference = loaded(folder)
    expected = [plain(reference, *row) for row in rows]
    for most in (1, 30, 384):
        assert np.abs(log_likelihoods(model.weights.model, rows, most_tokens=most) - expected).max() < 1e-4
    shuffled = np.random.default_rng(0).permutation(len(rows))
    again = log_likelihoods(model.weights.model, [rows[n] for n in shuffled])
    assert np.abs(again - np.array(expected)[shuffled]).max() < 1e-4


def test_shared_beginnings_are_computed_once(small, monkeypatch):
    from synthgen.lm.tree import log_likelihoods

    model, _ = open_model(str(small))
    decoder, computed = model.weights.model.get_decoder(), []
    monkeypatch.setattr(
        model.weights.model,
        "get_decoder",
        lambda: lambda ids, **inputs: computed.append(ids.numel()) or decoder(ids, **inputs),
    )
    context = model.tokens.ids("a long context that all answers share ")
    answers = [model.tokens.ids(text) for text in ("ab", "ac", "bc")]
    log_likelihoods(model.weights.model, [(context, answer) for answer in answers])
    assert computed == [len(context) + 2]  # "a" and "b"; the last tokens are not computed, because they predict nothing


def test_a_row_without_tokens_is_refused(small):
    from synthgen.lm.tree import log_likelihoods

    model, _ = open_model(str(small))
    for row in (([], [1]), ([1], [])):
        with pytest.raises(ValueError, match="no tokens"):
            log_likelihoods(model.weights.model, [row])


def question(context: str = "Ann met Eve.", **changes) -> Question:
    keys = {"category": "Age", "template": "1", "block": 1, "ambiguous": True, "right": 2, "unknown": 2, "biased": 0}
    return Question(context=context, question="Who left?", options=("Ann", "Eve", "Unknown"), **{**keys, **changes})


def test_pairs_and_options_are_scored_as_the_texts_that_a_reader_sees(small, tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path))
    model, _ = open_model(str(small))
    reference, ids = loaded(small), model.tokens.ids
    pairs = score_pairs(model, [Pair("t", "c", "she left", "he left early")])
    begin = list(model.tokens.beginning) or ids("\n")
    for place, text in enumerate(("she left", "he left early")):
        assert abs(pairs.sums[0, place] - plain(reference, begin, ids(text))) < 1e-4
        assert pairs.tokens[0, place] == len(ids(text))
    options = score_options(model, [question()])
    for place, text in enumerate(question().options):
        asked = "Ann met Eve.\nQuestion: Who left?\nAnswer:"
        assert abs(options.sums[0, place] - plain(reference, ids(asked), ids(f" {text}"))) < 1e-4
        assert abs(options.priors[0, place] - plain(reference, ids("Answer:"), ids(f" {text}"))) < 1e-4
    assert np.allclose(options.pmi, options.sums - options.priors)


def test_scores_are_kept_for_the_same_weights_and_texts_only(small, tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "cache"))
    other = small_teacher(tmp_path / "other", seed=1, width=32)

    def scored(folder, text: str) -> float:
        return float(score_pairs(open_model(str(folder))[0], [Pair("t", "c", text, "he left")]).sums[0, 0])

    first = scored(small, "she left")
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "bias").iterdir()}
    assert len(kept) == 1
    assert scored(small, "she left") == first
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "bias").iterdir()} == kept
    assert scored(small, "she went") != first != scored(other, "she left")
    assert len(list((tmp_path / "cache" / "bias").iterdir())) == 3
    for name in kept:
        for damage in ("[1.0]", "{}", "[NaN, 1.0]", "[[1.0, 2.0]]", "nothing", "[null, 1.0]"):
            (tmp_path / "cache" / "bias" / name).write_text(damage)
            assert scored(small, "she left") == first, f"{damage} is computed again"
    unnamed = open_model(str(small))[0]
    unnamed.weights.files._revision = "unknown"
    score_pairs(unnamed, [Pair("t", "c", "she left", "he left")])
    assert len(list((tmp_path / "cache" / "bias").iterdir())) == 3, "other weights may be unknown, too"


def test_a_text_that_does_not_fit_is_refused(small, tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path))
    with pytest.raises(TooLong, match="reads 256 tokens, and a text of the test set has 296"):
        score_options(open_model(str(small))[0], [question("Ann met Eve. " * 20)])
