import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from perso.data.online_retail import REASONS, check_invoice_lines, clean_title
from perso.data.sources import open_source
from perso.errors import InputError

REAL_FILE = Path(__file__).parents[3] / "shared" / "data" / "online_retail.parquet"

SALE = {
    "InvoiceNo": "536365",
    "StockCode": "85123a",
    "Description": " WHITE HANGING  HEART ",
    "Quantity": 6,
    "InvoiceDate": datetime(2010, 12, 1, 8, 26),
    "UnitPrice": 2.55,
    "CustomerID": 17850,
    "Country": "United Kingdom",
}
CANCELLATION = SALE | {"InvoiceNo": "C536379", "Quantity": -6}


def check_lines(*lines: dict) -> list[dict]:
    return check_invoice_lines(pa.Table.from_pylist(list(lines))).to_pylist()


def test_a_sale_becomes_a_purchase():
    (event,) = check_lines(SALE)
    assert event.pop("event_id")
    assert event.pop("value") == pytest.approx(15.3)
    assert {name: value for name, value in event.items() if value is not None} == {
        "event_type": "purchase",
        "user_id": "17850",
        "item_id": "85123A",
        "timestamp": datetime(2010, 12, 1, 8, 26, tzinfo=UTC),
        "quantity": 6,
        "currency": "GBP",
        "region": "United Kingdom",
        "price": 2.55,
        "item_name": "WHITE HANGING HEART",
    }


def test_a_cancelled_line_becomes_a_refund_of_positive_quantity_and_value():
    (event,) = check_lines(CANCELLATION)
    assert (event["event_type"], event["quantity"]) == ("refund", 6)
    assert event["value"] == pytest.approx(15.3)


def test_invoice_times_are_london_times():
    (event,) = check_lines(SALE | {"InvoiceDate": datetime(2011, 7, 1, 9, 0)})
    assert event["timestamp"] == datetime(2011, 7, 1, 8, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"StockCode": None}, "no_item"),
        ({"InvoiceDate": None}, "bad_timestamp"),
        ({"Quantity": 0}, "bad_quantity"),
        ({"Quantity": None}, "bad_quantity"),
        ({"InvoiceNo": "C1"}, "bad_quantity"),
        ({"UnitPrice": -11062.06}, "bad_price"),
        ({"UnitPrice": None}, "bad_price"),
        ({"StockCode": "POST"}, "non_product_code"),
        ({"StockCode": "m"}, "non_product_code"),
        ({"StockCode": "C2"}, "non_product_code"),
        ({"StockCode": "gift_0001_10"}, "non_product_code"),
        ({"StockCode": "BANK CHARGES"}, "non_product_code"),
        ({"StockCode": "TEST001"}, "non_product_code"),
        ({"StockCode": "DCGS0003"}, None),
        ({"StockCode": "DCGSSBOY"}, None),
        ({"StockCode": "PADS"}, None),
        ({"StockCode": "SP1002"}, None),
        ({"StockCode": "15056bl"}, None),
        ({"Quantity": -5}, "stock_write_off"),
        ({"Quantity": -5, "UnitPrice": 0.0, "CustomerID": None}, "stock_write_off"),
        ({"UnitPrice": 0.0}, "zero_price"),
        ({"CustomerID": None}, "no_customer"),
        ({"StockCode": "POST", "CustomerID": None}, "non_product_code"),
    ],
)
def test_each_dropped_line_has_the_first_reason_that_applies(change, reason):
    good = SALE | {"InvoiceNo": "1"}
    rejects = [row["reject_reason"] for row in check_lines(good, SALE | change, good)]
    assert sorted(filter(None, rejects)) == ([reason] if reason else [])
    assert reason is None or reason in REASONS


def test_exact_duplicates_share_an_event_id_and_no_other_lines_do():
    changes = [{}, {}, {"InvoiceNo": "536366"}, {"Description": "OTHER"}, {"CustomerID": 1}]
    ids = [row["event_id"] for row in check_lines(*(SALE | change for change in changes))]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


def test_a_clerks_note_is_no_title():
    notes = pa.array(["?", "check", "sold as set on dotcom", None, "BAG 125g  SWIRLY MARBLES "])
    assert clean_title(notes).to_pylist() == [None] * 4 + ["BAG 125g SWIRLY MARBLES"]


def test_both_editions_in_any_format_give_the_same_events(tmp_path: Path):
    lines = [SALE, CANCELLATION, SALE | {"CustomerID": None}, SALE | {"StockCode": 22423}]
    second = ["Invoice", "StockCode", "Description", "Quantity", "InvoiceDate", "Price"]
    second += ["Customer ID", "Country"]
    as_text = [{k: v if v is None else str(v) for k, v in line.items()} for line in lines]
    pq.write_table(pa.Table.from_pylist(as_text), tmp_path / "1.parquet")
    header = ",".join(second)
    for name, date in (("2.csv", "2010-12-01 08:26:00"), ("3.csv", "12/1/2010 8:26")):
        rows = [
            f"{line['InvoiceNo']},{line['StockCode']},{line['Description']},{line['Quantity']},"
            f"{date},{line['UnitPrice']},"
            f"{'' if line['CustomerID'] is None else '17850.0'},{line['Country']}"
            for line in lines
        ]
        (tmp_path / name).write_text("\n".join([header, *rows]) + "\n", encoding="cp1252")
    workbook = openpyxl.Workbook()
    for sheet in (workbook.active, workbook.create_sheet("Year 2010-2011")):
        sheet.append(second)
        for line in lines:
            sheet.append(list(line.values()))
    workbook.save(tmp_path / "4.xlsx")

    source = open_source("online-retail")
    found = []
    for chunk in source.chunks(str(tmp_path)):
        table = pa.concat_tables(source.read(chunk))
        found.append(table.drop_columns(["reject_row"]).to_pylist())
    assert len(found) == 4
    assert found[0] == found[1] == found[2]
    assert sorted(map(str, found[3])) == sorted(map(str, 2 * found[0]))  # two equal sheets
    assert [row["event_type"] for row in found[0]] == ["purchase", "refund", "purchase", None]


def test_a_missing_column_is_an_error_that_names_both_spellings():
    line = {k: v for k, v in SALE.items() if k != "UnitPrice"}
    with pytest.raises(InputError, match="Price or UnitPrice is missing; found InvoiceNo"):
        check_lines(line)


@pytest.mark.skipif(not REAL_FILE.exists(), reason=f"{REAL_FILE.name} is not on this machine")
def test_every_pound_of_the_real_year_is_kept_or_dropped_with_a_reason():
    source = open_source("online-retail")
    blocks = [block for chunk in source.chunks(str(REAL_FILE)) for block in source.read(chunk)]
    checked = pa.concat_tables(blocks)
    dropped = Counter(checked["reject_reason"].to_pylist())
    assert dropped == {
        None: 404_879,
        "no_customer": 131_586,
        "non_product_code": 2_944,
        "stock_write_off": 1_336,
        "zero_price": 1_162,
        "bad_price": 2,
    }
    events = checked.filter(pc.is_null(checked["reject_reason"]))
    assert events.num_rows - pc.count_distinct(events["event_id"]).as_py() == 5_220
    value = {
        kind: pc.sum(events.filter(pc.equal(events["event_type"], kind))["value"]).as_py()
        for kind in ("purchase", "refund")
    }
    rejects = map(json.loads, checked["reject_row"].drop_null().to_pylist())
    lost = sum(row["Quantity"] * row["UnitPrice"] for row in rejects)
    assert value["purchase"] - value["refund"] + lost == pytest.approx(9_747_747.93, abs=0.01)
