"""Near duplicates with datatrove: python near_datatrove.py IN.parquet OUT.parquet [ray]. datatrove's four steps run on
this machine with two workers. With `ray`, datatrove's executor for Ray runs them on a Ray cluster of this machine with
two cores.
"""

import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import ParquetWriter


def run(pipeline: list, tasks: int, logs: str) -> None:
    """Runs one step."""
    if "ray" not in sys.argv[3:]:
        LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=2, logging_dir=logs).run()
        return
    import ray
    from datatrove.executor import RayPipelineExecutor

    if not ray.is_initialized():
        ray.init("local", num_cpus=2, include_dashboard=False)  # "local": never a cluster that runs already
    executor = RayPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=2, logging_dir=logs)
    executor.run()
    if missing := executor.get_incomplete_ranks(range(tasks)):  # run() only logs a warning
        sys.exit(f"{len(missing)} of {tasks} tasks of {pipeline} failed")


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        config = MinhashConfig(n_grams=5, num_buckets=16, hashes_per_bucket=8)
        data = Path(scratch) / "data"
        data.mkdir()
        table = pq.read_table(sys.argv[1])
        table = table.set_column(0, "id", table["id"].cast(pa.string()))  # datatrove takes the id 0 for a missing id
        half = -(-len(table) // 2)
        for part in range(2):  # each task reads one file
            pq.write_table(table.slice(part * half, half), data / f"{part}.parquet")
        reader = ParquetReader(str(data), text_key="text", id_key="id")
        steps = [
            ([reader, MinhashDedupSignature(f"{scratch}/signatures", config=config)], 2),
            ([MinhashDedupBuckets(f"{scratch}/signatures", f"{scratch}/buckets", config=config)], 16),
            ([MinhashDedupCluster(f"{scratch}/buckets", f"{scratch}/remove", config=config)], 1),
            ([reader, MinhashDedupFilter(f"{scratch}/remove"), ParquetWriter(f"{scratch}/out")], 2),
        ]
        for number, (pipeline, tasks) in enumerate(steps):
            run(pipeline, tasks, f"{scratch}/logs/{number}")
        ids = [
            number
            for path in Path(f"{scratch}/out").glob("*.parquet")
            for number in pq.read_table(path)["id"].to_pylist()
        ]
        pq.write_table(pa.table({"id": sorted(map(int, ids))}), sys.argv[2])


if __name__ == "__main__":
    main()
