"""Tests which features the installed vLLM has: a feature is present if vLLM's Python interface has all names that the
feature needs. A request that needs a missing feature raises an error, which names the feature.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from functools import cache
from typing import Any

from synthgen.errors import TeacherError

# The names that each feature needs, in three tuples: fields of SamplingParams, fields of AsyncEngineArgs, and
# attributes of modules, written as module:name.
_NEEDS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "generate": (
        ("temperature", "top_p", "max_tokens", "seed", "stop_token_ids", "detokenize", "output_kind"),
        ("model", "dtype", "tensor_parallel_size", "data_parallel_size", "enable_prefix_caching", "generation_config"),
        ("vllm.v1.engine.async_llm:AsyncLLM.generate", "vllm.v1.engine.exceptions:EngineDeadError"),
    ),
    "topk": (("logprobs", "flat_logprobs"), ("max_logprobs", "logprobs_mode"), ("vllm.logprobs:FlatLogprobs",)),
    "score": (("prompt_logprobs", "flat_logprobs"), ("max_logprobs",), ("vllm.logprobs:FlatLogprobs",)),
    "classify": (("logprob_token_ids", "flat_logprobs"), ("max_logprobs",), ("vllm.logprobs:FlatLogprobs",)),
    "structured": (("structured_outputs",), (), ("vllm.sampling_params:StructuredOutputsParams",)),
    "sampled": (
        ("extra_args",),
        ("logits_processors",),
        (
            "vllm.v1.sample.logits_processor:LogitsProcessor",
            "vllm.v1.sample.logits_processor.builtin:process_dict_updates",
        ),
    ),
}
_WHAT = {
    "generate": "run as a local teacher",
    "topk": "give top-k log-probabilities as flat arrays",
    "score": "score given completions",
    "classify": "give the probabilities of labels",
    "structured": "make answers follow a schema or pattern",
    "sampled": "draw from the full distribution inside the engine",
}


def version() -> str:
    """The version of the installed vLLM."""
    return str(importlib.import_module("vllm").__version__)


@cache
def missing(feature: str) -> tuple[str, ...]:
    """The names that `feature` needs and that the installed vLLM lacks. Empty when vLLM has the feature."""
    params, args, places = _NEEDS[feature]
    from vllm import SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs

    has_params, has_args = _fields(SamplingParams), _fields(AsyncEngineArgs)
    return (
        *(f"SamplingParams.{name}" for name in params if name not in has_params),
        *(f"AsyncEngineArgs.{name}" for name in args if name not in has_args),
        *(place for place in places if not _exists(place)),
    )


def require(feature: str) -> None:
    """Raise TeacherError if the installed vLLM lacks the feature. The error gives vLLM's version and missing names."""
    if lacks := missing(feature):
        raise TeacherError(
            f"vLLM {version()} cannot {_WHAT[feature]}: it has no {', '.join(lacks)}",
            "install vLLM 0.32 or a version near it",
        )


def known(values: dict[str, Any], kind: type) -> dict[str, Any]:
    """The items of `values` whose keys are fields or parameters of the class `kind`. Other items are left out without a
    message, so `values` must not contain an option that changes rows.
    """
    return {name: value for name, value in values.items() if name in _fields(kind)}


def _fields(kind: type) -> frozenset[str]:
    names = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
    names |= set(getattr(kind, "__struct_fields__", ()))
    return frozenset(names or inspect.signature(kind).parameters)


def _exists(place: str) -> bool:
    module, _, path = place.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError):
        return False
    return True
