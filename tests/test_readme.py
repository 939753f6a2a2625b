"""The README's commands, run in order in a copy of the checkout with nothing prepared."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands() -> list[str]:
    """The lines of the README's ``sh`` blocks, continuation lines joined, comments dropped."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    text = "\n".join(blocks).replace("\\\n", " ")
    return [re.sub(r"\s+# .*", "", line).strip() for line in text.splitlines() if line.strip()]


def test_the_first_commands_are_the_two_that_do_everything():
    assert commands()[:2] == ["make demo", "make test"]


def test_nothing_is_left_to_be_filled_in():
    assert "@@" not in README


def test_every_link_of_the_documents_leads_somewhere():
    for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text()):
            assert target.startswith("http") or (ROOT / target).exists(), f"{name}: {target}"


@pytest.fixture
def checkout(tmp_path):
    """A checkout of its own, sharing only the installed environment."""
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("the README's `make` commands use .venv: run by `make test`")
    for entry in ROOT.iterdir():
        if entry.name in {".git", ".perso"} or entry.name.endswith("_cache"):
            continue
        if entry.name == ".venv":
            (tmp_path / entry.name).symlink_to(entry)
        elif entry.is_dir():
            shutil.copytree(entry, tmp_path / entry.name)
        else:
            shutil.copy2(entry, tmp_path / entry.name)
    return tmp_path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(command: str, cwd: Path) -> str:
    done = subprocess.run(
        ["bash", "-c", f'export PATH="{ROOT}/.venv/bin:$PATH"; {command}'],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@contextmanager
def serving(cwd: Path, port: int):
    """``perso serve`` in its own process, as ``make demo`` leaves it behind."""
    with (cwd / "serve.log").open("w") as log:
        service = subprocess.Popen(
            [f"{ROOT}/.venv/bin/perso", "serve", "--port", str(port)],
            cwd=cwd,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).is_success:
                    break
            except httpx.HTTPError:
                pass
            assert service.poll() is None, (cwd / "serve.log").read_text()
            assert time.monotonic() < deadline, (cwd / "serve.log").read_text()
            time.sleep(0.5)
        yield
    finally:
        service.terminate()
        service.wait(60)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.service
@pytest.mark.timeout(900)
def test_the_commands_do_what_the_readme_says(checkout):
    demo, test, *others = commands()
    port = free_port()
    shown = run(f'{demo} ARGS="--once --port {port}"', checkout)
    assert "popularity vs tuned model" in shown
    assert "after the clicks" in shown
    assert "pytest" in run(f"{test} --dry-run", checkout)

    answers = []
    with serving(checkout, port):
        cwd = checkout
        for command in others:
            if command.startswith("cd "):
                cwd = checkout / command.removeprefix("cd ")
            elif command != "perso serve":  # it runs
                answer = run(command.replace(":8000", f":{port}"), cwd)
                if command.startswith("curl"):
                    answers.append(json.loads(answer))

    known, receipt, session = answers
    assert len(known["items"]) == 5
    assert known["rung"] == "personal"
    assert receipt["accepted"] == 1
    assert session["num_recent_events"] == 1
    assert session["rung"] == "personal"
    (exported,) = (
        line for line in (checkout / "events.jsonl").read_text().splitlines() if '"e-1"' in line
    )
    assert json.loads(exported)["item_id"] == "i00042"
