"""The Kubernetes manifests: fields that KubeRay 1.6 has, pods that Kubernetes accepts, and sense.

No cluster is at hand here; on one, ``kubectl apply --dry-run=server -k deploy/kuberay`` says more.
"""

import json
import re
import shlex
from pathlib import Path

import jsonschema
import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "deploy" / "kuberay"
KUBERNETES = "1.33"


def load(name):
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def closed(required=(), **fields):
    return {
        "type": "object",
        "required": list(required),
        "properties": fields,
        "additionalProperties": False,
    }


ANY, TEXT, FLAG = {"type": "object"}, {"type": "string"}, {"type": "boolean"}
COUNT = {"type": "integer", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": TEXT}

# The fields that are used here, named and typed as in KubeRay's reference of its API
# (https://docs.ray.io/en/master/cluster/kubernetes/references/api.html); a field more is a slip.
CLUSTER_SPEC = closed(
    ("rayVersion", "headGroupSpec"),
    rayVersion=TEXT,
    authOptions=closed(("mode",), mode={"enum": ["disabled", "token"]}, secretName=TEXT),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=closed(
        version={"enum": ["v1", "v2"]},
        idleTimeoutSeconds=COUNT,
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        resources=ANY,
        securityContext=ANY,
    ),
    headGroupSpec=closed(("template",), rayStartParams=TEXTS, template=ANY),
    workerGroupSpecs={
        "type": "array",
        "items": closed(
            ("groupName", "template", "minReplicas", "maxReplicas"),
            groupName=TEXT,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            idleTimeoutSeconds=COUNT,
            rayStartParams=TEXTS,
            template=ANY,
        ),
    },
)
SPECS = {
    "RayCluster": CLUSTER_SPEC,
    "RayJob": closed(
        ("entrypoint",),
        entrypoint=TEXT,
        entrypointNumCpus={"type": "number"},
        clusterSelector=TEXTS,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        activeDeadlineSeconds={"type": "integer", "minimum": 1},
    ),
    "RayService": closed(
        ("serveConfigV2", "rayClusterConfig"),
        serveConfigV2=TEXT,
        upgradeStrategy=closed(
            ("type",), type={"enum": ["NewCluster", "NewClusterWithIncrementalUpgrade", "None"]}
        ),
        excludeHeadPodFromServeSvc=FLAG,
        rayClusterConfig=CLUSTER_SPEC,
    ),
}

(CLUSTER,), (SEARCH,) = load("cluster.yaml"), load("search.yaml")
EVENTS, SERVICE = load("service.yaml")
(KUSTOMIZATION,), (STORAGE,) = load("kustomization.yaml"), load("storage.yaml")


def groups(spec):
    """(name, group) of the head and every group of workers."""
    workers = ((group["groupName"], group) for group in spec.get("workerGroupSpecs", ()))
    return {"head": spec["headGroupSpec"], **dict(workers)}


PODS = {
    f"{place}/{name}": group["template"]
    for place, spec in (
        ("cluster", CLUSTER["spec"]),
        ("service", SERVICE["spec"]["rayClusterConfig"]),
    )
    for name, group in groups(spec).items()
}


@pytest.fixture(params=PODS.values(), ids=PODS)
def pod(request):
    return request.param["spec"]


def container(pod):
    (only,) = pod["containers"]
    return only


@pytest.mark.parametrize("document", [CLUSTER, SEARCH, SERVICE], ids=lambda d: d["kind"])
def test_every_field_of_a_ray_resource_is_one_that_kuberay_has(document):
    assert document["apiVersion"] == "ray.io/v1"
    jsonschema.validate(document["spec"], SPECS[document["kind"]])


def test_a_misspelt_field_would_be_noticed():
    spec = json.loads(json.dumps(CLUSTER["spec"]))
    spec["workerGroupSpecs"][0]["maxReplica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        jsonschema.validate(spec, CLUSTER_SPEC)


@pytest.mark.parametrize("name", PODS)
def test_kubernetes_own_schema_accepts_every_pod(name):
    validate = pytest.importorskip("kubernetes_validate").validate
    document = {"apiVersion": "v1", "kind": "PodTemplate", "template": PODS[name]}
    validate(document | {"metadata": {"name": "pod"}}, KUBERNETES, strict=True)


@pytest.mark.parametrize("claim", [STORAGE, EVENTS], ids=lambda d: d["metadata"]["name"])
def test_kubernetes_own_schema_accepts_every_claim(claim):
    validate = pytest.importorskip("kubernetes_validate").validate
    validate(claim, KUBERNETES, strict=True)


def test_the_tuning_cluster_shrinks_to_its_head_and_its_head_runs_no_trials():
    spec = CLUSTER["spec"]
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["headGroupSpec"]["rayStartParams"]["num-gpus"] == "0"
    assert set(groups(spec)) == {"head", "cpu-worker", "gpu-worker"}
    for group in spec["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"]
    # A pod that comes back under its old name would be an unknown node to the autoscaler.
    for name in groups(spec):
        assert PODS[f"cluster/{name}"]["spec"]["restartPolicy"] == "Never"


def test_only_the_gpu_group_has_gpus_and_the_image_for_them():
    for name, template in PODS.items():
        only = container(template["spec"])
        has_gpu = "nvidia.com/gpu" in only["resources"]["limits"]
        assert has_gpu == name.endswith("gpu-worker")
        assert only["image"].endswith("-gpu" if has_gpu else "-cpu")


def test_the_version_of_ray_is_the_one_that_is_installed():
    import ray

    assert CLUSTER["spec"]["rayVersion"] == ray.__version__
    assert SERVICE["spec"]["rayClusterConfig"]["rayVersion"] == ray.__version__


def test_every_call_needs_the_token_of_one_secret():
    for spec in (CLUSTER["spec"], SERVICE["spec"]["rayClusterConfig"]):
        assert spec["authOptions"] == {"mode": "token", "secretName": "perso-ray-token"}
    assert not any(document["kind"] == "Secret" for document in (EVENTS, STORAGE))


def test_no_pod_runs_as_root_or_can_become_it(pod):
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 1000  # the image's
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = container(pod)["securityContext"]
    assert security == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_every_pod_says_what_it_takes_and_never_more_memory_than_it_has_asked_for(pod):
    resources = container(pod)["resources"]
    assert {"cpu", "memory"} <= set(resources["requests"])
    assert resources["limits"]["memory"] == resources["requests"]["memory"]


def test_every_pod_is_asked_how_it_is_on_a_path_that_needs_no_token(pod):
    from ray.dashboard import http_server_agent

    only = container(pod)
    for probe in ("startupProbe", "livenessProbe"):
        path = only[probe]["httpGet"]["path"]
        if only["name"] == "ray-head":
            assert (path, only[probe]["httpGet"]["port"]) == ("/api/gcs_healthz", "dashboard")
        else:
            assert path in http_server_agent.PUBLIC_EXACT_PATHS
            assert only[probe]["httpGet"]["port"] == 52365


def test_every_pod_sees_the_root_at_the_same_place(pod):
    (environment,) = container(pod)["envFrom"]
    (settings,) = KUSTOMIZATION["configMapGenerator"]
    assert environment["configMapRef"]["name"] == settings["name"]
    assert "PERSO_ROOT=/shared/perso" in settings["literals"]
    claims = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"]}
    mounts = {m["mountPath"]: claims[m["name"]] for m in container(pod)["volumeMounts"]}
    assert mounts["/shared"] == STORAGE["metadata"]["name"]
    assert STORAGE["spec"]["accessModes"] == ["ReadWriteMany"]


def test_everything_is_in_one_namespace_and_every_listed_file_exists():
    assert {SEARCH["metadata"]["namespace"], SERVICE["metadata"]["namespace"]} == {
        KUSTOMIZATION["namespace"]
    }
    assert all((FOLDER / name).exists() for name in KUSTOMIZATION["resources"])


def test_a_search_runs_a_module_and_a_spec_that_exist_on_the_cluster_that_stands():
    assert SEARCH["spec"]["clusterSelector"] == {"ray.io/cluster": CLUSTER["metadata"]["name"]}
    python, option, module, *arguments = shlex.split(SEARCH["spec"]["entrypoint"])
    assert (python, option) == ("python", "-m")
    assert (REPOSITORY / (module.replace(".", "/") + ".py")).exists()
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert given.keys() == {"--spec", "--root"}
    assert given["--root"] == "/shared/perso"
    inside = Path(given["--spec"]).relative_to("/opt/perso")  # where the image has the checkout
    assert (REPOSITORY / inside).exists()
    # The head has no CPU to give: a driver that asked for one would wait for ever.
    assert SEARCH["spec"]["entrypointNumCpus"] == 0


def serve_config():
    return yaml.safe_load(SERVICE["spec"]["serveConfigV2"])


def test_ray_serve_accepts_the_service_and_its_autoscaling():
    from ray.serve.config import AutoscalingConfig
    from ray.serve.schema import ServeDeploySchema

    config = ServeDeploySchema.model_validate(serve_config())
    (application,) = config.applications
    for deployment in application.deployments:
        if isinstance(deployment.autoscaling_config, dict):
            AutoscalingConfig(**deployment.autoscaling_config)


def test_the_service_is_the_one_of_the_serve_config_but_for_address_root_and_place():
    ours = yaml.safe_load((REPOSITORY / "serve_app" / "config.yaml").read_text())
    theirs = serve_config()
    assert theirs.pop("http_options") == ours.pop("http_options") | {"host": "0.0.0.0"}
    (application,) = theirs["applications"]
    assert application["args"].pop("root") == "/shared/perso"
    for deployment in application["deployments"]:
        assert deployment["ray_actor_options"].pop("resources") == {"event_log": 0.001}
    assert theirs == ours


def test_the_event_log_is_on_a_disk_and_every_deployment_in_the_one_pod_that_has_it():
    (group,) = SERVICE["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    # Rays resources are JSON inside of a shell word.
    resources = json.loads(*shlex.split(group["rayStartParams"]["resources"]))
    assert resources == {"event_log": 1}
    assert group["minReplicas"] == group["maxReplicas"] == 1
    mounts = container(group["template"]["spec"])["volumeMounts"]
    assert {"name": "events", "mountPath": "/shared/perso/events"} in mounts
    assert EVENTS["spec"]["accessModes"] == ["ReadWriteOncePod"]
    # A second cluster during an upgrade would wait for that disk for ever.
    assert SERVICE["spec"]["upgradeStrategy"] == {"type": "None"}


def test_the_path_of_the_disk_is_where_the_event_log_is():
    from perso.workspace import Workspace

    assert str(Workspace(Path("/shared/perso")).event_log.parent) == "/shared/perso/events"


def test_ports_have_one_name_each_and_names_that_kubernetes_allows(pod):
    ports = container(pod).get("ports", [])
    names = [port["name"] for port in ports]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9-]{1,15}", name) for name in names)
