"""Files and folders at any address, local path or URI, as lists and byte streams.

Decides which files of a folder count and turns every failure to reach them into one sentence. What
the bytes mean is up to ``perso.data.readers``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.fs as pafs

from perso.errors import InputError


@dataclass(frozen=True, kw_only=True)
class FoundFile:
    """One file, by an address that :func:`locate` takes."""

    address: str
    num_bytes: int


def locate(address: str) -> tuple[pafs.FileSystem, str]:
    """The file system of an address and the path inside it.

    Schemes that Arrow does not know (``memory://``, ``https://``, …) go to fsspec.

    Raises:
        InputError: If neither knows the scheme.
    """
    if "://" not in address:
        return pafs.LocalFileSystem(), str(Path(address).expanduser().absolute())
    try:
        filesystem, path = pafs.FileSystem.from_uri(address)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError):
        import fsspec  # type: ignore[import-untyped]

        try:
            found, path = fsspec.core.url_to_fs(address)
        except (ValueError, ImportError, OSError) as error:
            raise InputError(f"cannot open {address}: {error}") from error
        filesystem = pafs.PyFileSystem(pafs.FSSpecHandler(found))
    return filesystem, path


def list_files(address: str) -> list[FoundFile]:
    """The file at an address, or all files below a folder, sorted by path.

    Files and folders whose name begins with ``.`` or ``_`` are hidden (``_SUCCESS``, ``.crc``).

    Raises:
        InputError: If there is nothing at the address or it cannot be listed.
    """
    filesystem, root = locate(address)
    with reading(address):
        info = filesystem.get_file_info(root)
        if info.type == pafs.FileType.NotFound:
            raise InputError(f"there is no file or folder {address}; check the path")
        if info.type == pafs.FileType.File:
            return [FoundFile(address=address, num_bytes=info.size)]
        below = filesystem.get_file_info(pafs.FileSelector(root, recursive=True))
    base, _, query = address.partition("?") if "://" in address else (address, "", "")
    is_encoded = "://" in address and not isinstance(filesystem, pafs.PyFileSystem)
    files = []
    for entry in sorted(below, key=lambda entry: str(entry.path)):
        inside = entry.path.removeprefix(root.rstrip("/")).lstrip("/")
        if entry.type != pafs.FileType.File or any(p[0] in "._" for p in inside.split("/") if p):
            continue
        inside = quote(inside) if is_encoded else inside
        child = f"{base.rstrip('/')}/{inside}" + (f"?{query}" if query else "")
        files.append(FoundFile(address=child, num_bytes=entry.size))
    return files


def child_of(address: str, name: str) -> str:
    """The address of a file in the folder at an address."""
    base, mark, query = address.partition("?") if "://" in address else (address, "", "")
    return f"{base.rstrip('/')}/{name}{mark}{query}"


@contextmanager
def reading(address: str) -> Iterator[None]:
    """Turns a failure to read ``address`` inside the block into an InputError that names it."""
    try:
        yield
    except (OSError, EOFError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).strip().split("\n")[0]
        raise InputError(f"cannot read {address}: {reason}") from error


@contextmanager
def open_stream(address: str, *, decompress: bool = True) -> Iterator[pa.NativeFile]:
    """The bytes of a file, front to back; ``.gz`` and its like come decompressed.

    Raises:
        InputError: If the file cannot be opened or read.
    """
    filesystem, path = locate(address)
    compression = "detect" if decompress else None
    with reading(address), filesystem.open_input_stream(path, compression=compression) as stream:
        yield stream
