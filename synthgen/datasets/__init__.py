"""Rows made elsewhere, read into the record.

    dataset = open_dataset(SeedSource(path="rows.jsonl", license="CC0-1.0", source="mine"))
    for where, record in records(dataset, "my task", recipe.split): ...

A data set is a JSONL, CSV or Parquet file, a folder of them, or a set of the Hugging Face hub. How its rows are read is
an entry of DATASET_FORMATS. Its own ids are kept, and the columns that the format does not read are carried under their
own names (`Record.own`); one that has the name of a column of the record is carried as `source_NAME`.
"""

from synthgen.datasets.reading import Dataset, is_dataset, open_dataset, records
from synthgen.datasets.store import store
from synthgen.datasets.turns import Turns

__all__ = ["Dataset", "Turns", "is_dataset", "open_dataset", "records", "store"]
