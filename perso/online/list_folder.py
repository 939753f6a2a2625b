"""A folder of lists, local or in an object store, that is filled part by part.

Decides which files a folder holds and when they may stay: a plan, written first, says of what the
lists are made; a part is there as a whole or not at all, under a name that carries the plan's key;
``_SUCCESS``, written last, lists the parts. So a run that was killed goes on where it stopped, and
lists of two models are never mixed.
"""

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from perso.data.files import locate
from perso.errors import InputError
from perso.spec import spec_hash

FORMAT: Final = "perso-lists"
FORMAT_VERSION: Final = 1
SUCCESS: Final = "_SUCCESS"
"""The manifest; readers pass over names that begin with an underscore."""
_PLAN: Final = "_plan.json"
_PART: Final = re.compile(r"part-(\d{5,})\.([0-9a-f]{16})\.parquet")
_BUILDING: Final = re.compile(r"\.(part-\d+\..*|_plan\.json|_SUCCESS)\.building")
_OBJECT_STORES: Final = ("s3", "gcs", "abfs")
"""Arrow's names of stores where an object appears when it is complete."""
_ROW_GROUP: Final = 1 << 20
_IN_WORDS: Final = {
    "model_version": "model version",
    "data_key": "dataset",
    "trained_at": "time of training",
    "k": "k",
    "num_users": "number of users",
    "part_size": "part size",
    "audience": "users, segments or attributes",
    "strategies": "strategies",
}


@dataclass(frozen=True, kw_only=True)
class ListPlan:
    """What the lists of a folder are made of: the same plan gives the same parts."""

    model_version: str
    """The registry's version."""
    data_key: str
    """Key of the dataset that the model was trained on."""
    trained_at: str
    """When its bundle was made, ISO 8601: versions of two registries may have one number."""
    k: int
    """Places of a list."""
    num_users: int
    """Users of the audience."""
    part_size: int
    """Users of a part, whatever the number of workers."""
    audience: str
    """Fingerprint of the users and of what is known of them."""
    strategies: str | None = None
    """Key of the shop's rules, None without."""

    def __post_init__(self) -> None:
        for name in ("k", "part_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{_IN_WORDS[name]} is {getattr(self, name)}; give 1 or more")

    @property
    def key(self) -> str:
        """16 hexadecimal characters."""
        return spec_hash(FORMAT, FORMAT_VERSION, asdict(self))

    @property
    def num_parts(self) -> int:
        """Parts of ``part_size`` users; the last may have fewer."""
        return -(-self.num_users // self.part_size)

    def bounds(self, number: int) -> tuple[int, int]:
        """First place of a part in the audience, and the one behind its last."""
        start = number * self.part_size
        return start, min(start + self.part_size, self.num_users)

    def part_name(self, number: int) -> str:
        """File name of a part."""
        return f"part-{number:05d}.{self.key}.parquet"


class ListFolder:
    """One folder, filled by one run at a time. Picklable; opening it reads and writes nothing."""

    def __init__(self, address: str) -> None:
        """Name the folder.

        Args:
            address: A path, or a URI such as ``s3://bucket/mails/2026-03-01``; credentials are
                where Arrow looks for them, an endpoint is AWS_ENDPOINT_URL or the query
                ``?endpoint_override=…&scheme=http``.

        Raises:
            InputError: If no file system has the address's scheme.
        """
        self.address = address
        self._filesystem, self._path = locate(address)  # absolute, so that workers agree

    def begin(self, plan: ListPlan, *, overwrite: bool = False) -> list[int]:
        """Make the folder ready for a plan.

        Args:
            plan: What is to be written.
            overwrite: Remove the lists that are there, whatever they are of.

        Returns:
            Numbers of the parts that are still to be written, ascending.

        Raises:
            InputError: If the folder holds lists of another plan, or other files, or cannot be
                read or written.
        """
        with self._named_error("write to"):
            if self._is_tree:
                self._filesystem.create_dir(self._path, recursive=True)
            sizes = self._sizes()
            standing = self._read_plan(sizes)
            if foreign := _foreign(sizes, has_plan=standing is not None):
                raise InputError(
                    f"{self.address} holds files that are no lists of perso, such as "
                    f"{foreign[0]}; give an empty folder"
                )
            if overwrite:
                self._remove(sizes)
            elif standing is not None and standing != asdict(plan):
                raise InputError(
                    f"{self.address} holds lists of {_differences(standing, plan)}; give another "
                    "folder, or --overwrite"
                )
            missing = [
                n for n in range(plan.num_parts) if overwrite or plan.part_name(n) not in sizes
            ]
            if missing and SUCCESS in sizes and not overwrite:
                self._filesystem.delete_file(self._at(SUCCESS))
            if overwrite or standing is None:
                self._put(_PLAN, _to_json({"format": FORMAT, **asdict(plan)}))
            return missing

    def write(self, plan: ListPlan, number: int, lists: pa.Table) -> None:
        """Write one part: as a whole, or not at all; a repeat replaces it.

        Args:
            plan: As given to :meth:`begin`.
            number: Which part.
            lists: As :meth:`perso.online.batch.BatchRecommender.lists` gives them; readers see
                RECOMMENDATION_SCHEMA.

        Raises:
            InputError: If the folder cannot be written.
        """
        sink = pa.BufferOutputStream()
        pq.write_table(
            lists,
            sink,
            row_group_size=_ROW_GROUP,
            compression="zstd",
            use_dictionary=[name for name in lists.column_names if name != "score"],
            column_encoding={"score": "BYTE_STREAM_SPLIT"},
            dictionary_pagesize_limit=16 << 20,
            store_schema=False,  # else Arrow's readers get dictionaries, which they cannot sort
        )
        with self._named_error("write to"):
            self._put(plan.part_name(number), sink.getvalue())

    def finish(self, plan: ListPlan, *, created_at: datetime) -> dict[str, Any]:
        """Say that all parts are there.

        Args:
            plan: As given to :meth:`begin`.
            created_at: Now, aware.

        Returns:
            The manifest: the plan, ``key``, ``rows``, ``created_at`` and for each of ``parts``
            its ``file``, ``users``, ``rows`` and ``bytes``. Of a folder that was complete already
            it is the one that is there.

        Raises:
            InputError: If a part is missing or cannot be read.
        """
        with self._named_error("read"):
            sizes = self._sizes()
            if SUCCESS in sizes:
                manifest: dict[str, Any] = json.loads(self._read(SUCCESS))
                return manifest
            parts = [self._describe(plan, number, sizes) for number in range(plan.num_parts)]
            manifest = {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                **asdict(plan),
                "key": plan.key,
                "rows": sum(part["rows"] for part in parts),
                "bytes": sum(part["bytes"] for part in parts),
                "created_at": created_at.astimezone(UTC).isoformat(),
                "parts": parts,
            }
        with self._named_error("write to"):
            # What killed runs have left: half files, and parts that came after an overwrite.
            listed = {_PLAN, *(part["file"] for part in parts)}
            self._remove(sizes.keys() - listed)
            self._put(SUCCESS, _to_json(manifest))
        return manifest

    @property
    def _is_tree(self) -> bool:
        """Whether folders exist and files can be renamed."""
        return self._filesystem.type_name not in _OBJECT_STORES

    def _at(self, name: str) -> str:
        return f"{self._path.rstrip('/')}/{name}"

    def _sizes(self) -> dict[str, int]:
        """Bytes of each file by name."""
        selector = pafs.FileSelector(self._path, allow_not_found=True)
        return {
            found.base_name: found.size or 0 for found in self._filesystem.get_file_info(selector)
        }

    def _read(self, name: str) -> bytes:
        with self._filesystem.open_input_file(self._at(name)) as file:
            content: bytes = file.read()
        return content

    def _read_plan(self, sizes: Mapping[str, int]) -> dict[str, Any] | None:
        """The plan that was written first, None where there is none of perso's."""
        document = json.loads(self._read(_PLAN)) if _PLAN in sizes else None
        if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
            return None
        return document

    def _put(self, name: str, content: bytes | pa.Buffer) -> None:
        """An object store shows an object when it is complete; elsewhere a rename does."""
        place = f".{name}.{uuid.uuid4().hex[:8]}.building" if self._is_tree else name
        with self._filesystem.open_output_stream(self._at(place)) as stream:
            stream.write(content)
        if self._is_tree:
            self._filesystem.move(self._at(place), self._at(name))

    def _remove(self, names: Iterable[str]) -> None:
        """``_SUCCESS`` first and the plan last: a run that is killed meanwhile can be repeated."""
        own = filter(_is_own, names)
        for name in sorted(own, key=lambda name: (name != SUCCESS, name == _PLAN, name)):
            self._filesystem.delete_file(self._at(name))

    def _describe(self, plan: ListPlan, number: int, sizes: Mapping[str, int]) -> dict[str, Any]:
        name = plan.part_name(number)
        if name not in sizes:
            raise InputError(f"{self.address} lacks {name}; run the command again")
        start, stop = plan.bounds(number)
        rows = pq.read_metadata(self._at(name), filesystem=self._filesystem).num_rows
        return {"file": name, "users": stop - start, "rows": rows, "bytes": sizes[name]}

    @contextmanager
    def _named_error(self, deed: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, pa.ArrowException) as error:
            reason = getattr(error, "strerror", None) or str(error).strip().split("\n")[0]
            raise InputError(f"cannot {deed} {self.address}: {reason}") from error


def _is_own(name: str) -> bool:
    return name in (_PLAN, SUCCESS) or bool(_PART.fullmatch(name) or _BUILDING.fullmatch(name))


def _foreign(names: Iterable[str], *, has_plan: bool) -> list[str]:
    """Files that are not perso's to keep or remove; without a plan, none that looks so is."""
    if not has_plan:
        return sorted(name for name in names if name[0] != ".")
    return sorted(name for name in names if name[0] not in "._" and not _is_own(name))


def _differences(standing: Mapping[str, Any], plan: ListPlan) -> str:
    """What a folder holds and what is asked for, as far as the two differ."""
    told = []
    for name, asked in asdict(plan).items():
        if standing.get(name) == asked:
            continue
        if name in ("audience", "strategies"):
            told.append(f"other {_IN_WORDS[name]}")
        else:
            told.append(f"{_IN_WORDS[name]} {standing.get(name)}, not {asked}")
    return " and ".join(told)


def _to_json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()
