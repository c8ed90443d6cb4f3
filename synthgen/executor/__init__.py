"""Executors run the work on shards. An executor has three members:

    executor.map(function, tasks)              # function(task, services) of each task, results in the order of tasks
    executor.exchange(tables, "key", parts)    # the rows of many tables, partitioned by a column
    executor.services                          # what all workers share

Code that uses an executor does not know where its work runs. `LocalExecutor` runs the work in processes on this machine
and exchanges rows through files. An executor for a cluster would have the same three members. Therefore functions are
defined at the top level of a module, tasks and results are small and can be pickled, and tables stay in files that
every worker can read.
"""

from synthgen.executor.base import Executor, Services
from synthgen.executor.exchange import Partition
from synthgen.executor.local import LocalExecutor

__all__ = ["Executor", "LocalExecutor", "Partition", "Services"]
