"""Preparation on Ray: the same tables as the rules in a plain loop, byte for byte, once."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perso.data.interactions import PrepareSpec, aggregate_pairs
from perso.data.partition import partition_of, settle_partition
from perso.data.prepared import PreparedData
from perso.data.sources import open_source
from perso.data.split import SplitEnds
from perso.data.vocabulary import Vocabulary
from perso.distributed.interactions import latest, prepare
from perso.errors import InputError
from perso.schema import SPLITS
from perso.spec import spec_hash, spec_to_dict
from perso.workspace import Workspace

pytestmark = pytest.mark.ray


def files_of(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_ray_equals_the_rules_in_a_plain_loop(prepared, shop_workspace, small_shop):
    spec = PrepareSpec(shop=small_shop, num_partitions=4)
    source = open_source("synthetic")
    shop = str(shop_workspace.synthetic / spec_hash(spec_to_dict(small_shop)))
    rows = pa.concat_tables([t for chunk in source.chunks(shop) for t in source.read(chunk)])
    partitions = partition_of(rows, 4).to_numpy()
    ends = SplitEnds(**{split: prepared.split_end(split) for split in SPLITS})
    first_user_index = 0
    for partition in range(4):
        settled = settle_partition(rows.filter(pa.array(partitions == partition)))
        name = f"part-{partition:05d}.parquet"
        assert pq.read_table(prepared.folder / "events" / name).equals(settled.events)
        users = [u for u in settled.events["user_id"].unique().to_pylist() if u is not None]
        kept = Vocabulary(pa.array(sorted(u for u in users if prepared.users.index_of(u) >= 0)))
        done = aggregate_pairs(
            settled.events,
            users=kept,
            first_user_index=first_user_index,
            items=prepared.items,
            ends=ends,
            spec=spec,
        )
        first_user_index += len(kept)
        for split, pairs in done.by_split.items():
            written = pq.read_table(prepared.folder / "interactions" / split / name)
            assert written.equals(pairs)


def test_the_same_input_and_spec_give_the_same_bytes(prepared, small_shop, tmp_path):
    again = prepare(PrepareSpec(shop=small_shop, num_partitions=4), Workspace.open(tmp_path))
    assert files_of(again.folder) == files_of(prepared.folder)


def test_a_dataset_that_exists_is_not_computed_again(prepared, shop_workspace, small_shop, caplog):
    before = {p: p.stat().st_mtime_ns for p in prepared.folder.rglob("*.parquet")}
    with caplog.at_level("INFO"):
        again = prepare(PrepareSpec(shop=small_shop, num_partitions=4), shop_workspace)
    assert "there already" in caplog.text
    assert again.folder == prepared.folder == latest(shop_workspace).folder
    assert {p: p.stat().st_mtime_ns for p in prepared.folder.rglob("*.parquet")} == before


def test_every_row_read_is_kept_or_counted(prepared):
    counts = prepared.manifest["counts"]
    dropped = sum(counts["rows_dropped"].values())
    assert counts["rows_read"] == counts["events_kept"] + dropped


def test_the_number_of_partitions_changes_no_pair(prepared, small_shop, tmp_path):
    other = prepare(PrepareSpec(shop=small_shop, num_partitions=3), Workspace.open(tmp_path))

    def named(data: PreparedData) -> set:
        pairs = data.interactions("train")
        return {
            (data.users.id_of(u), data.items.id_of(i), float(w))
            for u, i, w in zip(pairs.user_indices, pairs.item_indices, pairs.weights, strict=True)
        }

    assert named(other) == named(prepared)


def test_bad_rows_are_refused_counted_and_kept(ray_cluster, workspace, tmp_path):
    source = tmp_path / "events.jsonl"
    rows = [
        {
            "event_type": "purchase",
            "user_id": f"u{n % 7}",
            "item_id": f"i{n % 11}",
            "timestamp": f"2026-01-{1 + n % 28:02d}T{n % 24:02d}:00:00Z",
        }
        for n in range(200)
    ]
    lines = [json.dumps(row) for row in rows]
    lines.insert(50, "{not json")
    lines.insert(60, json.dumps({**rows[0], "timestamp": "soon"}))
    source.write_text("\n".join(lines))
    data = prepare(PrepareSpec(source="events", path=str(source)), workspace)
    assert data.manifest["counts"]["rows_read"] == 202
    refused = [
        json.loads(line)
        for file in (data.folder / "rejects").iterdir()
        for line in file.read_text().splitlines()
    ]
    assert {r["reason"] for r in refused} == {"malformed_line", "bad_timestamp"}
    assert any("soon" in json.dumps(r["row"]) for r in refused)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("event_type,item_id,timestamp\nview_item,i,2026-01-01\n", "user_id"),
        ("", "empty"),
        ("event_type,user_id,item_id,timestamp\nview_item,u,i,soon\n", "no usable event"),
    ],
)
def test_an_input_of_no_use_is_one_clear_sentence(
    ray_cluster, workspace, tmp_path, content, message
):
    file = tmp_path / "events.csv"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        prepare(PrepareSpec(source="events", path=str(file)), workspace)


def test_a_killed_run_leaves_nothing_that_looks_finished(prepared, small_shop, tmp_path):
    workspace = Workspace.open(tmp_path)
    half_done = workspace.datasets / f".{prepared.key}.building" / "events"
    half_done.mkdir(parents=True)
    (half_done / "part-00000.parquet").write_text("half")
    data = prepare(PrepareSpec(shop=small_shop, num_partitions=4), workspace)
    assert files_of(data.folder) == files_of(prepared.folder)
    shutil.rmtree(tmp_path)


def test_an_error_of_a_worker_is_one_sentence_here(ray_cluster, workspace, small_shop):
    with pytest.raises(InputError) as raised:
        prepare(PrepareSpec(shop=small_shop, catalog="nowhere.parquet"), workspace)
    assert "nowhere.parquet" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_other_titles_make_another_dataset(ray_cluster, workspace, tmp_path):
    folder = tmp_path / "ml"
    folder.mkdir()
    rows = [f"{n % 5},{n % 7},{1 + n % 5},{1_700_000_000 + 7200 * n}" for n in range(60)]
    (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *rows]))
    keys = set()
    for title in ("Heat", "Ran"):
        films = [f"{n},{title},Drama" for n in range(7)]
        (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *films]))
        data = prepare(PrepareSpec(source="movielens", path=str(folder)), workspace)
        assert set(data.catalog()["title"].to_pylist()) == {title}
        keys.add(data.key)
    assert len(keys) == 2


def test_nothing_prepared_yet_says_what_to_run(workspace):
    with pytest.raises(InputError, match="perso prepare"):
        latest(workspace)


@pytest.mark.parametrize("splits", [("train",), ("train", "validation"), SPLITS], ids=len)
def test_pairs_are_sorted_by_user_then_item_and_each_occurs_once(prepared, splits):
    pairs = prepared.interactions(*splits)
    key = pairs.user_indices.astype("int64") * pairs.num_items + pairs.item_indices
    assert (key[1:] > key[:-1]).all()


def test_train_and_validation_merged_equal_one_longer_period(prepared):
    """Decay composes: the merged weights are those of one period ending at the second cut."""
    merged = prepared.interactions("train", "validation")
    half_life = prepared.manifest["spec"]["half_life_days"]
    end = prepared.split_end("validation")
    naive: dict = {}
    weights = {"view_item": 1.0, "add_to_cart": 3.0, "purchase": 5.0}
    for file in prepared.event_files:
        for event in pq.read_table(file).to_pylist():
            if event["timestamp"] >= end or event["user_id"] is None:
                continue
            weight = weights.get(event["event_type"], 0.0)
            if event["event_type"] == "rate_item":
                weight = event["value"]
            elif event["event_type"] == "dwell":
                weight = 0.02 * event["value"]
            days = (end - event["timestamp"]).total_seconds() / 86400
            key = (event["user_id"], event["item_id"])
            if weight:
                naive[key] = naive.get(key, 0.0) + weight * 0.5 ** (days / half_life)
    found = {
        (prepared.users.id_of(u), prepared.items.id_of(i)): float(w)
        for u, i, w in zip(merged.user_indices, merged.item_indices, merged.weights, strict=True)
    }
    assert found.keys() == naive.keys()
    assert all(found[key] == pytest.approx(naive[key], rel=1e-5) for key in naive)
