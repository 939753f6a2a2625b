"""Parquet, CSV, JSON Lines and xlsx as streams of raw Arrow tables.

Decides how input is cut into chunks and how bytes become rows; what a row means is decided by the
source that reads it (``perso.data.sources``). No file but xlsx is ever whole in memory.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Literal
from zipfile import BadZipFile

import pyarrow as pa
import pyarrow.parquet as pq

from perso.data.files import FoundFile, list_files, locate, open_stream, reading
from perso.data.lines import CsvLayout, RawBlock, read_csv, read_json_lines
from perso.errors import InputError

Format = Literal["parquet", "csv", "jsonl", "xlsx"]

FORMAT_BY_SUFFIX: Final[dict[str, Format]] = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".xlsx": "xlsx",
}

_ROWS_PER_CHUNK: Final = 500_000
_ROWS_PER_BLOCK: Final = 131_072


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """What one worker reads: a file, or a run of row groups of a Parquet file."""

    path: str
    """Local path or URI of the file."""
    format: Format
    row_groups: tuple[int, ...] | None = None
    """Row groups of a Parquet file; none: the whole file."""


def list_chunks(path: str) -> list[Chunk]:
    """The chunks of a file, or of every readable file below a folder, in path order.

    Files of other formats in a folder are passed over, and so are files without a byte or row.

    Raises:
        InputError: If nothing is there, nothing has a known format, a Parquet file is damaged,
            or no file holds anything.
    """
    found = list_files(path)
    readable = [file for file in found if format_of(file.address) is not None]
    if not readable:
        allowed = ", ".join(FORMAT_BY_SUFFIX)
        raise InputError(f"{path} holds no file that perso reads; files end in one of {allowed}")
    with ThreadPoolExecutor(max_workers=16) as pool:
        chunks = [chunk for part in pool.map(_chunks_of, readable) for chunk in part]
    if not chunks:
        raise InputError(f"{path} is empty; give a file with at least one row")
    return chunks


def format_of(address: str) -> Format | None:
    """The format that a file's name promises, none for an unknown one."""
    name = address.partition("?")[0].lower() if "://" in address else address.lower()
    for suffix, file_format in FORMAT_BY_SUFFIX.items():
        if name.endswith(suffix):
            return file_format
    return None


def _chunks_of(file: FoundFile) -> list[Chunk]:
    file_format = format_of(file.address)
    if file_format is None or file.num_bytes == 0:
        return []
    if file_format != "parquet":
        return [Chunk(path=file.address, format=file_format)]
    filesystem, path = locate(file.address)
    with reading(file.address), pq.ParquetFile(filesystem.open_input_file(path)) as parquet:
        metadata = parquet.metadata
        if metadata.num_rows <= _ROWS_PER_CHUNK:
            whole = Chunk(path=file.address, format="parquet")
            return [whole] if metadata.num_rows else []
        chunks: list[Chunk] = []
        run: list[int] = []
        num_rows = 0
        for row_group in range(metadata.num_row_groups):
            run.append(row_group)
            num_rows += metadata.row_group(row_group).num_rows
            if num_rows >= _ROWS_PER_CHUNK or row_group == metadata.num_row_groups - 1:
                chunks.append(Chunk(path=file.address, format="parquet", row_groups=tuple(run)))
                run, num_rows = [], 0
        return chunks


def read_chunk(chunk: Chunk, *, layout: CsvLayout | None = None) -> Iterator[RawBlock]:
    """The raw rows of a chunk, block by block, each with the malformed lines it met.

    CSV and xlsx columns are all strings, so that a bad value is a bad row and not a failed file.

    Args:
        chunk: What to read.
        layout: Of a delimited file; none: commas and a header.

    Raises:
        InputError: If the file cannot be read.
    """
    if chunk.format == "parquet":
        yield from _read_parquet(chunk)
    elif chunk.format == "xlsx":
        yield from _read_xlsx(chunk.path)
    else:
        with open_stream(chunk.path) as stream:
            try:
                if chunk.format == "csv":
                    yield from read_csv(stream, layout or CsvLayout())
                else:
                    yield from read_json_lines(stream)
            except InputError as error:
                raise InputError(f"cannot read {chunk.path}: {error}") from error


def _read_parquet(chunk: Chunk) -> Iterator[RawBlock]:
    filesystem, path = locate(chunk.path)
    with reading(chunk.path), pq.ParquetFile(filesystem.open_input_file(path)) as parquet:
        for batch in parquet.iter_batches(
            batch_size=_ROWS_PER_BLOCK, row_groups=chunk.row_groups, use_threads=False
        ):
            yield pa.Table.from_batches([batch]), []


def _read_xlsx(path: str) -> Iterator[RawBlock]:
    """Every sheet of a workbook; each begins with a header."""
    import openpyxl

    with open_stream(path, decompress=False) as stream:
        content = pa.BufferReader(stream.read())
    try:
        workbook = openpyxl.load_workbook(content, read_only=True, data_only=True)
    except (BadZipFile, KeyError, ValueError, OSError) as error:
        raise InputError(f"cannot read {path}: it is no xlsx workbook ({error})") from error
    for sheet in workbook.worksheets:
        rows = sheet.iter_rows(values_only=True)
        header = [_cell_text(cell) or "" for cell in next(rows, ())]
        while block := list(islice(rows, _ROWS_PER_BLOCK)):
            if not any(header):
                raise InputError(
                    f"cannot read {path}: the first row of sheet {sheet.title!r} is blank; "
                    "it must name the columns"
                )
            padding = (None,) * len(header)  # a row ends with its last cell that was ever filled
            cells = [(row + padding)[: len(header)] for row in block]
            columns = {
                name: pa.array([_cell_text(row[place]) for row in cells], pa.string())
                for place, name in enumerate(header)
                if name
            }
            yield pa.table(columns), []


def _cell_text(cell: Any) -> str | None:
    """A cell as a CSV export writes it: whole numbers without a point, ISO dates."""
    if cell is None or cell == "":
        return None
    return str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell)


def hash_file(path: str) -> str:
    """The BLAKE2b hash of a file's bytes, 32 hexadecimal digits, in constant memory.

    Raises:
        InputError: If the file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    with open_stream(path, decompress=False) as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
