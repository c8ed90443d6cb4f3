"""The transformers teacher compared with direct computation by the real model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from synthgen import logits
from synthgen.lm import prefix
from synthgen.logits import LogitsSpec
from synthgen.prompts import load_prompt
from synthgen.recipe import shipped
from synthgen.requests import Request
from synthgen.seeds import load_seeds
from synthgen.tables.engines import TeacherSection
from synthgen.teachers.base import TeacherOptions
from synthgen.teachers.gate import admitted
from synthgen.teachers.local import open_local

QUESTIONS = [
    "Tom has 3 apples and buys 2 more. How many apples does he have?",
    "Is ice cold?",
    "Which is larger, a cat or a horse?",
    "What day comes after Monday?",
    "The cup is on the table. Where is the cup?",
    "What comes next: 2, 4, 6?",
]


def ask(
    question: str, index: int, temperature: float = 1.0, few_shot: bool = True, tokens: int = 24, top_p: float = 1.0
):
    prompt = load_prompt(str(shipped("prompts") / "reasoning"), "reasoning")
    fields = {"question": question}
    messages = prompt.teacher(fields) if few_shot else prompt.student(fields)
    sampling = {"temperature": temperature, "top_p": top_p, "max_new_tokens": tokens}
    return Request("sample", messages, sampling, id=f"{index + 1:032x}")


def direct(smol, prompt_ids, token_ids) -> torch.Tensor:
    """Log-probabilities at the completion's positions, from one float32 forward pass over one row."""
    with torch.inference_mode():
        ids = torch.tensor([[*prompt_ids, *token_ids]])
        z = smol.model(ids).logits[0, len(prompt_ids) - 1 : -1]
    return z.float().log_softmax(-1)


@pytest.mark.parametrize(
    ("samples", "least"), [(1, 150), pytest.param(6, 1000, marks=pytest.mark.slow)], ids=["hundreds", "a thousand"]
)
def test_top64_of_many_tokens_equals_a_direct_computation(smol, samples, least):
    """Stored ids and log-probabilities are compared with a plain forward pass. Batches have padding and a shared
    prefix.
    """
    requests = [ask(q, i * 10 + n, tokens=32, few_shot=False) for i, q in enumerate(QUESTIONS) for n in range(samples)]
    spec = LogitsSpec("topk", k=64)
    replies = smol.sample(requests, spec)
    meta = logits.meta(spec, 49_152, "t", "k")
    tokens, worst, order = 0, 0.0, 0
    for reply in replies:
        stored = logits.decode(logits.encode(reply.target, meta), meta)
        logp = direct(smol, reply.prompt_token_ids, reply.token_ids)
        kept, ids = logp.topk(64)
        rounding = 2e-3  # Batch, padding and prefix change the order in which float32 numbers are added
        at_stored = logp.gather(-1, torch.from_numpy(stored.ids).long()).numpy()
        worst = max(worst, float(np.abs(at_stored - stored.logprobs).max()))
        # Ids are equal unless two log-probabilities are closer than rounding.
        swapped = stored.ids != ids.numpy()
        order += int(swapped.sum())
        assert np.abs(kept.numpy() - stored.logprobs).max() < logits.STORAGE_ERROR + rounding
        tail = logp.scatter(-1, ids, -torch.inf).logsumexp(-1).numpy()
        assert np.abs(tail - stored.log_tail).max() < logits.STORAGE_ERROR + rounding
        tokens += len(reply.token_ids)
        if tokens >= least:
            break
    print(
        f"{tokens} tokens: largest difference {worst:.1e} nat (storage {logits.STORAGE_ERROR:.1e}), {order} near-ties"
    )
    assert tokens >= least
    assert worst < logits.STORAGE_ERROR + 2e-3
    assert order < tokens * 64 * 0.001


def test_random_numbers_belong_to_the_request(smol):
    """The same request gives the same completion alone, in a batch, and in another order."""
    requests = [ask(q, i, tokens=6, few_shot=False) for i, q in enumerate(QUESTIONS)]
    together = {q.id: r for q, r in zip(requests, smol.sample(requests, None), strict=True)}
    backwards = list(reversed(requests))
    again = {q.id: r for q, r in zip(backwards, smol.sample(backwards, None), strict=True)}
    alone = {q.id: smol.sample([q], None)[0] for q in requests[:2]}
    assert all(list(again[i].token_ids) == list(together[i].token_ids) for i in together)
    assert all(list(alone[i].token_ids) == list(together[i].token_ids) for i in alone)
    assert len({tuple(r.token_ids) for r in together.values()}) == len(requests)


def test_same_batch_same_bits(smol):
    requests = [ask(q, i, tokens=8, few_shot=False) for i, q in enumerate(QUESTIONS)]
    spec = LogitsSpec("topk", k=8)
    first, second = smol.sample(requests, spec), smol.sample(requests, spec)
    for a, b in zip(first, second, strict=True):
        assert a.text == b.text
        assert np.array_equal(a.target.logprobs, b.target.logprobs)


def test_greedy_is_the_likeliest_token(smol):
    reply = smol.sample([ask(QUESTIONS[0], 0, temperature=0.0, few_shot=False)], LogitsSpec("topk", k=2))[0]
    assert list(reply.token_ids) == reply.target.ids[:, 0].tolist()
    assert direct(smol, reply.prompt_token_ids, reply.token_ids).argmax(-1).tolist() == list(reply.token_ids)


def test_sampling_follows_the_distribution(smol):
    """The first tokens of 400 samples follow the model's probabilities: a chi-square test of the likely tokens."""
    requests = [ask(QUESTIONS[1], n, tokens=1, few_shot=False) for n in range(400)]
    replies = smol.sample(requests, LogitsSpec("sampled", draws=50))
    p = direct(smol, replies[0].prompt_token_ids, [0]).exp()[0].double()
    likely = (p * 400 > 5).nonzero()[:, 0]
    for what, ids, n in (
        ("completion", [r.token_ids[0] for r in replies], 400),
        (
            "targets",
            [i for r in replies for i, c in zip(r.target.ids, r.target.counts, strict=True) for _ in range(c)],
            20_000,
        ),
    ):
        counts = np.bincount(ids, minlength=len(p))[likely]
        expected = p[likely].numpy() * n
        chi = float(((counts - expected) ** 2 / (expected * (1 - expected / n))).mean())
        print(f"{what}: mean squared z-score over {len(likely)} likely tokens {chi:.2f}")
        assert chi < 1 + 4 * (2 / len(likely)) ** 0.5 + 0.5


def test_nucleus_keeps_the_fewest_that_reach_the_mass():
    from synthgen.lm.sampling import nucleus

    def kept(p: torch.Tensor, top_p: float) -> dict[int, float]:
        ids, mass = nucleus(p.log(), 1.0, top_p)
        return {int(i): float(m) for i, m in zip(ids[0], mass[0], strict=True) if m > 0}

    assert kept(torch.tensor([[0.1, 0.5, 0.15, 0.25]]), 0.7).keys() == {1, 3}
    assert kept(torch.tensor([[0.1, 0.5, 0.15, 0.25]]), 0.4).keys() == {1}
    for size in (200, 2_000, 5_000):  # these nuclei need one search, two searches, and the whole vocabulary
        flat = kept(torch.full((1, 6_000), 1 / 6_000), size / 6_000 - 1e-5)
        assert len(flat) == size
        assert abs(sum(flat.values()) - size / 6_000) < 1e-3


def test_nucleus_sampling_follows_the_cut_distribution():
    """Draws follow the renormalized nucleus: chi-square tests at two temperatures."""
    from synthgen.lm.sampling import Sampler

    z = torch.randn(1, 500, generator=torch.Generator().manual_seed(0)) * 2
    u = torch.from_numpy(np.random.default_rng(0).random((20_000, 1)))
    for temperature in (0.7, 1.3):
        p = (z[0].double() / temperature).softmax(-1)
        order = p.argsort(descending=True)
        size = int((p[order].cumsum(-1) < 0.9).sum()) + 1
        expected = torch.zeros_like(p).index_copy(0, order[:size], p[order[:size]])
        expected = (expected / expected.sum()).numpy()
        drawn, _ = Sampler(temperature, 0.9).choose(z.expand(len(u), -1), u)
        counts = np.bincount(drawn.numpy(), minlength=500)
        assert counts[expected == 0].sum() == 0
        inside = expected * len(u) > 5
        score = (counts - expected * len(u))[inside] ** 2 / (expected * len(u) * (1 - expected))[inside]
        assert score.mean() < 1 + 4 * (2 / inside.sum()) ** 0.5


def test_end_token_and_limit(smol):
    replies = smol.sample([ask(q, i, temperature=0.0, tokens=60) for i, q in enumerate(QUESTIONS)], None)
    for reply in replies:
        ended = reply.token_ids[-1] in smol.tokens.eos
        assert reply.finish_reason == ("stop" if ended else "length")
        assert not any(token in smol.tokens.eos for token in reply.token_ids[:-1])
        assert ended or len(reply.token_ids) == 60
    assert any(r.finish_reason == "stop" for r in replies)


def test_targets_have_a_row_for_each_token(smol):
    for spec in (LogitsSpec("sampled", 2.0, draws=10), LogitsSpec("topk", 2.0, k=5)):
        for reply in smol.sample([ask(q, i, tokens=8, few_shot=False) for i, q in enumerate(QUESTIONS[:3])], spec):
            assert len(reply.target) == len(reply.token_ids)


def test_draws_are_taken_at_the_temperature_of_the_loss(smol):
    """At a higher temperature, more different ids are drawn."""
    request = ask(QUESTIONS[0], 0, temperature=0.0, few_shot=False, tokens=8)
    unique = [
        smol.sample([request], LogitsSpec("sampled", t, draws=200))[0].target.uniques.mean() for t in (0.5, 1.0, 2.0)
    ]
    assert unique[0] < unique[1] < unique[2]


def test_classify_equals_the_product_of_token_probabilities(smol):
    prompt = load_prompt(str(shipped("prompts") / "classify"), "classify")
    labels = ("payment", "delivery", "billing issue")  # the last label has several tokens
    texts = ["I was charged twice.", "Where is my parcel?"]
    requests = [
        Request("classify", prompt.teacher({"text": t}), labels=labels, id=f"{i:032x}") for i, t in enumerate(texts)
    ]
    replies = smol.classify(requests)
    for request, reply in zip(requests, replies, strict=True):
        ids = smol.render(request.messages)
        scores = []
        for label in labels:
            tokens = smol.tokenizer(label, add_special_tokens=False)["input_ids"]
            logp = direct(smol, ids, tokens)
            scores.append(float(logp[range(len(tokens)), tokens].double().sum()))
        expected = torch.tensor(scores, dtype=torch.float64).softmax(-1)
        assert np.abs(np.array(reply.label_probs) - expected.numpy()).max() < 1e-4
        assert reply.text == labels[int(expected.argmax())]


def test_a_prompt_beyond_the_context_is_a_failure_not_an_error(smol):
    long = ask("word " * 9000, 0, few_shot=False)
    replies = smol.sample([ask(QUESTIONS[0], 1, tokens=2), long, ask(QUESTIONS[1], 2, tokens=2)], None)
    assert [r.failure is None for r in replies] == [True, False, True]
    assert replies[1].failure[0] == "context"


def test_completion_logits_do_not_depend_on_the_batch(smol):
    from synthgen.lm.forward import completion_logits

    texts = [
        ("The cat sat on", " the mat."),
        ("Two and two", " make four, and two more make six."),
        ("Ice", " is cold"),
    ]
    rows = [tuple(smol.tokenizer(t, add_special_tokens=False)["input_ids"] for t in pair) for pair in texts]
    with torch.inference_mode():
        together = completion_logits(smol.model, [p for p, _ in rows], [c for _, c in rows])
        for (p, c), z in zip(rows, together, strict=True):
            assert z.shape == (len(c), 49_152)
            assert (z.log_softmax(-1) - direct(smol, p, c)).abs().max() < 2e-3


def test_shared_prefix_changes_nothing(smol):
    prompts = [smol.render(ask(q, i).messages) for i, q in enumerate(QUESTIONS)]
    model = smol.model
    assert prefix.enabled(model)
    with torch.inference_mode():
        shared = smol._prefill([prompts[0], *prompts])  # the first prompt occurs twice, but is computed once
    attention = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        with torch.inference_mode():
            plain = smol._prefill([prompts[0], *prompts])
    finally:
        model.set_attn_implementation(attention)
    assert shared.shared > 100
    assert plain.shared == 0
    assert (shared.logits_UV.log_softmax(-1) - plain.logits_UV.log_softmax(-1)).abs().max() < 1e-3


def test_seeds_reach_the_teacher_whole(smol):
    """Every shipped reasoning seed renders and fits into the context."""
    from synthgen.recipe import load_recipe

    recipe = load_recipe("reasoning")
    prompt = load_prompt(recipe.prompts, recipe.task)
    for seed in load_seeds(recipe.seeds, recipe.split, prompt.question):
        assert len(smol.render(prompt.teacher(seed.fields))) < 1000


PLAIN = ["llama", "mistral", "qwen2", "qwen3", "phi", "gpt2", "olmo", "olmo2", "starcoder2", "smollm3"]
# Batches of these families are padded and not packed, because the models have soft caps, scale their logits, or are not
# in `prefix._PLAIN`.
ODD = ["gemma2", "cohere", "granite", "stablelm"]


@pytest.mark.parametrize("kind", [*PLAIN, *ODD])
def test_packing_and_prefix_change_nothing_for_any_family(kind):
    """Small random models of each family give the same logits packed, padded, alone and after a shared prefix."""
    import transformers

    from synthgen.lm import forward, prefix

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    if kind == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4}
    elif kind in ("llama", "mistral", "qwen2", "qwen3", "olmo2", "gemma2", "smollm3", "starcoder2"):
        sizes |= {"num_key_value_heads": 2}
    if kind == "mistral":
        sizes["sliding_window"] = None
    if kind == "stablelm":
        sizes["num_key_value_heads"] = 4
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=97, pad_token_id=0, bos_token_id=1, eos_token_id=2, **sizes
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    generator = np.random.default_rng(0)
    head = generator.integers(3, 97, 20).tolist()
    prompts = [head + generator.integers(3, 97, n).tolist() for n in (5, 9, 1, 260)]
    completions = [generator.integers(3, 97, n).tolist() for n in (4, 1, 7, 3)]
    with torch.no_grad():
        alone = [
            model(torch.tensor([[*p, *c]])).logits[0, len(p) - 1 : -1]
            for p, c in zip(prompts, completions, strict=True)
        ]
        assert forward.packs(model) == (kind in PLAIN), kind
        assert prefix.enable(model) == (kind in PLAIN), kind
        for share in (False, True):
            found = forward.completion_logits(model, prompts, completions, share=share)
            for a, b in zip(alone, found, strict=True):
                assert a.shape == b.shape
                assert (a - b).abs().max() < 1e-4, (kind, share)
        if kind in PLAIN:
            cache, mask, first = forward.prefill(model, prompts, 0, {})
            mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], 1)
            inputs = {"attention_mask": mask, "position_ids": mask.sum(-1, keepdim=True) - 1}
            second = model(torch.tensor([c[:1] for c in completions]), past_key_values=cache, **inputs).logits[:, -1]
            for row, z in enumerate(alone):
                assert (z[0] - first[row]).abs().max() < 1e-4, kind
                assert len(z) == 1 or (z[1] - second[row]).abs().max() < 1e-4, kind


def test_greedy_answers_do_not_depend_on_the_batch(smol):
    """Evaluations ask all questions together. Every answer has the same tokens as when its question is asked alone, and
    the same log-probabilities up to rounding: 2e-3 nats in float32.
    """
    for few_shot, count in ((True, 2), (False, 3)):
        requests = [ask(q, i, 0.0, few_shot, tokens=6) for i, q in enumerate(QUESTIONS[:count])]
        together = smol.sample(requests, None)
        assert len({len(reply.prompt_token_ids) for reply in together}) == count, "so the batch has padding"
        for request, reply in zip(requests, together, strict=True):
            (alone,) = smol.sample([request], None)
            assert reply.token_ids == alone.token_ids
            assert reply.text == alone.text
    given = [reply.prompt_token_ids for reply in together], [reply.token_ids for reply in together]
    for prompt, tokens, logp in zip(*given, smol.logprobs(*given), strict=True):
        assert (logp - direct(smol, prompt, tokens)).abs().max() < 2e-3


@pytest.mark.parametrize("begin", [[], [20, 21, 22, 23]])
def test_gradients_are_the_same_packed_and_padded(tiny, begin):
    """The tokens `begin`, which all prompts share, are packed only once, and their gradients are the sums over all
    rows.
    """
    from transformers import AutoModelForCausalLM

    from synthgen.lm import forward

    model = AutoModelForCausalLM.from_pretrained(tiny)
    prompts, completions = [[*begin, *p] for p in ([5, 6, 7], [8, 9], [10])], [[11, 12], [13], [14, 15, 16]]
    gradients = []
    for act in (forward.completion_logits, forward._padded):
        model.zero_grad()
        sum(z.log_softmax(-1)[:, 3].sum() for z in act(model, prompts, completions)).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert (a - b).abs().max() < 1e-4 * max(1.0, float(b.abs().max()))


def test_bins_are_filled_evenly():
    """Eight rows of 63 tokens need two bins of 256 tokens, with four rows in each. Rows of unequal lengths fill the
    bins nearly as well.
    """
    from synthgen.lm.forward import bins

    assert sorted(map(len, bins([63] * 8))) == [4, 4]
    assert sorted(map(len, bins([63] * 9))) == [3, 3, 3], "not 4, 4 and 1"
    for seed in range(20):
        lengths = np.random.default_rng(seed).integers(30, 100, 40).tolist()
        packed = bins(lengths)
        assert len(packed) <= sum(lengths) / 256 + 2
        assert max(sum(lengths[row] for row in some) for some in packed) * len(packed) < 1.15 * sum(lengths)


def test_bins_hold_every_row_once_within_their_room():
    from synthgen.lm.forward import bins

    for seed in range(20):
        lengths = np.random.default_rng(seed).integers(1, 400, 30).tolist()
        packed = bins(lengths)
        assert sorted(row for some in packed for row in some) == list(range(30))
        assert all(sum(lengths[row] for row in some) <= max(256, *lengths) for some in packed)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_a_failure_of_their_row_alone(tiny, value):
    """Poisons the embedding of one token, which only the first prompt has."""
    teacher = open_local(TeacherSection(model=str(tiny)), TeacherOptions())
    requests = [ask(question, i, tokens=4, few_shot=False) for i, question in enumerate(("a zebra", "a horse"))]
    first, second = (teacher.render(request.messages) for request in requests)
    poisoned = next(token for token in first if token not in second)
    before = teacher.sample(requests, None)

    def poison(module, inputs, output):
        return output.masked_fill((inputs[0] == poisoned)[..., None], value)

    teacher.model.get_input_embeddings().register_forward_hook(poison)
    spec = LogitsSpec("topk", k=4)
    for with_spec in (None, spec, LogitsSpec("sampled", draws=3)):
        bad, good = teacher.sample(requests, with_spec)
        assert bad.failure[0] == "engine"
        assert "not finite" in bad.failure[1]
        assert good.failure is None
        if with_spec is None or with_spec.kind == "topk":  # with draws, the random numbers differ
            assert good.text == before[1].text
    labels = [request._replace(kind="classify", labels=("yes", "no")) for request in requests]
    given = ({"role": "assistant", "content": "yes"},)
    scores = [request._replace(kind="score", completion=given) for request in requests]
    # `good` may have a failure, because the labels have too little mass
    bad, good = (admitted(labels[0], reply) for reply in teacher.classify(labels))
    assert bad.failure[0] == "engine"
    assert good.failure is None or good.failure[0] != "engine"
    # both requests are packed into one sequence
    scored = [admitted(scores[0], reply) for reply in teacher.score(scores, spec)]
    assert scored[0].failure[0] == "engine"
