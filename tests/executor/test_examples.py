"""The examples for clusters in docs/scale.md: their syntax, and that the commands in them exist."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest
import yaml
from support.places import REPOSITORY

import distill.cli
import synthgen.cli

PAGE = (REPOSITORY / "docs" / "scale.md").read_text(encoding="utf-8")
SCRIPTS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = {"synthgen": synthgen.cli.main, "distill": distill.cli.main}


def commands_in(text: str) -> list[list[str]]:
    """The commands of this package in a script or a line, as lists of words."""
    lines = text.replace("-m distill.cli", "\ndistill").replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.partition(" ")[0] in COMMANDS]


def check(words: list[str]) -> None:
    """Fails when a command or one of its options does not exist."""
    program, name, *arguments = words
    COMMANDS[program].commands[name].make_context(name, arguments)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_of_slurm(script, tmp_path):
    path = tmp_path / "job.sh"
    path.write_text(script)
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", line) for line in script.splitlines() if "SBATCH" in line)
    (words,) = commands_in(script)
    check(words)


def test_the_job_of_kuberay():
    (text,) = re.findall(r"```yml\n(.*?)```", PAGE, re.DOTALL)
    job = yaml.safe_load(text)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    check(shlex.split(job["spec"]["entrypoint"]))
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert f"ray[client]=={cluster['rayVersion']}" in (REPOSITORY / "Makefile").read_text()
    assert len(SCRIPTS) == 2


def test_a_wrong_option_is_found():
    with pytest.raises(Exception, match="No such option"):
        check(["synthgen", "curate", "run", "--executer", "ray"])
