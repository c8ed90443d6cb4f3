"""Where the work on shards runs. An executor does three things and no more:

    executor.map(function, tasks)              # function(task, services) of each task, results in the order of tasks
    executor.exchange(tables, "key", parts)    # rows of many tables, brought together by the value of a column
    executor.services                          # what all workers share

What uses an executor does not know where its work runs. `LocalExecutor` runs it in processes of this machine, and its
exchange is files. An executor of a cluster has the same three methods. So functions are named at the top of a module,
tasks and results are small and can be pickled, and tables stay in files that every worker can read.
"""

from synthgen.executor.base import Executor, Services
from synthgen.executor.exchange import Partition
from synthgen.executor.local import LocalExecutor

__all__ = ["Executor", "LocalExecutor", "Partition", "Services"]
