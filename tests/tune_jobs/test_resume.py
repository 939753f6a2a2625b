"""The plug is pulled on `perso tune`; the same command with --resume ends what it had begun."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml

from perso.registry import Registry
from perso.workspace import Workspace

pytestmark = [pytest.mark.ray, pytest.mark.slow]

JOB = {
    "prepare": {
        "source": "synthetic",
        "shop": {"seed": 7, "num_users": 300, "num_items": 120, "num_days": 60},
        "num_partitions": 4,
    },
    "search": {
        "name": "pulled",
        "grids": [
            {
                "family": "sgd",
                "fixed": {"epochs": 60, "batch_size": 512},
                "grid": {"num_factors": [8, 16, 32], "l2": [0.03, 0.1, 0.3]},
            }
        ],
        "k": [5, 20],
        "checkpoint_every_s": 0.0,
    },
}


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(JOB))
    return path


@pytest.fixture
def start(job, tmp_path):
    """Starts the command; whatever is left of it at the end of the test is killed."""
    processes = []

    def start(*flags):
        environment = {
            k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")
        }
        command = "from perso.cli import main; main()"
        arguments = ["tune", "--spec", str(job), "--root", str(tmp_path / "root"), *flags]
        with (tmp_path / "log").open("ab") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", command, *arguments],
                    env=environment,
                    stdout=log,
                    stderr=log,
                )
            )
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            end(process, signal.SIGKILL)


def end(process, with_signal):
    """End the driver alone; Ray's processes have to notice by themselves."""
    tree = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(with_signal)
    code = process.wait(timeout=60)
    _, alive = psutil.wait_procs(tree, timeout=30)
    for straggler in alive:
        straggler.kill()
    return code


def finished(workspace):
    """Bytes of the trials that are over, by file."""
    found = {path: path.read_bytes() for path in workspace.searches.glob("*/trials/[0-9]*.json")}
    return {path: text for path, text in found.items() if json.loads(text)["status"] == "finished"}


def wait_for_trials(process, workspace, count, log):
    deadline = time.monotonic() + 240
    while len(finished(workspace)) < count:
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)
    return finished(workspace)


@pytest.mark.timeout(600)
def test_a_killed_search_goes_on_and_an_interrupted_one_says_how(start, tmp_path):
    workspace, log = Workspace(tmp_path / "root"), tmp_path / "log"
    first = start()
    wait_for_trials(first, workspace, 2, log)
    end(first, signal.SIGKILL)
    done = finished(workspace)
    assert 2 <= len(done) < 9

    second = start("--resume")
    wait_for_trials(second, workspace, len(done) + 2, log)
    assert end(second, signal.SIGINT) == 130
    assert "are kept: the same command with --resume goes on" in log.read_text()
    assert done.items() <= finished(workspace).items()
    done = finished(workspace)

    third = start("--resume")
    assert third.wait(timeout=240) == 0, log.read_text()[-3000:]
    assert done.items() <= finished(workspace).items()  # not a byte of them written again
    assert len(finished(workspace)) == 9
    assert Registry(workspace).champion() is not None
    (report,) = workspace.searches.glob("*/report/report.md")
    assert "pulled" in report.read_text()
    assert start("--resume").wait(timeout=120) == 2
    assert "leave --resume out to begin one" in log.read_text()
