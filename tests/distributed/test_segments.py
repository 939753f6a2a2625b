import json
import random
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perso.data.prepared import FORMAT_VERSION, PreparedData
from perso.distributed.segments import compute_segments
from perso.errors import ArtifactError, InputError
from perso.features.store import open_features
from perso.schema import EVENT_SCHEMA, SPLITS
from perso.segments.rfm import SEGMENTS, RfmSpec, compute_rfm
from tune_jobs.segment import main, run

pytestmark = pytest.mark.ray

END = datetime(2026, 3, 1, tzinfo=UTC)
SPEC = RfmSpec(frequency_window_days=30)


def write_dataset(folder, rows_by_file):
    """A finished dataset as far as segments need one: a manifest and event files."""
    (folder / "events").mkdir(parents=True)
    for name, rows in rows_by_file.items():
        table = pa.Table.from_pylist(rows, schema=EVENT_SCHEMA)
        pq.write_table(table, folder / "events" / f"{name}.parquet")
    ends = {split: (END - timedelta(days=7 * i)) for i, split in enumerate(reversed(SPLITS))}
    manifest = {
        "format_version": FORMAT_VERSION,
        "key": folder.name,
        "split_ends": {split: end.isoformat() for split, end in ends.items()},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return PreparedData(folder)


def shopper(user_id, rng):
    return [
        {
            "event_id": f"{user_id}-{i}",
            "event_type": rng.choice(["view_item", "purchase"]),
            "user_id": user_id,
            "item_id": "x",
            "timestamp": END + timedelta(hours=rng.uniform(-24 * 90, 24)),
            "value": round(rng.uniform(1, 99), 2),
        }
        for i in range(rng.randint(1, 12))
    ]


@pytest.fixture
def data(ray_cluster, workspace):
    rng = random.Random(5)
    files = {
        str(part): [event for i in range(40) for event in shopper(f"u{part}-{i:02d}", rng)]
        for part in range(3)
    }
    return write_dataset(workspace.datasets / "d1", files)


def test_ray_and_core_compute_the_same_rows(data):
    rows = compute_segments(data, END, SPEC)
    assert rows.equals(compute_rfm(data.event_files, as_of=END, created=END, spec=SPEC))
    assert len(rows) > 100
    assert len(set(rows["segment"].to_pylist())) > 6


def test_the_recipe_writes_every_instant_and_brings_the_newest_online(data, workspace):
    as_ofs = [data.split_end(split) for split in SPLITS]
    counts = run(SPEC, data, workspace, as_ofs=as_ofs)
    features = open_features(workspace)
    assert features.written() == sorted(as_ofs) == list(counts)
    users = [f"u{part}-{i:02d}" for part in range(3) for i in range(40)]
    for as_of, by_segment in counts.items():
        past = features.read_historical(users, as_of=as_of)["segment"].to_pylist()
        assert {name: past.count(name) for name in by_segment} == by_segment
        assert set(by_segment) <= set(SEGMENTS)
        assert list(by_segment.values()) == sorted(by_segment.values(), reverse=True)
    newest = compute_segments(data, END, SPEC)
    online = features.read_online(newest["user_id"].to_pylist())
    assert [row["segment"] for row in online] == newest["segment"].to_pylist()


def test_a_damaged_dataset_is_named_as_itself(ray_cluster, workspace):
    rng = random.Random(1)
    files = {name: shopper("ann", rng) + shopper("bob", rng) for name in ("a", "b")}
    data = write_dataset(workspace.datasets / "d2", files)
    with pytest.raises(ArtifactError, match="several event files"):
        compute_segments(data, END + timedelta(days=9), SPEC)


def test_an_instant_before_all_events_is_refused(data, workspace):
    with pytest.raises(InputError, match="no event of a known user"):
        run(SPEC, data, workspace, as_ofs=[END - timedelta(days=900)])
    with pytest.raises(ValueError, match="as_ofs is empty"):
        run(SPEC, data, workspace, as_ofs=[])


def test_the_job_segments_the_newest_dataset_at_the_end_of_each_period(data, workspace):
    (workspace.datasets / "latest").write_text(data.key)
    assert main(["--root", str(workspace.root)]) == 0
    assert open_features(workspace).written() == sorted(data.split_end(s) for s in SPLITS)


def test_the_job_says_in_one_sentence_what_is_missing(workspace, capsys):
    assert main(["--root", str(workspace.root)]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("segment: no dataset in")
