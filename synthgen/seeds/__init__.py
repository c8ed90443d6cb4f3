"""Seeds: the inputs from which requests to the teacher are made, such as questions. Seeds are rows of JSONL, CSV, TSV
or Parquet files, of folders of such files, or of Hugging Face datasets. Text files may be compressed.

    seeds = load_seeds(recipe.seeds, recipe.split, prompt.question)
    seeds.counts                    # {"train": 148, "validation": 0, "test": 32}
    seeds[0].fields                 # the variables of the templates

Every seed has a source, a license and a split. The split depends only on the seed's group and the recipe's split
settings. The split is therefore known before anything is generated, and it does not change when seeds are added.
"""

from synthgen.seeds.files import SUFFIXES, has_rows, is_readable
from synthgen.seeds.groups import mask, side
from synthgen.seeds.load import load_seeds
from synthgen.seeds.rows import Row, Rows, Where, read_rows
from synthgen.seeds.store import Seed, Seeds

__all__ = [
    "SUFFIXES",
    "Row",
    "Rows",
    "Seed",
    "Seeds",
    "Where",
    "has_rows",
    "is_readable",
    "load_seeds",
    "mask",
    "read_rows",
    "side",
]
