"""Runs, model versions and the champion: the only client of MLflow.

A model version is a folder of data (see :mod:`perso.models.bundle`), stored once and never
changed; which version serves is an alias, so promotion and rollback move a pointer. Where the
records live is configuration: ``MLFLOW_TRACKING_URI`` if set, else a SQLite database in the
workspace. What deserves promotion is decided by the caller.
"""

import fcntl
import logging
import math
import os
import re
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlparse
from urllib.request import url2pathname

from perso.errors import ArtifactError, InputError, NoChampionError
from perso.workspace import Workspace

EXPERIMENT_NAME: Final = "perso"
MODEL_NAME: Final = "perso"
CLUSTERS_NAME: Final = "perso-clusters"
"""The registered model of the segments' clusters; its champion is the newest fit."""
CHAMPION: Final = "champion"
PREVIOUS: Final = "previous"

_MLFLOW_SETTINGS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
_METRICS_PER_BATCH: Final = 1000  # MLflow refuses longer batches

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One registered model."""

    version: str
    """Counts up from "1"."""
    folder: Path
    """The bundle on this machine; the registry's own copy where its store is local, so read it
    and never write there."""
    run_id: str
    """The MLflow run that trained and tested it."""
    aliases: tuple[str, ...]
    """``champion`` and ``previous``, where they point here."""
    metrics: Mapping[str, float]
    """Overall metrics of the test, by names such as ``ndcg@20``."""
    tags: Mapping[str, str]
    """Lineage: data key and hash, git commit where there was one."""


class Registry:
    """Runs and model versions of one workspace. Opening one starts and creates nothing.

    The first write creates the embedded database, which takes seconds; processes that do so at
    once wait for each other. Reading where nothing was ever written answers "none" at once.
    """

    def __init__(self, workspace: Workspace, *, name: str = MODEL_NAME) -> None:
        """Open nothing yet.

        Args:
            workspace: Whose records.
            name: Which registered model: the recommender, or the clusters of the segments.
        """
        self._workspace = workspace
        self._name = name

    @property
    def tracking_uri(self) -> str:
        """The MLflow server or database that holds the records."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self._database}"

    def open_run(
        self,
        name: str,
        *,
        parent_run_id: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """The id of a new running run, shown under its parent if one is given."""
        parent = {} if parent_run_id is None else {"mlflow.parentRunId": parent_run_id}
        run = self._client.create_run(
            self._experiment_id, run_name=name, tags={**(tags or {}), **parent}
        )
        run_id: str = run.info.run_id
        if params:
            param = _mlflow().entities.Param
            written = [param(key, str(value)) for key, value in params.items()]
            self._client.log_batch(run_id, params=written)
        return run_id

    def log_metrics(
        self,
        run_id: str,
        metrics: Mapping[str, float],
        *,
        curves: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        """Add metrics to a run; a metric that is ``nan`` was not measured and is left out.

        Args:
            run_id: An open run.
            metrics: Values by names such as ``ndcg@20`` or ``segment/loyal/ndcg@20``; a slash
                groups, and only ungrouped names become a version's metrics.
            curves: Per name, one value for each step from 1.
        """
        metric = _mlflow().entities.Metric
        now_ms = int(time.time() * 1000)  # MLflow's record time; no result depends on it
        points = [(name, value, 0) for name, value in metrics.items()]
        for name, values in (curves or {}).items():
            points += [(name, value, step) for step, value in enumerate(values, 1)]
        written = [
            metric(_run_key(name), float(value), now_ms, step)
            for name, value, step in points
            if not math.isnan(value)
        ]
        for start in range(0, len(written), _METRICS_PER_BATCH):
            self._client.log_batch(run_id, metrics=written[start : start + _METRICS_PER_BATCH])

    def close_run(
        self,
        run_id: str,
        *,
        status: Literal["FINISHED", "FAILED"] = "FINISHED",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """End a run; ``tags`` say what came of it."""
        if tags:
            tag = _mlflow().entities.RunTag
            written = [tag(key, value) for key, value in tags.items()]
            self._client.log_batch(run_id, tags=written)
        self._client.set_terminated(run_id, status=status)

    def register(
        self, bundle_folder: Path, *, run_id: str, tags: Mapping[str, str] | None = None
    ) -> ModelVersion:
        """A new version with a copy of a bundle; no alias points to it yet.

        Args:
            bundle_folder: A saved bundle; may be deleted afterwards.
            run_id: The run that trained it, with its metrics already logged.
            tags: Lineage to keep beside the version.

        Raises:
            ArtifactError: If the folder has no manifest.
        """
        if not (bundle_folder / "manifest.json").is_file():
            raise ArtifactError(f"{bundle_folder} is not a model bundle: it has no manifest.json")
        mlflow, client = _mlflow(), self._client
        model = client.create_logged_model(
            self._experiment_id,
            name=self._name,
            source_run_id=run_id,
            model_type=f"{self._name}-bundle",
        )
        client.log_model_artifacts(model.model_id, str(bundle_folder))
        client.finalize_logged_model(model.model_id, "READY")
        try:
            client.create_registered_model(self._name)
        except mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        with _process_wide_address(self.tracking_uri):
            created = client.create_model_version(
                self._name,
                model.model_uri,
                run_id=run_id,
                tags=dict(tags or {}),
                model_id=model.model_id,  # a server takes a source only from who names its model
            )
        logger.info(
            "registry: %s version %s registered from run %s", self._name, created.version, run_id
        )
        return self._describe(created, aliases=())

    def champion(self) -> ModelVersion | None:
        """The version that serves, None before the first promotion; cheap enough to poll.

        Raises:
            ArtifactError: If its bundle cannot be fetched from a remote store.
        """
        version = self._by_alias(CHAMPION)
        return None if version is None else self._describe(version, aliases=version.aliases)

    def versions(self) -> list[ModelVersion]:
        """Every version, newest first; a remote store's bundles are not fetched for a list."""
        if not self._exists:
            return []
        aliases = self._aliases()
        found = self._client.search_model_versions(f"name='{self._name}'")
        by_age = sorted(found, key=lambda version: int(version.version), reverse=True)
        return [
            self._describe(
                v,
                aliases=[a for a, to in aliases.items() if str(to) == str(v.version)],
                fetch=False,
            )
            for v in by_age
        ]

    def promote(self, version: str) -> ModelVersion:
        """The version as the new champion; the old one becomes ``previous``.

        Raises:
            InputError: If there is no such version.
        """
        known = {v.version for v in self.versions()}
        if version not in known:
            listed = ", ".join(sorted(known, key=int)) or "none yet"
            raise InputError(f"no model version {version!r}; there are: {listed}")
        current = self._by_alias(CHAMPION)
        if current is not None and str(current.version) != version:
            # Before the champion moves: a crash between the two leaves a working champion.
            self._client.set_registered_model_alias(self._name, PREVIOUS, str(current.version))
        self._client.set_registered_model_alias(self._name, CHAMPION, version)
        logger.info("registry: %s version %s is champion", self._name, version)
        champion = self.champion()
        assert champion is not None
        return champion

    def rollback(self) -> ModelVersion:
        """The previous champion, champion again; the two swap, so a second call undoes it.

        Raises:
            NoChampionError: If there was no champion before the present one.
        """
        previous = self._by_alias(PREVIOUS)
        if previous is None:
            raise NoChampionError("there is no previous champion to go back to")
        return self.promote(str(previous.version))

    @property
    def _database(self) -> Path:
        return self._workspace.mlflow / "mlflow.db"

    @property
    def _exists(self) -> bool:
        return not self._is_embedded or self._database.exists()

    @property
    def _is_embedded(self) -> bool:
        return not os.environ.get("MLFLOW_TRACKING_URI")

    @cached_property
    def _client(self) -> Any:
        create_client = _mlflow().MlflowClient
        uri = self.tracking_uri
        if not self._is_embedded:
            return create_client(tracking_uri=uri, registry_uri=uri)
        self._workspace.mlflow.mkdir(parents=True, exist_ok=True)
        # Of four processes that create one database at once, three crash in its migrations.
        with (self._workspace.mlflow / "mlflow.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # MLflow's own use of SQLAlchemy
                return create_client(tracking_uri=uri, registry_uri=uri)

    @cached_property
    def _experiment_id(self) -> str:
        # A server has its own artifact store; MLflow's default without one is the current folder.
        location = (self._workspace.mlflow / "artifacts").as_uri() if self._is_embedded else None
        try:
            created: str = self._client.create_experiment(
                EXPERIMENT_NAME, artifact_location=location
            )
            return created
        except _mlflow().MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        existing: str = self._client.get_experiment_by_name(EXPERIMENT_NAME).experiment_id
        return existing

    def _by_alias(self, alias: str) -> Any:
        if not self._exists:
            return None
        client = self._client
        try:
            return client.get_model_version_by_alias(self._name, alias)
        except _mlflow().MlflowException as error:
            # The first code means no such alias, the second no registered model at all.
            if error.error_code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
                return None
            raise

    def _aliases(self) -> Mapping[str, Any]:
        try:
            aliases: Mapping[str, Any] = self._client.get_registered_model(self._name).aliases
        except _mlflow().MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}
        return aliases

    def _describe(self, found: Any, *, aliases: Sequence[str], fetch: bool = True) -> ModelVersion:
        run = self._client.get_run(found.run_id)
        return ModelVersion(
            version=str(found.version),
            folder=self._folder(found, fetch=fetch),
            run_id=found.run_id,
            aliases=tuple(sorted(aliases)),
            metrics=_overall_metrics(run.data.metrics),
            tags=dict(found.tags),
        )

    def _folder(self, found: Any, *, fetch: bool) -> Path:
        uri: str = self._client.get_model_version_download_uri(self._name, found.version)
        address = urlparse(uri)
        if address.scheme in ("", "file"):
            return Path(url2pathname(address.path))
        model_id: str = found.source.removeprefix("models:/")
        folder = self._workspace.mlflow / "downloads" / model_id
        if fetch and not folder.exists():
            _download(uri, folder, tracking_uri=self.tracking_uri)
        return folder


def git_commit(folder: Path) -> str | None:
    """The commit that is checked out around a folder, None outside a repository."""
    try:
        asked = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _mlflow() -> Any:
    """MLflow, told to keep quiet and to itself; imported at first use, for seconds."""
    for setting, value in _MLFLOW_SETTINGS.items():
        os.environ.setdefault(setting, value)
    import mlflow

    return mlflow


@contextmanager
def _process_wide_address(uri: str) -> Iterator[None]:
    """MLflow's own current address, for a call that goes by it, and put back afterwards.

    MLflow resolves a ``models:/`` source against it, whichever client asks (a TODO in its SQL
    store); passing artifact paths instead fails on a server. Setting it also sets
    ``MLFLOW_TRACKING_URI``, which another workspace would take for the user's choice.
    """
    mlflow = _mlflow()
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def _run_key(metric: str) -> str:
    """MLflow allows neither ``@`` nor brackets in a metric's name."""
    return re.sub(r"[^\w./ -]", "", metric.replace("@", "_at_"))


def _overall_metrics(recorded: Mapping[str, float]) -> dict[str, float]:
    return {k.replace("_at_", "@"): v for k, v in sorted(recorded.items()) if "/" not in k}


def _download(uri: str, folder: Path, *, tracking_uri: str) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
        try:
            fetched = _mlflow().artifacts.download_artifacts(
                artifact_uri=uri, dst_path=partial, tracking_uri=tracking_uri
            )
        except _mlflow().MlflowException as error:
            raise ArtifactError(f"cannot fetch model bundle {uri}: {error}") from error
        try:
            Path(fetched).rename(folder)  # whole or not at all
        except OSError:
            if not folder.exists():  # else another process fetched the same bytes meanwhile
                raise
