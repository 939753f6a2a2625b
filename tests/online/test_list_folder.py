"""A folder of lists: complete or not, of one plan, here and in an object store."""

import dataclasses
import json
from datetime import UTC, datetime

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from perso.errors import InputError
from perso.online.audience import Audience
from perso.online.batch import BatchRecommender
from perso.online.list_folder import SUCCESS, ListFolder, ListPlan
from perso.schema import RECOMMENDATION_SCHEMA

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PLAN = ListPlan(
    model_version="7",
    data_key="d1",
    trained_at="2026-01-02T00:00:00+00:00",
    k=3,
    num_users=60,
    part_size=25,
    audience="0123456789abcdef",
)


@pytest.fixture(scope="module")
def parts(crowd):
    recommender = BatchRecommender("7", crowd)
    everybody = Audience.of(np.arange(60))
    return [recommender.lists(everybody.rows(*PLAN.bounds(n)), k=3) for n in range(3)]


@pytest.fixture(params=["path", "s3"])
def address(request, tmp_path, monkeypatch):
    if request.param == "path":
        return str(tmp_path / "lists")
    import httpx

    endpoint = request.getfixturevalue("moto_address")
    httpx.post(f"{endpoint}/moto-api/reset").raise_for_status()
    httpx.put(f"{endpoint}/mails").raise_for_status()
    for variable, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(variable, value)
    return "s3://mails/2026-03-01"


def write(folder, plan, parts, *, only=None, overwrite=False):
    missing = folder.begin(plan, overwrite=overwrite)
    for number in missing if only is None else only:
        folder.write(plan, number, parts[number])
    return missing


def read(address):
    """As any other program would, without knowing of plans."""
    from perso.data.files import locate

    filesystem, path = locate(address)
    return ds.dataset(path, filesystem=filesystem, format="parquet").to_table()


def test_a_run_that_stopped_goes_on_where_it_stopped(address, parts):
    folder = ListFolder(address)
    assert write(folder, PLAN, parts, only=[1]) == [0, 1, 2]
    with pytest.raises(InputError, match=r"lacks part-00000.*run the command again"):
        folder.finish(PLAN, created_at=NOW)
    assert write(folder, PLAN, parts) == [0, 2]
    manifest = folder.finish(PLAN, created_at=NOW)
    rows = sum(map(len, parts))
    assert (manifest["rows"], manifest["model_version"], manifest["k"]) == (rows, "7", 3)
    assert [part["users"] for part in manifest["parts"]] == [25, 25, 10]
    assert [part["rows"] for part in manifest["parts"]] == list(map(len, parts))
    assert folder.begin(PLAN) == []
    assert folder.finish(PLAN, created_at=datetime.now(UTC)) == manifest, "a repeat changed it"
    table = read(address).sort_by([("user_id", "ascending"), ("rank", "ascending")])
    assert table.schema.equals(RECOMMENDATION_SCHEMA)
    assert table.to_pylist() == [row for part in parts for row in part.to_pylist()]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_version": "8"}, "model version 7, not 8"),
        ({"k": 4}, "k 3, not 4"),
        ({"audience": "f" * 16}, "other users, segments or attributes"),
        ({"strategies": "a" * 16, "part_size": 9}, "part size 25, not 9 and other strategies"),
    ],
)
def test_lists_of_another_plan_stay_and_are_named(tmp_path, parts, changes, says):
    folder = ListFolder(str(tmp_path))
    write(folder, PLAN, parts)
    with pytest.raises(InputError, match=f"{says}; give another folder, or --overwrite"):
        folder.begin(dataclasses.replace(PLAN, **changes))
    assert len(read(str(tmp_path))) == sum(map(len, parts))


def test_overwriting_leaves_nothing_of_the_lists_before(address, parts):
    folder, other = ListFolder(address), dataclasses.replace(PLAN, model_version="8")
    write(folder, PLAN, parts)
    folder.finish(PLAN, created_at=NOW)
    assert folder.begin(other, overwrite=True) == [0, 1, 2]
    assert len(read(address)) == 0
    for number in range(3):
        folder.write(other, number, parts[0])
    folder.write(PLAN, 2, parts[2])  # a task of the old run that is late
    assert folder.finish(other, created_at=NOW)["key"] == other.key
    assert len(read(address)) == 3 * len(parts[0])


def test_a_part_that_got_lost_is_written_again(tmp_path, parts):
    folder = ListFolder(str(tmp_path))
    write(folder, PLAN, parts)
    folder.finish(PLAN, created_at=NOW)
    (tmp_path / PLAN.part_name(1)).unlink()
    assert folder.begin(PLAN) == [1]
    assert not (tmp_path / SUCCESS).exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("part-0.parquet", "of another program"),
        (PLAN.part_name(0), "without a plan"),
        (SUCCESS, ""),
        ("_plan.json", "{}"),
    ],
)
def test_files_of_others_are_neither_mixed_in_nor_removed(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    for overwrite in (False, True):
        with pytest.raises(InputError, match=f"such as {name}; give an empty folder"):
            ListFolder(str(tmp_path)).begin(PLAN, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_files_of_others_beside_lists_are_not_removed(tmp_path, parts):
    write(ListFolder(str(tmp_path)), PLAN, parts)
    (tmp_path / "mails.csv").write_text("of another program")
    with pytest.raises(InputError, match=r"such as mails\.csv; give an empty folder"):
        ListFolder(str(tmp_path)).begin(PLAN, overwrite=True)


def test_half_a_file_is_never_visible_and_goes_with_the_next_run(tmp_path, parts, monkeypatch):
    folder = ListFolder(str(tmp_path))
    folder.begin(PLAN)

    def fail(*_arguments):
        raise OSError("the power is out")

    monkeypatch.setattr(folder, "_filesystem", _Failing(folder._filesystem, fail))
    with pytest.raises(InputError, match=r"cannot write to .*: the power is out"):
        folder.write(PLAN, 0, parts[0])
    assert [path.name for path in tmp_path.glob("*.parquet")] == []
    assert len(list(tmp_path.glob(".part-*.building"))) == 1
    folder = ListFolder(str(tmp_path))
    assert write(folder, PLAN, parts) == [0, 1, 2]
    folder.finish(PLAN, created_at=NOW)
    expected = {SUCCESS, "_plan.json", *map(PLAN.part_name, range(3))}
    assert {path.name for path in tmp_path.iterdir()} == expected


class _Failing:
    """A file system that dies between the last byte and the rename."""

    def __init__(self, filesystem, move):
        self._inner, self.move = filesystem, move

    def __getattr__(self, name):
        return getattr(self._inner, name)


def test_a_place_that_cannot_be_written_is_named(address, tmp_path):
    (tmp_path / "file").write_text("")
    nowhere = "s3://no-such-bucket/x" if "://" in address else str(tmp_path / "file" / "x")
    with pytest.raises(InputError, match=f"cannot write to {nowhere}: "):
        ListFolder(nowhere).begin(PLAN)


@pytest.mark.parametrize(("name", "says"), [("k", "k is 0"), ("part_size", "part size is 0")])
def test_a_plan_that_cannot_be_is_refused(name, says):
    with pytest.raises(InputError, match=f"{says}; give 1 or more"):
        dataclasses.replace(PLAN, **{name: 0})


def test_names_cost_next_to_nothing(tmp_path, parts):
    """The reason for a long table: repeated names are runs."""
    folder = ListFolder(str(tmp_path))
    write(folder, PLAN, parts, only=[0])
    columns = pq.read_metadata(tmp_path / PLAN.part_name(0)).row_group(0)
    sizes = {
        columns.column(n).path_in_schema: columns.column(n).total_compressed_size
        for n in range(columns.num_columns)
    }
    assert max(sizes["model_version"], sizes["segment"]) < 100
    plan = json.loads((tmp_path / "_plan.json").read_text())
    assert plan["format"] == "perso-lists"
