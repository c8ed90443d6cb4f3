"""llama.cpp loads a decoder that was exported as GGUF, and gives the same tokens and next-token probabilities."""

from __future__ import annotations

import torch
from support import unaudited
from support.small import small_task

import distill
import synthgen
from distill.exporting.running import open_model
from synthgen import corpus
from synthgen.tables.engines import TeacherSection
from synthgen.teachers.transformers import LocalModel


def test_tokens_and_probabilities_are_those_of_the_student(tmp_path, tiny):
    import llama_cpp

    recipe = synthgen.load_recipe(small_task(tmp_path / "task", tiny, seeds=24))
    run = tmp_path / "run"
    synthgen.generate(recipe, run)
    synthgen.curate(recipe, run)
    unaudited.train(recipe, run)
    found = distill.export(run, "gguf")
    assert found.files["GGUF, float16"].runtime == "llama.cpp"
    assert found.table["GGUF, float16"]["agreement"] >= 0.99
    student = LocalModel.open(TeacherSection(model=str(run / "student"), device="cpu"))
    path = run / "student" / "gguf" / "model-f16.gguf"
    words = llama_cpp.Llama(str(path), n_ctx=256, verbose=False)
    held_out = [r for _, rows in corpus.records(run / "curated", "data", "test") for r in rows]
    for text in [m["content"] for r in held_out for m in r.prompt] + ["it's 12,345 → naïve\n\n  <|im_end|>x"]:
        ids = student.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert words.tokenize(text.encode(), add_bos=False, special=True) == ids
    model, ids = open_model("llama.cpp", path), student.tokenizer("What is 2 plus 3? It is five.")["input_ids"]
    with torch.inference_mode():
        expected = student.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    first, rest = model.feed(ids[:4]), model.feed(ids[4:])  # the second call uses the cache of the first
    for logits, wanted in ((first, expected[:4]), (rest, expected[4:])):
        assert (torch.tensor(logits).log_softmax(-1) - wanted).abs().max() < 0.05
