"""Near duplicates with text-dedup: python near_textdedup.py IN.parquet OUT.parquet. The program runs the tool's own
command, with the bands of the other tools and two processes.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
from datasets import load_from_disk

with tempfile.TemporaryDirectory() as scratch:
    out = Path(scratch) / "out"
    settings = "--split train --column text --ngram 5 --min_length 0 --num_perm 128 --threshold 0.8 --b 16 --r 8"
    files = f"--path parquet --data_files {Path(sys.argv[1]).resolve()} --cache_dir {scratch}/cache --num_proc 2"
    command = f"{sys.executable} -m text_dedup.minhash {files} {settings} --output {out}"
    subprocess.run(command.split(), check=True, cwd=scratch)
    pq.write_table(load_from_disk(out).with_format("arrow")[:].select(["id"]), sys.argv[2])
