"""Sends the questions with DataDesigner: its seed table holds the questions, and one text column holds the answers.

`max_parallel_requests` limits the requests in flight. The native template engine is used, because it is the faster of
DataDesigner's two engines. Telemetry and the metrics endpoint are off. All other settings are defaults: row groups of
1,000 rows, three at a time.
"""

from __future__ import annotations

from clock import FOLDER, OPTIONS, questions, report, timed

# isort: split
import data_designer.config as dd
import pandas as pd
from data_designer.interface import DataDesigner

provider = dd.ModelProvider(name="loopback", endpoint=OPTIONS["url"], provider_type="openai", api_key="LOOPBACK_KEY")
parameters = dd.ChatCompletionInferenceParams(
    max_tokens=16, temperature=1.0, top_p=1.0, max_parallel_requests=OPTIONS["in_flight"]
)
model = dd.ModelConfig(alias="m", model=OPTIONS["model"], provider="loopback", inference_parameters=parameters)
builder = dd.DataDesignerConfigBuilder(model_configs=[model])
builder.with_seed_dataset(dd.DataFrameSeedSource(df=pd.DataFrame({"question": questions()})))
builder.add_column(dd.LLMTextColumnConfig(name="answer", prompt="{{ question }}", model_alias="m"))
designer = DataDesigner(artifact_path=FOLDER / "artifacts", model_providers=[provider])
designer.set_run_config(
    dd.RunConfig(jinja_rendering_engine=dd.JinjaRenderingEngine.NATIVE, otel_metrics_port=None, progress_interval=60)
)
with timed():
    designer.create(builder, num_records=OPTIONS["requests"], dataset_name="rows")
rows = pd.concat(pd.read_parquet(path) for path in sorted((FOLDER / "artifacts").rglob("*.parquet")))
report(
    f"max_parallel_requests={OPTIONS['in_flight']}, native templates",
    rows[["question", "answer"]].itertuples(index=False, name=None),
)
