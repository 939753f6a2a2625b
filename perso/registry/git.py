"""What the code was that made a run."""

import subprocess
from pathlib import Path


def git_commit(folder: Path) -> str | None:
    """The commit that is checked out around a folder, None outside a repository."""
    try:
        asked = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
