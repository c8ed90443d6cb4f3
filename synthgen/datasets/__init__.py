"""Reads the rows of data sets that were not made by synthgen, and converts them to records.

    dataset = open_dataset(SeedSource(path="rows.jsonl", license="CC0-1.0", source="mine"))
    for where, record in records(dataset, "my task", recipe.split): ...

A data set is a JSONL, CSV, Parquet, Arrow or JSON file, a folder of such files, or a folder that
`datasets.save_to_disk` wrote. A data set may also be a dataset repository of the Hugging Face hub, on the hub or as a
copy. The table DATASET_FORMATS lists the formats. All rows are read in the first format that recognizes the first row.
`Dataset.text()` says which format was recognized, and which columns it reads.

Every record has exactly one completion, a message of the assistant. The prompt holds all messages before the
completion. If the prompt is empty, the completion is plain text and not a turn of a conversation. Content that a record
cannot hold, such as an image, is refused; the error names the row.

The data set's own ids are kept. Columns that the format does not read are kept under their own names (in `Record.own`).
If the name NAME of a kept column is also the name of a column of records, the column is kept as `source_NAME`.
"""

from synthgen.datasets.adopting import adopt
from synthgen.datasets.reading import Dataset, is_dataset, open_dataset, records, source_of
from synthgen.datasets.store import store
from synthgen.datasets.turns import Turns

__all__ = ["Dataset", "Turns", "adopt", "is_dataset", "open_dataset", "records", "source_of", "store"]
