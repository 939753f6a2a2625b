"""The whole service on a real Ray Serve: ready, live, watched, swapped and killed."""

import os
import signal
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
from ray import serve
from ray.serve.config import HTTPOptions

from perso.dictionary import USER_RFM
from perso.errors import InputError
from perso.features.store import open_features
from perso.stream.event_log import EventLog
from perso.workspace import Workspace
from serve_app.deploy import deploy, stop

pytestmark = [pytest.mark.ray, pytest.mark.service]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return Workspace.open(tmp_path_factory.mktemp("service"))


def find_free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def url(ray_cluster, workspace):
    yield deploy(workspace, host="127.0.0.1", port=find_free_port())
    stop()


@pytest.fixture(scope="module")
def promote(promote_world, workspace):
    return lambda: promote_world(workspace)


@pytest.fixture(scope="module")
def client(url):
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        yield client


def wait_until(condition, timeout_s=30.0):
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return result


def version_of(client):
    return client.get("/healthz").json()["model_version"]


def click(event_id, item_id="m0", session_id="s"):
    return {
        "event_id": event_id,
        "event_type": "view_item",
        "session_id": session_id,
        "item_id": item_id,
    }


def test_before_the_first_champion_the_service_is_alive_but_not_ready(client):
    assert client.get("/healthz").status_code == 200
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "perso tune" in answer.json()["detail"]
    assert client.post("/v1/events", json=click("early")).status_code == 202


def test_the_first_champion_is_picked_up_without_a_restart(client, promote):
    version = promote()
    wait_until(lambda: client.get("/readyz").status_code == 200)
    assert client.get("/v1/model").json()["version"] == version


def test_a_click_changes_the_next_list(client):
    question = {"session_id": "fresh", "k": 4}
    before = client.post("/v1/recommendations", json=question).json()
    assert before["rung"] == "global_popular"
    client.post("/v1/events", json=click("c1", session_id="fresh"))
    after = client.post("/v1/recommendations", json=question).json()
    assert after["rung"] == "personal"
    assert sorted(item["item_id"] for item in after["items"]) == ["m1", "m2", "m3", "m4"]


def test_segments_arrive_from_the_feature_store_once_it_is_filled(client, workspace):
    assert client.get("/v1/users/zoe/segments").status_code == 503  # nothing is applied yet
    answer = client.post("/v1/recommendations", json={"user_id": "zoe"}).json()
    assert answer["degraded"] == ["feature_store"]
    as_of = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
    row = {
        "user_id": "zoe",
        "event_timestamp": as_of,
        "created": as_of,
        "recency_days": 3.0,
        "recency_score": 98,
        "frequency": 4,
        "frequency_quartile": 4,
        "monetary": 99.5,
        "monetary_tier": 3,
        "rfm_score": 90.0,
        "segment": "loyal",
        "composite_score": 0.7,
        "score_dimensions": ["recency"],
        "score_contributions": [0.7],
    }
    features = open_features(workspace)
    features.apply()
    features.rows.write_rows(as_of, {"user_rfm": pa.Table.from_pylist([row], USER_RFM.schema)})
    features.sync()
    wait_until(lambda: client.get("/v1/users/zoe/segments").status_code == 200)
    found = client.get("/v1/users/zoe/segments").json()
    assert (found["segment"], found["frequency"]) == ("loyal", 4)
    assert datetime.fromisoformat(found["as_of"]) == as_of
    answer = client.post("/v1/recommendations", json={"user_id": "zoe", "k": 2}).json()
    assert (answer["segment"], answer["rung"]) == ("loyal", "segment_popular")
    assert 7200 <= answer["feature_age_s"] < 7800
    assert answer["degraded"] == []


def test_recent_events_reach_the_feature_store_by_themselves(client, workspace):
    features = open_features(workspace)
    features.apply()
    event = click("recent-1", session_id="s") | {"user_id": "pushed", "item_id": "m2"}
    assert client.post("/v1/events", json=event).status_code == 202

    def last_item():
        (row,) = features.read_online(["pushed"])
        return None if row is None else row["last_item_id"]

    wait_until(lambda: last_item() == "m2")
    client.post("/v1/events", json=event | {"event_id": "recent-2", "item_id": "m3"})
    wait_until(lambda: last_item() == "m3")
    (row,) = features.read_online(["pushed"])
    assert row["recent_item_ids"] == ["m3", "m2"]
    assert row["segment"] is None  # nobody segmented this customer yet

    def features_of_answer():
        answer = client.post("/v1/recommendations", json={"user_id": "pushed"}).json()
        assert answer["segment"] is None
        return answer["features"]

    wait_until(lambda: features_of_answer() == "unknown")  # slow where the machine is busy


def test_a_new_champion_replaces_the_old_one_without_a_failed_request(client, url, promote):
    old, stop_asking, answers = version_of(client), threading.Event(), []

    def keep_asking():
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as own:
            while not stop_asking.is_set():
                answer = own.post("/v1/recommendations", json={"user_id": "ann"})
                answers.append((answer.status_code, answer.json().get("model_version")))

    askers = [threading.Thread(target=keep_asking) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        new = promote()
        wait_until(lambda: version_of(client) == new)
        time.sleep(0.5)
    finally:
        stop_asking.set()
        for asker in askers:
            asker.join()
    assert {status for status, _ in answers} == {200}
    assert {version for _, version in answers} == {old, new}


def test_the_metrics_page_counts_what_happened(client):
    client.get("/v1/items/unheard of/similar")

    expected = (
        'route="/v1/items/{item_id}/similar",status="404"',
        "ray_perso_requests_total{",
        "ray_perso_request_latency_ms_bucket{",
        'rung="personal"',
        'outcome="accepted"',
        'part="feature_store"',
        "ray_perso_feature_reads_total{",
        "ray_perso_model_version{",
        "ray_serve_num_http_requests_total{",
    )

    def page_with_counts():
        page = client.get("/metrics")
        assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
        return page.text if all(series in page.text for series in expected) else None

    page = wait_until(page_with_counts, timeout_s=60)  # each process reports every 10 s
    assert "ray_node_cpu_count" not in page
    assert "# TYPE ray_perso_requests_total counter" in page


def replica_pids(path: Path):
    """Replicas that answer: processes named so by Serve that hold the event log open."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            targets = [str(link.readlink()) for link in (process / "fd").iterdir()]
            title = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(path) in targets and b"Recommender" in title:
            yield int(process.name)


def test_acknowledged_events_survive_kill_9_of_the_replica_once(client, workspace):
    receipt = client.post("/v1/events", json=[click("k1", "m0", "k"), click("k2", "m1", "k")])
    assert receipt.json()["accepted"] == 2
    (pid,) = replica_pids(workspace.event_log.resolve())
    os.kill(pid, signal.SIGKILL)

    def answered_again():
        try:
            answer = client.post("/v1/recommendations", json={"session_id": "k"})
        except httpx.HTTPError:
            return None
        return answer.json() if answer.status_code == 200 else None

    answer = wait_until(answered_again, timeout_s=60)
    assert (answer["num_recent_events"], answer["rung"]) == (2, "personal")
    again = client.post("/v1/events", json=[click("k1", "m0", "k"), click("k2", "m1", "k")])
    assert again.json()["duplicates"] == 2
    stored = [logged.event.event_id for logged in EventLog(workspace.event_log).read_from()]
    assert sorted(event_id for event_id in stored if event_id[0] == "k") == ["k1", "k2"]


def test_a_taken_port_is_refused_at_once(client):
    stop()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="give another"):
            deploy(Workspace.open("/nowhere"), host="127.0.0.1", port=taken.getsockname()[1])


@serve.deployment(ray_actor_options={"num_cpus": 0})
class Neighbour:
    def __call__(self):
        return "here"


def test_stopping_leaves_the_other_applications_of_a_shared_serve_alone(client, workspace):
    stop()
    port = find_free_port()
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
    try:
        serve.run(Neighbour.bind(), name="neighbour", route_prefix="/neighbour")
        url = deploy(workspace, host="127.0.0.1", port=port)
        assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
        stop()
        assert set(serve.status().applications) == {"neighbour"}
        assert httpx.get(f"{url}/neighbour", trust_env=False).text == "here"
    finally:
        serve.shutdown()
