"""A search over several nodes, started as a user does, and one of the nodes dies under it."""

import re
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.nodes]

NUM_TRIALS = 8
JOB = """
prepare:
  shop: {num_users: 300, num_items: 120, num_days: 60}
  num_partitions: 2
search:
  name: nodes
  grids:
  - fixed: {epochs: 80, batch_size: 512}
    grid: {num_factors: [8, 16, 24, 32], l2: [0.1, 0.3]}
  k: [20]
  objective: recall@20
"""


@pytest.mark.timeout(900)
def test_a_search_ends_with_every_trial_though_a_node_is_killed_midway(nodes, cluster, tmp_path):
    head = cluster.start_head()
    survivor, victim = (cluster.add_worker("--num-cpus=1") for _ in range(2))
    search = nodes.Search(cluster, tmp_path, JOB)
    search.wait_until(lambda: search.num_finished >= 1, timeout_s=400)
    search.wait_until(lambda: survivor.is_busy() and victim.is_busy(), timeout_s=120)
    assert search.num_finished < NUM_TRIALS - 2, "the trials are too short for a kill midway"
    victim.kill()
    assert not victim.is_up
    search.wait(timeout_s=400)
    assert search.trial_states() == ["FINISHED"] * NUM_TRIALS, search.said[-5000:]
    assert cluster.num_alive() == 2
    assert head.is_up and survivor.is_up


def status(cluster, path):
    """The HTTP status that a caller without token gets on the head."""
    ask = f"""
import urllib.error, urllib.request
try:
    print(urllib.request.urlopen("http://127.0.0.1:{path}", timeout=10).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""
    asking = cluster.popen([sys.executable, "-c", ask], stdout=subprocess.PIPE)
    return int(asking.communicate(timeout=30)[0])


@pytest.mark.timeout(300)
def test_the_head_has_nothing_for_trials_and_each_node_its_own_address(cluster):
    cluster.start_head()
    cluster.add_worker("--num-cpus=3")
    head, worker = sorted(cluster.alive(), key=lambda resources: resources.get("CPU", 0))
    assert "CPU" not in head and "GPU" not in head
    assert worker["CPU"] == 3
    if cluster.why_on_loopback is not None:
        pytest.skip(f"addresses and ports were shared: {cluster.why_on_loopback}")
    addresses = [n for node in (head, worker) for n in node if re.match(r"node:[\d.]+$", n)]
    assert len(set(addresses)) == 2
    # What the probes of deploy/kuberay ask needs no token; what could run code does.
    assert status(cluster, "8265/api/gcs_healthz") == 200
    assert status(cluster, "52365/api/local_raylet_healthz") == 200
    assert status(cluster, "8265/api/jobs/") == 401
