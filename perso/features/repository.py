"""What Feast is told: the declarations of ``feature_repo`` and the settings of one workspace.

The folder is read as Feast's own command line reads it, never imported as a package, so perso and
a plain ``feast apply`` register the same objects.
"""

import contextlib
import importlib.util
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from perso.errors import FeatureStoreError
from perso.features.feast_import import import_feast
from perso.workspace import Workspace

STORE_VARIABLE: Final = "PERSO_FEATURE_STORE"
"""Names the store: ``local``, or a file of ``feature_repo/overlays``."""
FILE_VARIABLE: Final = "FEAST_FS_YAML_FILE_PATH"
"""Feast's own variable: a settings file to use whatever store is named."""
LOCAL: Final = "local"

_ROOT_PLACEHOLDER: Final = "../.perso"
_VARIABLE: Final = re.compile(r"\$\{(\w+)\}")
_reading = threading.Lock()


def repository_folder() -> Path:
    """The folder of the Feast declarations.

    Raises:
        FeatureStoreError: If there is none beside this checkout or installation.
    """
    found = importlib.util.find_spec("feature_repo")
    if found is None or not found.submodule_search_locations:
        raise FeatureStoreError(
            "no feature_repo folder on the import path; run from a checkout, or ship the "
            "folder with the working directory of the job"
        )
    return Path(next(iter(found.submodule_search_locations))).resolve()


def declared_objects(workspace: Workspace) -> list[Any]:
    """Every Feast object that the repository declares, over the files of this workspace.

    Feast finds declarations by importing the files with their folder as working folder and import
    root; both are changed for that moment (about 10 ms), so call this where no other thread
    depends on the working folder.

    Raises:
        FeatureStoreError: If there is no repository.
    """
    import_feast()
    from feast.repo_operations import parse_repo

    folder = repository_folder()
    with _reading, _import_root(folder, workspace):
        contents = parse_repo(folder)
    # data_sources first: a view looks its sources up. Empty kinds add nothing.
    return [declared for kind in contents for declared in kind]


def settings_file() -> Path:
    """The Feast settings that the environment chooses.

    Raises:
        FeatureStoreError: If the store named is none of the overlays.
    """
    if named := os.environ.get(FILE_VARIABLE):
        return Path(named)
    store = os.environ.get(STORE_VARIABLE) or LOCAL
    folder = repository_folder()
    if store == LOCAL:
        return folder / "feature_store.yaml"
    overlays = {path.stem: path for path in sorted((folder / "overlays").glob("*.yaml"))}
    if store not in overlays:
        raise FeatureStoreError(
            f"{STORE_VARIABLE} is {store!r}; set one of {', '.join([LOCAL, *overlays])}, "
            f"or name a settings file in {FILE_VARIABLE}"
        )
    return overlays[store]


def settings(workspace: Workspace) -> dict[str, Any]:
    """The content of the settings file for this workspace, ``${VARIABLES}`` as written.

    A path that begins with ``../.perso`` in the file is one below the workspace root.

    Raises:
        FeatureStoreError: If the settings file cannot be read or is not YAML.
    """
    path = settings_file()
    try:
        document = yaml.safe_load(path.read_text())
        if not isinstance(document, dict):
            raise TypeError("it holds no settings")
    except (OSError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise FeatureStoreError(
            f"cannot read Feast settings {path}: {reason}; "
            f"correct the file or unset {FILE_VARIABLE}"
        ) from error
    root = f"{workspace.root}/"
    resolved: dict[str, Any] = _map_text(
        document, lambda text: text.replace(f"{_ROOT_PLACEHOLDER}/", root)
    )
    return resolved


def filled_settings(workspace: Workspace) -> dict[str, Any]:
    """The settings with the values of the environment in place of ``${VARIABLES}``.

    Each value is put in as it is, whatever characters a password has.

    Raises:
        FeatureStoreError: If the file cannot be read, or a variable that it names is not set.
    """
    found = settings(workspace)
    missing: set[str] = set()

    def fill(text: str) -> str:
        missing.update(name for name in _VARIABLE.findall(text) if name not in os.environ)
        return _VARIABLE.sub(lambda match: os.environ.get(match[1], ""), text)

    filled: dict[str, Any] = _map_text(found, fill)
    if missing:
        raise FeatureStoreError(
            f"{settings_file()} needs {', '.join(sorted(missing))}, which is not set; "
            "set it to what the comment at the top of the file says"
        )
    return filled


def _map_text(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {key: _map_text(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_map_text(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


@contextlib.contextmanager
def _import_root(folder: Path, workspace: Workspace) -> Iterator[None]:
    """The surroundings in which ``feast apply`` imports a repository, undone afterwards."""
    modules = {path.stem for path in folder.glob("*.py")}
    kept_modules = {name: sys.modules.pop(name) for name in modules & sys.modules.keys()}
    kept_root = os.environ.get("PERSO_ROOT")
    os.environ["PERSO_ROOT"] = str(workspace.root)
    sys.path.insert(0, str(folder))
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        sys.path.remove(str(folder))
        if kept_root is None:
            del os.environ["PERSO_ROOT"]
        else:
            os.environ["PERSO_ROOT"] = kept_root
        for name in modules & sys.modules.keys():
            del sys.modules[name]
        sys.modules.update(kept_modules)
