"""Executors run the work on shards. An executor has three members:

    executor.map(function, tasks)              # calls function(task, services); results in the order of the tasks
    executor.exchange(tables, "key", parts)    # partitions the rows of many tables by a column
    executor.services                          # the settings and paths that all workers share

Code that uses an executor does not depend on where its work runs. `LocalExecutor` runs the work in processes on this
machine, and `synthgen.executor.ray.RayExecutor` on a Ray cluster; both exchange rows through files. Functions are
defined at the top level of a module, tasks and results are small and can be pickled, and tables stay in files that
every worker can read.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from synthgen.errors import UserError
from synthgen.executor.base import Executor, Services
from synthgen.executor.exchange import Partition
from synthgen.executor.local import LocalExecutor
from synthgen.executor.messages import Cluster

if TYPE_CHECKING:
    from synthgen.executor.ray import RayExecutor

__all__ = ["Cluster", "Executor", "LocalExecutor", "Partition", "Services", "open_cluster", "open_executor"]


def open_executor(name: str, workers: int | None, few: int) -> AbstractContextManager[Executor]:
    """The executor with this name: `local`, `ray`, or the address of a Ray cluster, such as `ray://head:10001`.

    `workers` is the greatest number of tasks at the same time. By default, a cluster uses all its cores, and this
    machine uses `few` processes. Raises UserError for an unknown name and for less than one worker, and the errors of
    `RayExecutor`.
    """
    return LocalExecutor(few if workers is None else workers) if name == "local" else _ray(name, workers)


def open_cluster(name: str, workers: int | None) -> AbstractContextManager[Cluster]:
    """The cluster with this name: `ray`, or the address of a Ray cluster, such as `ray://head:10001`. `workers` is the
    greatest number of workers. Raises UserError for another name, and the errors of `RayExecutor`.
    """
    return _ray(name, workers)


def _ray(name: str, workers: int | None) -> RayExecutor:
    if name != "ray" and not name.startswith("ray://"):
        raise UserError(f"there is no executor '{name}'", "use local, ray, or ray://HOST:PORT")
    from synthgen.executor.ray import RayExecutor  # imported here, because few users have the package

    return RayExecutor(None if name == "ray" else name, workers)
