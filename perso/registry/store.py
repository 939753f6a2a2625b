"""The connection to MLflow: a server, or a database in the workspace that is made at first use."""

import fcntl
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from perso.errors import ArtifactError
from perso.workspace import Workspace

EXPERIMENT_NAME: Final = "perso"

_MLFLOW_SETTINGS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


class Store:
    """MLflow's client and what it needs to know. Opening one starts and creates nothing."""

    def __init__(self, workspace: Workspace) -> None:
        self.folder = workspace.mlflow

    @property
    def uri(self) -> str:
        """The MLflow server or database that holds the records."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self._database}"

    @property
    def has_lock(self) -> bool:
        """Whether the records are a database in the workspace, whose users share a lock file."""
        return not os.environ.get("MLFLOW_TRACKING_URI")

    @property
    def exists(self) -> bool:
        """Whether anything may have been written yet; a server is taken to have records."""
        return not self.has_lock or self._database.exists()

    @cached_property
    def client(self) -> Any:
        """An ``MlflowClient``; the first in a workspace makes its database, which takes seconds."""
        create_client = load_mlflow().MlflowClient
        uri = self.uri
        if not self.has_lock:
            return create_client(tracking_uri=uri, registry_uri=uri)
        # Of four processes that create one database at once, three crash in its migrations.
        with self._locked("mlflow.lock"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's own use of SQLAlchemy
            return create_client(tracking_uri=uri, registry_uri=uri)

    @cached_property
    def experiment_id(self) -> str:
        """The experiment of all runs, made if need be."""
        # A server has its own artifact store; MLflow's default without one is the current folder.
        location = (self.folder / "artifacts").as_uri() if self.has_lock else None
        try:
            created: str = self.client.create_experiment(
                EXPERIMENT_NAME, artifact_location=location
            )
            return created
        except load_mlflow().MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        existing: str = self.client.get_experiment_by_name(EXPERIMENT_NAME).experiment_id
        return existing

    @contextmanager
    def moving_aliases(self) -> Iterator[None]:
        """One process at a time in here, on the embedded database; a killed one lets the next in.

        A server is shared by machines that share no lock: there two promotions at the same moment
        both take place, in either order, and both are written down.
        """
        if not self.has_lock:
            yield
            return
        with self._locked("promotion.lock"):
            yield

    @contextmanager
    def as_process_address(self) -> Iterator[None]:
        """MLflow's own current address, for a call that goes by it, and put back afterwards.

        MLflow resolves a ``models:/`` source against it, whichever client asks (a TODO in its SQL
        store); passing artifact paths instead fails on a server. Setting it also sets
        ``MLFLOW_TRACKING_URI``, which another workspace would take for the user's choice.
        """
        mlflow = load_mlflow()
        before = os.environ.get("MLFLOW_TRACKING_URI")
        mlflow.set_tracking_uri(self.uri)
        try:
            yield
        finally:
            mlflow.set_tracking_uri(before)

    def download(self, uri: str, folder: Path) -> None:
        """Fetch artifacts of a remote store into a folder, whole or not at all.

        Raises:
            ArtifactError: If they cannot be fetched.
        """
        folder.parent.mkdir(parents=True, exist_ok=True)
        mlflow = load_mlflow()
        with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
            try:
                fetched = mlflow.artifacts.download_artifacts(
                    artifact_uri=uri, dst_path=partial, tracking_uri=self.uri
                )
            except mlflow.MlflowException as error:
                raise ArtifactError(f"cannot fetch model bundle {uri}: {error}") from error
            try:
                Path(fetched).rename(folder)
            except OSError:
                if not folder.exists():  # else another process fetched the same bytes meanwhile
                    raise

    @property
    def _database(self) -> Path:
        return self.folder / "mlflow.db"

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / name).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def load_mlflow() -> Any:
    """MLflow, told to keep quiet and to itself; imported at first use, for seconds."""
    for setting, value in _MLFLOW_SETTINGS.items():
        os.environ.setdefault(setting, value)
    import mlflow

    return mlflow
