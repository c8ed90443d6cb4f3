"""Reads rows from other data sets into the record format.

    dataset = open_dataset(SeedSource(path="rows.jsonl", license="CC0-1.0", source="mine"))
    for where, record in records(dataset, "my task", recipe.split): ...

A data set is a JSONL, CSV or Parquet file, a folder of such files, or a dataset on the Hugging Face hub. The first
entry of DATASET_FORMATS that recognizes the first row reads all rows. The data set's own ids are kept. Columns that the
format does not read are kept under their own names (`Record.own`). A column whose name the record already uses is kept
as `source_NAME`.
"""

from synthgen.datasets.reading import Dataset, is_dataset, open_dataset, records
from synthgen.datasets.store import store
from synthgen.datasets.turns import Turns

__all__ = ["Dataset", "Turns", "is_dataset", "open_dataset", "records", "store"]
