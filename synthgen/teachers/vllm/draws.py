"""Draws tokens from the full distribution inside vLLM's worker processes, and sends them to the teacher.

A target of kind `sampled` needs tokens that are drawn from the full distribution. vLLM returns only the k most probable
tokens, so the tokens are drawn inside vLLM. A logits processor sees the logits of each row before temperature and top-p
are applied. The processor draws tokens and leaves the logits unchanged. After each step, the processor sends the drawn
tokens over a local socket, in one message for all requests with the same settings. Only a socket can return data from
the workers of every copy of a data-parallel model. Together with the draws of a position, the processor sends the
largest log-probability at this position. vLLM also returns this number with the reply. Draws are accepted for a
position only when the two numbers agree. Random numbers depend only on the request's id, as in the 'transformers'
teacher.

vLLM's workers import this module by its name. vLLM has two model runners with different interfaces for logits
processors, so there are two logits processors here.
"""

from __future__ import annotations

import asyncio
import json
import queue
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zmq
import zmq.asyncio
from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from synthgen.errors import TeacherError
from synthgen.lm.sampling import invert
from synthgen.logits import Floats, LogitsSpec, Sampled, count_draws

try:
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as SlotLogitsProcessor
except ImportError:  # this vLLM is older than the second model runner
    SlotLogitsProcessor = object

# The key of the draws in SamplingParams.extra_args. The value is a dictionary with the keys `key`, `seed`, `count`,
# `temperature` and `to`.
ARGUMENT = "synthgen_draws"
# the 'transformers' teacher has the same value, so both teachers use the same random numbers for a request
_RANDOM_STEPS = 32
_SAME = 1e-3  # two log-probabilities agree when they differ by at most this many nats
_WAIT = 20.0  # how long to wait for draws after the request's last token, in seconds


class _Row:
    """One request in a worker process: the address to which its draws are sent, and its random numbers."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.key, self.to = str(wanted["key"]), str(wanted["to"])
        self.count, self.temperature = int(wanted["count"]), float(wanted["temperature"])
        self.seed = int(wanted["seed"], 16)
        self.block = -1
        self.numbers = np.zeros((0, 0))
        self.generator = np.random.Generator(np.random.Philox(key=self.seed))

    def uniforms(self, position: int) -> Any:
        """The random numbers for the draws of one position. The first number of a position is left out, because the
        'transformers' teacher chooses the next token with it.
        """
        block, step = divmod(position, _RANDOM_STEPS)
        if block < self.block:  # vLLM repeats positions after it has preempted a request
            self.generator, self.block = np.random.Generator(np.random.Philox(key=self.seed)), -1
        while self.block < block:
            self.numbers = self.generator.random((_RANDOM_STEPS, 1 + self.count))
            self.block += 1
        return self.numbers[step, 1:]


class _Sender(threading.Thread):
    """A thread that copies drawn tokens from the device and sends them while the model computes the next step."""

    def __init__(self) -> None:
        super().__init__(name="synthgen-draws", daemon=True)
        self.waiting: queue.SimpleQueue[tuple[str, list[str], list[int], torch.Tensor, torch.Tensor]] = (
            queue.SimpleQueue()
        )
        self.start()

    def run(self) -> None:
        sockets: dict[str, Any] = {}
        while True:
            to, keys, places, draws, best = self.waiting.get()
            if to not in sockets:
                sockets[to] = zmq.Context.instance().socket(zmq.PUSH)
                sockets[to].set_hwm(0)
                sockets[to].connect(to)
            arrays = [part.cpu().numpy().tobytes() for part in (draws, best)]
            sockets[to].send_multipart([json.dumps([keys, places]).encode(), *arrays])


def draw(sender: _Sender, logits_BV: torch.Tensor, rows: list[tuple[int, _Row, int]]) -> None:
    """Draw tokens and pass them to `sender`. Each entry of `rows` is (index of a row in the batch, the row's request,
    position of the next token in the request's completion).
    """
    alike: dict[tuple[float, int, str], list[tuple[int, _Row, int]]] = {}
    for entry in rows:
        alike.setdefault((entry[1].temperature, entry[1].count, entry[1].to), []).append(entry)
    for (temperature, _, to), some in alike.items():
        z_BV = logits_BV[[b for b, _, _ in some]].float()
        cdf_BV = (z_BV if temperature == 1.0 else z_BV / temperature).softmax(-1).double().cumsum(-1)
        u_BN = torch.from_numpy(np.stack([row.uniforms(t) for _, row, t in some])).to(cdf_BV.device)
        draws = invert(cdf_BV, u_BN).to(torch.int32)
        best = z_BV.amax(-1) - z_BV.logsumexp(-1)
        sender.waiting.put((to, [row.key for _, row, _ in some], [t for _, _, t in some], draws, best))


def _row(params: Any, rank: int) -> _Row | None:
    wanted = (params.extra_args or {}).get(ARGUMENT)
    return _Row(wanted) if wanted and rank == 0 else None


def _rank() -> int:
    from vllm.distributed.parallel_state import get_tensor_model_parallel_rank

    return int(get_tensor_model_parallel_rank())


class BatchDraws(LogitsProcessor):
    """The logits processor for vLLM's first model runner. This processor knows which request is in which row of the
    batch.
    """

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        # for each row of the batch: the request, and the list of its generated tokens, which vLLM updates
        self.rows: dict[int, tuple[_Row, list[int]]] = {}
        self.rank: int | None = None
        self.sender: _Sender | None = None

    def is_argmax_invariant(self) -> bool:
        """False, because otherwise vLLM would skip the processor for greedy batches."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Update `rows` when vLLM has changed the batch."""
        if batch_update is not None and self.rank is None:
            self.rank = _rank()
        process_dict_updates(self.rows, batch_update, self._new)

    def _new(self, params: Any, prompt: Any, output: list[int]) -> tuple[_Row, list[int]] | None:
        row = _row(params, self.rank or 0)
        return None if row is None else (row, output)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Draw tokens for every request. The logits are returned unchanged."""
        if self.rows:
            self.sender = self.sender or _Sender()
            # Tokens are also drawn for a request whose prompt is only partly processed. These draws are replaced:
            # after the rest of the prompt, position 0 is drawn again.
            draw(self.sender, logits, [(b, row, len(output)) for b, (row, output) in sorted(self.rows.items())])
        return logits


class SlotDraws(SlotLogitsProcessor):
    """The logits processor for vLLM's second model runner. This processor knows which request is in which slot."""

    def __init__(self, vllm_config: Any, req_states: Any) -> None:
        self.states = req_states
        self.rows: dict[int, _Row] = {}
        self.rank: int | None = None
        self.sender: _Sender | None = None

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Store the request that gets the slot `req_idx`. Returns whether tokens must be drawn for the request."""
        if self.rank is None:
            self.rank = _rank()
        row = _row(sampling_params, self.rank)
        self.rows.pop(req_idx, None)
        if row is not None:
            self.rows[req_idx] = row
        return row is not None

    def apply(self, logits: torch.Tensor, ctx: Any) -> torch.Tensor:
        """Draw tokens for every request. The logits are returned unchanged.

        Without speculative decoding, each request has one row. Rows are in the batch's order.
        """
        rows = []
        for b, slot in enumerate(ctx.idx_mapping_np.tolist()):
            position = int(ctx.seq_lens_upper_bound_np[b]) - int(self.states.prompt_len.np[slot])
            if slot in self.rows and position >= 0:  # negative positions belong to partly processed prompts
                rows.append((b, self.rows[slot], position))
        if rows:
            self.sender = self.sender or _Sender()
            draw(self.sender, logits, rows)
        return logits


class Collector:
    """Receives drawn tokens in the teacher's process, and keeps them by request and position until `forget` is called.
    A collector may be used by only one event loop.
    """

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="synthgen-")
        self.address = f"ipc://{Path(self.folder.name) / 'draws'}"
        self.socket = zmq.asyncio.Context.instance().socket(zmq.PULL)
        self.socket.set_hwm(0)
        self.socket.bind(self.address)
        self.found: dict[str, dict[int, tuple[Any, float]]] = {}
        self.news = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self._listen())

    def expect(self, key: str, seed: str, spec: LogitsSpec) -> dict[str, Any]:
        """The value of ARGUMENT for one request. With this value, vLLM's workers send the request's draws to this
        object under `key`. `seed` is hexadecimal.
        """
        self.found[key] = {}
        return {
            "key": key,
            "seed": seed,
            "count": spec.draws,
            "temperature": spec.temperature,
            "to": self.address,
        }

    async def take(self, key: str, best: Floats) -> Sampled:
        """Wait for the draws of a completion, and return them. `best` holds, for each position, the largest
        log-probability that vLLM returned.

        Raises TeacherError when the draws do not arrive.
        """
        found = self.found[key]
        missing = set(range(len(best)))
        try:
            async with asyncio.timeout(_WAIT):
                while missing := {t for t in missing if t not in found or abs(found[t][1] - best[t]) > _SAME}:
                    await self.news.wait()
        except TimeoutError:
            raise TeacherError(
                f"vLLM's workers did not send the draws of {len(missing)} of {len(best)} positions",
                "use logits.kind: topk, and report this with the versions of vLLM and torch",
            ) from None
        return count_draws(np.stack([found[t][0] for t in range(len(best))]))

    def forget(self, key: str) -> None:
        """Discard all draws of `key`, including draws that arrive later."""
        self.found.pop(key, None)

    def close(self) -> None:
        """Stop receiving draws."""
        self.task.cancel()
        self.socket.close(linger=0)
        self.folder.cleanup()

    async def _listen(self) -> None:
        while True:
            head, body, tops = await self.socket.recv_multipart()
            keys, places = json.loads(head)
            draws_BN = np.frombuffer(body, np.int32).reshape(len(keys), -1)
            best_B = np.frombuffer(tops, np.float32).tolist()
            for key, place, draws, best in zip(keys, places, draws_BN, best_B, strict=True):
                if key in self.found:
                    self.found[key][place] = draws, best
            self.news.set()
            self.news.clear()
