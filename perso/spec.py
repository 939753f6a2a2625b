"""YAML specs to frozen dataclasses and back, with misspelt keys as errors.

The dataclass of a spec lives beside the code that uses it; this file only crosses the file
boundary.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints, overload

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


@overload
def parse_spec(spec_type: type[T], document: Any, *, origin: str = ...) -> T: ...
@overload
def parse_spec(spec_type: Any, document: Any, *, origin: str = ...) -> Any: ...
def parse_spec(spec_type: Any, document: Any, *, origin: str = "spec") -> Any:
    """The spec in an already parsed document; see :func:`load_spec`.

    Args:
        spec_type: A dataclass, or a union of them that a discriminator tells apart.
        document: What YAML or JSON gave.
        origin: Where the document is from, for messages.
    """
    try:
        return _adapter(spec_type).validate_python(document)
    except ValidationError as error:
        problems = "; ".join(_sentence(problem) for problem in error.errors(include_url=False))
        raise InputError(f"{origin}: {problems}") from error


def spec_to_dict(spec: Any) -> dict[str, Any]:
    """The resolved spec, defaults included, as plain JSON-able values."""
    spec_type: Any = type(spec)
    dumped: dict[str, Any] = _adapter(spec_type).dump_python(spec, mode="json")
    return dumped


def spec_hash(*parts: Any) -> str:
    """A stable 16-character key of JSON-able parts, equal on every machine."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@lru_cache(maxsize=64)  # building one takes milliseconds, and a search reads a spec per trial
def _adapter(spec_type: Any) -> TypeAdapter[Any]:
    """Unknown keys are refused at every level."""
    _forbid_extra(spec_type)
    return TypeAdapter(spec_type)


def _sentence(problem: Mapping[str, Any]) -> str:
    """Where something is wrong, what it is, and what is allowed."""
    place = ".".join(map(str, problem["loc"])) or "top level"
    context = problem.get("ctx", {})
    match problem["type"]:
        case "unexpected_keyword_argument":
            return f"{place}: there is no such key (got {problem['input']!r})"
        case "union_tag_not_found":
            key = context["discriminator"].strip("'")
            return f"{place}: {key} is missing (got {problem['input']!r}); it says what this is"
        case "union_tag_invalid":
            key = context["discriminator"].strip("'")
            return f"{place}: {key} is {context['tag']!r}; give one of {context['expected_tags']}"
        case "value_error":  # of a __post_init__, which says the value itself
            return f"{place}: {context['error']}"
    return f"{place}: {problem['msg']} (got {problem['input']!r})"


def _forbid_extra(spec_type: Any) -> None:
    """Give every dataclass in a type, however deep, the same config."""
    if isinstance(spec_type, type) and dataclasses.is_dataclass(spec_type):
        if "__pydantic_config__" in vars(spec_type):
            return
        with_config(ConfigDict(extra="forbid"))(spec_type)  # type: ignore[type-var]
        inside = tuple(get_type_hints(spec_type).values())
    else:
        inside = get_args(spec_type)  # of a union, a tuple, an annotated type
    for inner_type in inside:
        _forbid_extra(inner_type)
