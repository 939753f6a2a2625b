"""YAML specs to frozen dataclasses and back, with misspelt keys as errors.

The dataclass of a spec lives beside the code that uses it; this file only crosses the file
boundary.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from perso.errors import InputError

T = TypeVar("T")


def load_spec(spec_type: type[T], path: Path | str) -> T:
    """The spec in a YAML file, checked against its dataclass.

    Raises:
        InputError: If the file cannot be read, is not YAML, or holds an unknown or invalid key;
            the message names the key, the value given and what is allowed.
    """
    try:
        document = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise InputError(f"cannot read spec {path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise InputError(f"spec {path} is not YAML: {error}") from error
    return parse_spec(spec_type, document if document is not None else {}, origin=str(path))


def parse_spec(spec_type: type[T], document: Any, *, origin: str = "spec") -> T:
    """The spec in an already parsed document; see :func:`load_spec`."""
    try:
        return _adapter(spec_type).validate_python(document)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'top level'}: {e['msg']} (got {e['input']!r})"
            for e in error.errors(include_url=False)
        )
        raise InputError(f"{origin}: {problems}") from error


def spec_to_dict(spec: Any) -> dict[str, Any]:
    """The resolved spec, defaults included, as plain JSON-able values."""
    dumped: dict[str, Any] = TypeAdapter(type(spec)).dump_python(spec, mode="json")
    return dumped


def spec_hash(*parts: Any) -> str:
    """A stable 16-character key of JSON-able parts, equal on every machine."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _adapter(spec_type: type[T]) -> TypeAdapter[T]:
    """Unknown keys are refused at every level: each nested dataclass gets the same config."""
    _forbid_extra(spec_type)
    return TypeAdapter(spec_type)


def _forbid_extra(spec_type: Any) -> None:
    if not dataclasses.is_dataclass(spec_type) or "__pydantic_config__" in vars(spec_type):
        return
    with_config(ConfigDict(extra="forbid"))(spec_type)  # type: ignore[type-var]
    for field_type in _field_types(spec_type):
        _forbid_extra(field_type)


def _field_types(spec_type: Any) -> list[Any]:
    import typing

    hints = typing.get_type_hints(spec_type)
    found: list[Any] = []
    for hint in hints.values():
        found += [hint, *typing.get_args(hint)]
    return found
