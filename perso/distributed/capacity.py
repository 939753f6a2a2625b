"""Whether the cluster has, or can bring up, a node that holds a trial."""

import time
from collections.abc import Mapping
from typing import Any, Final

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from perso.errors import InputError

_AUTOSCALER_ANSWERS_S: Final = 20.0
"""An autoscaler looks at what is asked every 5 s."""


def require_room(resources: Mapping[str, float]) -> None:
    """Return if some node holds the resources, or an autoscaler may bring one that does.

    Args:
        resources: By Ray's names, such as ``{"CPU": 1, "GPU": 0.5}``.

    Raises:
        InputError: If no node of the cluster is large enough and none will come.
    """
    shape = {name: amount for name, amount in resources.items() if amount}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(_holds(node, shape) for node in nodes) or _will_grow(shape):
        return
    largest = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in shape}
    raise InputError(
        f"a trial asks for {_words(shape)} on one node, but the largest of {len(nodes)} nodes has "
        f"{_words(largest)}; lower cpus_per_trial or gpus_per_trial, or add such a node"
    )


def _holds(node: Mapping[str, float], shape: Mapping[str, float]) -> bool:
    return all(node.get(name, 0.0) >= amount for name, amount in shape.items())


def _will_grow(shape: Mapping[str, float]) -> bool:
    """Ask the autoscaler, if there is one, by a placement that waits for such a node."""
    if _autoscaling_state().autoscaler_state_version == 0:
        return False
    asked = placement_group([dict(shape)])
    try:
        deadline = time.monotonic() + _AUTOSCALER_ANSWERS_S
        while time.monotonic() < deadline:
            if asked.wait(1):
                return True
            state = _autoscaling_state()
            if _refuses(state, shape):
                return False
            if state.pending_instance_requests or state.pending_instances:
                return True
    finally:
        remove_placement_group(asked)
    return True  # it has not said no


def _refuses(state: Any, shape: Mapping[str, float]) -> bool:
    """Whether no type of node could ever hold the shape."""
    return any(
        dict(request.resources_bundle) == dict(shape)
        for gang in state.infeasible_gang_resource_requests
        for selector in gang.bundle_selectors
        for request in selector.resource_requests
    )


def _autoscaling_state() -> Any:
    """What the autoscaler last told the head; its version is 0 where there is none.

    ``ray.autoscaler.v2.sdk.get_cluster_status`` leaves out what cannot be had (Ray 2.60), so this
    reads the message itself.
    """
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

    client = GcsClient(ray.get_runtime_context().gcs_address)
    reply = GetClusterStatusReply()
    reply.ParseFromString(client.get_cluster_status(timeout_s=10))
    return reply.autoscaling_state


def _words(shape: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {name}" for name, amount in shape.items())
