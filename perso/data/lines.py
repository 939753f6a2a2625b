"""CSV and JSON Lines, block by block: rows that parse, and the lines that do not.

One line is one row; a line break inside quotes is not supported, so a stray quote costs one line
and not the rest of the file. A block goes through Arrow's parser; where that stumbles, the same
block goes through Python's line by line. Both accept the same lines, so no row depends on its
neighbours. Text that is not UTF-8 is taken for Windows-1252. Lines end in LF, CR LF or, in a file
without any LF, in CR.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson

from perso.errors import InputError

BLOCK_BYTES: Final = 8 << 20

MAX_DEPTH: Final = 100
"""Levels of nesting that a JSON object may have. Arrow's parser recurses without a bound."""

RawBlock = tuple[pa.Table, list[str]]
"""Rows as they came, any column types, and the text of the malformed lines between them.

The rows have no columns only if no line parsed and no header says what they would be.
"""


@dataclass(frozen=True, kw_only=True)
class CsvLayout:
    """How a delimited text file is laid out."""

    delimiter: str = ","
    """One character."""
    column_names: tuple[str, ...] | None = None
    """Names of the columns; none: the first line holds them."""


def read_csv(stream: pa.NativeFile, layout: CsvLayout) -> Iterator[RawBlock]:
    """Blocks of a CSV file; every column is string, an empty field null.

    Raises:
        InputError: If the file has no header, or one that cannot be read or names a column twice.
    """
    names = layout.column_names
    for block in _whole_lines(stream):
        if names is None:
            header, _, rows = block.partition(b"\n")
            names = _parse_header(header, layout.delimiter)
        else:
            rows = block
        yield _parse_csv(rows, names, layout.delimiter)
    if names is None:
        raise InputError("the file is empty")


def read_json_lines(stream: pa.NativeFile) -> Iterator[RawBlock]:
    """Blocks of a JSON Lines file; column types may differ between blocks.

    A key that occurs in the first block with a row is a column of all later ones. A block without
    a row has no columns.
    """
    known: list[str] = []
    for block in _whole_lines(stream):
        rows, malformed = _parse_json(block)
        if rows.num_columns:
            known = known or rows.column_names
            for name in known:
                if name not in rows.column_names:
                    rows = rows.append_column(name, pa.nulls(rows.num_rows))
        yield rows, malformed


def parse_object(text: str) -> dict[str, Any] | None:
    """The JSON object that a text holds, none if there is none that Arrow can hold.

    So an object nested deeper than ``MAX_DEPTH``, or one with half a surrogate pair, which UTF-8
    cannot say, is none.
    """
    try:
        value = json.loads(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and not _is_deeper(value, MAX_DEPTH) else None


def _is_deeper(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_is_deeper(one, depth - 1) for one in inner)


def _whole_lines(stream: pa.NativeFile) -> Iterator[bytes]:
    """The stream in UTF-8, cut after line ends; every block ends with one."""
    rest = b""
    is_first = True
    ends_in_cr = False
    while data := stream.read(BLOCK_BYTES):
        if is_first:
            data = data.removeprefix(b"\xef\xbb\xbf")
            ends_in_cr = b"\r" in data and b"\n" not in data
            is_first = False
        if ends_in_cr:
            data = data.replace(b"\r", b"\n")
        end = data.rfind(b"\n") + 1
        if end:
            yield _to_utf8(rest + data[:end])
            rest = data[end:]
        else:
            rest += data
    if rest:
        yield _to_utf8(rest + b"\n")


def _to_utf8(block: bytes) -> bytes:
    try:
        block.decode()
        return block
    except UnicodeDecodeError:
        return b"\n".join(_line_to_utf8(line) for line in block.split(b"\n"))


def _line_to_utf8(line: bytes) -> bytes:
    try:
        line.decode()
        return line
    except UnicodeDecodeError:
        return line.decode("cp1252", errors="replace").encode()


def _text_lines(block: bytes) -> Iterator[str]:
    for line in block.split(b"\n"):
        text = line.removesuffix(b"\r").decode()
        if text:
            yield text


def _parse_header(line: bytes, delimiter: str) -> tuple[str, ...]:
    fields = _split_fields(line.rstrip(b"\r").decode(), delimiter)
    if fields is None:
        raise InputError("the first line names no columns; check its quotes and line ends")
    names = tuple(name.strip() for name in fields)
    if not any(names):
        raise InputError("the first line is blank; it must name the columns")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"the header names {', '.join(map(repr, twice))} more than once")
    return names


def _parse_csv(block: bytes, names: tuple[str, ...], delimiter: str) -> RawBlock:
    if not block:
        return pa.table({name: pa.array([], pa.string()) for name in names}), []
    malformed: list[str] = []

    def note(row: Any) -> str:
        malformed.append(row.text)
        return "skip"

    try:
        table = pacsv.read_csv(
            pa.BufferReader(block),
            read_options=pacsv.ReadOptions(
                column_names=list(names), use_threads=False, block_size=len(block) + 1
            ),
            parse_options=pacsv.ParseOptions(delimiter=delimiter, invalid_row_handler=note),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid:
        return _parse_csv_lines(block, names, delimiter)
    # Fewer rows than lines: blank ones, or a quote that runs over the line's end.
    has_long_rows = table.num_rows + len(malformed) != block.count(b"\n")
    if has_long_rows or _ends_in_quote(block, delimiter):
        return _parse_csv_lines(block, names, delimiter)
    return table, malformed


def _ends_in_quote(block: bytes, delimiter: str) -> bool:
    last = block[block.rfind(b"\n", 0, -1) + 1 :].strip(b"\r\n")
    return b'"' in last and _split_fields(last.decode(), delimiter) is None


def _parse_csv_lines(block: bytes, names: tuple[str, ...], delimiter: str) -> RawBlock:
    rows: list[list[str]] = []
    malformed: list[str] = []
    for text in _text_lines(block):
        fields = _split_fields(text, delimiter)
        if fields is None or len(fields) != len(names):
            malformed.append(text)
        else:
            rows.append(fields)
    columns = {
        name: pa.array([row[place] or None for row in rows], pa.string())
        for place, name in enumerate(names)
    }
    return pa.table(columns), malformed


def _split_fields(text: str, delimiter: str) -> list[str] | None:
    """The fields of one line, none if a quote stays open."""
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error as error:
        if "unexpected end of data" in str(error):
            return None
    try:
        return next(csv.reader([text], delimiter=delimiter))
    except csv.Error:
        return None


def _parse_json(block: bytes) -> RawBlock:
    num_brackets = max(line.count(b"[") + line.count(b"{") for line in block.split(b"\n"))
    if num_brackets > MAX_DEPTH:
        return _parse_json_lines(block)
    try:
        table = pajson.read_json(
            pa.BufferReader(block),
            read_options=pajson.ReadOptions(use_threads=False, block_size=len(block) + 1),
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return _parse_json_lines(block)
    # Arrow reads any text that looks like a date as one, an id included; and two objects on a
    # line, or one over several, as rows.
    guesses_dates = any(
        pa.types.is_timestamp(f.type) for f in table.schema if f.name != "timestamp"
    )
    if guesses_dates or table.num_rows != block.count(b"\n"):
        return _parse_json_lines(block)
    return table, []


def _parse_json_lines(block: bytes) -> RawBlock:
    rows: list[dict[str, Any]] = []
    malformed: list[str] = []
    for text in _text_lines(block):
        if not text.strip():
            continue
        row = parse_object(text)
        if row is None:
            malformed.append(text)
        else:
            rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    if rows and not columns:  # rows without any key: keep their number
        columns = {"event_id": pa.nulls(len(rows), pa.string())}
    return pa.table(columns), malformed


def _column(values: list[Any]) -> pa.Array:
    """The values in one Arrow type, or as text where they have none in common."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([_as_text(value) for value in values], pa.string())


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
