"""The embedded event log keeps its promises, across threads, processes and kills."""

import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from dataclasses import fields
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.errors import EventLogError
from perso.schema import EVENT_SCHEMA
from perso.stream.event import Event
from perso.stream.event_log import _RECENT, EventLog
from perso.stream.protocol import AppendResult, EventStream

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def view(event_id, *, user_id=None, session_id=None, item_id="i", minute=0, event_type="view_item"):
    return Event(
        event_id=event_id,
        event_type=event_type,
        user_id=user_id,
        session_id=session_id,
        item_id=item_id,
        timestamp=NOON + timedelta(minutes=minute),
    )


@pytest.fixture
def log(tmp_path):
    return EventLog(tmp_path / "events" / "log.sqlite")


def test_an_event_has_exactly_the_fields_of_the_schema():
    assert {field.name for field in fields(Event)} == set(EVENT_SCHEMA.names)


def test_the_log_fulfils_the_protocol(log):
    stream: EventStream = log
    assert stream.read_from() == []


def test_what_was_appended_comes_back_unchanged(log):
    event = Event(
        event_id="e1",
        event_type="purchase",
        timestamp=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        user_id="u",
        session_id="s",
        item_id="Tasse „blau“",
        value=12.5,
        quantity=2,
        currency="EUR",
        request_id="r1",
        device="mobile",
        region="DE",
        campaign="spring",
        consent=False,
        price=6.25,
        item_name="Tasse",
        item_category="mugs",
    )
    assert log.append([event]) == AppendResult(accepted=1, duplicates=0)
    assert log.recent(user_id="u") == [event]
    assert [logged.event for logged in log.read_from()] == [event]


def test_exported_events_fit_the_event_schema(log):
    log.append([view("a", user_id="u")])
    rows = [{f.name: getattr(e.event, f.name) for f in fields(Event)} for e in log.read_from()]
    assert pa.Table.from_pylist(rows, EVENT_SCHEMA)["event_id"].to_pylist() == ["a"]


def test_a_known_event_id_is_counted_and_ignored(log):
    first = view("e1", user_id="u", item_id="first")
    assert log.append([first]) == AppendResult(accepted=1, duplicates=0)
    again = [view("e1", user_id="u", item_id="second"), view("e2", user_id="u"), view("e2")]
    assert log.append(again) == AppendResult(accepted=1, duplicates=2)
    assert log.recent(user_id="u")[-1] == first
    assert len(log.read_from()) == 2


def test_an_empty_append_is_nothing(log):
    assert log.append([]) == AppendResult(accepted=0, duplicates=0)


def test_recent_merges_user_and_session_without_repeating_an_event(log):
    log.append(
        [
            view("anonymous", session_id="s", minute=1),
            view("both", user_id="u", session_id="s", minute=2),
            view("elsewhere", user_id="u", session_id="other", minute=3),
            view("stranger", user_id="x", session_id="y", minute=4),
        ]
    )
    found = [event.event_id for event in log.recent(user_id="u", session_id="s")]
    assert found == ["elsewhere", "both", "anonymous"]
    assert log.recent() == []


def test_a_session_gives_nobodys_events_but_the_anonymous_ones(log):
    """Ann, then Bob, at the same kiosk."""
    log.append(
        [
            view("before", session_id="kiosk", minute=1),
            view("anns", user_id="ann", session_id="kiosk", minute=2),
            view("bobs", user_id="bob", session_id="kiosk", minute=3),
        ]
    )
    found = {
        user_id: [e.event_id for e in log.recent(user_id=user_id, session_id="kiosk")]
        for user_id in ("ann", "bob", None)
    }
    assert found == {"ann": ["anns", "before"], "bob": ["bobs", "before"], None: ["before"]}


def test_others_do_not_push_a_sessions_anonymous_events_out(log):
    log.append([view("mine", session_id="s")])
    log.append([view(f"e{n}", user_id="x", session_id="s", minute=1 + n) for n in range(20)])
    assert [e.event_id for e in log.recent(session_id="s", limit=5)] == ["mine"]


def test_recent_reads_indexes_never_the_whole_table(log):
    log.append([view("e", user_id="u", session_id="s")])
    with sqlite3.connect(log.path) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {_RECENT}", ("u", 5, "s", 5, 5)).fetchall()
    steps = [step[-1] for step in plan if " events" in step[-1]]
    assert not [step for step in steps if step.startswith("SCAN")]
    for index in ("events_of_user", "events_of_session"):
        assert any(f"INDEX {index} " in step for step in steps)


def test_recent_gives_the_newest_by_event_time_not_by_arrival(log):
    log.append([view(f"e{minute}", user_id="u", minute=minute) for minute in (5, 9, 1, 7)])
    assert [e.event_id for e in log.recent(user_id="u", limit=2)] == ["e9", "e7"]


def test_impressions_do_not_push_clicks_out(log):
    log.append([view("click", user_id="u")])
    shown = [view(f"i{n}", user_id="u", minute=1 + n, event_type="impression") for n in range(20)]
    log.append(shown)
    assert [e.event_id for e in log.recent(user_id="u", limit=5)] == ["click"]
    assert len(log.read_from()) == 21


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 8), st.sampled_from(["u", "v", None]), st.sampled_from(["s", None])
        ),
        max_size=25,
    ),
    limit=st.integers(1, 6),
)
def test_recent_equals_a_naive_search(tmp_path_factory, rows, limit):
    log = EventLog(tmp_path_factory.mktemp("log") / "log.sqlite")
    events = [
        view(f"e{n}", user_id=user, session_id=session, minute=minute)
        for n, (minute, user, session) in enumerate(rows)
    ]
    log.append(events)
    mine = [e for e in events if e.user_id == "u" or (e.session_id == "s" and e.user_id is None)]
    order = sorted(mine, key=lambda e: (e.timestamp, events.index(e)), reverse=True)
    assert log.recent(user_id="u", session_id="s", limit=limit) == order[:limit]
    log.close()


def test_reading_page_by_page_gives_every_event_once(log):
    log.append([view(f"e{n}", user_id="u") for n in range(25)])
    log.append([view("e3"), view("e25", user_id="u")])
    offset, seen = 0, []
    while page := log.read_from(offset, limit=10):
        seen += [logged.event.event_id for logged in page]
        offset = page[-1].offset + 1
    assert seen == [f"e{n}" for n in range(26)]


def test_a_batch_with_a_broken_event_stores_nothing(log):
    naive = view("naive", user_id="u")
    object.__setattr__(naive, "timestamp", datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="no time zone"):
        log.append([view("good", user_id="u"), naive])
    assert log.read_from() == []


def test_a_log_that_cannot_be_opened_says_so_and_recovers(tmp_path):
    (tmp_path / "events").write_text("a file where the folder should be")
    log = EventLog(tmp_path / "events" / "log.sqlite")
    for use in (lambda: log.append([view("e", user_id="u")]), lambda: log.recent(user_id="u")):
        with pytest.raises(EventLogError, match="nothing was acknowledged"):
            use()
    (tmp_path / "events").unlink()
    assert log.append([view("e", user_id="u")]).accepted == 1


def test_a_file_that_is_no_log_is_refused(tmp_path):
    path = tmp_path / "log.sqlite"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(EventLogError):
        EventLog(path, busy_timeout_s=0.2).append([view("e", user_id="u")])


def test_a_log_of_another_format_version_is_refused(log):
    log.append([view("e", user_id="u")])
    log.close()
    with sqlite3.connect(log.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(EventLogError, match="format version 99"):
        log.recent(user_id="u")


def test_a_busy_log_fails_by_name_after_its_timeout(log):
    log.append([view("e1", user_id="u")])
    hog = sqlite3.connect(log.path, isolation_level=None)
    hog.execute("BEGIN IMMEDIATE")
    hurried = EventLog(log.path, busy_timeout_s=0.1)
    with pytest.raises(EventLogError, match="locked"):
        hurried.append([view("e2", user_id="u")])
    assert [e.event_id for e in hurried.recent(user_id="u")] == ["e1"]  # reading goes on
    hog.execute("ROLLBACK")
    assert hurried.append([view("e2", user_id="u")]).accepted == 1
    hog.close()


def test_threads_share_a_log(log):
    def write(thread):
        for n in range(20):
            log.append([view(f"{thread}-{n}", user_id="u"), view(f"shared-{n}", user_id="u")])

    threads = [threading.Thread(target=write, args=(t,)) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(log.read_from()) == 4 * 20 + 20


WRITER = textwrap.dedent(
    """
    import sys
    from datetime import UTC, datetime
    from perso.stream.event import Event
    from perso.stream.event_log import EventLog

    log, name = EventLog(sys.argv[1]), sys.argv[2]
    for n in range(int(sys.argv[3])):
        ids = [f"{name}-{n}", f"shared-{n}"]
        log.append([Event(event_id=i, event_type="view_item", user_id="u", item_id="i",
                          timestamp=datetime.now(UTC)) for i in ids])
        print(n, flush=True)
    """
)


def start_writer(path, name, num_appends):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(num_appends)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_that_open_a_fresh_log_at_once_all_write(log):
    writers = [start_writer(log.path, f"w{n}", 25) for n in range(4)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0, 0]
    for writer in writers:
        writer.stdout.close()
    assert len(log.read_from()) == 4 * 25 + 25


def test_acknowledged_events_survive_kill_9_exactly_once(log):
    writers = [start_writer(log.path, f"w{n}", 100_000) for n in range(3)]
    num_acknowledged = []
    for writer in writers:
        lines = [writer.stdout.readline() for _ in range(30)]
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        lines += writer.stdout.read().splitlines(keepends=True)
        writer.stdout.close()
        num_acknowledged.append(sum(line.endswith("\n") for line in lines))

    found = [logged.event.event_id for logged in log.read_from(limit=1_000_000)]
    assert len(found) == len(set(found))
    for number, acknowledged in enumerate(num_acknowledged):
        assert acknowledged >= 30
        assert {f"w{number}-{n}" for n in range(acknowledged)} <= set(found)
    # A writer that starts again repeats what it is unsure of, and nothing is stored twice.
    again = [view(f"w0-{n}", user_id="u") for n in range(num_acknowledged[0])]
    assert log.append(again) == AppendResult(accepted=0, duplicates=len(again))
