"""Errors that a caller treats differently from a bug.

Every class calls ``super().__init__`` with exactly its own arguments, so an error raised in a
Ray worker arrives at the driver as itself.
"""


class PersoError(Exception):
    """Something the user can put right: the message says the value, the allowed, the cure."""


class InputError(PersoError):
    """The input cannot be used: a missing column, an empty or unreadable file, a wrong spec."""


class ArtifactError(PersoError):
    """A model artifact or prepared dataset is damaged, foreign or of another version."""


class FeatureStoreError(PersoError):
    """The feature store cannot be reached or does not hold what its contract promises."""


class EventLogError(PersoError):
    """The event log cannot take or give events; nothing was acknowledged."""


class ClusterError(PersoError):
    """No Ray cluster could be started or reached, or its workers kept failing."""


class NoChampionError(PersoError):
    """No model version has been promoted yet."""


class ChampionMovedError(PersoError):
    """Another version became champion since a challenger was judged; judge it again."""


class SearchError(PersoError):
    """No trial of a grid search finished, so there is no winner."""


class UnknownIdError(PersoError):
    """A user or item that the caller named is not known here."""
