"""Python code in a model's folder is never run, and nobody is asked whether it should be."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import ENVIRONMENT, cold
from support.places import REPOSITORY
from support.small import small_encoder, small_task, small_teacher

from synthgen.tables.students import KINDS

CODE = "from pathlib import Path\n\nPath({marker!r}).write_text('this code ran')\n\n\nclass {classes}:\n    pass\n"
AUTO = ("AutoModel", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModelForSequenceClassification")
YES = "y\n" * 1000  # the answer to any question that is asked on stdin

# Every function that loads a model, a configuration or a tokenizer from a folder. `at` is the folder.
CHILD = """
import json, sys
import torch
from pathlib import Path
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification
from distill.students.encoder import Encoder, encoder, tokenizer_of
from distill.exporting.running import open_encoder, open_model
from distill.students.sentence import sentence
from distill.students.seq2seq import Seq2SeqModel, seq2seq
from distill.students.decoder import decoder
from synthgen.errors import UserError
from synthgen.tables.engines import TeacherSection
from synthgen.lm import load
from synthgen.lm.files import ModelFiles
from synthgen.lm.tokens import Tokens
from synthgen.lm.weights import Weights
from synthgen.teachers import open_teacher
from synthgen.teachers.embedding import EmbeddingModel
from synthgen.teachers.encoder import EncoderModel
from synthgen.teachers.server_tokens import TokenMap
from synthgen.teachers.transformers import LocalModel
from synthgen.tables.students import DecoderStudent, EncoderStudent, Seq2SeqStudent, SentenceStudent

marker, plain, embedder, *folders = sys.argv[1:]
tokens, weights = Tokens.open(plain), Weights.open(TeacherSection(model=plain, device="cpu"))
vectors = EmbeddingModel.open(TeacherSection(model=embedder, device="cpu")).model

def of(at):
    return TeacherSection(model=at, device="cpu", license="MIT")

LOADS = {
    "load_weights": lambda at: load.load_weights(of(at)),
    "load_weights of an encoder": lambda at: load.load_weights(of(at), AutoModelForSequenceClassification),
    "load_configs": lambda at: load.load_configs(ModelFiles.find(at, None)),
    "load_tokenizer": load.load_tokenizer,
    "is_classifier": lambda at: load.is_classifier(of(at)),
    "is_embedder": lambda at: load.is_embedder(of(at)),
    "open_teacher": lambda at: open_teacher(of(at)),
    "LocalModel": lambda at: LocalModel.open(of(at)),
    "EncoderModel": lambda at: EncoderModel.open(of(at)),
    "EmbeddingModel": lambda at: EmbeddingModel.open(of(at)),
    "TokenMap": TokenMap.open,
    "a decoder": lambda at: decoder(DecoderStudent(kind="decoder", model=at), lambda: weights, 0),
    "a seq2seq student": lambda at: seq2seq(Seq2SeqStudent(kind="seq2seq", model=at), tokens, weights.vocab_size, 0),
    "an encoder": lambda at: encoder(EncoderStudent(kind="encoder", model=at), tokens.tokenizer, ["a", "b"], 0),
    "an encoder's tokenizer": lambda at: tokenizer_of(
        EncoderStudent(kind="encoder", config={"model_type": "bert"}, tokenizer=at), plain
    ),
    "a sentence encoder": lambda at: sentence(SentenceStudent(kind="sentence", model=at), vectors, 0),
    "Seq2SeqModel": lambda at: Seq2SeqModel.open(at, 1, torch.device("cpu")),
    "Encoder": Encoder.load,
    "a student's encoder": lambda at: open_encoder("torch", Path(at)),
    "open_model": lambda at: open_model("torch", at),
}
try:
    from synthgen.tables.engines import VllmTeacher
    from synthgen.teachers.vllm.model import VllmModel
    LOADS["VllmModel"] = lambda at: VllmModel.open(VllmTeacher(engine="vllm", model=at, license="MIT"))
except ModuleNotFoundError:
    pass

for at in folders:
    for name, act in LOADS.items():
        try:
            act(at)
            said = ""
        except UserError as error:
            said = f"{error.message}"
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        ran = Path(marker).exists()
        Path(marker).unlink(missing_ok=True)
        print("FOUND", json.dumps([Path(at).name, name, said, ran]), flush=True)
"""


def evil(folder: Path, marker: Path, *, model: bool, tokenizer: bool) -> Path:
    """Writes a complete model folder. The folder has a Python file. `model` and `tokenizer` say whether the
    configuration and the tokenizer name classes of that file.
    """
    small_teacher(folder)
    (folder / "evil.py").write_text(CODE.format(marker=str(marker), classes="Evil"))
    if model:
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "evil", "architectures": ["EvilForCausalLM"]}
        config["auto_map"] = dict.fromkeys(("AutoConfig", *AUTO), "evil.Evil")
        (folder / "config.json").write_text(json.dumps(config))
    if tokenizer:
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config |= {"tokenizer_class": "EvilTokenizer", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def marker(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("marker") / "ran"


@pytest.fixture(scope="module")
def both(tmp_path_factory, marker) -> Path:
    return evil(tmp_path_factory.mktemp("evil") / "both", marker, model=True, tokenizer=True)


def test_no_function_that_loads_runs_code_of_the_folder(tmp_path, marker, both):
    folders = [
        both,
        evil(tmp_path / "model", marker, model=True, tokenizer=False),
        evil(tmp_path / "tokenizer", marker, model=False, tokenizer=True),
    ]
    plain, embedder = small_teacher(tmp_path / "plain"), small_encoder(tmp_path / "embedder", headless=True)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, (marker, plain, embedder, *folders))],
        input=YES,
        env={**os.environ, **ENVIRONMENT, "HF_MODULES_CACHE": str(tmp_path / "modules")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "[y/N]" not in done.stdout + done.stderr
    found = [json.loads(line.removeprefix("FOUND ")) for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert len(found) >= 3 * 20
    assert [(folder, name) for folder, name, _, ran in found if ran] == []
    said = {(folder, name): text for folder, name, text, _ in found}
    for (folder, name), text in said.items():
        if folder in ("both", "model") and name not in ("is_classifier", "is_embedder", "open_model"):
            # A configuration is not needed to read a tokenizer that transformers knows.
            if folder == "model" and name in ("load_tokenizer", "TokenMap", "an encoder's tokenizer"):
                continue
            assert "needs Python code from its repository, and synthgen never runs such code" in text, (
                folder,
                name,
                text,
            )
            assert "\n" not in text


def test_a_command_says_so_in_one_line(tmp_path, marker, both):
    recipe = small_task(tmp_path / "task", both)
    modules = {"HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = cold("synthgen", "generate", recipe, "-o", tmp_path / "run", "-q", stdin=YES, env=modules)
    assert not marker.exists()
    assert done.code == 2, done
    assert done.out == "", done
    line, *hint = done.err.splitlines()
    assert "the model needs Python code from its repository, and synthgen never runs such code" in line, done
    assert len(hint) <= 1, done


LOADERS = ("from_pretrained", "from_config")  # methods of transformers' classes that may run a repository's code
MAKERS = ("LLM", "pipeline")
# GenerationConfig reads only JSON, and would save the argument `trust_remote_code` as a setting of the model
NO_CODE = ("GenerationConfig",)


def careless(source: str) -> list[str]:
    """Returns 'line: code' for every call in Python source that loads without trust_remote_code=False."""
    tree = ast.parse(source)
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    found = []
    for node in ast.walk(tree):
        loader = isinstance(node, ast.Attribute) and node.attr in LOADERS and _name(node.value) not in NO_CODE
        maker = isinstance(node, ast.Name) and node.id in MAKERS and id(node) in called
        call = called.get(id(node))
        if (loader or maker) and not (call and _refuses(call)):
            found.append(f"{node.lineno}: {ast.unparse(call or node)}")
    return found


def unsafe(source: str) -> list[str]:
    """Returns 'line: code' for every call in Python source that may read weights from a pickle.

    Every model is loaded with use_safetensors, or from a GGUF file. Configs and tokenizers have no weights.
    """
    tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "from_pretrained":
            weights = _name(node.func.value) not in (*NO_CODE, "AutoConfig", "AutoTokenizer", "AutoProcessor")
            if weights and not {word.arg for word in node.keywords} & {"use_safetensors", "gguf_file"}:
                found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def test_no_load_in_the_sources_reads_a_pickle():
    found = []
    for folder in ("synthgen", "distill"):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            found += [f"{path.relative_to(REPOSITORY)}:{one}" for one in unsafe(path.read_text(encoding="utf-8"))]
    assert found == []
    assert unsafe("AutoModel.from_pretrained(name, dtype=dtype, trust_remote_code=False)")
    assert unsafe("auto.from_pretrained(folder)")
    assert not unsafe("AutoModel.from_pretrained(name, use_safetensors=True)")
    assert not unsafe("AutoTokenizer.from_pretrained(name)")


def test_a_student_of_pickles_is_refused(tmp_path):
    """The weights of a student's folder were replaced by a pickle."""
    import torch

    from distill.students.encoder import Encoder
    from distill.students.seq2seq import Seq2SeqModel
    from synthgen.errors import UserError

    folder = small_encoder(tmp_path / "encoder")
    (folder / "model.safetensors").unlink()
    torch.save({"classifier.bias": torch.zeros(3)}, folder / "pytorch_model.bin")
    for load in (Encoder.load, lambda at: Seq2SeqModel.open(at, 1, torch.device("cpu"))):
        with pytest.raises(UserError):
            load(folder)


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def _refuses(call: ast.Call) -> bool:
    given = [word.value for word in call.keywords if word.arg == "trust_remote_code"]
    return any(isinstance(value, ast.Constant) and value.value is False for value in given)


def test_every_load_in_the_sources_refuses_code():
    found = []
    for folder in ("synthgen", "distill", "benchmarks"):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            found += [f"{path.relative_to(REPOSITORY)}:{one}" for one in careless(path.read_text(encoding="utf-8"))]
    assert found == []


def test_every_load_in_a_page_refuses_code():
    """Checks the pages of the project, and the templates of pages that synthgen writes beside students and exports."""
    pages = [
        *REPOSITORY.glob("*.md"),
        *REPOSITORY.glob("docs/*.md"),
        *(p for p in REPOSITORY.glob("synthgen/templates/**/*") if p.is_file()),
    ]
    loads = re.compile(r"(?<!GenerationConfig)\.from_pretrained\([^\n]*|transformers\.pipeline\([^\n]*")
    found = {f"{p.name}: {load}" for p in pages for load in loads.findall(p.read_text(encoding="utf-8"))}
    assert {load.split(":")[0] for load in found} >= {"onnx_decoder.md.j2"}
    said = {load for kind in KINDS.values() for load in loads.findall(kind.how_to_run)}
    assert len(said) == 3
    found |= said
    assert [load for load in found if "trust_remote_code=False" not in load] == []


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("AutoModel.from_pretrained(name, dtype=dtype)", True),
        ("AutoModel.from_pretrained(name, trust_remote_code=True)", True),
        ("AutoModel.from_pretrained(name, trust_remote_code=given)", True),
        ("AutoModel.from_pretrained(name, **more)", True),
        ("transformers.AutoConfig.from_pretrained(name)", True),
        ("kind.from_config(config)", True),
        ("load = AutoTokenizer.from_pretrained", True),
        ("LLM(model=name)", True),
        ("pipeline('text-classification', model=name)", True),
        ("AutoModel.from_pretrained(name, trust_remote_code=False, **more)", False),
        ("GenerationConfig.from_pretrained(name)", False),
        ("from_config(teacher.config, changes, seed)", False),
    ],
)
def test_a_load_that_forgets_is_seen(line, seen):
    assert bool(careless(line)) == seen
