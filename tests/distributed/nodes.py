"""A Ray cluster of several nodes on one machine, each as close to its own machine as can be had.

As root every node gets a network namespace: its own address, its own ports, and a list of exactly
its processes, so that killing a node is pulling a machine's plug. Elsewhere, nodes are processes
on loopback that share its ports.
"""

import ast
import os
import re
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import psutil

REPOSITORY = Path(__file__).parents[2]
GCS_PORT = 6379


class Place(Protocol):
    """Where the processes of one node run."""

    address: str

    def command(self, command: Sequence[str]) -> list[str]:
        """What runs the command there."""

    def pids(self) -> set[int]:
        """Every process of it that lives."""

    def close(self) -> None:
        """Remove the place; its processes have ended."""


class Namespace:
    """One network namespace, joined to the others by a cable and a switch."""

    def __init__(self, network: "Network", number: int) -> None:
        self.name, self.address = f"{network.name}-{number}", f"10.213.0.{number}"
        near, far = f"v{network.tag}{number}", f"p{network.tag}{number}"
        _ip("netns", "add", self.name)
        cable = ("type", "veth", "peer", "name", far, "netns", network.name)
        _ip("link", "add", near, "netns", self.name, *cable)
        _ip("-n", network.name, "link", "set", far, "master", "switch", "up")
        _ip("-n", self.name, "address", "add", f"{self.address}/24", "dev", near)
        for device in ("lo", near):
            _ip("-n", self.name, "link", "set", device, "up")
        # Ray finds its own address by asking for the way to a public one; none is ever called.
        _ip("-n", self.name, "route", "add", "default", "dev", near)

    def command(self, command: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self.name, *command]

    def pids(self) -> set[int]:
        return {int(pid) for pid in _ip("netns", "pids", self.name).split()}

    def close(self) -> None:
        _ip("netns", "delete", self.name)


class Network:
    """A switch in a namespace of its own: nothing of it can be seen from, or reach, outside."""

    def __init__(self) -> None:
        self.tag = secrets.token_hex(3)
        self.name = f"ray-{self.tag}"
        self._num_machines = 0
        _ip("netns", "add", self.name)
        try:
            _ip("-n", self.name, "link", "add", "switch", "type", "bridge")
            _ip("-n", self.name, "link", "set", "switch", "up")
        except BaseException:
            self.close()
            raise

    def add_place(self) -> Namespace:
        self._num_machines += 1
        return Namespace(self, self._num_machines)

    def close(self) -> None:
        _ip("netns", "delete", self.name)


class Loopback:
    """A place that is nothing but a list of processes, found by a mark in their environment."""

    address = "127.0.0.1"

    def __init__(self) -> None:
        self._mark = f"RAY_TEST_PLACE_{secrets.token_hex(8)}"

    def command(self, command: Sequence[str]) -> list[str]:
        return ["env", f"{self._mark}=1", *command]

    def pids(self) -> set[int]:
        found = set()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if self._mark in process.environ() and process.status() != psutil.STATUS_ZOMBIE:
                    found.add(process.pid)
        return found

    def close(self) -> None:
        pass


def why_no_namespaces() -> str | None:
    """Why nodes have to share loopback here; None where they need not."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need iproute2"
    try:
        network = Network()
        try:
            place = network.add_place()
            try:
                subprocess.run(place.command(["true"]), check=True, capture_output=True)
            finally:
                place.close()
        finally:
            network.close()
    except subprocess.CalledProcessError as error:
        return f"network namespaces are not allowed here: {error.stderr or error}"
    return None


class Node:
    """One started node of the cluster."""

    def __init__(self, place: Place, process: subprocess.Popen[bytes], log: Path) -> None:
        self.place, self._process, self.log = place, process, log

    @property
    def is_up(self) -> bool:
        return self._process.poll() is None

    def is_busy(self) -> bool:
        """Whether one of Ray's workers here has a task or an actor; its title says so."""
        for pid in self.place.pids():
            with suppress(psutil.Error):
                title = " ".join(psutil.Process(pid).cmdline()[:1])
                if title.startswith("ray::") and not title.startswith(("ray::IDLE", "ray::SPILL")):
                    return True
        return False

    def kill(self) -> None:
        """End every process, none with a chance to say goodbye; return when all are gone."""
        give_up_at = time.monotonic() + 30
        while pids := self.place.pids():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self._process.pid in pids:
                self._process.wait(timeout=10)
            assert time.monotonic() < give_up_at, f"processes {pids} do not die"
            time.sleep(0.05)
        self._process.wait(timeout=10)


class Cluster:
    """A head without CPUs for trials, and workers that come and are killed; a context manager.

    ``address`` is known before the head starts.

    Nothing here touches another Ray of the machine: sockets are in a folder of its own, a token
    keeps strangers out, and what is ended is what was started.
    """

    def __init__(self, *, environment: dict[str, str] | None = None) -> None:
        self._open = ExitStack()
        self._given = environment or {}

    def __enter__(self) -> "Cluster":
        with ExitStack() as stack:
            # Short: below it are sockets, whose paths end at 107 characters.
            self._folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
            stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
            self.why_on_loopback = why_no_namespaces()
            self.network = Network() if self.why_on_loopback is None else None
            if self.network:
                stack.callback(self.network.close)
                stack.enter_context(_undertaker(self.network, self._folder))
            self.environment = {
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("RAY_", "PERSO_", "MLFLOW_"))
            } | {
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": secrets.token_hex(32),
                "RAY_USAGE_STATS_ENABLED": "0",
                # A dead node is noticed after seconds, as a test wants it, not after half a minute.
                "RAY_health_check_initial_delay_ms": "2000",
                "RAY_health_check_period_ms": "1000",
                "RAY_health_check_timeout_ms": "2000",
                "RAY_health_check_failure_threshold": "5",
                **self._given,
            }
            self.nodes: list[Node] = []
            self._open = stack.pop_all()
        try:
            self.head_place = self._add_place()
        except BaseException:
            self._open.close()
            raise
        port = GCS_PORT if self.network else _free_ports(1)[0]
        self.address = f"{self.head_place.address}:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def head(self) -> Node:
        return self.nodes[0]

    def start_head(self, *options: str, environment: dict[str, str] | None = None) -> Node:
        """The head, with no CPUs; returns once jobs can reach it."""
        assert not self.nodes, "there is one head"
        port = self.address.rpartition(":")[2]
        ports = ("ray-client-server-port", "dashboard-port")
        head = self._start(
            self.head_place,
            ["--head", f"--port={port}", f"--temp-dir={self._folder}"],
            ["--num-cpus=0", "--dashboard-host=127.0.0.1", *self._ports(*ports), *options],
            environment=environment,
        )
        self._wait_until(lambda: self.num_alive() == 1, "the head does not come up", timeout_s=90)
        return head

    def add_worker(self, *options: str) -> Node:
        """One more node; returns once it is part of the cluster."""
        before = self.num_alive()
        # Of its own, as on a machine of its own: a job's files are unpacked there, over older ones.
        folder = f"--temp-dir={self._folder}/{len(self.nodes)}"
        node = self._start(self._add_place(), [f"--address={self.address}", folder], list(options))
        self._wait_until(
            lambda: self.num_alive() == before + 1, "a worker does not come up", timeout_s=90
        )
        return node

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """A process on the head's place, with what it needs to reach the cluster; ended at exit."""
        process = subprocess.Popen(
            self.head.place.command(command),
            cwd=REPOSITORY,
            env=self.environment,
            text=True,
            **options,
        )
        self._open.callback(_end, process)
        return process

    def num_alive(self) -> int:
        """Nodes that the cluster itself says are alive; 0 while it does not answer."""
        return len(self.alive())

    def alive(self) -> list[dict[str, float]]:
        """Total resources of each node that is alive; none while the cluster does not answer."""
        told = subprocess.run(
            self.head.place.command([sys.executable, "-c", _ASK_NODES, self.address]),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if told.returncode != 0:
            return []
        found: list[dict[str, float]] = ast.literal_eval(told.stdout.splitlines()[-1])
        return found

    def _start(
        self,
        place: Place,
        who: list[str],
        options: list[str],
        environment: dict[str, str] | None = None,
    ) -> Node:
        log = self._folder / f"node-{len(self.nodes)}.log"
        command = ["ray", "start", "--block", f"--node-ip-address={place.address}", *who, *options]
        command += ["--object-store-memory=200000000", "--min-worker-port=0", "--max-worker-port=0"]
        command += self._ports("dashboard-agent-listen-port", "dashboard-agent-grpc-port")
        with log.open("w") as written:
            process = subprocess.Popen(
                place.command(command),
                env=self.environment | (environment or {}),
                stdout=written,
                stderr=written,
                start_new_session=True,
            )
        node = Node(place, process, log)
        self.nodes.append(node)
        self._open.callback(node.kill)
        return node

    def _add_place(self) -> Place:
        if self.network is None:
            return Loopback()
        place = self.network.add_place()
        self._open.callback(place.close)
        return place

    def _ports(self, *names: str) -> list[str]:
        """Options with free ports where nodes share them; none where each has all ports."""
        if self.network:
            return []
        return [f"--{n}={p}" for n, p in zip(names, _free_ports(len(names)), strict=True)]

    def _wait_until(self, is_so: Callable[[], bool], complaint: str, *, timeout_s: float) -> None:
        give_up_at = time.monotonic() + timeout_s
        while not is_so():
            started = self.nodes[-1]
            if not started.is_up or time.monotonic() > give_up_at:
                raise AssertionError(f"{complaint}: {started.log.read_text()[-3000:]}")
            time.sleep(0.5)


class Search:
    """``python -m tune_jobs.grid_search`` on the head of a cluster."""

    def __init__(self, cluster: Cluster, folder: Path, job: str) -> None:
        self.root, self._log = folder / "root", folder / "search.log"
        spec = folder / "job.yaml"
        spec.write_text(job)
        command = [sys.executable, "-m", "tune_jobs.grid_search", "--address", cluster.address]
        with self._log.open("w") as log:
            self._process = cluster.popen(
                [*command, "--spec", str(spec), "--root", str(self.root)], stdout=log, stderr=log
            )

    @property
    def said(self) -> str:
        """What it has logged so far."""
        return self._log.read_text()

    @property
    def num_finished(self) -> int:
        """Trials that it has reported."""
        return len(re.findall(r"^search: trial \d+ of", self.said, re.MULTILINE))

    def wait_until(self, is_so: Callable[[], bool], *, timeout_s: float) -> None:
        """Return once it is so while the search goes on."""
        give_up_at = time.monotonic() + timeout_s
        while not is_so():
            assert self._process.poll() is None, self.said[-5000:]
            assert time.monotonic() < give_up_at, self.said[-5000:]
            time.sleep(0.1)

    def wait(self, *, timeout_s: float) -> None:
        """Return once it has ended well."""
        try:
            code = self._process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            code = None
        assert code == 0, f"exit code {code}: {self.said[-5000:]}"

    def trial_states(self) -> list[str]:
        """How each trial ended, by what the search wrote to the tracking database."""
        (database,) = (self.root / "mlflow").glob("*.db")
        with closing(sqlite3.connect(database)) as connection:
            rows = connection.execute(
                "SELECT status FROM runs JOIN tags USING (run_uuid) "
                "WHERE tags.key = 'mlflow.parentRunId'"
            )
            return [state for (state,) in rows]


_ASK_NODES = """
import sys
from ray._raylet import GcsClient
nodes = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10)
print([dict(n.resources_total) for n in nodes.values() if n.state == 0])
"""


@contextmanager
def _undertaker(network: Network, folder: Path) -> Iterator[None]:
    """Clears away what this process could not, because it was killed: its pipe then closes.

    Whatever is left in the namespaces is ended with them; after a regular end nothing is.
    """
    script = """
        read -r _
        for place in $(ip netns list | grep -o "^$0-[0-9]*") "$0"; do
            ip netns pids "$place" | xargs --no-run-if-empty kill -KILL
            ip netns delete "$place"
        done
        rm -rf "$1"
    """
    waiting = subprocess.Popen(
        ["sh", "-c", script, network.name, str(folder)],
        stdin=subprocess.PIPE,
        start_new_session=True,  # who ends the tests' process group does not end it
    )
    try:
        yield
    finally:
        waiting.kill()  # not needed: everything is ended in order after this
        waiting.communicate()


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait(timeout=10)
