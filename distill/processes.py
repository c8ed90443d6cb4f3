"""The processes that train one student together. `torchrun` and `accelerate launch` start them.

    join(device)                                      # once in each process
    own = batch[rank() :: count()]                    # the rows of a step that this process computes
    add_gradients(parameters)                         # each gradient becomes the sum over all processes

Every process holds the whole student. If a command runs in one process, all functions of this module return at once.
"""

from __future__ import annotations

import atexit
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

from synthgen.errors import SynthgenError, UserError

T = TypeVar("T")

_PATIENCE = timedelta(hours=24)  # the first process may read and tokenize a large corpus while the others wait
_ASK = timedelta(seconds=5)
_OTHER_WAYS = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}
_LOST = ("gloo", "connection closed by peer", "connection reset by peer", "broken pipe")


def started() -> int:
    """The number of processes that the launcher started, or 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check(batch_size: int, device: torch.device) -> None:
    """Raise UserError when some of the started processes would have no rows of a batch, or no GPU of their own."""
    processes = started()
    if processes == 1:
        return
    if processes > batch_size:
        raise UserError(
            f"{processes} processes were started, but a batch has only {batch_size} rows",
            f"start at most {batch_size} processes, or raise train.batch_size",
        )
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if device.type == "cuda" and here > gpus:
        raise UserError(
            f"{here} processes were started on this machine, which has {gpus} GPUs",
            f"start {gpus} processes on it, or set teacher.device to cpu",
        )
    for variable, name in _OTHER_WAYS.items():
        if os.environ.get(variable, "").lower() == "true":
            raise UserError(
                f"accelerate is set to {name}, but every process of `distill train` holds the whole student",
                "start it with `torchrun`, or with an accelerate config for several GPUs without " + name,
            )


def join(device: torch.device) -> None:
    """Connect this process with the others, and wait until all of them are connected. `device` is the device on which
    this process trains.
    """
    if started() == 1 or dist.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # if nccl sends the gradients, gloo still sends tensors that are on the CPU
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)


def rank() -> int:
    """The number of this process, counted from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """The number of connected processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def once(make: Callable[[], T]) -> T:
    """Call `make` in process 0, and return its result in all processes. The other processes wait for the result, which
    must be picklable.
    """
    if count() == 1:
        return make()
    held = [make() if rank() == 0 else None]
    dist.broadcast_object_list(held, 0)
    return held[0]  # type: ignore[return-value]


def gathered(value: T) -> list[T]:
    """The `value` of every process, in the order of the processes' numbers."""
    if count() == 1:
        return [value]
    values: list[T] = [value] * count()
    dist.all_gather_object(values, value)
    return values


def agree(value: object, what: str) -> None:
    """Raise UserError, in all processes, unless all of them have the same `value`. `what` names the value."""
    first, *others = gathered(value)
    for number, other in enumerate(others, 1):
        if other != first:
            raise UserError(
                f"process {number} has another {what} than process 0",
                "start the same command on every node, with the same files under the same paths",
            )


def summed(terms: Mapping[str, float]) -> dict[str, float]:
    """For each key, the sum over all processes. A key may be missing in some processes."""
    total: Counter[str] = Counter()
    for each in gathered(dict(terms)):
        for key, value in each.items():
            total[key] += value  # type: ignore[assignment]
    return dict(total)


def spread(module: nn.Module) -> None:
    """Give every process the weights and buffers that `module` has in process 0."""
    if count() > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor.data, 0)


def add_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by the sum over all processes.

    A weight that has a gradient in no process gets no gradient, so that the optimizer skips this weight as it does in
    one process. Each gradient is summed by itself. The last bits of a sum therefore depend only on the number of
    processes, and not on the steps that this process has done before.
    """
    if count() == 1:
        return
    weights = list(parameters)
    there = torch.tensor([p.grad is not None for p in weights], dtype=torch.int32, device=weights[0].device)
    dist.all_reduce(there, dist.ReduceOp.MAX)
    sent = []
    for parameter, anywhere in zip(weights, there.tolist(), strict=True):
        if anywhere:
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            total = grad.contiguous()
            parameter.grad = grad
            sent.append((dist.all_reduce(total, async_op=True), grad, total))
    for one, grad, total in sent:
        one.wait()
        if not grad.is_contiguous():  # the fused AdamW needs the strides of the weight
            grad.copy_(total)


@contextmanager
def one_error() -> Iterator[None]:
    """Let only one process raise its error when several end, so that a failure of all processes is one message.

    Each other process exits with the exit code of its own error and without a message. An error that says that another
    process is gone becomes a UserError.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if started() == 1:
            raise
        known = _translated(error)
        if not _is_first():
            code = known.exit_code if isinstance(known, SynthgenError) else 1
            raise SystemExit(code) from None
        if known is error:
            raise
        raise known from None
    if dist.is_initialized():
        atexit.register(_leave)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()  # nccl warns about a process that exits without this call


def _translated(error: BaseException) -> BaseException:
    text = str(error).lower()
    lost = isinstance(error, dist.DistError) or any(part in text for part in _LOST)
    if not isinstance(error, RuntimeError) or not lost:
        return error
    return UserError(
        "another process of this training ended, so this one ends too",
        "read the message of that process or of the launcher; the same command continues from the last checkpoint",
    )


def _is_first() -> bool:
    """Whether this process is the first process that calls this function. A process that gets no answer from the
    launcher counts as the first.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        store = dist.TCPStore(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), None, False, _ASK, wait_for_workers=False
        )
        return int(store.add(f"distill/ended/{attempt}", 1)) == 1
    except (KeyError, ValueError, RuntimeError):
        return True
