"""What the shop's customer file says of its customers: age, gender, location.

Decides which columns are read and how an age becomes a band. A column that is missing is unknown
for everybody; a cell that cannot be right (an age of 200) is unknown for that customer.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset as ds

from perso.data.columns import to_number, to_text
from perso.errors import InputError

COLUMNS: Final = ("user_id", "age_band", "age", "birth_year", "gender", "location")
"""All but ``user_id`` may be missing; ``age_band`` wins over ``birth_year``, that over ``age``."""

_BAND_YEARS: Final = 10
_OLDEST: Final = 120


def read_attributes(path: str, users: pa.Array) -> pa.Table:
    """The rows of some customers, in the order of ``users``; nulls for who is not in the file.

    Args:
        path: Parquet file or folder, or a CSV file.
        users: Distinct user ids.

    Returns:
        COLUMNS as text and float64, one row per user.

    Raises:
        InputError: If the file cannot be read or has no ``user_id``.
    """
    is_csv = path.lower().endswith(".csv")
    try:
        dataset = ds.dataset(path, format="csv" if is_csv else "parquet")
        if "user_id" not in dataset.schema.names:
            raise InputError(
                f"customer file {path} has no column user_id; found {dataset.schema.names}"
            )
        names = [name for name in COLUMNS if name in dataset.schema.names]
        is_asked = pc.field("user_id").cast(pa.string()).isin(users)
        found = dataset.to_table(columns=names, filter=is_asked)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"cannot read customer file {path}: {error}") from error
    # Of several rows of one customer the last one stays.
    ids = found["user_id"].cast(pa.string()).combine_chunks()
    last = {user_id: row for row, user_id in enumerate(ids.to_pylist())}
    rows = pa.array([last.get(user_id) for user_id in users.to_pylist()], pa.int64())
    columns = {"user_id": users}
    for name in COLUMNS[1:]:
        is_number = name in {"age", "birth_year"}
        if name not in names:
            columns[name] = pa.nulls(len(users), pa.float64() if is_number else pa.string())
            continue
        column = found[name].combine_chunks()
        converted = to_number(column)[0] if is_number else to_text(column)
        columns[name] = converted.take(rows)
    return pa.table(columns)


def no_attributes(users: pa.Array) -> pa.Table:
    """What is known of customers where there is no file: nothing."""
    kinds = [pa.float64() if name in {"age", "birth_year"} else pa.string() for name in COLUMNS[1:]]
    unknown = [pa.nulls(len(users), kind) for kind in kinds]
    return pa.table([users, *unknown], names=list(COLUMNS))


def demographics(attributes: pa.Table, *, as_of: datetime) -> Mapping[str, pa.Array]:
    """Columns age_band, gender and location as they are known at an instant.

    Example:
        >>> one = no_attributes(pa.array(["ann"])).set_column(3, "birth_year", pa.array([1990.0]))
        >>> demographics(one, as_of=datetime(2026, 6, 1))["age_band"].to_pylist()
        ['30-39']
    """
    column = {name: attributes[name].combine_chunks() for name in COLUMNS[1:]}
    age = pc.coalesce(pc.subtract(float(as_of.year), column["birth_year"]), column["age"])
    years = pc.fill_null(age, -1.0).to_numpy()
    lower = (np.clip(years, 0, _OLDEST) // _BAND_YEARS * _BAND_YEARS).astype(np.int64)
    is_age = (years >= 0) & (years <= _OLDEST)
    bands = [f"{first}-{first + _BAND_YEARS - 1}" for first in range(0, _OLDEST + 1, _BAND_YEARS)]
    computed = pa.array(bands).take(pa.array(lower // _BAND_YEARS, mask=~is_age))
    return {
        "age_band": pc.coalesce(column["age_band"], computed),
        "gender": column["gender"],
        "location": column["location"],
    }
