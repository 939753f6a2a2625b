from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from perso.data.sources import open_source
from perso.stream.event import Event
from perso.stream.event_log import EventLog
from perso.stream.export import export_events

NOW = datetime(2026, 5, 1, 12, 30, 15, 123456, tzinfo=UTC)


def test_preparation_reads_back_what_was_acknowledged(tmp_path):
    log = EventLog(tmp_path / "log.sqlite")
    events = [
        Event(
            event_id=f"e{n}",
            event_type="purchase",
            user_id="ü",
            item_id="i",
            timestamp=NOW + timedelta(seconds=n),
            value=9.5,
            quantity=2,
            device="mobile",
            consent=True,
        )
        for n in range(3)
    ]
    log.append(events)
    file = tmp_path / "events.jsonl"
    assert export_events(log, file) == 3
    source = open_source("events")
    (chunk,) = source.chunks(str(file))
    (checked,) = source.read(chunk)
    assert checked["reject_reason"].null_count == 3
    for row, event in zip(checked.to_pylist(), events, strict=True):
        for name, value in asdict(event).items():
            assert row[name] == value


def test_an_empty_log_gives_an_empty_file(tmp_path):
    file = tmp_path / "events.jsonl"
    assert export_events(EventLog(tmp_path / "log.sqlite"), file) == 0
    assert file.read_text() == ""
