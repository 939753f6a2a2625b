"""The encoder in a model's folder, by the kind that it says it is."""

import json
from pathlib import Path

from perso.models.als_encoder import AlsEncoder
from perso.models.block_encoder import BlockEncoder
from perso.models.encoder import UserEncoder
from perso.models.newton_encoder import NewtonEncoder
from perso.models.sum_encoder import SumEncoder


def load_encoder(folder: Path) -> UserEncoder:
    """The encoder that was saved into a folder.

    Raises:
        OSError: If a file is missing.
        ValueError: If a file is no array or no JSON, or the kind is unknown.
        KeyError: If a parameter is missing.
    """
    kinds = {kind.kind: kind.load for kind in (AlsEncoder, BlockEncoder, NewtonEncoder, SumEncoder)}
    kind = json.loads((folder / "encoder.json").read_text())["kind"]
    if kind not in kinds:
        raise ValueError(f"unknown kind of encoder {kind!r}; this perso knows {sorted(kinds)}")
    return kinds[kind](folder)
