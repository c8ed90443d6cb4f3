"""Near duplicates with Data-Juicer: python near_datajuicer.py IN.parquet OUT.parquet. The program runs the tool's own
command, with the bands of the other tools and two processes.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

with tempfile.TemporaryDirectory() as scratch:
    out = Path(scratch) / "out.jsonl"
    sweep = {
        "tokenization": "space",
        "window_size": 5,
        "lowercase": True,
        "ignore_pattern": r"\p{P}",
        "num_permutations": 128,
        "jaccard_threshold": 0.8,
        "num_bands": 16,
        "num_rows_per_band": 8,
    }
    recipe = {
        "project_name": "near",
        "dataset_path": str(Path(sys.argv[1]).resolve()),
        "export_path": str(out),
        "np": 2,
        "use_cache": False,
        "process": [{"document_minhash_deduplicator": sweep}],
    }
    path = Path(scratch) / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    command = Path(sys.executable).parent / "dj-process"
    subprocess.run([str(command), "--config", str(path)], check=True, cwd=scratch)
    ids = [json.loads(line)["id"] for line in out.open(encoding="utf-8")]
pq.write_table(pa.table({"id": sorted(ids)}), sys.argv[2])
