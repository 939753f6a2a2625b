"""The cluster's page names only files, commands and options that exist."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
GUIDE = (REPOSITORY / "docs" / "cluster.md").read_text()


def commands():
    """The lines of the page's blocks, continuation lines joined, comments dropped."""
    text = "\n".join(re.findall(r"^```\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE))
    lines = text.replace("\\\n", " ").splitlines()
    return [re.sub(r"\s+# .*", "", line).strip() for line in lines if line.strip()]


def ray_commands():
    inline = re.findall(r"`(ray [^`…]+)`", GUIDE)
    return sorted({c for c in [*commands(), *inline] if c.startswith("ray ")})


def anchor(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_link_leads_somewhere():
    headings = {anchor(h) for h in re.findall(r"^#+ (.*)$", GUIDE, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", GUIDE):
        if target.startswith("#"):
            assert target[1:] in headings, target
        else:
            assert (REPOSITORY / "docs" / target).exists(), target


def test_every_file_that_is_named_is_there():
    for path in re.findall(r"`((?:tests|deploy)/[\w/.]+)`", GUIDE):
        assert (REPOSITORY / path).exists(), path


@pytest.mark.parametrize("command", ray_commands())
def test_every_command_of_ray_is_one_with_its_options(command):
    from ray.scripts.scripts import cli

    words = shlex.split(command)[1:]
    found = cli
    while words and words[0] in getattr(found, "commands", ()):
        found = found.commands[words.pop(0)]
    assert found is not cli, command
    known = {o for parameter in found.params for o in (*parameter.opts, *parameter.secondary_opts)}
    before = words[: words.index("--")] if "--" in words else words
    for option in (word.split("=")[0] for word in before if word.startswith("--")):
        assert option in known, (command, option)
    for path in (word for word in before if word.endswith(".yaml")):
        assert (REPOSITORY / path).exists(), path


def test_a_submitted_job_runs_a_module_with_options_that_it_has(capsys):
    from tune_jobs import grid_search

    with pytest.raises(SystemExit):
        grid_search.main(["--help"])
    known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    used = [c.split(" -m ", 1)[1].split() for c in commands() if " -m " in c]
    assert used
    for module, *arguments in used:
        assert module == grid_search.__name__
        assert {a for a in arguments if a.startswith("--")} <= known


def test_every_command_of_perso_is_one_with_its_options():
    import typer

    from perso.cli import app

    known = typer.main.get_command(app).commands["tune"].params
    options = {option for parameter in known for option in parameter.opts}
    used = [c for c in commands() if c.startswith("perso ")]
    assert used
    for command in used:
        _, tune, *arguments = command.split()
        assert tune == "tune"
        assert {a for a in arguments if a.startswith("--")} <= options


def test_what_the_page_says_of_costs_is_what_the_files_say():
    cluster = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())
    assert cluster["idle_timeout_minutes"] == 5 and "five idle\nminutes" in GUIDE
    assert cluster["available_node_types"]["gpu_worker"]["idle_timeout_s"] == 180
    assert cluster["max_workers"] == 10 and "at most ten" in GUIDE


def test_names_of_kubernetes_objects_are_those_of_the_manifests():
    folder = REPOSITORY / "deploy" / "kuberay"
    (cluster,) = yaml.safe_load_all((folder / "cluster.yaml").read_text())
    secret = cluster["spec"]["authOptions"]["secretName"]
    assert f"create secret generic {secret} " in GUIDE
    assert f"service/{cluster['metadata']['name']}-head-svc" in GUIDE
    for path in re.findall(r"-[fk] (deploy/[\w/.]+)", GUIDE):
        assert (REPOSITORY / path).exists(), path
