"""Files that readers see whole."""

import os
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old or the new one, never half of it."""
    building = path.with_name(f".{path.name}.{os.getpid()}.building")
    building.write_bytes(content)
    building.replace(path)
