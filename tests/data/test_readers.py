import gzip
import re
import zipfile
from pathlib import Path

import fsspec
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perso.data import readers
from perso.data.readers import Chunk, hash_file, list_chunks, read_chunk
from perso.errors import InputError


def read_all(path) -> list[dict]:
    return [
        row
        for chunk in list_chunks(str(path))
        for rows, _ in read_chunk(chunk)
        for row in rows.to_pylist()
    ]


def test_every_format_gives_the_same_rows(tmp_path: Path):
    rows = [{"a": "1", "b": "x"}, {"a": "2", "b": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("a,b\n1,x\n2,\n")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n1,x\n2,\n"))
    (tmp_path / "t.jsonl").write_text('{"a": "1", "b": "x"}\n{"a": "2", "b": null}\n')
    workbook = openpyxl.Workbook()
    for row in (["a", "b"], [1, "x"], [2.0, None]):
        workbook.active.append(row)
    workbook.save(tmp_path / "t.xlsx")
    for path in sorted(tmp_path.iterdir()):
        assert read_all(path) == rows, path.name


def test_folders_are_read_recursively_in_path_order_without_hidden_files(tmp_path: Path):
    for name in ("b/2.csv", "a/1.csv", "_temporary/0.csv", ".hidden/0.csv", "c/.x.csv", "_SUCCESS"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"a\n{name}\n")
    (tmp_path / "notes.txt").write_text("no data")
    (tmp_path / "c" / "empty.csv").touch()
    assert [row["a"] for row in read_all(tmp_path)] == ["a/1.csv", "b/2.csv"]


def test_a_large_parquet_file_is_cut_into_runs_of_row_groups(tmp_path: Path, monkeypatch):
    pq.write_table(pa.table({"a": list(range(100))}), tmp_path / "t.parquet", row_group_size=10)
    monkeypatch.setattr(readers, "_ROWS_PER_CHUNK", 25)
    chunks = list_chunks(str(tmp_path / "t.parquet"))
    assert [chunk.row_groups for chunk in chunks] == [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9,)]
    assert [row["a"] for row in read_all(tmp_path)] == list(range(100))


def test_uris_of_arrow_and_of_fsspec_are_read(tmp_path: Path):
    folder = tmp_path / "with blank"
    folder.mkdir()
    (folder / "x y.csv").write_text("a\n1\n")
    assert read_all(folder.as_uri()) == [{"a": "1"}]
    memory = fsspec.filesystem("memory")
    memory.pipe("/shop/events/1.csv", b"a\n2\n")
    memory.pipe("/shop/events/2.jsonl", b'{"a": "3"}\n')
    assert read_all("memory://shop/events") == [{"a": "2"}, {"a": "3"}]
    assert hash_file("memory://shop/events/1.csv") == hash_file_of(tmp_path, b"a\n2\n")


def hash_file_of(folder: Path, content: bytes) -> str:
    (folder / "content").write_bytes(content)
    return hash_file(str(folder / "content"))


def test_the_hash_of_a_file_follows_its_bytes_only(tmp_path: Path):
    first = hash_file_of(tmp_path, b"x" * 10_000_000)
    (tmp_path / "content").rename(tmp_path / "other")
    assert hash_file(str(tmp_path / "other")) == first
    assert hash_file_of(tmp_path, b"x" * 9_999_999 + b"y") != first
    assert hash_file_of(tmp_path, b"") == "cae66941d9efbd404e4d88758ea67670"  # b2sum -l 128


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.csv", None, "no file or folder .*missing.csv"),
        ("empty.csv", b"", "empty.csv is empty"),
        ("damaged.parquet", b"not parquet at all", "cannot read .*damaged.parquet"),
        ("notes.txt", b"hello", "no file that perso reads.*parquet"),
    ],
)
def test_unusable_input_is_one_clear_sentence(tmp_path: Path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says) as raised:
        list_chunks(str(tmp_path / name))
    assert "\n" not in str(raised.value)


def test_a_parquet_file_without_rows_is_empty(tmp_path: Path):
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="is empty"):
        list_chunks(str(tmp_path / "t.parquet"))


@pytest.mark.parametrize(
    ("name", "content"), [("t.xlsx", b"no workbook"), ("t.csv.gz", b"no gzip"), ("t.parquet", b"x")]
)
def test_a_file_that_is_not_what_its_name_says_is_an_input_error(tmp_path: Path, name, content):
    (tmp_path / name).write_bytes(content)
    chunk = Chunk(path=str(tmp_path / name), format=readers.format_of(name))
    with pytest.raises(InputError, match=f"cannot read .*{name}"):
        list(read_chunk(chunk))


def test_an_unknown_scheme_is_an_input_error():
    with pytest.raises(InputError, match="nowhere://x"):
        list_chunks("nowhere://x")


def save_without_dimensions(rows: list[list], path: Path) -> None:
    """A workbook as streaming writers leave it: rows of their own lengths."""
    workbook = openpyxl.Workbook()
    for row in rows:
        workbook.active.append(row)
    workbook.save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, re.sub(rb"<dimension [^>]*>", b"", content))


def test_a_short_row_of_a_workbook_ends_in_nulls_and_a_long_one_is_cut(tmp_path: Path):
    save_without_dimensions([["a", "b"], [1], [2, "x", "more"]], tmp_path / "t.xlsx")
    assert read_all(tmp_path) == [{"a": "1", "b": None}, {"a": "2", "b": "x"}]


def test_a_sheet_with_rows_but_no_header_is_refused(tmp_path: Path):
    save_without_dimensions([[None, None], [1, 2]], tmp_path / "t.xlsx")
    with pytest.raises(InputError, match=r"t\.xlsx: the first row of sheet 'Sheet' is blank"):
        read_all(tmp_path)
