"""Where a student's answers end: the end tokens that plain `generate` of transformers must know."""

from __future__ import annotations

from collections.abc import Collection

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from synthgen.lm.turns import template_end

# Settings of generation_config.json that force or forbid tokens or lengths. Such settings belong to the checkpoint's
# own task, and would keep a student from writing what it learned, or from ending its answers.
_OF_OTHER_TASKS = (
    "forced_bos_token_id",
    "forced_eos_token_id",
    "min_length",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "suppress_tokens",
    "begin_suppress_tokens",
    "bad_words_ids",
    "exponential_decay_length_penalty",
    "length_penalty",
)
_OF_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_h")


def end_answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ends: Collection[int] = ()) -> None:
    """Write all end tokens that `generate` needs into the model's generation config. The end tokens are those in
    `ends`, the tokenizer's end token, the token that ends a turn, and the model's own end tokens.

    Settings that force or forbid tokens are removed. Settings of sampling are removed if transformers would refuse to
    save them.
    """
    generation = model.generation_config
    own = generation.eos_token_id
    own = own if isinstance(own, list) else [own]
    found = dict.fromkeys([tokenizer.eos_token_id, template_end(tokenizer), *own, *sorted(ends)])  # keeps the order
    size = model.config.get_text_config().vocab_size
    stops = [int(i) for i in found if i is not None and int(i) < size]
    if stops:
        generation.eos_token_id = stops if len(stops) > 1 else stops[0]
    if generation.pad_token_id is None and tokenizer.pad_token_id is not None and tokenizer.pad_token_id < size:
        generation.pad_token_id = tokenizer.pad_token_id
    generation._from_model_config = False  # otherwise `generate` would take the settings from config.json again
    for name in _OF_OTHER_TASKS:
        if hasattr(generation, name):
            setattr(generation, name, None)
    _make_valid(generation)


def _make_valid(generation: GenerationConfig) -> None:
    """Remove the settings of sampling if transformers would refuse to save them."""
    try:
        generation.validate(strict=True)
    except ValueError:
        for name in _OF_SAMPLING:
            if hasattr(generation, name):
                setattr(generation, name, None)
