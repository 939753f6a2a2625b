"""The documented ``ray job submit`` line, against a cluster that others have started."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from perso.registry import Registry
from perso.workspace import Workspace

pytestmark = [pytest.mark.ray, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]


def free_ports(count):
    """Ports that nobody listens on, all different."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_until_up(address, token, head, log, *, timeout_s):
    request = urllib.request.Request(
        f"{address}/api/version", headers={"Authorization": f"Bearer {token}"}
    )
    give_up_at = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at and head.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"the head did not come up: {log.read_text()[-3000:]}")


def stop(head):
    """End the head and what it has started, and no other Ray of this machine."""
    started = [psutil.Process(head.pid)] if head.poll() is None else []
    started += [child for process in started for child in process.children(recursive=True)]
    head.terminate()  # it takes its own along; a hard kill is for what is left
    _, left = psutil.wait_procs(started, timeout=15)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=10)
    head.wait(timeout=10)


@pytest.fixture
def environment():
    """Only what the head and its client are told here; ``python`` is the one of this test."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "PERSO_", "MLFLOW_"))
    }
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


@pytest.fixture
def temp_dir():
    """Short: below it are sockets, whose paths end at 107 characters."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def dashboard(environment, temp_dir, tmp_path):
    """Address of a head of its own, on ports that no other Ray uses."""
    names = ("port", "ray-client-server-port", "dashboard-port")
    names += ("dashboard-agent-listen-port", "dashboard-agent-grpc-port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    address = f"http://127.0.0.1:{ports['dashboard-port']}"
    log = tmp_path / "head.log"
    command = ["ray", "start", "--head", "--block", "--num-cpus=2", f"--temp-dir={temp_dir}"]
    command += ["--dashboard-host=127.0.0.1"]
    command += ["--min-worker-port=0", "--max-worker-port=0"]  # any that are free
    command += [f"--{name}={port}" for name, port in ports.items()]
    with log.open("w") as written:
        head = subprocess.Popen(command, env=environment, stdout=written, stderr=written)
    try:
        wait_until_up(address, environment["RAY_AUTH_TOKEN"], head, log, timeout_s=120)
        yield address
    finally:
        stop(head)


@pytest.mark.timeout(600)
def test_a_submitted_search_leaves_a_champion(dashboard, environment, temp_dir, tmp_path):
    root = tmp_path / "root"
    command = f"ray job submit --address {dashboard} --working-dir . -- python -m"
    command += f" tune_jobs.grid_search --spec tune_jobs/specs/quick.yaml --root {root}"
    done = subprocess.run(
        command.split(),
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=420,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert " beats " in done.stdout
    champion = Registry(Workspace(root)).champion()
    assert champion is not None
    assert champion.metrics["ndcg@20"] > 0

    (uploaded,) = temp_dir.glob("session_2*/runtime_resources/working_dir_files/*/")
    names = {path.name for path in uploaded.iterdir()}
    assert "tune_jobs" in names
    assert not names & {".venv", ".git", ".perso", ".pytest_cache"}
