"""Preparation on Ray Data: files in, a prepared dataset out.

Two passes. The first streams every chunk of the input through the source's reader and shuffles
the rows by user partition; each partition is settled and written at once. The second maps over
those files: it numbers users, adds up pairs and writes the interactions. The driver sees counts,
the hours' histogram and the catalogue, never an event, so its memory grows with the catalogue
only. All rules are in ``perso.data.interactions``; this file moves tables.
"""

import json
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import ray.data

from perso.data.building import build_once
from perso.data.catalog import derive_partial, merge_partials, read_catalog
from perso.data.interactions import (
    PREFERENCE_COLUMNS,
    PrepareSpec,
    aggregate_pairs,
    count_item_users,
    keep_items,
    keep_users,
)
from perso.data.partition import count_by_hour, partition_of, settle_partition
from perso.data.prepared import FORMAT_VERSION, PreparedData
from perso.data.readers import Chunk, hash_file
from perso.data.sources import open_source
from perso.data.split import SplitEnds, split_by_time
from perso.data.synthetic import write_shop
from perso.data.vocabulary import Vocabulary
from perso.distributed.cluster import own_errors
from perso.errors import InputError
from perso.schema import SPLITS
from perso.spec import spec_hash, spec_to_dict
from perso.workspace import Workspace

logger = logging.getLogger(__name__)

PLACE = frozenset({"path", "catalog", "shop"})
"""Settings that say where the input lies: no part of what a dataset is."""

_PARTITION = "user_partition"


def prepare(spec: PrepareSpec, workspace: Workspace) -> PreparedData:
    """The prepared dataset of a spec, computed unless it is there already.

    The folder is named by a hash of the input's bytes and the spec: the same input and spec give
    the same folder with the same bytes, wherever the input lies. It appears complete or not at
    all.

    Raises:
        InputError: If the input is missing, empty, unreadable, lacks a required column, or
            spans too little time to be split.
    """
    started = time.perf_counter()
    path = spec.path or str(_synthetic_shop(spec, workspace))
    source = open_source(spec.source)
    chunks = source.chunks(path)
    files = _hash_files({"events": source.files(path), "declared catalogue": [spec.catalog or ""]})
    resolved = {name: value for name, value in spec_to_dict(spec).items() if name not in PLACE}
    key = spec_hash(FORMAT_VERSION, [[file["role"], file["hash"]] for file in files], resolved)
    folder = workspace.datasets / key
    with build_once(folder) as site:
        if site is None:
            logger.info("interactions: nothing to do, dataset %s is there already", key)
            return _remember_latest(PreparedData(folder), workspace)
        for part in ("events", "rejects", *(f"interactions/{split}" for split in SPLITS)):
            (site / part).mkdir(parents=True)
        manifest = _build(spec, path, chunks, site) | {
            "format_version": FORMAT_VERSION,
            "key": key,
            "source": {"name": spec.source, "files": files},
            "spec": resolved,
        }
        if spec.source == "synthetic":
            manifest["source"]["shop"] = spec_to_dict(spec.shop)
        text = json.dumps(manifest, indent=2, sort_keys=True)
        (site / "manifest.json").write_text(text + "\n")
    _log_summary(manifest, folder, seconds=time.perf_counter() - started)
    return _remember_latest(PreparedData(folder), workspace)


def latest(workspace: Workspace) -> PreparedData:
    """The dataset that :func:`prepare` returned last in this workspace.

    Raises:
        InputError: If nothing was prepared yet.
    """
    pointer = workspace.datasets / "latest"
    if not pointer.exists():
        raise InputError(f"no dataset in {workspace.datasets}; run `perso prepare` first")
    return PreparedData(workspace.datasets / pointer.read_text().strip())


def _remember_latest(data: PreparedData, workspace: Workspace) -> PreparedData:
    fresh = workspace.datasets / f".latest.{os.getpid()}"
    fresh.write_text(data.key)
    fresh.replace(workspace.datasets / "latest")
    return data


def _synthetic_shop(spec: PrepareSpec, workspace: Workspace) -> Path:
    """The folder of the generated shop, made unless it is there already."""
    folder = workspace.synthetic / spec_hash(spec_to_dict(spec.shop))
    with build_once(folder) as site:
        if site is not None:
            write_shop(spec.shop, site)
    return folder


def _hash_files(paths_by_role: dict[str, list[str]]) -> list[dict[str, str]]:
    """Role, name and content hash of every input file, hashed in parallel."""
    remote_hash = ray.remote(hash_file)
    inputs = [(role, path) for role, paths in paths_by_role.items() for path in paths if path]
    with own_errors():
        hashes = ray.get([remote_hash.remote(path) for _, path in inputs])
    return [
        {"role": role, "name": path.rsplit("/", 1)[-1], "hash": digest}
        for (role, path), digest in zip(inputs, hashes, strict=True)
    ]


def _build(spec: PrepareSpec, path: str, chunks: Sequence[Chunk], folder: Path) -> dict[str, Any]:
    """Write everything but the manifest into ``folder``; returns what the manifest says of it."""
    settled = _settle(spec, chunks, folder)
    counts: Counter[str] = Counter()
    refunds: Counter[str] = Counter()
    by_hour: Counter[int] = Counter()
    for partition in settled:
        summary = json.loads(partition["summary"])
        counts.update(summary["counts"])
        refunds.update(summary["refunds"])
        by_hour.update(dict(zip(summary["hours"], summary["events_in_hour"], strict=True)))
    if not counts["kept"]:
        reasons = {reason: n for reason, n in counts.items() if reason not in {"read", "kept"}}
        raise InputError(
            f"{path} holds no usable event: {counts['read']} rows, dropped by reason {reasons}; "
            f"the refused rows are in {folder / 'rejects'}"
        )
    ends = split_by_time(by_hour, spec.split)
    items, num_dropped_items = keep_items([_unpack(p["items"]) for p in settled], spec)
    if not len(items):
        raise InputError(
            f"no item of {path} has the required {spec.min_item_users} users; lower "
            "min_item_users, or give the event types a weight"
        )
    items.save(folder / "items.arrow")
    catalog_rows = _write_catalog(
        spec, path, [_unpack(p["catalog"]) for p in settled], items, folder
    )

    files = sorted(f"part-{p['partition']:05d}" for p in settled)
    first_index = _number_users(spec, files, items, folder)
    pair_counts = _write_interactions(spec, first_index, items, ends, folder)
    return {
        "counts": {
            "rows_read": counts.pop("read"),
            "events_kept": counts.pop("kept"),
            "rows_dropped": dict(sorted(counts.items())),
            "refunds": dict(sorted(refunds.items())),
            "events_in_no_interaction": dict(sorted(pair_counts["events"].items())),
            "interactions": {split: pair_counts["pairs"][split] for split in SPLITS},
            "users": len(Vocabulary.load(folder / "users.arrow")),
            "items": len(items),
            "items_below_minimum": num_dropped_items,
            "items_in_catalog_file": catalog_rows,
        },
        "time_range": {
            "first_hour": _iso_hour(min(by_hour)),
            "last_hour": _iso_hour(max(by_hour)),
        },
        "split_ends": ends.as_dict(),
    }


def _settle(spec: PrepareSpec, chunks: Sequence[Chunk], folder: Path) -> list[dict[str, Any]]:
    """First pass: read, check, shuffle by user, settle and write; one summary per partition."""
    source = open_source(spec.source)
    # A sort shuffle keeps (blocks)² references in the driver, so small files share a task.
    num_cpus = max(1, int(ray.cluster_resources().get("CPU", 0)))  # none where workers still come
    num_tasks = min(len(chunks), 4 * num_cpus)

    def read(batch: dict[str, Any]) -> Iterator[pa.Table]:
        for task in batch["id"]:
            for chunk in chunks[int(task) :: num_tasks]:
                for checked in source.read(chunk):
                    yield checked.append_column(
                        _PARTITION, partition_of(checked, spec.num_partitions)
                    )

    def settle(group: pa.Table) -> pa.Table:
        partition = group[_PARTITION][0].as_py()
        done = settle_partition(group.drop_columns([_PARTITION]))
        name = f"part-{partition:05d}"
        _write_parquet(done.events, _events_file(folder, name))
        if done.rejects.num_rows:
            _write_rejects(done.rejects, folder / "rejects" / f"{name}.jsonl")
        by_hour = count_by_hour(done.events)
        summary = {
            "counts": done.counts,
            "refunds": done.refund_counts,
            "hours": list(by_hour),
            "events_in_hour": list(by_hour.values()),
        }
        return pa.table(
            {
                "partition": [partition],
                "summary": [json.dumps(summary)],
                "items": pa.array([_pack(count_item_users(done.events, spec))], pa.binary()),
                "catalog": pa.array([_pack(derive_partial(done.events))], pa.binary()),
            }
        )

    with own_errors():
        rows: list[dict[str, Any]] = (
            ray.data.range(num_tasks, override_num_blocks=num_tasks)
            .map_batches(read, batch_size=1)
            .groupby(_PARTITION, num_partitions=spec.num_partitions)
            .map_groups(settle, batch_format="pyarrow")
            .take_all()
        )
    return sorted(rows, key=lambda row: int(row["partition"]))


def _number_users(
    spec: PrepareSpec, files: list[str], items: Vocabulary, folder: Path
) -> dict[str, int]:
    """Write the user vocabulary; returns the row of each partition's first user.

    A partition's kept users get consecutive rows, in id order.
    """
    (folder / "users").mkdir()

    def write_users(name: str) -> dict[str, Any]:
        file = _events_file(folder, name)
        events = pq.read_table(file, columns=list(PREFERENCE_COLUMNS), partitioning=None)
        users = keep_users(events, items, spec)
        users.save(_users_file(folder, name))
        return {"num_users": len(users)}

    found = _map_files(write_users, files)
    first_index = {}
    num_users = 0
    for name in files:
        first_index[name] = num_users
        num_users += found[name]["num_users"]
    Vocabulary.concatenate(
        folder / "users.arrow", parts=[_users_file(folder, name) for name in files]
    )
    return first_index


def _write_interactions(
    spec: PrepareSpec, first_index: dict[str, int], items: Vocabulary, ends: SplitEnds, folder: Path
) -> dict[str, Counter[str]]:
    """Second pass: write every partition's pairs; returns counts of events dropped and of pairs."""

    def write(name: str) -> dict[str, Any]:
        done = aggregate_pairs(
            pq.read_table(_events_file(folder, name), partitioning=None),
            users=Vocabulary.load(_users_file(folder, name)),
            first_user_index=first_index[name],
            items=items,
            ends=ends,
            spec=spec,
        )
        for split, pairs in done.by_split.items():
            _write_parquet(pairs, folder / "interactions" / split / f"{name}.parquet")
        pairs_by_split = {split: pairs.num_rows for split, pairs in done.by_split.items()}
        return {"counts": json.dumps({"events": done.counts, "pairs": pairs_by_split})}

    totals: dict[str, Counter[str]] = {"events": Counter(), "pairs": Counter()}
    for row in _map_files(write, list(first_index)).values():
        for kind, counts in json.loads(row["counts"]).items():
            totals[kind].update(counts)
    shutil.rmtree(folder / "users")
    return totals


def _events_file(folder: Path, name: str) -> Path:
    return folder / "events" / f"{name}.parquet"


def _users_file(folder: Path, name: str) -> Path:
    return folder / "users" / f"{name}.arrow"


def _map_files(
    function: Callable[[str], dict[str, Any]], files: list[str]
) -> dict[str, dict[str, Any]]:
    """``function`` of every partition file, in parallel, by file name."""

    def apply(row: dict[str, Any]) -> dict[str, Any]:
        return {"name": row["name"], **function(row["name"])}

    with own_errors():
        rows = (
            ray.data.from_items([{"name": name} for name in files], override_num_blocks=len(files))
            .map(apply)
            .take_all()
        )
    return {row["name"]: row for row in rows}


def _write_catalog(
    spec: PrepareSpec, path: str, parts: list[pa.Table], items: Vocabulary, folder: Path
) -> int:
    """Write the catalogue aligned with the item vocabulary; returns the declared rows."""
    declared = (
        read_catalog(spec.catalog) if spec.catalog else open_source(spec.source).catalog(path)
    )
    merged = merge_partials(parts, declared=declared)
    row_of_item = pc.index_in(items.ids, value_set=merged["item_id"].combine_chunks())
    _write_parquet(merged.take(row_of_item), folder / "catalog.parquet")
    return declared.num_rows if declared is not None else 0


def _write_parquet(table: pa.Table, path: Path) -> None:
    """Write by rename, so that a retried task never leaves half a file."""
    fresh = path.with_suffix(".new")
    pq.write_table(table, fresh, compression="zstd")
    fresh.replace(path)


def _write_rejects(rejects: pa.Table, path: Path) -> None:
    """One JSON object a line: the reason and the row as it came."""
    fresh = path.with_suffix(".new")
    with fresh.open("w") as file:
        for reject in rejects.to_pylist():
            file.write(f'{{"reason": {json.dumps(reject["reason"])}, "row": {reject["row"]}}}\n')
    fresh.replace(path)


def _pack(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def _unpack(packed: bytes) -> pa.Table:
    return pa.ipc.open_stream(packed).read_all()


def _iso_hour(hour: int) -> str:
    return datetime.fromtimestamp(hour * 3600, UTC).isoformat()


def _log_summary(manifest: dict[str, Any], folder: Path, *, seconds: float) -> None:
    counts = manifest["counts"]
    logger.info(
        "interactions: %d rows -> %d events -> %d pairs of %d users and %d items (%.1f s)",
        counts["rows_read"],
        counts["events_kept"],
        sum(counts["interactions"].values()),
        counts["users"],
        counts["items"],
        seconds,
    )
    for reason, count in counts["rows_dropped"].items():
        logger.info("interactions: dropped %d rows: %s", count, reason)
    if any((folder / "rejects").iterdir()):
        logger.info("interactions: refused rows are in %s", folder / "rejects")
