"""Draws in vLLM's workers, through both interfaces of vLLM, with vLLM's own objects and a real socket."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsContext

from synthgen.errors import TeacherError
from synthgen.logits import LogitsSpec
from synthgen.teachers.vllm import draws as vllm_draws
from synthgen.teachers.vllm.draws import ARGUMENT, BatchDraws, Collector, SlotDraws

SPEC = LogitsSpec("sampled", 2.0, draws=4000)
V = 40


def _params(collector: Collector, key: str, seed: str) -> SamplingParams:
    return SamplingParams(extra_args={ARGUMENT: collector.expect(key, seed, SPEC)})


def _logits(rows: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, V, generator=torch.Generator().manual_seed(seed)) * 3


def _best(z: torch.Tensor) -> float:
    return float(z.log_softmax(-1).max())


def _close(target, position: int, z: torch.Tensor) -> None:
    """Asserts that the counts follow softmax(z / 2), and not the distribution of another row."""
    ends = np.cumsum(target.uniques, dtype=int)
    part = slice(ends[position] - target.uniques[position], ends[position])
    share = np.zeros(V)
    share[target.ids[part]] = target.counts[part] / SPEC.draws
    assert np.abs(share - (z / 2).softmax(-1).numpy()).max() < 0.04


def test_first_interface_follows_rows_that_move():
    async def go():
        collector = Collector()
        processor = BatchDraws(None, torch.device("cpu"), False)
        processor.rank = 0
        outputs = [[], [], []]
        params = [_params(collector, "a", "1"), SamplingParams(), _params(collector, "b", "2")]
        processor.update_state(BatchUpdate(3, [], [(i, params[i], [], outputs[i]) for i in range(3)], []))
        first = _logits(3, 0)
        untouched = first.clone()
        assert torch.equal(processor.apply(first), untouched)
        for output in outputs:
            output.append(7)
        # row 1 leaves, and row 2 moves to its place
        processor.update_state(BatchUpdate(2, [1], [], [(2, 1, MoveDirectionality.UNIDIRECTIONAL)]))
        second = _logits(2, 1)
        processor.apply(second)
        a = await collector.take("a", np.array([_best(first[0]), _best(second[0])]))
        b = await collector.take("b", np.array([_best(first[2]), _best(second[1])]))
        collector.close()
        _close(a, 0, first[0])
        _close(a, 1, second[0])
        _close(b, 0, first[2])
        _close(b, 1, second[1])

    asyncio.run(go())


def test_second_interface_finds_rows_by_slot_and_skips_unfinished_prompts():
    async def go():
        collector = Collector()
        states = SimpleNamespace(prompt_len=SimpleNamespace(np=np.array([0, 0, 0, 5, 0, 9])))
        processor = SlotDraws(None, states)
        processor.rank = 0
        assert processor.add_request(3, _params(collector, "a", "1"))
        assert processor.add_request(5, _params(collector, "b", "2"))
        assert not processor.add_request(1, SamplingParams())

        def step(z, slots, seen):
            index = torch.tensor(slots)
            nothing = torch.zeros(len(slots), dtype=torch.long)
            context = LogitsContext(index, index, np.array(slots), nothing, nothing, nothing, np.array(seen))
            return processor.apply(z, context)

        first, second = _logits(2, 0), _logits(2, 1)
        step(first, [5, 3], [8, 5])  # slot 5 has read 8 of the 9 tokens of its prompt
        step(second, [3, 5], [6, 9])
        a = await collector.take("a", np.array([_best(first[1]), _best(second[0])]))
        b = await collector.take("b", np.array([_best(second[1])]))
        collector.close()
        _close(a, 0, first[1])
        _close(a, 1, second[0])
        _close(b, 0, second[1])

    asyncio.run(go())


def test_draws_depend_on_the_seed_and_the_position_alone():
    row = vllm_draws._Row({"key": "k", "to": "", "seed": "ab", "count": 5, "temperature": 1.0})
    random = np.random.Generator(np.random.Philox(key=0xAB))
    blocks = [random.random((32, 6)) for _ in range(3)]
    for position in (0, 31, 32, 95, 3, 40):  # position 3 follows position 95, as after a preemption
        np.testing.assert_array_equal(row.uniforms(position), blocks[position // 32][position % 32, 1:])


def test_draws_of_another_row_are_refused(monkeypatch):
    monkeypatch.setattr(vllm_draws, "_WAIT", 0.5)

    async def go():
        collector = Collector()
        processor = BatchDraws(None, torch.device("cpu"), False)
        processor.rank = 0
        processor.update_state(BatchUpdate(1, [], [(0, _params(collector, "a", "1"), [], [])], []))
        z = _logits(1, 0)
        processor.apply(z)
        try:
            with pytest.raises(TeacherError, match="1 of 1 positions"):
                await collector.take("a", np.array([_best(z[0]) + 0.1]))
        finally:
            collector.close()

    asyncio.run(go())
