"""Executors run the work on shards. An executor has three members:

    executor.map(function, tasks)              # calls function(task, services); results in the order of the tasks
    executor.exchange(tables, "key", parts)    # partitions the rows of many tables by a column
    executor.services                          # the settings and paths that all workers share

Code that uses an executor does not depend on where its work runs. `LocalExecutor` runs the work in processes on this
machine and exchanges rows through files. An executor for a cluster would have the same three members. To make such an
executor possible, functions are defined at the top level of a module, tasks and results are small and can be pickled,
and tables stay in files that every worker can read.
"""

from synthgen.executor.base import Executor, Services
from synthgen.executor.exchange import Partition
from synthgen.executor.local import LocalExecutor

__all__ = ["Executor", "LocalExecutor", "Partition", "Services"]
