"""Model versions: bundles that the registry keeps, and which of them serves."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlparse
from urllib.request import url2pathname

from perso.errors import ArtifactError, InputError
from perso.registry.aliases import CHALLENGER, CHAMPION, Aliases
from perso.registry.audit import Move
from perso.registry.promotion import ANYONE, Promotions
from perso.registry.runs import Runs
from perso.registry.store import load_mlflow
from perso.workspace import Workspace

MODEL_NAME: Final = "perso"
CLUSTERS_NAME: Final = "perso-clusters"
"""The registered model of the segments' clusters; its champion is the newest fit."""

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
    """``champion``, ``previous`` and ``challenger``, where they point here."""
    metrics: Mapping[str, float]
    """Overall metrics of the test, by names such as ``ndcg@20``."""
    tags: Mapping[str, str]
    """Lineage: data key and hash, git commit where there was one."""


class Registry(Runs):
    """Runs and the model versions that came of them, of one workspace.

    Reading where nothing was ever written answers "none" at once.
    """

    def __init__(self, workspace: Workspace, *, name: str = MODEL_NAME) -> None:
        """Open nothing yet.

        Args:
            workspace: Whose records.
            name: Which registered model: the recommender, or the clusters of the segments.
        """
        super().__init__(workspace)
        self._downloads = workspace.mlflow / "downloads"
        self._name = name
        self._aliases = Aliases(self._store, name)
        self._promotions = Promotions(self._store, name)

    def register(
        self, bundle_folder: Path, *, run_id: str, tags: Mapping[str, str] | None = None
    ) -> ModelVersion:
        """A new version with a copy of a bundle; it is the ``challenger`` until it is promoted.

        Args:
            bundle_folder: A saved bundle; may be deleted afterwards.
            run_id: The run that trained it, with its metrics already logged.
            tags: Lineage, and the gate's verdict, to keep beside the version.

        Raises:
            ArtifactError: If the folder has no manifest.
        """
        if not (bundle_folder / "manifest.json").is_file():
            raise ArtifactError(f"{bundle_folder} is not a model bundle: it has no manifest.json")
        mlflow, client = load_mlflow(), self._client
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
        with self._store.as_process_address():
            created = client.create_model_version(
                self._name,
                model.model_uri,
                run_id=run_id,
                tags=dict(tags or {}),
                model_id=model.model_id,  # a server takes a source only from who names its model
            )
        self._aliases.point(CHALLENGER, str(created.version))
        logger.info(
            "registry: %s version %s registered from run %s", self._name, created.version, run_id
        )
        return self._describe(created, aliases=(CHALLENGER,))

    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        """Keep something beside a version; what stood under a name is replaced.

        Raises:
            InputError: If there is no such version.
        """
        self._known(version)
        for name, value in tags.items():
            self._client.set_model_version_tag(self._name, version, name, value)

    def champion(self) -> ModelVersion | None:
        """The version that serves, None before the first promotion; cheap enough to poll.

        Raises:
            ArtifactError: If its bundle cannot be fetched from a remote store.
        """
        found = self._aliases.found(CHAMPION)
        return None if found is None else self._describe(found, aliases=found.aliases)

    def versions(self) -> list[ModelVersion]:
        """Every version, newest first; a remote store's bundles are not fetched for a list."""
        aliases = self._aliases.of_versions() if self._store.exists else {}
        return [
            self._describe(found, aliases=aliases.get(str(found.version), ()), fetch=False)
            for found in self._found()
        ]

    def version(self, version: str) -> ModelVersion:
        """One version, its bundle on this machine.

        Raises:
            InputError: If there is no such version.
            ArtifactError: If its bundle cannot be fetched from a remote store.
        """
        known = self._known(version)
        return self._describe(known, aliases=self._aliases.of_versions().get(version, ()))

    def promote(
        self,
        version: str,
        *,
        instead_of: str | None = ANYONE,
        why: str = "",
        who: str | None = None,
        is_forced: bool = False,
    ) -> ModelVersion:
        """The version as the new champion; the old one becomes ``previous``.

        Promoting the champion changes nothing and is not written down.

        Args:
            version: Which one.
            instead_of: The champion it was judged against, None where there was none.
            why: For the history.
            who: For the history; ``$PERSO_USER`` or this user on this machine if not given.
            is_forced: Whether a person overruled the gate.

        Raises:
            InputError: If there is no such version.
            ChampionMovedError: If another champion than ``instead_of`` serves by now.
        """
        self._known(version)
        self._promotions.promote(
            version, instead_of=instead_of, who=who, why=why, is_forced=is_forced
        )
        return self._moved()

    def rollback(self, *, why: str = "", who: str | None = None) -> ModelVersion:
        """The previous champion, champion again; the two swap, so a second call undoes it.

        Raises:
            NoChampionError: If there was no champion before the present one.
        """
        self._promotions.roll_back(who=who, why=why)
        return self._moved()

    def history(self) -> list[Move]:
        """Every promotion and rollback, newest first."""
        return self._promotions.history()

    def _moved(self) -> ModelVersion:
        champion = self.champion()
        assert champion is not None
        return champion

    def _found(self) -> list[Any]:
        """MLflow's records of all versions, newest first."""
        if not self._store.exists:
            return []
        found = self._client.search_model_versions(f"name='{self._name}'")
        return sorted(found, key=lambda version: int(version.version), reverse=True)

    def _known(self, version: str) -> Any:
        found = {str(known.version): known for known in self._found()}
        if version not in found:
            listed = ", ".join(sorted(found, key=int)) or "none yet"
            raise InputError(f"no model version {version!r}; there are: {listed}")
        return found[version]

    def _describe(self, found: Any, *, aliases: Sequence[str], fetch: bool = True) -> ModelVersion:
        return ModelVersion(
            version=str(found.version),
            folder=self._folder(found, fetch=fetch),
            run_id=found.run_id,
            aliases=tuple(sorted(aliases)),
            metrics=self._overall_metrics(found.run_id),
            tags=dict(found.tags),
        )

    def _folder(self, found: Any, *, fetch: bool) -> Path:
        uri: str = self._client.get_model_version_download_uri(self._name, found.version)
        address = urlparse(uri)
        if address.scheme in ("", "file"):
            return Path(url2pathname(address.path))
        model_id: str = found.source.removeprefix("models:/")
        folder = self._downloads / model_id
        if fetch and not folder.exists():
            self._store.download(uri, folder)
        return folder
