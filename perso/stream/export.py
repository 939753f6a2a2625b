"""The log as a file that preparation reads: the way from serving back to training."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Final

from perso.schema import EVENT_SCHEMA
from perso.stream.protocol import EventStream

_BATCH: Final = 10_000


def export_events(log: EventStream, path: Path) -> int:
    """Write every event of the log as JSON Lines (EVENT_SCHEMA fields); returns their number.

    The file appears complete or not at all. One batch is in memory at a time.

    Raises:
        EventLogError: If the log cannot be read.
    """
    fresh = path.with_name(f".{path.name}.new")
    num_events = 0
    offset = 0
    with fresh.open("w") as file:
        while batch := log.read_from(offset, _BATCH):
            for logged in batch:
                fields = asdict(logged.event)
                row = {name: fields[name] for name in EVENT_SCHEMA.names}
                row["timestamp"] = logged.event.timestamp.isoformat()
                known = {name: value for name, value in row.items() if value is not None}
                file.write(json.dumps(known, ensure_ascii=False) + "\n")
            num_events += len(batch)
            offset = batch[-1].offset + 1
    fresh.replace(path)
    return num_events
