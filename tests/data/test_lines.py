import csv
import io

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.data import lines
from perso.data.lines import CsvLayout, read_csv, read_json_lines
from perso.errors import InputError


def parse_csv(content: bytes, **layout):
    blocks = list(read_csv(pa.BufferReader(content), CsvLayout(**layout)))
    rows = pa.concat_tables([rows for rows, _ in blocks])
    return rows.to_pylist(), [line for _, malformed in blocks for line in malformed]


def parse_json(content: bytes):
    blocks = list(read_json_lines(pa.BufferReader(content)))
    rows = [row for rows, _ in blocks for row in rows.to_pylist()]
    return rows, [line for _, malformed in blocks for line in malformed]


def test_lines_with_another_number_of_fields_come_out_as_text():
    rows, malformed = parse_csv(b"a,b\n1,2\n3\n4,5,6\n7,8\n")
    assert rows == [{"a": "1", "b": "2"}, {"a": "7", "b": "8"}]
    assert malformed == ["3", "4,5,6"]


def test_all_csv_columns_are_text_and_empty_fields_null():
    assert parse_csv(b'a,b\n007,\n"",x\n')[0] == [{"a": "007", "b": None}, {"a": None, "b": "x"}]


def test_a_stray_quote_costs_one_line_wherever_it_stands():
    good = [f"{i},x{i}" for i in range(5)]
    for place in range(6):
        content = "\n".join(["a,b", *good[:place], '9,"open', *good[place:]]) + "\n"
        rows, malformed = parse_csv(content.encode())
        assert [row["a"] for row in rows] == ["0", "1", "2", "3", "4"]
        assert malformed == ['9,"open']


def test_a_quote_inside_a_field_is_a_character():
    for extra in (b"", b'9,"open\n'):  # with and without the slow path
        rows, _ = parse_csv(b'a,b\n1,12" vinyl\n2,"a ""b"", c"\n' + extra)
        assert [row["b"] for row in rows] == ['12" vinyl', 'a "b", c']


def test_text_that_is_not_utf8_is_read_as_windows_1252():
    rows, malformed = parse_csv("a,b\n1,£5\n2,x,y£\n".encode("cp1252"))
    assert rows == [{"a": "1", "b": "£5"}]
    assert malformed == ["2,x,y£"]


def test_byte_order_mark_blank_lines_and_windows_line_ends_are_no_content():
    rows, malformed = parse_csv(b"\xef\xbb\xbfa,b\r\n\r\n1,2\r\n3,4")
    assert rows == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert malformed == []


def test_a_header_that_names_a_column_twice_is_refused():
    with pytest.raises(InputError, match="'a' more than once"):
        parse_csv(b"a,b,a\n1,2,3\n")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from(["", "x", '"', ",", "é", " ", "1.5"]), min_size=1), min_size=1
    )
)
def test_any_line_is_a_row_or_malformed_and_block_size_does_not_matter(pieces):
    texts = ["".join(piece) for piece in pieces]
    content = ("a,b\n" + "\n".join(texts) + "\n").encode()
    expected_rows, expected_malformed = [], []
    for text in filter(None, texts):
        try:
            fields = next(csv.reader(io.StringIO(text), strict=True))
        except csv.Error as error:
            fields = None if "end of data" in str(error) else next(csv.reader(io.StringIO(text)))
        if fields is None or len(fields) != 2:
            expected_malformed.append(text)
        else:
            expected_rows.append({"a": fields[0] or None, "b": fields[1] or None})
    rows, malformed = parse_csv(content)
    assert rows == expected_rows
    assert sorted(malformed) == sorted(expected_malformed)


def test_blocks_end_at_line_ends(monkeypatch):
    content = b"a,b\n" + b"".join(f"{i},{'x' * (i % 7)}\n".encode() for i in range(200))
    whole = parse_csv(content)
    for size in (1, 3, 64, 1000):
        monkeypatch.setattr(lines, "BLOCK_BYTES", size)
        assert parse_csv(content) == whole


def test_json_lines_that_are_no_object_come_out_as_text():
    rows, malformed = parse_json(b'{"a": 1}\n[2]\nnot json\n{"a": 3\n{"a": 4}\n')
    assert rows == [{"a": 1}, {"a": 4}]
    assert malformed == ["[2]", "not json", '{"a": 3']


def test_a_json_column_of_mixed_types_becomes_text():
    rows, _ = parse_json(b'{"a": 1}\n{"a": "x"}\n{"a": null}\n')
    assert rows == [{"a": "1"}, {"a": "x"}, {"a": None}]


def test_json_text_that_looks_like_a_date_stays_text():
    assert parse_json(b'{"item_id": "2024-01-01"}\n')[0] == [{"item_id": "2024-01-01"}]


def test_a_json_key_of_the_first_block_is_a_column_of_all(monkeypatch):
    monkeypatch.setattr(lines, "BLOCK_BYTES", 12)
    rows, _ = parse_json(b'{"a": 1, "b": 2}\n{"c": 3}\n')
    assert rows == [{"a": 1, "b": 2}, {"a": None, "b": None, "c": 3}]


@pytest.mark.parametrize(
    "bad",
    [
        '{"a": "\\ud800"}',
        '{"\\udfff": 1}',
        "[" * 200_000,
        '{"a": ' + "[" * 200_000 + "]" * 200_000 + "}",
        '{"a": ' * 200_000 + "1" + "}" * 200_000,
        '{"a": ' + "[" * lines.MAX_DEPTH + "]" * lines.MAX_DEPTH + "}",
    ],
    ids=["surrogate", "key", "open", "lists", "objects", "one level too deep"],
)
def test_a_json_line_that_arrow_cannot_hold_costs_that_line(bad):
    rows, malformed = parse_json(f'{{"a": "1"}}\n{bad}\n{{"a": "\\ud83d\\ude00"}}\n'.encode())
    assert rows == [{"a": "1"}, {"a": "😀"}]
    assert malformed == [bad]


def test_json_as_deep_as_allowed_is_a_row():
    depth = lines.MAX_DEPTH - 1
    rows, malformed = parse_json(('{"a": ' + "[" * depth + "]" * depth + "}\n").encode())
    assert (len(rows), malformed) == (1, [])


def test_json_blocks_without_a_row_have_no_columns(monkeypatch):
    monkeypatch.setattr(lines, "BLOCK_BYTES", 4)
    blocks = list(read_json_lines(pa.BufferReader(b'bad\n{"a": 1}\n[2]\n{"b": 3}\n')))
    assert [rows.column_names for rows, _ in blocks] == [[], ["a"], [], ["b", "a"]]
    assert [malformed for _, malformed in blocks] == [["bad"], [], ["[2]"], []]


@pytest.mark.parametrize("size", [8 << 20, 9])
def test_carriage_returns_alone_end_lines(monkeypatch, size):
    monkeypatch.setattr(lines, "BLOCK_BYTES", size)
    assert parse_csv(b"a,b\r1,2\r3\r4,5") == ([{"a": "1", "b": "2"}, {"a": "4", "b": "5"}], ["3"])
    assert parse_json(b'{"a": 1}\r{"a": 2}\r')[0] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("header", [b"a\rb,c", b'a,"b'])
def test_a_header_that_cannot_be_split_is_refused(header):
    with pytest.raises(InputError, match="check its quotes and line ends"):
        parse_csv(header + b"\n1,2\n")
