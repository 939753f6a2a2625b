"""Folders that appear complete or not at all."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def build_once(folder: Path) -> Iterator[Path | None]:
    """Where to build a folder that is renamed into place at the end; None if it is there already.

    A second process that wants the same folder waits and finds it; a killed one holds no lock,
    and what it left is cleared. After an exception the site stays, for a look at it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "shop"
        >>> with build_once(folder) as site:
        ...     site.mkdir()
        >>> with build_once(folder) as site:
        ...     print(site, folder.exists())
        None True
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            yield None
            return
        site = folder.with_name(f".{folder.name}.building")
        shutil.rmtree(site, ignore_errors=True)
        yield site
        site.rename(folder)
