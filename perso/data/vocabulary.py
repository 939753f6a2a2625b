"""External string ids and their dense rows."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perso.errors import ArtifactError


class Vocabulary:
    """Ids in row order: row ``i`` of every matrix belongs to ``ids[i]``.

    The look-up table of the other direction is built at first use and costs about 100 bytes an
    id; ids themselves stay memory-mapped.

    Example:
        >>> items = Vocabulary(pa.array(["apple", "pear"]))
        >>> items.indices_of(["pear", "plum"]).tolist()
        [1, -1]
        >>> items.id_of(0)
        'apple'
    """

    def __init__(self, ids: pa.Array) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def id_of(self, index: int) -> str:
        """The external id of a row.

        Raises:
            IndexError: If the row is outside the vocabulary.
        """
        external_id: str = self.ids[index].as_py()
        return external_id

    def index_of(self, external_id: str) -> int:
        """The row of an id, -1 for a stranger."""
        return self._index_by_id.get(external_id, -1)

    def indices_of(self, external_ids: Sequence[str]) -> NDArray[np.int64]:
        """Rows of many ids, -1 for strangers, shape (len(external_ids),)."""
        look_up = self._index_by_id
        return np.fromiter((look_up.get(i, -1) for i in external_ids), np.int64, len(external_ids))

    @cached_property
    def _index_by_id(self) -> dict[str, int]:
        return {external_id: index for index, external_id in enumerate(self.ids.to_pylist())}

    def save(self, path: Path) -> None:
        """Write the ids as one Arrow IPC file that :meth:`load` memory-maps."""
        table = pa.table({"id": self.ids})
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)

    @staticmethod
    def concatenate(path: Path, *, parts: Sequence[Path]) -> None:
        """Write the vocabularies in ``parts``, one after the other, holding one at a time."""
        schema = pa.schema([("id", pa.string())])
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for part in parts:
                writer.write_table(pa.table({"id": Vocabulary.load(part).ids}, schema=schema))

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """The vocabulary in an Arrow IPC file.

        Raises:
            ArtifactError: If the file is missing or is no vocabulary.
        """
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            ids = table.column("id").combine_chunks()
        except (OSError, pa.ArrowInvalid, KeyError) as error:
            raise ArtifactError(f"{path} is not a vocabulary: {error}") from error
        return cls(ids.chunk(0) if isinstance(ids, pa.ChunkedArray) else ids)
