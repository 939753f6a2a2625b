"""Runs, model versions and the champion: the only client of MLflow.

A model version is a folder of data (see :mod:`perso.models.bundle`), stored once and never
changed; which version serves is an alias, so promotion and rollback move a pointer, and each move
is written down. Where the records live is configuration: ``MLFLOW_TRACKING_URI`` if set, else a
SQLite database in the workspace. What deserves promotion is decided by the caller.
"""

from perso.registry.aliases import CHALLENGER, CHAMPION, PREVIOUS
from perso.registry.audit import Move
from perso.registry.git import git_commit
from perso.registry.store import EXPERIMENT_NAME
from perso.registry.versions import CLUSTERS_NAME, MODEL_NAME, ModelVersion, Registry

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "CLUSTERS_NAME",
    "EXPERIMENT_NAME",
    "MODEL_NAME",
    "PREVIOUS",
    "ModelVersion",
    "Move",
    "Registry",
    "git_commit",
]
