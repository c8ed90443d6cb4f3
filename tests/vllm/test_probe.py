"""Checks of the installed vLLM: its features, messages about missing features, arguments of requests and engine."""

from __future__ import annotations

import hashlib

import pytest
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs

from synthgen.errors import TeacherError
from synthgen.logits import LogitsSpec
from synthgen.requests import Request
from synthgen.tables.engines import VllmTeacher
from synthgen.teachers.base import TeacherOptions
from synthgen.teachers.vllm import probe as vllm_probe
from synthgen.teachers.vllm.model import VllmModel, arguments, sample_params


def _request(**sampling) -> Request:
    values = {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 5, "seed": 0, "sample_index": 0, **sampling}
    return Request("sample", [], values, id=hashlib.md5(b"a").hexdigest())


def test_this_version_has_every_feature():
    assert {name: vllm_probe.missing(name) for name in vllm_probe._NEEDS} == dict.fromkeys(vllm_probe._NEEDS, ())


def test_a_missing_field_is_named_with_the_version(monkeypatch):
    monkeypatch.setitem(vllm_probe._NEEDS, "topk", (("logprobs", "round_logprobs"), (), ("vllm.logprobs:Rounds",)))
    vllm_probe.missing.cache_clear()
    try:
        with pytest.raises(TeacherError) as caught:
            vllm_probe.require("topk")
    finally:
        vllm_probe.missing.cache_clear()
    assert vllm_probe.version() in caught.value.message
    assert "SamplingParams.round_logprobs" in caught.value.message
    assert "vllm.logprobs:Rounds" in caught.value.message


def test_a_capability_that_is_missing_is_not_offered(monkeypatch, tiny):
    monkeypatch.setitem(vllm_probe._NEEDS, "classify", (("label_probs",), (), ()))
    vllm_probe.missing.cache_clear()
    try:
        model = VllmModel.open(VllmTeacher(engine="vllm", model=str(tiny)))
        assert model.can == {"sample", "score", "open_turn"}
        with pytest.raises(TeacherError, match=r"cannot give the probabilities of labels: it has no SamplingParams\."):
            model.classify([_request()._replace(kind="classify", labels=("a", "b"))])
        model.close()
    finally:
        vllm_probe.missing.cache_clear()


def test_extra_arguments_are_checked_by_the_engine(tiny):
    section = VllmTeacher(engine="vllm", model=str(tiny), extra={"enforce_eager": True, "max_num_batched_tokens": 64})
    assert arguments(section, "folder")["enforce_eager"] is True
    with pytest.raises(TeacherError, match=r"teacher\.extra.*'enforce_eagre'"):
        VllmModel.open(VllmTeacher(engine="vllm", model=str(tiny), extra={"enforce_eagre": True}))


def test_request_asks_for_raw_flat_log_probabilities_and_no_text():
    params = sample_params(_request(), LogitsSpec("topk", k=64), {2, 0}, 49152, {})
    assert isinstance(params, SamplingParams)
    assert (params.logprobs, params.flat_logprobs, params.detokenize) == (64, True, False)
    assert (params.temperature, params.top_p, params.max_tokens, params.stop_token_ids) == (0.7, 0.9, 5, [0, 2])
    assert sample_params(_request(), None, {2}, 49152, {}).logprobs is None
    assert sample_params(_request(), LogitsSpec("topk", k=64), {2}, 10, {}).logprobs == 10


def test_seed_is_a_function_of_the_id():
    one, same = (sample_params(_request(), None, {2}, 10, {}).seed for _ in range(2))
    assert one == same == int(_request().id, 16) >> 65
    assert 0 <= one < 1 << 63


def test_engine_arguments_are_vllms_own_and_eight_gpus_are_one_key():
    section = VllmTeacher(engine="vllm", model="m", tensor_parallel_size=8, quantization="awq", max_num_seqs=512)
    given = arguments(section, "folder")
    AsyncEngineArgs(**given)
    assert (given["tensor_parallel_size"], given["quantization"], given["max_num_seqs"]) == (8, "awq", 512)
    assert (given["logprobs_mode"], given["enable_prefix_caching"], given["max_logprobs"]) == ("raw_logprobs", True, -1)
    assert "max_model_len" not in given


def test_top_k_at_another_temperature_is_refused_before_the_engine_starts(tiny):
    model = VllmModel.open(VllmTeacher(engine="vllm", model=str(tiny)), TeacherOptions(regex="[a-z]+"))
    assert model.form == {"regex": "[a-z]+"}
    with pytest.raises(TeacherError, match=r"temperature 2\.0"):
        model.sample([_request()], LogitsSpec("topk", 2.0, k=4))
    with pytest.raises(TeacherError, match="full distributions only along text that it writes"):
        model.score([_request()._replace(kind="score")], LogitsSpec("sampled", draws=5))
    assert model.engine._llm is None
    model.close()
