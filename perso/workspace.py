"""Where one installation keeps its files. Naming a path creates nothing."""

import os
from dataclasses import dataclass
from pathlib import Path

from perso.errors import InputError


@dataclass(frozen=True)
class Workspace:
    """The folders under one root; every command takes the root by ``--root``."""

    root: Path

    @classmethod
    def open(cls, root: Path | str | None = None) -> "Workspace":
        """The workspace at ``root``, else at ``$PERSO_ROOT``, else at ``.perso`` here.

        Raises:
            InputError: If the root exists and is not a folder.
        """
        path = Path(root or os.environ.get("PERSO_ROOT") or ".perso").expanduser().absolute()
        if path.exists() and not path.is_dir():
            raise InputError(f"root {path} is a file; give --root a folder")
        return cls(path)

    @property
    def datasets(self) -> Path:
        """Prepared datasets, one folder per (source, spec) key."""
        return self.root / "datasets"

    @property
    def synthetic(self) -> Path:
        """Generated shops, one folder per spec key."""
        return self.root / "synthetic"

    @property
    def features(self) -> Path:
        """Feature rows (Parquet), Feast's registry and its embedded online store."""
        return self.root / "features"

    @property
    def segments(self) -> Path:
        """Per as-of instant, what was told of the segments and the fit of the clusters."""
        return self.root / "segments"

    @property
    def mlflow(self) -> Path:
        """MLflow's database and artifacts."""
        return self.root / "mlflow"

    @property
    def searches(self) -> Path:
        """Ray Tune's checkpoints and results."""
        return self.root / "searches"

    @property
    def bundles(self) -> Path:
        """Model bundles while they are built; the registry keeps its own copy."""
        return self.root / "bundles"

    @property
    def event_log(self) -> Path:
        """The embedded event log."""
        return self.root / "events" / "log.sqlite"
