"""The machine's plug is pulled on `perso serve`; the next start knows everything it promised."""

import os
import random
import signal
import socket
import subprocess
import sys
import time

import httpx
import psutil
import pytest

from perso.stream.event_log import EventLog
from perso.workspace import Workspace

pytestmark = [
    pytest.mark.ray,
    pytest.mark.service,
    pytest.mark.slow,
    pytest.mark.timeout(600),
]

EVENT = {"event_id": "e1", "event_type": "view_item", "session_id": "s", "item_id": "m0"}


class Serving:
    """`perso serve` in a process of its own, ready when this is made."""

    def __init__(self, root, port, log):
        self._log = log
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        command = "from perso.cli import main; main()"
        arguments = ["serve", "--root", str(root), "--port", str(port)]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", command, *arguments],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)
        self._tree = []

    def wait_until_ready(self, timeout_s=180.0):
        deadline = time.monotonic() + timeout_s
        while not self._is_ready():
            assert self.process.poll() is None, f"perso serve ended: {self._told()}"
            assert time.monotonic() < deadline, f"perso serve is not ready: {self._told()}"
            time.sleep(0.2)

    def _told(self):
        return self._log.read_text(errors="replace")[-3000:]

    def _is_ready(self):
        try:
            return self.client.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self):
        """Only the driver is killed; Ray's processes have to notice by themselves."""
        self._tree = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def survivors(self, timeout_s=60.0):
        deadline = time.monotonic() + timeout_s
        while (alive := [p for p in self._tree if is_alive(p)]) and time.monotonic() < deadline:
            time.sleep(0.2)
        return alive

    def close(self):
        """Leave nothing behind, whatever the test did."""
        self.client.close()
        if self.process.poll() is None:
            self.kill()
        for survivor in self.survivors(timeout_s=20.0):
            survivor.kill()


def is_alive(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def start(tmp_path):
    started = []

    def start(root, port):
        started.append(Serving(root, port, tmp_path / f"serve-{len(started)}.log"))
        started[-1].wait_until_ready()
        return started[-1]

    yield start
    for serving in started:
        serving.close()


def free_port():
    """Below the ports that the system hands out, of which Ray's own processes take dozens."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    pytest.fail("no free port")


def test_a_killed_service_starts_again_with_its_model_and_every_acknowledged_event(
    start, promote_world, tmp_path
):
    workspace = Workspace.open(tmp_path / "root")
    version = promote_world(workspace)
    port = free_port()

    first = start(workspace.root, port)
    assert first.client.get("/v1/model").json()["version"] == version
    receipt = first.client.post("/v1/events", json=EVENT)
    first.kill()
    assert (receipt.status_code, receipt.json()["accepted"]) == (202, 1)
    # Two of Ray's node agents outlive a killed driver; they hold neither the port nor the log.
    stragglers = first.survivors(timeout_s=20.0)
    assert {p.name() for p in stragglers} <= {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
    for straggler in stragglers:
        straggler.kill()
    assert first.survivors() == []

    second = start(workspace.root, port)
    assert second.client.get("/v1/model").json()["version"] == version
    answer = second.client.post("/v1/recommendations", json={"session_id": "s", "k": 4}).json()
    assert (answer["num_recent_events"], answer["rung"]) == (1, "personal")
    assert sorted(item["item_id"] for item in answer["items"]) == ["m1", "m2", "m3", "m4"]
    again = second.client.post("/v1/events", json=EVENT).json()
    assert (again["accepted"], again["duplicates"]) == (0, 1)
    stored = [logged.event.event_id for logged in EventLog(workspace.event_log).read_from()]
    assert stored == ["e1"]
