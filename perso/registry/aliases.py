"""Names that point at one version of a registered model each."""

from collections.abc import Mapping
from typing import Any, Final

from perso.registry.store import Store, load_mlflow

CHAMPION: Final = "champion"
"""The version that serves."""
PREVIOUS: Final = "previous"
"""The version that served before, to which a rollback goes."""
CHALLENGER: Final = "challenger"
"""The newest version that has not been promoted."""


class Aliases:
    """The aliases of one registered model; moving one is atomic, moving two is not."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name

    def found(self, alias: str) -> Any | None:
        """MLflow's record of the version behind an alias, None where there is none."""
        if not self._store.exists:
            return None
        try:
            return self._store.client.get_model_version_by_alias(self._name, alias)
        except load_mlflow().MlflowException as error:
            # The first code means no such alias, the second no registered model at all.
            if error.error_code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
                return None
            raise

    def version(self, alias: str) -> str | None:
        """The version behind an alias, None where there is none."""
        found = self.found(alias)
        return None if found is None else str(found.version)

    def of_versions(self) -> Mapping[str, list[str]]:
        """Aliases by version."""
        try:
            aliases = self._store.client.get_registered_model(self._name).aliases
        except load_mlflow().MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}
        by_version: dict[str, list[str]] = {}
        for alias, version in sorted(aliases.items()):
            by_version.setdefault(str(version), []).append(alias)
        return by_version

    def point(self, alias: str, version: str | None) -> None:
        """Move an alias to a version, or take it away."""
        if version is None:
            self._store.client.delete_registered_model_alias(self._name, alias)
        else:
            self._store.client.set_registered_model_alias(self._name, alias, version)
