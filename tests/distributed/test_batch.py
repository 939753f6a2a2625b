"""Everybody's lists on Ray: those of the Ray-free module, whatever happens on the way."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pytest

from perso.data.groups import UserGroups
from perso.distributed.batch import write_lists
from perso.errors import ArtifactError, InputError
from perso.models.bundle import load_bundle, save_bundle
from perso.online.audience import Audience
from perso.online.batch import BatchRecommender
from perso.online.list_folder import SUCCESS, ListPlan
from perso.registry import Registry
from tune_jobs.recommend import main

pytestmark = pytest.mark.ray

NUM_USERS = 400


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory):
    # pytest's importlib mode has no import path between test folders.
    path = Path(__file__).parents[1] / "online" / "conftest.py"
    spec = importlib.util.spec_from_file_location("two_taste_shop", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    crowd = module.make_crowd(NUM_USERS)
    return save_bundle(
        tmp_path_factory.mktemp("bundles") / "crowd",
        **{
            part: getattr(crowd, part)
            for part in (
                *("users", "items", "model", "popularity", "catalog", "seen"),
                "bought_together",
            )
        },
        data_key="crowd",
        spec={},
        metrics={},
        trained_until=datetime(2026, 1, 1, tzinfo=UTC),
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
    )


@pytest.fixture(scope="module")
def audience():
    names = [(None, "loyal", "new")[n % 3] for n in range(NUM_USERS)]
    return Audience.of(np.arange(NUM_USERS), segments=UserGroups.from_names(names))


def plan_for(audience, **changes):
    fields = {
        "model_version": "3",
        "data_key": "crowd",
        "trained_at": "2026-01-02T00:00:00+00:00",
        "k": 4,
        "num_users": len(audience),
        "part_size": 70,
        "audience": audience.fingerprint(),
    }
    return ListPlan(**fields | changes)


def read(folder, filesystem=None):
    table = ds.dataset(str(folder), format="parquet", filesystem=filesystem).to_table()
    return table.sort_by([("user_id", "ascending"), ("rank", "ascending")]).to_pylist()


@pytest.fixture(scope="module")
def expected(bundle_folder, audience):
    return BatchRecommender("3", load_bundle(bundle_folder)).lists(audience, k=4).to_pylist()


@pytest.mark.parametrize("part_size", [70, 1000])
def test_ray_and_core_write_the_same_lists(
    ray_cluster, bundle_folder, audience, expected, tmp_path, part_size
):
    plan = plan_for(audience, part_size=part_size)
    manifest = write_lists(plan, audience, bundle_folder=bundle_folder, out=str(tmp_path / "out"))
    assert read(tmp_path / "out") == expected
    assert (manifest["rows"], len(manifest["parts"])) == (len(expected), plan.num_parts)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    write_lists(plan, audience, bundle_folder=bundle_folder, out=str(tmp_path / "out"))
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}


KILLED = """
import pickle, sys
from pathlib import Path
from perso.distributed.batch import write_lists
from perso.distributed.cluster import connect
connect(sys.argv[1])
plan, audience, bundle_folder = pickle.loads(Path(sys.argv[2]).read_bytes())
write_lists(plan, audience, bundle_folder=bundle_folder, out=sys.argv[3])
"""


@pytest.mark.slow
def test_a_run_that_is_killed_is_finished_by_the_next(
    ray_cluster, bundle_folder, audience, expected, tmp_path
):
    import pickle

    import ray

    plan, out = plan_for(audience, part_size=4), tmp_path / "out"
    (tmp_path / "job").write_bytes(pickle.dumps((plan, audience, bundle_folder)))
    address = ray.get_runtime_context().gcs_address
    run = subprocess.Popen(
        [sys.executable, "-c", KILLED, address, str(tmp_path / "job"), str(out)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        deadline = time.monotonic() + 120
        while len(list(out.glob("part-*"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    survived = {path: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert 3 <= len(survived) < plan.num_parts, "killed too late or too early to tell"
    assert not (out / SUCCESS).exists()
    manifest = write_lists(plan, audience, bundle_folder=bundle_folder, out=str(out))
    assert read(out) == expected
    assert len(manifest["parts"]) == plan.num_parts
    assert survived.items() <= {p: p.stat().st_mtime_ns for p in out.glob("part-*")}.items()
    assert len(list(out.iterdir())) == plan.num_parts + 2, "something is left behind"


def test_lists_go_to_an_object_store(ray_cluster, bundle_folder, audience, expected, moto_address):
    import httpx

    httpx.post(f"{moto_address}/moto-api/reset").raise_for_status()
    httpx.put(f"{moto_address}/mails").raise_for_status()
    endpoint = moto_address.removeprefix("http://")
    out = f"s3://key:secret@mails/march?scheme=http&endpoint_override={endpoint}"
    write_lists(plan_for(audience), audience, bundle_folder=bundle_folder, out=out)
    from perso.data.files import locate

    filesystem, path = locate(out)
    assert read(path, filesystem) == expected


def test_what_goes_wrong_in_a_worker_is_named_as_itself(
    ray_cluster, bundle_folder, audience, tmp_path
):
    with pytest.raises(ArtifactError, match="not a model bundle"):
        write_lists(
            plan_for(audience), audience, bundle_folder=tmp_path / "gone", out=str(tmp_path / "out")
        )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["_plan.json"]
    with pytest.raises(InputError, match="k 4, not 5; give another folder, or --overwrite"):
        write_lists(
            plan_for(audience, k=5),
            audience,
            bundle_folder=bundle_folder,
            out=str(tmp_path / "out"),
        )


def test_the_job_writes_the_champions_lists(
    ray_cluster, bundle_folder, workspace, tmp_path, capsys, monkeypatch
):
    monkeypatch.delenv("PERSO_FEATURE_STORE", raising=False)
    out, root = str(tmp_path / "out"), str(workspace.root)
    assert main(["--root", root, "--out", out]) == 2
    assert "run `perso tune`" in capsys.readouterr().err
    registry = Registry(workspace)
    version = registry.register(bundle_folder, run_id=registry.open_run("crowd"))
    registry.promote(version.version)
    (tmp_path / "ids.txt").write_text("u000005\nu000003\n\nnobody\nu000005\n")
    mails = ["--root", root, "--out", out, "--users", str(tmp_path / "ids.txt"), "--k", "2"]
    assert main(mails) == 0
    told = capsys.readouterr().out
    assert told.startswith("2 users, 1 unknown ids passed over in ")
    assert told.endswith(f"version 1, in {out}\n")
    rows = read(out)
    assert [(row["user_id"], row["rank"], row["model_version"]) for row in rows] == [
        (user, rank, "1") for user in ("u000003", "u000005") for rank in (1, 2)
    ]
    assert main(["--root", root, "--out", out]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["--root", root, "--out", out, "--overwrite", "--k", "1"]) == 0
    assert len(read(out)) == NUM_USERS
    (tmp_path / "ids.txt").write_text("nobody\n")
    assert main(mails) == 2
    assert "no user of" in capsys.readouterr().err
