"""The champion's list of every user into a folder: ``python -m tune_jobs.recommend --out …``.

A recipe: every step is a library call.
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from perso.data.files import open_stream
from perso.distributed.batch import write_lists
from perso.distributed.cluster import connect
from perso.errors import InputError, NoChampionError, PersoError
from perso.features.store import open_features
from perso.models.bundle import load_bundle
from perso.models.factors import FactorModel
from perso.online.audience import read_audience, select_users
from perso.online.list_folder import ListPlan
from perso.online.strategies import StrategySpec
from perso.registry import Registry
from perso.spec import load_spec, spec_hash, spec_to_dict
from perso.workspace import Workspace

K: Final = 50
PART_SIZE: Final = 50_000
"""Users of a file: at k 50 some seconds of a core and 12 MB."""


@dataclass(frozen=True, kw_only=True)
class WrittenLists:
    """What one run did."""

    out: str
    """The folder."""
    manifest: dict[str, Any]
    """What is in it; see :meth:`perso.online.list_folder.ListFolder.finish`."""
    num_unknown: int
    """Asked for, but not among the model's users."""
    seconds: float
    """Of the whole run, parts that were there already included."""

    def __str__(self) -> str:
        num_users = self.manifest["num_users"]
        unknown = f", {self.num_unknown} unknown ids passed over" if self.num_unknown else ""
        return (
            f"{num_users} users{unknown} in {self.seconds:.1f} s "
            f"({num_users / self.seconds:.0f} users/s), version {self.manifest['model_version']}, "
            f"in {self.out}"
        )


def run(
    workspace: Workspace,
    *,
    out: str,
    users: str | None = None,
    k: int = K,
    part_size: int = PART_SIZE,
    strategies: StrategySpec | None = None,
    overwrite: bool = False,
) -> WrittenLists:
    """Write the champion's lists; needs a connected Ray.

    A user's segment is the one that the feature store knows now. A repeat with the same champion,
    segments and settings writes what is missing.

    Args:
        workspace: Whose champion and feature store.
        out: Path or URI of a folder.
        users: Path or URI of a text file of user ids, one a line; None: all users of the model.
        k: Places of a list.
        part_size: Users of a file.
        strategies: The shop's rules; none: lists are the model's own.
        overwrite: Replace lists of another version or of other settings.

    Raises:
        InputError: If a setting is out of range, no id of the file is known, or the folder holds
            other lists or cannot be written.
        NoChampionError: If no model was promoted yet.
        ArtifactError: If the champion's bundle is damaged.
        FeatureStoreError: If the feature store cannot be read.
    """
    started = time.perf_counter()
    champion = Registry(workspace).champion()
    if champion is None:
        raise NoChampionError("no model has been promoted yet; run `perso tune`")
    bundle = load_bundle(champion.folder)
    user_indices, num_unknown = np.arange(len(bundle.users)), 0
    if users is not None:
        user_indices, num_unknown = select_users(bundle.users, _read_ids(users))
        if not len(user_indices):
            raise InputError(f"no user of {users} is known to model {champion.version}")
    has_rules = strategies is not None and bool(strategies.rules)
    reads_attributes = isinstance(bundle.model, FactorModel) and bool(bundle.model.user_encoder)
    audience = read_audience(
        open_features(workspace),
        bundle.users,
        user_indices,
        as_of=datetime.now(UTC),
        with_attributes=has_rules or reads_attributes,
    )
    plan = ListPlan(
        model_version=champion.version,
        data_key=bundle.manifest["data_key"],
        trained_at=bundle.manifest["created_at"],
        k=k,
        num_users=len(audience),
        part_size=part_size,
        audience=audience.fingerprint(),
        strategies=spec_hash(spec_to_dict(strategies)) if has_rules else None,
    )
    manifest = write_lists(
        plan,
        audience,
        bundle_folder=champion.folder,
        out=out,
        strategies=strategies,
        overwrite=overwrite,
    )
    return WrittenLists(
        out=out,
        manifest=manifest,
        num_unknown=num_unknown,
        seconds=time.perf_counter() - started,
    )


def _read_ids(address: str) -> list[str]:
    """Each line once, in order; empty lines do not count."""
    with open_stream(address) as stream:
        try:
            lines = stream.read().decode("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{address} is no UTF-8 text of one user id a line: {error}"
            ) from error
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 2 with one sentence where the user can put it right."""
    parser = argparse.ArgumentParser(prog="python -m tune_jobs.recommend", description=__doc__)
    parser.add_argument("--out", required=True, help="folder or URI such as s3://bucket/lists")
    parser.add_argument("--users", help="text file of user ids, one a line [all users]")
    parser.add_argument("--k", type=int, default=K, help=f"places of a list [{K}]")
    parser.add_argument("--part-size", type=int, default=PART_SIZE, help="users of a file")
    parser.add_argument("--strategies", type=Path, help="YAML file of segment rules [none]")
    parser.add_argument("--overwrite", action="store_true", help="replace the lists that are there")
    parser.add_argument("--root", help="workspace folder [$PERSO_ROOT, or .perso]")
    parser.add_argument("--address", help="Ray cluster [$RAY_ADDRESS, or a private one]")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        rules = load_spec(StrategySpec, given.strategies) if given.strategies else None
        connect(given.address)
        written = run(
            Workspace.open(given.root),
            out=given.out,
            users=given.users,
            k=given.k,
            part_size=given.part_size,
            strategies=rules,
            overwrite=given.overwrite,
        )
    except PersoError as error:
        print(f"recommend: {error}", file=sys.stderr)
        return 2
    print(written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
