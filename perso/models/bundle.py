"""A model as it is registered and served: one folder of data, never code.

The folder holds ``manifest.json``, ``users.arrow``, ``items.arrow``, ``catalog.parquet`` and the
folders ``model/``, ``popularity/``, ``seen/`` and ``bought_together/`` of ``.npy`` arrays and JSON.
The manifest lists every file with size and checksum, so a damaged, mixed or foreign folder is
refused instead of served. Arrays are memory-mapped: replicas of one node share their pages.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from perso.data.vocabulary import Vocabulary
from perso.errors import ArtifactError
from perso.models.families import load_personal_model
from perso.models.popularity import PopularityModel
from perso.models.protocol import PersonalModel
from perso.models.related_items import RelatedItems
from perso.models.seen import SeenItems
from perso.schema import CATALOG_SCHEMA

FORMAT: Final = "perso-bundle"
FORMAT_VERSION: Final = 2
_MANIFEST: Final = "manifest.json"
_CURE: Final = "promote another version or train again"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Everything that one model version serves from."""

    manifest: Mapping[str, Any]
    """``created_at``, ``trained_until`` (ISO 8601), ``data_key``, ``spec``, ``metrics``, ``files``
    and the format."""
    users: Vocabulary
    items: Vocabulary
    model: PersonalModel
    popularity: PopularityModel
    catalog: pa.Table
    """CATALOG_SCHEMA, row ``i`` for item_index ``i``."""
    seen: SeenItems
    """Items that each user had when training ended."""
    bought_together: RelatedItems
    """What lay in one basket with each item."""


def save_bundle(
    folder: Path,
    *,
    users: Vocabulary,
    items: Vocabulary,
    model: PersonalModel,
    popularity: PopularityModel,
    catalog: pa.Table,
    seen: SeenItems,
    bought_together: RelatedItems,
    data_key: str,
    spec: Mapping[str, Any],
    metrics: Mapping[str, Any],
    trained_until: datetime,
    created_at: datetime,
) -> Path:
    """Write a bundle; the folder appears only when it is complete.

    Args:
        folder: Must not exist yet; its parents are made.
        users: Ids of the model's users.
        items: Ids of the model's items.
        model: The trained model.
        popularity: The fallback.
        catalog: CATALOG_SCHEMA, one row per item_index.
        seen: Items per user_index.
        bought_together: Items per item_index.
        data_key: Key of the prepared dataset.
        spec: The resolved configuration.
        metrics: The report of the final test; JSON-able.
        trained_until: End of the training period, aware; later events are folded in.
        created_at: Now, aware.

    Returns:
        The folder.

    Raises:
        ArtifactError: If the folder exists.
        ValueError: If the parts disagree on users or items, or an instant has no time zone.
    """
    if folder.exists():
        raise ArtifactError(f"{folder} exists; give the bundle a new folder")
    _check_sizes(users, items, model, popularity, catalog, seen, bought_together)
    stamps = {
        name: _to_utc(name, instant)
        for name, instant in (("created_at", created_at), ("trained_until", trained_until))
    }
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for part, save in (
            ("model", model.save),
            ("popularity", popularity.save),
            ("seen", seen.save),
            ("bought_together", bought_together.save),
        ):
            (partial / part).mkdir(parents=True)
            save(partial / part)
        users.save(partial / "users.arrow")
        items.save(partial / "items.arrow")
        pq.write_table(catalog.cast(CATALOG_SCHEMA), partial / "catalog.parquet")
        manifest = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            **stamps,
            "data_key": data_key,
            "spec": dict(spec),
            "metrics": dict(metrics),
            "files": {
                path.relative_to(partial).as_posix(): _fingerprint(path)
                for path in sorted(partial.rglob("*"))
                if path.is_file()
            },
        }
        text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False)
        (partial / _MANIFEST).write_text(text, encoding="utf-8")
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return folder


def load_bundle(folder: Path, *, verify: bool = False) -> Bundle:
    """The bundle in a folder.

    Files are compared with the manifest by size, which costs nothing; ``verify`` reads them all
    and compares checksums too.

    Raises:
        ArtifactError: If the folder is no bundle, of another version, incomplete or damaged.
    """
    manifest = read_manifest(folder)
    for name, expected in manifest["files"].items():
        _check_file(folder, name, expected, verify=verify)
    # Every file that is read must be one that the manifest vouches for.
    listed = {folder / name for name in manifest["files"]}
    found = {path for path in folder.rglob("*") if path.is_file()} - {folder / _MANIFEST}
    if foreign := sorted(path.relative_to(folder).as_posix() for path in found - listed):
        raise ArtifactError(f"bundle {folder} has files that it did not come with: {foreign[:3]}")
    bundle = Bundle(
        manifest=manifest,
        users=Vocabulary.load(folder / "users.arrow"),
        items=Vocabulary.load(folder / "items.arrow"),
        model=_load_part(load_personal_model, folder / "model"),
        popularity=_load_part(PopularityModel.load, folder / "popularity"),
        catalog=_load_part(_read_catalog, folder / "catalog.parquet"),
        seen=_load_part(SeenItems.load, folder / "seen"),
        bought_together=_load_part(RelatedItems.load, folder / "bought_together"),
    )
    try:
        _check_sizes(
            bundle.users,
            bundle.items,
            bundle.model,
            bundle.popularity,
            bundle.catalog,
            bundle.seen,
            bundle.bought_together,
        )
    except ValueError as error:
        raise ArtifactError(f"bundle {folder} does not fit together: {error}; {_CURE}") from error
    return bundle


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a bundle says of itself, its files unread.

    Raises:
        ArtifactError: If the folder is no bundle, or one of another version.
    """
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder} is not a model bundle ({error}); {_CURE}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArtifactError(f"{folder} is not a model bundle of perso; {_CURE}")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ArtifactError(
            f"bundle {folder} has format version {manifest.get('format_version')!r}, this perso "
            f"reads {FORMAT_VERSION}; {_CURE}"
        )
    missing = {"files", "created_at", "trained_until", "data_key", "spec", "metrics"} - set(
        manifest
    )
    if missing:
        raise ArtifactError(f"the manifest of {folder} lacks {sorted(missing)}; {_CURE}")
    return manifest


def _check_sizes(
    users: Vocabulary,
    items: Vocabulary,
    model: PersonalModel,
    popularity: PopularityModel,
    catalog: pa.Table,
    seen: SeenItems,
    bought_together: RelatedItems,
) -> None:
    counts = {
        "users": {
            "users": len(users),
            "model": model.num_users,
            "seen": seen.num_users,
        },
        "items": {
            "items": len(items),
            "model": model.num_items,
            "popularity": popularity.num_items,
            "catalog": len(catalog),
            "bought_together": bought_together.num_items,
        },
    }
    for what, by_part in counts.items():
        if len(set(by_part.values())) > 1:
            raise ValueError(f"the parts disagree on the number of {what}: {by_part}")
    if not catalog["item_id"].combine_chunks().equals(items.ids.cast(pa.string())):
        raise ValueError("the catalogue's rows are not in the order of the item vocabulary")


def _check_file(folder: Path, name: str, expected: Mapping[str, Any], *, verify: bool) -> None:
    path = folder / name
    if not path.is_file():
        raise ArtifactError(f"bundle {folder} lacks {name}; {_CURE}")
    if path.stat().st_size != expected["size"]:
        raise ArtifactError(
            f"{name} of bundle {folder} has {path.stat().st_size} bytes instead of "
            f"{expected['size']}; {_CURE}"
        )
    if verify and _fingerprint(path) != expected:
        raise ArtifactError(f"{name} of bundle {folder} does not match its checksum; {_CURE}")


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
    return {"size": path.stat().st_size, "blake2b": digest.hexdigest()}


def _load_part(load: Callable[[Path], T], path: Path) -> T:
    try:
        return load(path)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise ArtifactError(f"{path} cannot be read: {error}; {_CURE}") from error


def _read_catalog(path: Path) -> pa.Table:
    return pq.read_table(path, partitioning=None).cast(CATALOG_SCHEMA)


def _to_utc(name: str, instant: datetime) -> str:
    if instant.tzinfo is None:
        raise ValueError(f"{name} {instant} has no time zone; give an aware datetime")
    return instant.astimezone(UTC).isoformat()
