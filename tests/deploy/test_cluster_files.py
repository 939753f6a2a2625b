"""``ray up``'s files: what Ray's own schema and loader accept, and what a person would check."""

import copy
import json
import re
import shlex
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml

REPOSITORY = Path(__file__).parents[2]
NAMES = ("cluster.yaml", "cluster.onprem.yaml")
SCHEMA = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())


def load(name):
    return yaml.safe_load((REPOSITORY / name).read_text())


def prepared(config):
    """What ``ray up`` makes of a file before it asks the cloud for anything."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(copy.deepcopy(config))
    validate_config(config)
    return config


def commands(config):
    sections = ("initialization_commands", "setup_commands", "head_setup_commands")
    sections += ("worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands")
    return [command for section in sections for command in config[section]]


@pytest.fixture
def aws():
    return load("cluster.yaml")


@pytest.fixture(params=NAMES)
def config(request):
    return load(request.param)


def test_rays_schema_and_loader_accept_each_file(config):
    jsonschema.validate(config, SCHEMA)
    prepared(config)


def test_the_schema_would_refuse_a_misspelt_key(config):
    config["idle_timeout_minuts"] = 5
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minuts"):
        prepared(config)


def test_every_node_type_is_named_and_the_head_has_nothing_for_trials(aws):
    types = aws["available_node_types"]
    assert set(types) == {"head", "cpu_worker", "gpu_worker"}
    head = types[aws["head_node_type"]]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert head["max_workers"] == 0
    assert types["cpu_worker"]["resources"]["CPU"] > 0
    assert "GPU" not in types["cpu_worker"]["resources"]
    assert types["gpu_worker"]["resources"]["GPU"] == 1


def test_the_head_starts_without_cpus_and_with_its_autoscaler_on_either_kind_of_machine(config):
    stop, start = config["head_start_ray_commands"]
    assert stop == "ray stop"
    options = set(shlex.split(start.split(";")[1]))
    assert {"--head", "--num-cpus=0", "--num-gpus=0", "--dashboard-host=127.0.0.1"} <= options
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in options
    assert "--address=$RAY_HEAD_IP:6379" in config["worker_start_ray_commands"][1]


def test_nothing_is_paid_for_that_no_trial_needs(aws):
    types = aws["available_node_types"]
    assert all(types[name]["min_workers"] == 0 for name in types)
    assert 0 < aws["idle_timeout_minutes"] <= 10
    assert types["gpu_worker"]["idle_timeout_s"] < aws["idle_timeout_minutes"] * 60
    assert aws["max_workers"] == sum(kind["max_workers"] for kind in types.values())
    assert aws["provider"]["cache_stopped_nodes"] is False
    for kind in types.values():
        disks = kind["node_config"]["BlockDeviceMappings"]
        assert all(disk["Ebs"]["DeleteOnTermination"] for disk in disks)


def test_only_workers_on_cpus_may_be_taken_back(aws):
    spot = {
        name
        for name, kind in aws["available_node_types"].items()
        if kind["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot"
    }
    assert spot == {"cpu_worker"}


def test_workers_with_a_gpu_have_the_image_for_it(aws):
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

    resolved = AutoscalingConfig(copy.deepcopy(aws), skip_content_hash=True)
    images = {
        name: resolved.get_docker_config(name)["image"] for name in aws["available_node_types"]
    }
    assert images["head"] == images["cpu_worker"]
    assert images["head"].endswith("-cpu") and images["gpu_worker"].endswith("-gpu")
    assert resolved.get_docker_config("gpu_worker")["run_options"] == aws["docker"]["run_options"]
    assert resolved.get_docker_config("gpu_worker")["worker_run_options"] == ["--gpus", "all"]


def test_rays_own_autoscaler_reads_the_limits_as_they_are_meant(aws):
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

    kinds = AutoscalingConfig(copy.deepcopy(aws), skip_content_hash=True).get_node_type_configs()
    limits = {name: (kind.min_worker_nodes, kind.max_worker_nodes) for name, kind in kinds.items()}
    assert limits == {"head": (0, 1), "cpu_worker": (0, 8), "gpu_worker": (0, 2)}
    assert kinds["gpu_worker"].idle_timeout_s == 180


def test_every_node_asks_for_the_token_and_gets_a_copy(config):
    options = " ".join(config["docker"]["run_options"])
    assert "--env RAY_AUTH_MODE=token" in options
    assert config["file_mounts"]["/home/ray/.ray"] == "~/.ray"


def test_the_root_is_on_a_file_system_that_every_node_mounts_into_its_container(config):
    options = " ".join(config["docker"]["run_options"])
    assert "--volume /shared:/shared" in options
    assert "--env PERSO_ROOT=/shared/perso" in options
    (mount,) = (c for c in config["initialization_commands"] if "mount -t nfs4" in c)
    # A second `ray up` must not mount over what is in use.
    assert mount.startswith("mountpoint -q /shared || ")
    assert mount.endswith(" /shared")


def test_the_checkout_is_installed_over_the_images_libraries(config):
    assert config["file_mounts"]["/home/ray/perso"] == "."
    assert {".venv", ".git", ".perso*"} <= set(config["rsync_exclude"])
    install = shlex.split(config["setup_commands"][0])
    assert install[:4] == ["python", "-m", "pip", "install"]
    assert {"--no-deps", "--no-build-isolation", "/home/ray/perso"} <= set(install)


def test_every_module_that_a_command_runs_exists(config):
    modules = {m for c in commands(config) for m in re.findall(r"python -m ([\w.]+)", c)}
    assert "tune_jobs.grid_search" in modules
    for module in modules - {"pip"}:
        assert (REPOSITORY / (module.replace(".", "/") + ".py")).exists(), module


def test_every_option_of_ray_start_is_one_that_ray_has(config):
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts}
    used = {
        option
        for command in commands(config)
        if "ray start" in command
        for option in re.findall(r"--[\w-]+", command)
    }
    assert used and used <= known


def test_every_command_is_one_that_bash_can_read(config):
    import subprocess

    for command in commands(config):
        read = subprocess.run(["bash", "-n", "-c", command], capture_output=True, check=False)
        assert read.returncode == 0, read.stderr


def test_the_machines_of_the_owner_are_all_used(tmp_path):
    config = prepared(load("cluster.onprem.yaml"))
    (kind,) = config["available_node_types"].values()
    assert kind["min_workers"] == kind["max_workers"] == len(config["provider"]["worker_ips"])
