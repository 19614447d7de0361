"""Every command about the stock: its JSON, its table, its exit status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from distinv.cli.stock import parse_line
from distinv.errors import InvalidQuantity, InvalidRequest
from distinv.model import Line

if TYPE_CHECKING:
    from command_line import CommandLine


def stocked(shop: CommandLine, sku: str, quantity: int = 10) -> None:
    assert shop("items", "put", sku, "--name", "A thing").status == 0
    assert shop("receive", f"{sku}={quantity}", "--reference", f"PO-{sku}").status == 0


def test_items_are_put_shown_listed_and_deleted(shop: CommandLine) -> None:
    put = shop("items", "put", "i-1", "--name", "Lantern", "--unit", "kg", "--scale", "3", "--json")
    assert put.status == 0
    item = put.json
    assert (item["sku"], item["name"], item["unit"], item["scale"]) == ("i-1", "Lantern", "kg", 3)
    assert shop("items", "put", "i-1", "--discontinued", "--json").json["discontinued"] is True
    assert shop("items", "show", "i-1", "--json").json["name"] == "Lantern"
    listed = shop("items", "--prefix", "i-", "--json").json
    assert [each["sku"] for each in listed["items"]] == ["i-1"]
    table = shop("items", "--prefix", "i-").out.splitlines()
    assert table[0].split()[:2] == ["sku", "name"]
    assert table[2].split()[:2] == ["i-1", "Lantern"]
    stale = shop("items", "delete", "i-1", "--if-version", "1", "--json")
    assert stale.status == 1
    assert stale.json["error"]["code"] == "stale_version"
    assert shop("items", "delete", "i-1", "--json").json["seq"] > item["version"]
    gone = shop("items", "show", "i-1")
    assert gone.status == 1
    assert gone.err == "distinv: There is no item 'i-1'.\n"


def test_long_lists_come_in_pages_and_stop_at_the_limit(shop: CommandLine) -> None:
    for number in range(5):
        stocked(shop, f"page-{number}")
    limited = shop("levels", "--prefix", "page-", "--limit", "3", "--json").json["levels"]
    assert [level["sku"] for level in limited] == ["page-0", "page-1", "page-2"]
    everything = shop("levels", "--prefix", "page-", "--limit", "0", "--json").json
    assert len(everything["levels"]) == 5
    assert everything["as_of"] > 0
    low = shop("levels", "--prefix", "page-", "--below", "10", "--json").json["levels"]
    assert low == []


def test_stock_moves_and_is_seen(shop: CommandLine) -> None:
    stocked(shop, "m-1")
    shipped = shop("ship", "m-1=4", "--reference", "536365", "--reason", "sold", "--json")
    assert shipped.status == 0
    (level,) = shipped.json["levels"]
    assert (level["on_hand"], level["available"]) == (6, 6)
    assert shipped.json["replayed"] is False
    assert shop("adjust", "m-1=-1", "--json").json["levels"][0]["on_hand"] == 5
    assert shop("locations", "put", "back-room", "--json").json["sellable"] is True
    assert shop("transfer", "m-1=2", "--from", "main", "--to", "back-room").status == 0
    assert shop("level", "m-1", "--json").json["on_hand"] == 3
    assert shop("level", "m-1", "--location", "back-room", "--json").json["on_hand"] == 2
    assert "m-1  main" in shop("level", "m-1").out
    both = shop("levels", "m-1", "m-1", "--json").json["levels"]
    assert [each["on_hand"] for each in both] == [3, 3]
    names = [each["name"] for each in shop("locations", "--json").json["locations"]]
    assert {"main", "back-room"} <= set(names)
    assert shop("locations", "delete", "back-room").status == 1
    local = shop("levels", "--prefix", "m-", "--local", "--json").json["levels"]
    assert len(local) == 2


def test_a_refusal_lists_every_shortage(shop: CommandLine) -> None:
    stocked(shop, "r-1", 1)
    stocked(shop, "r-2", 2)
    refused = shop("ship", "r-1=5", "r-2=5", "--json")
    assert refused.status == 1
    error = refused.json["error"]
    assert error["code"] == "insufficient_stock"
    assert error["seq"] > 0
    assert error["shortages"] == [
        {"sku": "r-1", "location": "main", "requested": 5, "available": 1},
        {"sku": "r-2", "location": "main", "requested": 5, "available": 2},
    ]
    assert refused.err.startswith("distinv: ")
    assert refused.err.count("\n") == 1


def test_the_same_key_takes_effect_once(shop: CommandLine) -> None:
    stocked(shop, "k-1")
    first = shop("ship", "k-1=1", "--idempotency-key", "order-77", "--json").json
    again = shop("ship", "k-1=1", "--idempotency-key", "order-77", "--json").json
    assert again["replayed"] is True
    assert again["seq"] == first["seq"]
    assert "the key had been used" in shop("ship", "k-1=1", "--idempotency-key", "order-77").out
    reused = shop("ship", "k-1=2", "--idempotency-key", "order-77", "--json")
    assert reused.status == 1
    assert reused.json["error"]["original_seq"] == first["seq"]
    assert shop("resolve", "order-77", "--json").json["seq"] == first["seq"]
    assert shop("resolve", "order-78", "--json").json == {"receipt": None}
    assert shop("resolve", "order-78").out == "it has not been applied\n"
    unknown = shop("resolve", "s0000000000ffffff:1", "--json")
    assert unknown.status == 3
    assert unknown.json["error"]["code"] == "outcome_unknown"


def test_the_ledger_tells_who_moved_what(shop: CommandLine) -> None:
    stocked(shop, "l-1")
    shop("ship", "l-1=3", "--reference", "inv-1", "--actor", "till-7", "--note", "in a hurry")
    (line,) = shop("ledger", "--reference", "inv-1", "--json").json["ledger"]
    assert (line["sku"], line["delta"], line["on_hand_after"]) == ("l-1", -3, 7)
    assert (line["actor"], line["note"]) == ("till-7", "in a hurry")
    newest = shop("ledger", "--sku", "l-1", "--newest-first", "--limit", "1", "--json").json
    assert newest["ledger"][0]["seq"] == line["seq"]
    since = shop("ledger", "--since", str(line["seq"]), "--sku", "l-1", "--json").json["ledger"]
    assert since == [line]
    assert shop("ledger", "--since", "2001-01-01T00:00", "--json").json["ledger"]
    assert "inv-1" in shop("ledger", "--sku", "l-1").out


def test_the_digest_is_the_same_on_all_ways(shop: CommandLine) -> None:
    stocked(shop, "d-1")
    digest = shop("digest", "--json").json
    assert shop("digest").out == f"{digest['digest']} at seq {digest['seq']}\n"
    (server,) = shop("status", "--digest", "--json").json["servers"]
    assert (server["digest"], server["seq"]) == (digest["digest"], digest["seq"])
    assert digest["digest"] in shop("status", "--digest").out


def test_nobody_computes_the_digest_of_all_stock_unasked(shop: CommandLine) -> None:
    (server,) = shop("status", "--json").json["servers"]
    assert server["digest"] == ""
    assert server["state_digest"][:16] in shop("status").out


def test_status_names_the_leader(shop: CommandLine) -> None:
    status = shop("status", "--json").json
    (server,) = status["servers"]
    assert status["leader"] == "server-1"
    assert (server["name"], server["role"], server["lag"]) == ("server-1", "leader", 0)
    table = shop("status").out
    assert "server-1 leads, term " in table
    assert "127.0.0.1:" in table


# --- wrong usage ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("ship", "a=1.5"), "'1.5' of a is not a whole number"),
        (("ship", "a"), "give SKU=QUANTITY"),
        (("ship", "a=-1"), "-1"),
        (("items", "show"), "show needs a sku"),
        (("locations", "put"), "put needs a name"),
        (("level", ""), "sku"),
        (("levels", "--limit", "-1"), "at least 0"),
        (("ledger", "--since", "yesterday"), "'yesterday' is neither a seq nor a time"),
        (("status", "--loss", "2"), "is not a number of at least 0, below 1"),
        (("status", "--timeout", "0"), "a number above 0"),
        (("status", "--beacon-port", "70000"), "is not a port, 1 to 65535"),
        (("status", "--servers", "192.0.2.1"), "on another machine"),
        (("status", "--key", "/nowhere/key"), "cannot read the cluster key file"),
    ],
)
def test_wrong_usage_is_named(shop: CommandLine, arguments: Any, text: str) -> None:
    ran = shop(*arguments)
    assert ran.status == 2
    assert text in ran.err
    assert "Traceback" not in ran.err


def test_an_unknown_sku_is_refused_with_its_place_in_the_order(shop: CommandLine) -> None:
    refused = shop("receive", "never-seen=1", "--json")
    assert refused.status == 1
    assert refused.json["error"]["code"] == "unknown_item"
    assert refused.json["error"]["seq"] > 0


def test_no_server_is_status_three(distinv: CommandLine) -> None:
    arguments = ("--cluster", "nobody", "--beacon-port", "11999", "--timeout", "0.3", "--json")
    for command in (("status",), ("level", "a"), ("receive", "a=1")):
        ran = distinv(*command, *arguments)
        assert ran.status == 3
        assert ran.json["error"]["code"] == "no_server"
        assert ran.json["error"]["retryable"] is True
        assert ran.err == "distinv: No server of the cluster 'nobody' answers.\n"


def test_the_cluster_may_come_from_the_environment(
    distinv: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISTINV_CLUSTER", raising=False)
    assert "--cluster" in distinv("status").err
    monkeypatch.setenv("DISTINV_CLUSTER", "nobody")
    ran = distinv("status", "--timeout", "0.2", "--beacon-port", "11999")
    assert "'nobody'" in ran.err


def test_the_trio_backend_and_loss_serve_as_well(shop: CommandLine) -> None:
    ran = shop("items", "put", "t-1", "--backend", "trio", "--loss", "0.2", "--seed", "1", "--json")
    assert ran.status == 0
    assert ran.json["sku"] == "t-1"


@pytest.mark.parametrize(
    ("text", "line"),
    [("a=1", Line("a", 1)), ("a=b=-2", Line("a=b", -2)), ("a=+3", Line("a", 3))],
)
def test_a_line_is_split_at_the_last_sign(text: str, line: Line) -> None:
    assert parse_line(text) == line


@pytest.mark.parametrize("text", ["a=", "a=1.0", "a=1e3", "a=١", "a=1_000", "a= 1"])
def test_a_quantity_is_a_whole_number(text: str) -> None:
    with pytest.raises(InvalidQuantity, match="is not a whole number"):
        parse_line(text)
    with pytest.raises(InvalidRequest):
        parse_line("a")
