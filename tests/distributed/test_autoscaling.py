"""A cluster that grows for a search and shrinks after it, with Ray's own autoscaler.

Its nodes are made by Ray's provider for tests, which starts them as processes beside the head.
``AutoscalingCluster`` of Ray would do as much, but needs a file that the package lacks, and stops
every Ray of the machine.
"""

import time

import pytest
import yaml

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.nodes]

NUM_TRIALS = 3
IDLE_S = 10
JOB = """
prepare:
  shop: {num_users: 300, num_items: 120, num_days: 60}
  num_partitions: 2
search:
  name: autoscaling
  grids:
  - fixed: {epochs: 8}
    grid: {num_factors: [8, 16, 24]}
  k: [20]
  objective: recall@20
  cpus_per_trial: 1
  gpus_per_trial: 1
"""


@pytest.fixture
def growing(cluster, tmp_path):
    """A running head that may have two CPU workers and one GPU worker; there is no GPU, only Ray
    is told so."""
    from ray.autoscaler._private.fake_multi_node.node_provider import (
        FAKE_HEAD_NODE_ID,
        FAKE_HEAD_NODE_TYPE,
        FakeMultiNodeProvider,
    )

    def kind(max_workers, **resources):
        return {"resources": resources, "node_config": {}, "max_workers": max_workers}

    # An external provider brings no defaults: what is empty has to be said to be empty.
    no_commands = ("initialization", "setup", "head_setup", "worker_setup")
    no_commands += ("head_start_ray", "worker_start_ray")
    config = {
        **{f"{section}_commands": [] for section in no_commands},
        **{section: [] for section in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
        **{section: {} for section in ("auth", "docker", "file_mounts")},
        "file_mounts_sync_continuously": False,
        "upscaling_speed": 1.0,
        "cluster_name": "growing",
        "max_workers": 3,
        "idle_timeout_minutes": IDLE_S / 60,
        "provider": {
            "type": "external",
            "module": f"{FakeMultiNodeProvider.__module__}.{FakeMultiNodeProvider.__name__}",
            "gcs_address": cluster.address,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "available_node_types": {
            FAKE_HEAD_NODE_TYPE: kind(0, CPU=0),
            "cpu_worker": kind(2, CPU=2),
            "gpu_worker": kind(1, CPU=1, GPU=1),
        },
    }
    path = tmp_path / "growing.yaml"
    path.write_text(yaml.safe_dump(config))
    cluster.start_head(
        f"--autoscaling-config={path}",
        environment={
            "RAY_enable_autoscaler_v2": "1",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        },
    )
    return cluster


def gpus(cluster):
    return sum(resources.get("GPU", 0) for resources in cluster.alive())


@pytest.mark.timeout(900)
def test_trials_that_want_a_gpu_bring_up_a_node_with_one_which_goes_when_they_end(
    nodes, growing, tmp_path
):
    assert growing.num_alive() == 1
    search = nodes.Search(growing, tmp_path, JOB)
    search.wait_until(lambda: gpus(growing) == 1, timeout_s=400)
    search.wait(timeout_s=400)
    assert search.trial_states() == ["FINISHED"] * NUM_TRIALS, search.said[-5000:]
    give_up_at = time.monotonic() + 20 * IDLE_S
    while growing.num_alive() > 1:
        assert time.monotonic() < give_up_at, growing.alive()
        time.sleep(1)
    assert gpus(growing) == 0
    assert growing.head.is_up
