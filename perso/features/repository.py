"""What Feast is told: the declarations of ``feature_repo`` and the settings of one workspace.

The folder is read as Feast's own command line reads it, never imported as a package, so perso and
a plain ``feast apply`` register the same objects.
"""

import contextlib
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from perso.errors import FeatureStoreError
from perso.features.feast_import import import_feast
from perso.workspace import Workspace

OVERLAY_VARIABLE: Final = "FEAST_FS_YAML_FILE_PATH"
"""Feast's own variable: a settings file to use in place of ``feature_repo``'s."""

_ROOT_PLACEHOLDER: Final = "../.perso"
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


def settings(workspace: Workspace) -> dict[str, Any]:
    """The content of ``feature_store.yaml`` for this workspace, ``${VARIABLES}`` as written.

    A path that begins with ``../.perso`` in the file is one below the workspace root.

    Raises:
        FeatureStoreError: If the settings file cannot be read or is not YAML.
    """
    overlay = os.environ.get(OVERLAY_VARIABLE)
    path = Path(overlay) if overlay else repository_folder() / "feature_store.yaml"
    try:
        document: dict[str, Any] = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise FeatureStoreError(
            f"cannot read Feast settings {path}: {reason}; "
            f"correct the file or unset {OVERLAY_VARIABLE}"
        ) from error
    resolved: dict[str, Any] = _fill_root(document, str(workspace.root))
    return resolved


def _fill_root(value: Any, root: str) -> Any:
    if isinstance(value, dict):
        return {key: _fill_root(item, root) for key, item in value.items()}
    if isinstance(value, str):
        return value.replace(_ROOT_PLACEHOLDER + "/", root + "/")
    return value


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
