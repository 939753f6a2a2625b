"""What a model may be told beside who touched what, as tables aligned with the vocabularies."""

import hashlib
from dataclasses import dataclass

import pyarrow as pa

from perso.data.fingerprints import add_table
from perso.data.fixed_split import FixedSplit
from perso.data.groups import UserGroups


@dataclass(frozen=True, kw_only=True)
class SideData:
    """Features of users and items; a family takes what it can use."""

    segments: UserGroups | None = None
    """Each user's segment as of the end of the training period."""
    user_features: pa.Table | None = None
    """Row ``u`` for user_index ``u``; strings, lists of strings, numbers or vectors."""
    item_features: pa.Table | None = None
    """Row ``i`` for item_index ``i``: the catalogue, or any other columns."""

    @classmethod
    def of_split(cls, split: FixedSplit) -> "SideData":
        """The features of a fixed split; none for a side without columns.

        A table without columns forgets how many rows it has as soon as it travels.
        """
        return cls(
            user_features=split.user_features if split.user_features.num_columns else None,
            item_features=split.item_features if split.item_features.num_columns else None,
        )

    @property
    def fingerprint(self) -> str:
        """Equal for equal contents: what a search was told, beside who touched what."""
        digest = hashlib.blake2b(digest_size=8)
        if self.segments is not None:
            digest.update("\0".join(self.segments.names).encode())
            digest.update(self.segments.codes_U.tobytes())
        for table in (self.user_features, self.item_features):
            add_table(table, digest)
        return digest.hexdigest()
