"""The handling of nodes itself, on processes that are quicker to start than Ray's."""

import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture(params=["namespace", "loopback"])
def place(request, nodes):
    """Somewhere to run processes; removed after the test, with what was left in it."""
    if request.param == "loopback":
        yield nodes.Loopback()
        return
    if why := nodes.why_no_namespaces():
        pytest.skip(why)
    network = nodes.Network()
    try:
        place = network.add_place()
        try:
            yield place
        finally:
            place.close()
    finally:
        network.close()


def test_killing_a_node_ends_orphans_too_and_nothing_of_another_place(nodes, place, tmp_path):
    other = subprocess.Popen(["sleep", "60"])
    # A grandchild in a session of its own, whose parent ends at once: no tree leads to it.
    script = "setsid sleep 60 & exec sleep 60"
    process = subprocess.Popen(place.command(["bash", "-c", script]))
    node = nodes.Node(place, process, tmp_path / "node.log")
    try:
        give_up_at = time.monotonic() + 20
        while len(place.pids()) < 2:
            assert time.monotonic() < give_up_at, place.pids()
            time.sleep(0.05)
        assert node.is_up
        node.kill()
        assert not node.is_up
        assert place.pids() == set()
        assert other.poll() is None
        node.kill()  # of a dead node: nothing
    finally:
        node.kill()
        other.kill()
        other.wait()


def test_machines_of_a_network_reach_each_other_and_have_no_cable_to_outside(nodes):
    if why := nodes.why_no_namespaces():
        pytest.skip(why)
    network = nodes.Network()
    try:
        first, second = network.add_place(), network.add_place()
        try:
            listen = (
                "import socket; s = socket.create_server(('', 7000)); print('up', flush=True);"
                " s.accept()[0].sendall(b'hello')"
            )
            listening = subprocess.Popen(
                second.command([sys.executable, "-c", listen]), stdout=subprocess.PIPE, text=True
            )
            try:
                assert listening.stdout.readline() == "up\n"
                call = (
                    "import socket, sys;"
                    "print(socket.create_connection((sys.argv[1], 7000), 5).recv(9).decode())"
                )
                calling = [sys.executable, "-c", call, second.address]
                inside = subprocess.run(
                    first.command(calling), capture_output=True, text=True, check=True, timeout=30
                )
                assert inside.stdout == "hello\n"
                outside = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True)
                assert network.tag not in outside.stdout
            finally:
                listening.kill()
                listening.communicate()
        finally:
            first.close()
            second.close()
    finally:
        network.close()


def test_a_killed_test_leaves_nothing_behind(nodes):
    if why := nodes.why_no_namespaces():
        pytest.skip(why)
    script = f"""
import subprocess, sys, time
sys.path.insert(0, {str(Path(nodes.__file__).parent)!r})
import nodes
with nodes.Cluster() as cluster:
    subprocess.Popen(cluster.head_place.command(["sleep", "60"]))
    print(cluster.network.name, flush=True)
    time.sleep(60)
"""
    test = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    name = test.stdout.readline().strip()
    assert name in namespaces()
    test.kill()
    test.communicate()
    give_up_at = time.monotonic() + 30
    while left := [place for place in namespaces() if place.startswith(name)]:
        assert time.monotonic() < give_up_at, left
        time.sleep(0.1)


def namespaces():
    told = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return [line.split()[0] for line in told.stdout.splitlines()]
