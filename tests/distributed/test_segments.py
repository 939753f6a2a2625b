"""Segments on Ray: the rows of the Ray-free module, and what the recipe leaves behind."""

import json
import random
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perso.data.prepared import FORMAT_VERSION, PreparedData
from perso.dictionary import VIEWS
from perso.distributed.segments import segment_customers
from perso.errors import ArtifactError, InputError
from perso.features.rows import FeatureRows
from perso.features.skew import check_skew
from perso.features.store import open_features
from perso.registry import CLUSTERS_NAME, Registry
from perso.schema import CATALOG_SCHEMA, EVENT_SCHEMA, SPLITS
from perso.segments import instant
from perso.segments.cluster_config import ClusterSpec
from perso.segments.history import Input, segment_history
from perso.segments.spec import SegmentSpec
from perso.segments.standing import last_standing, read_summaries
from perso.workspace import Workspace
from tune_jobs.segment import main, run
from tune_jobs.segment_report import write_report

pytestmark = pytest.mark.ray

END = datetime(2026, 3, 1, tzinfo=UTC)
SPEC = SegmentSpec(
    clusters=ClusterSpec(
        min_customers=50, algorithms=("kmeans",), num_clusters=(3, 4), bootstraps=2
    ),
    min_segment_size=3,
)
WEEKS = [END - timedelta(weeks=weeks) for weeks in (2, 1, 0)]


def write_dataset(folder, rows_by_file):
    """A finished dataset as far as segments need one: a manifest, a catalogue and event files."""
    (folder / "events").mkdir(parents=True)
    for name, rows in rows_by_file.items():
        table = pa.Table.from_pylist(rows, schema=EVENT_SCHEMA)
        pq.write_table(table, folder / "events" / f"{name}.parquet")
    cards = [{"item_id": f"i{i}", "categories": [f"c{i % 3}"], "brand": "b"} for i in range(9)]
    pq.write_table(pa.Table.from_pylist(cards, schema=CATALOG_SCHEMA), folder / "catalog.parquet")
    ends = {split: (END - timedelta(days=7 * i)) for i, split in enumerate(reversed(SPLITS))}
    manifest = {
        "format_version": FORMAT_VERSION,
        "key": folder.name,
        "split_ends": {split: end.isoformat() for split, end in ends.items()},
        "time_range": {"first_hour": (END - timedelta(days=90)).isoformat()},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return PreparedData(folder)


def shopper(user_id, rng):
    """Half of them buy often in the evening on a phone, the others look around in the morning."""
    is_buyer = rng.random() < 0.5
    return [
        {
            "event_id": f"{user_id}-{i}",
            "event_type": "purchase" if rng.random() < (0.7 if is_buyer else 0.1) else "view_item",
            "user_id": user_id,
            "item_id": f"i{rng.randrange(9)}",
            "timestamp": END
            - timedelta(days=rng.uniform(-1, 90))
            + timedelta(hours=19 if is_buyer else 8),
            "value": round(rng.uniform(1, 99), 2),
            "device": "mobile" if is_buyer else "desktop",
        }
        for i in range(rng.randint(4, 14))
    ]


@pytest.fixture(scope="module")
def data(ray_cluster, tmp_path_factory):
    rng = random.Random(5)
    files = {
        str(part): [event for i in range(60) for event in shopper(f"u{part}-{i:02d}", rng)]
        for part in range(3)
    }
    return write_dataset(tmp_path_factory.mktemp("data") / "d1", files)


def test_ray_and_core_write_the_same_rows_and_tell_the_same(data, workspace, tmp_path, monkeypatch):
    monkeypatch.setattr("perso.segments.history.CUSTOMERS_PER_PART", 70)  # several parts
    on_ray = segment_customers(data, workspace, as_ofs=WEEKS, spec=SPEC)
    bare = Workspace.open(tmp_path / "bare")
    here = segment_history(
        Input(event_files=data.event_files, catalog_file=data.folder / "catalog.parquet"),
        WEEKS,
        spec=SPEC,
        sink=FeatureRows(bare),
        folder=bare.segments,
    )
    assert [week.to_dict() for week in on_ray] == [week.to_dict() for week in here]
    for view in VIEWS.values():
        for as_of in WEEKS:
            ours, theirs = (FeatureRows(w).read_rows(view.name, as_of) for w in (workspace, bare))
            assert ours.schema == view.schema
            assert ours.equals(theirs), view.name
    assert len(ours) == 9
    rows = FeatureRows(bare).read_rows("user_clusters", END)
    assert len(set(rows["cluster"].to_pylist())) >= 3
    assert not list(bare.segments.glob(".*")), "scratch is left behind"


def test_the_number_of_files_changes_no_row(data, tmp_path):
    """One partition or three: what a customer's row says does not depend on the neighbours."""
    events = pa.concat_tables([pq.read_table(file) for file in data.event_files])
    pq.write_table(events, tmp_path / "all.parquet")
    tables = []
    for name, files in {"three": data.event_files, "one": [tmp_path / "all.parquet"]}.items():
        workspace = Workspace.open(tmp_path / name)
        given = Input(event_files=files, catalog_file=data.folder / "catalog.parquet")
        sink = FeatureRows(workspace)
        segment_history(given, [END], spec=SPEC, sink=sink, folder=workspace.segments)
        tables.append([sink.read_rows(view, END).sort_by(VIEWS[view].entity) for view in VIEWS])
    for view, three, one in zip(VIEWS, *tables, strict=True):
        differing = [name for name in three.column_names if not three[name].equals(one[name])]
        # Sums over customers of several files may round otherwise.
        assert set(differing) <= {"item_revenue"}, view
    assert three["item_revenue"].to_pylist() == pytest.approx(one["item_revenue"].to_pylist())


def test_a_later_run_follows_on_from_the_one_before(data, tmp_path):
    """Week by week or all at once: the same names, the same alerts."""
    told = []
    for name, runs in {"at_once": [WEEKS], "weekly": [[week] for week in WEEKS]}.items():
        workspace = Workspace.open(tmp_path / name)
        given = Input(event_files=data.event_files, catalog_file=data.folder / "catalog.parquet")
        for as_ofs in runs:
            segment_history(
                given, as_ofs, spec=SPEC, sink=FeatureRows(workspace), folder=workspace.segments
            )
        told.append([week.to_dict() for week in read_summaries(workspace.segments)])
        standing = last_standing(workspace.segments)
        assert standing.as_of == END
        assert standing.selected_at == WEEKS[0]
    assert told[0] == told[1]


def test_a_run_that_is_cut_short_leaves_nothing_that_looks_finished(data, workspace, monkeypatch):
    given = Input(event_files=data.event_files, catalog_file=data.folder / "catalog.parquet")
    sink = FeatureRows(workspace)

    def fail(*_args, **_options):
        raise RuntimeError("the power is out")

    monkeypatch.setattr(instant, "popularity_rows", fail)
    with pytest.raises(RuntimeError, match="power"):
        segment_history(given, [END], spec=SPEC, sink=sink, folder=workspace.segments)
    assert sink.written() == []
    assert read_summaries(workspace.segments) == []
    monkeypatch.undo()
    segment_history(given, [END], spec=SPEC, sink=sink, folder=workspace.segments)
    assert sink.written() == [END]


def test_the_recipe_brings_the_newest_online_and_registers_the_clusters(data, workspace, tmp_path):
    summaries = run(SPEC, data, workspace, as_ofs=WEEKS)
    assert [week.as_of for week in summaries] == WEEKS
    features = open_features(workspace)
    rows = FeatureRows(workspace).read_rows("user_rfm", END)
    users = rows["user_id"].to_pylist()
    online = features.read_online(users)
    assert [row["segment"] for row in online] == rows["segment"].to_pylist()
    past = features.read_historical(users, as_of=WEEKS[0])
    then = FeatureRows(workspace).read_rows("user_rfm", WEEKS[0])
    known = dict(zip(then["user_id"].to_pylist(), then["segment"].to_pylist(), strict=True))
    assert past["segment"].to_pylist() == [known.get(user) for user in users]
    by_segment = {group.key: group.num_users for group in summaries[-1].segments}
    assert by_segment == {
        name: rows["segment"].to_pylist().count(name) for name in set(rows["segment"].to_pylist())
    }
    champion = Registry(workspace, name=CLUSTERS_NAME).champion()
    assert champion.tags["fit"] == last_standing(workspace.segments).clusters.fit_id
    assert Registry(workspace).champion() is None  # the recommender is another model
    write_report(workspace, tmp_path / "report.html")
    assert "Champions" in (tmp_path / "report.html").read_text()


def test_rows_of_a_nightly_run_are_known_from_when_it_ran(data, workspace):
    ran_at = END + timedelta(hours=3)
    run(SPEC, data, workspace, as_ofs=[END], created=ran_at)
    features = open_features(workspace)
    users = FeatureRows(workspace).read_rows("user_rfm", END)["user_id"].to_pylist()[:5]
    before, after = (
        features.read_historical(users, as_of=at)["segment"].to_pylist()
        for at in (ran_at - timedelta(seconds=1), ran_at)
    )
    assert before == [None] * 5
    assert None not in after
    assert check_skew(features, sample=50).is_clean


def test_a_damaged_dataset_is_named_as_itself(ray_cluster, workspace):
    rng = random.Random(1)
    files = {name: shopper("ann", rng) + shopper("bob", rng) for name in ("a", "b")}
    data = write_dataset(workspace.datasets / "d2", files)
    with pytest.raises(ArtifactError, match="several event files"):
        segment_customers(data, workspace, as_ofs=[END + timedelta(days=9)], spec=SPEC)


def test_an_instant_before_all_events_is_refused(data, workspace):
    with pytest.raises(InputError, match="no event of a known user"):
        segment_customers(data, workspace, as_ofs=[END - timedelta(days=900)], spec=SPEC)
    with pytest.raises(ValueError, match="as_ofs is empty"):
        segment_customers(data, workspace, as_ofs=[], spec=SPEC)


def test_the_job_segments_the_newest_dataset_at_the_end_of_each_period(
    data, workspace, monkeypatch
):
    monkeypatch.setattr("tune_jobs.segment.latest", lambda _workspace: data)
    assert main(["--root", str(workspace.root)]) == 0
    assert open_features(workspace).written() == sorted(data.split_end(s) for s in SPLITS)


def test_the_job_says_in_one_sentence_what_is_missing(workspace, capsys):
    assert main(["--root", str(workspace.root)]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("segment: no dataset in")
