"""Functions that time one exported file. The functions run in a separate process (`distill.cost.measure`).

The arguments "runtime" and "path" name the runtime and the file. A runtime is imported when it is opened, so that a
process loads only one runtime.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill.cost import Measured, milliseconds
from distill.exporting.running import Array, open_encoder, open_mlp, open_model, threads

MODEL = "distill.exporting.timing:time_model"
ENCODER = "distill.exporting.timing:time_encoder"
MLP = "distill.exporting.timing:time_mlp"
_STEPS = 24  # number of tokens generated after each prompt


def time_model(arguments: dict[str, Any]) -> Measured:
    """Measure how long a model takes to read a prompt, and to generate each token after the prompt, in milliseconds.
    The prompts are lists of token ids.
    """
    model = open_model(arguments["runtime"], Path(arguments["path"]))
    prompts, steps = [], []
    for number, prompt in enumerate([arguments["prompts"][0], *arguments["prompts"]]):
        model.reset()
        began = time.perf_counter()
        token = int(model.feed(prompt)[-1].argmax())
        spent = [time.perf_counter() - began]
        for _ in range(_STEPS):
            began = time.perf_counter()
            token = int(model.feed([token])[-1].argmax())
            spent.append(time.perf_counter() - began)
        if number:  # the first run is a warm-up
            prompts.append(spent[0])
            steps += spent[1:]
    return {
        "prompt_tokens": float(np.mean([len(p) for p in arguments["prompts"]])),
        "prompt_ms": milliseconds(prompts),
        "token_ms": milliseconds(steps),
        "tokens_per_second": len(steps) / sum(steps),
        "threads": threads(),
    }


def time_encoder(arguments: dict[str, Any]) -> Measured:
    """Time an encoder classifier on `arguments["texts"]`: milliseconds for a single text, and the number of texts a
    second when it gets all texts together.
    """
    return _texts(open_encoder(arguments["runtime"], Path(arguments["path"])), arguments["texts"])


def time_mlp(arguments: dict[str, Any]) -> Measured:
    """Time the MLP on hashed n-grams, and return the same measures as `time_encoder`. The folder of the MLP's file must
    contain config.json.
    """
    return _texts(open_mlp(arguments["runtime"], Path(arguments["path"])), arguments["texts"])


def _texts(predict: Callable[[Sequence[str]], Array], texts: Sequence[str]) -> Measured:
    predict(texts[:8])
    spent = []
    for text in texts:
        began = time.perf_counter()
        predict([text])
        spent.append(time.perf_counter() - began)
    began = time.perf_counter()
    predict(texts)
    return {
        "text_ms": milliseconds(spent),
        "texts_per_second": len(texts) / (time.perf_counter() - began),
        "threads": threads(),
    }
