"""``cluster.yaml`` carried out by Ray's AWS launcher on a simulated EC2 (moto): no bill."""

import copy
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.nodes]

CLUSTER = yaml.safe_load((Path(__file__).parents[2] / "cluster.yaml").read_text())
REGION = CLUSTER["provider"]["region"]
TYPES = CLUSTER["available_node_types"]


@pytest.fixture
def launcher(monkeypatch, tmp_path):
    """Ray's class for AWS; the roles, keys and groups that it makes are gone after the test."""
    from moto import mock_aws
    from ray.autoscaler._private.aws import config, node_provider, utils

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("HOME", str(tmp_path))  # the launcher writes the private key to ~/.ssh
    # It waits half a minute for a new role to be known everywhere.
    monkeypatch.setattr(config.time, "sleep", lambda seconds: None)
    with mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
        utils.resource_cache.cache_clear()
        utils.client_cache.cache_clear()
        yield node_provider.AWSNodeProvider
    utils.resource_cache.cache_clear()
    utils.client_cache.cache_clear()


@pytest.fixture
def prepared():
    from ray.autoscaler._private.util import prepare_config

    return prepare_config(copy.deepcopy(CLUSTER))


def launch(launcher, config, name):
    """The instance that EC2 says it has started."""
    import boto3
    from ray.autoscaler import tags

    provider = launcher(config["provider"], config["cluster_name"])
    kind = tags.NODE_KIND_HEAD if name == config["head_node_type"] else tags.NODE_KIND_WORKER
    created = provider.create_node(
        config["available_node_types"][name]["node_config"],
        {
            tags.TAG_RAY_NODE_NAME: name,
            tags.TAG_RAY_NODE_KIND: kind,
            tags.TAG_RAY_USER_NODE_TYPE: name,
            tags.TAG_RAY_LAUNCH_CONFIG: "hash",
            tags.TAG_RAY_NODE_STATUS: tags.STATUS_UNINITIALIZED,
        },
        1,
    )
    (instance,) = created
    described = boto3.client("ec2", REGION).describe_instances(InstanceIds=[instance])
    ((instance,),) = (r["Instances"] for r in described["Reservations"])
    return instance


def test_each_node_type_becomes_the_instance_that_it_describes(launcher, prepared):
    config = launcher.bootstrap_config(prepared)
    for name, kind in TYPES.items():
        instance = launch(launcher, config, name)
        assert instance["InstanceType"] == kind["node_config"]["InstanceType"]
        assert instance.get("InstanceLifecycle") == ("spot" if name == "cpu_worker" else None)
        assert instance["ImageId"] == kind["node_config"]["ImageId"]


def test_the_head_may_start_workers_and_workers_may_not(launcher, prepared):
    config = launcher.bootstrap_config(prepared)
    assert "instance-profile/ray-autoscaler-v1" in config["head_node"]["IamInstanceProfile"]["Arn"]
    for kind in config["available_node_types"].values():
        assert "IamInstanceProfile" not in kind["node_config"]


def test_the_file_promises_no_more_than_the_instances_have(launcher, prepared):
    """Ray would start nodes for trials that then do not fit."""
    generous = copy.deepcopy(prepared)
    for kind in generous["available_node_types"].values():
        kind["resources"] = {}
    found = launcher.fillout_available_node_types_resources(generous)["available_node_types"]
    for name in ("cpu_worker", "gpu_worker"):
        for resource, amount in TYPES[name]["resources"].items():
            assert amount == found[name]["resources"][resource], (name, resource)
    filled = launcher.fillout_available_node_types_resources(prepared)["available_node_types"]
    assert filled["head"]["resources"] == {"CPU": 0, "GPU": 0}
