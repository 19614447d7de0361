"""The mapping of a retailer's invoices, on a generated sample and, where it is, the real file."""

from __future__ import annotations

import gzip
import sys
from collections import Counter
from pathlib import Path

import pytest

from distinv.errors import InsufficientStock
from distinv.inventory import calls
from distinv.inventory.store import InventoryStore

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "examples"))

import retail_data  # noqa: E402
from retail_data import InvoiceLine, Movement  # noqa: E402

REAL = ROOT.parent / "shared" / "data" / "online_retail_2010-12.csv.gz"


def line(
    code: str, quantity: int, *, invoice: str = "1", free: bool = False, customer: str = "7"
) -> InvoiceLine:
    return InvoiceLine(invoice, code, "", quantity, free, customer)


def replay(todo: list[Movement], opening: dict[str, int]) -> tuple[InventoryStore, Counter[str]]:
    """Apply all movements in order; what became of them, by kind."""
    store = InventoryStore()
    skus = sorted({sku for item in todo for sku in item.lines})
    store.execute([calls.put_item(sku) for sku in skus])
    store.receive(opening, reference="opening")
    counts: Counter[str] = Counter()
    for item in todo:
        try:
            getattr(store, item.kind)(item.lines, **item.options)
            counts[item.kind] += 1
        except InsufficientStock:
            counts[f"{item.kind} refused"] += 1
    return store, counts


def test_a_sale_a_return_and_a_write_off() -> None:
    found = retail_data.movements(
        [
            line("85123A", 6, invoice="536365"),
            line("71053", 6, invoice="536365"),
            line("85123A", 2, invoice="536365"),
            line("POST", 1, invoice="536365"),
            line("22633", -3, invoice="C536366"),
            line("22633", -5, invoice="536367", free=True, customer=""),
            line("B", 1, invoice="A563185"),
            line("DOT", 1, invoice="536368"),
            line("GIFT_0001_20", 1, invoice="536369"),
        ]
    )
    assert found == [
        Movement("purchase", "536365", {"85123A": 8, "71053": 6}, {"reference": "536365"}),
        Movement(
            "receive", "C536366", {"22633": 3}, {"reference": "C536366", "reason": "returned"}
        ),
        Movement("adjust", "536367", {"22633": -5}, {"reference": "536367"}),
    ]
    assert retail_data.opening_stock(found) == {"85123A": 8, "71053": 6, "22633": 5}


def test_one_line_with_a_price_or_a_customer_makes_it_a_sale() -> None:
    given = [line("A", 1, free=True, customer=""), line("POST", 1, customer="")]
    (found,) = retail_data.movements(given)
    assert found.kind == "purchase"
    (found,) = retail_data.movements(given[:1])
    assert found.kind == "adjust"


def test_the_sample_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for name, seed in (("one.csv", 1), ("two.csv", 1), ("three.csv", 2)):
        retail_data.generate(tmp_path / name, seed=seed)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    assert (tmp_path / "one.csv").read_bytes() != (tmp_path / "three.csv").read_bytes()
    (tmp_path / "one.csv.gz").write_bytes(gzip.compress((tmp_path / "one.csv").read_bytes()))
    plain = list(retail_data.read_lines(tmp_path / "one.csv"))
    assert list(retail_data.read_lines(tmp_path / "one.csv.gz")) == plain


@pytest.mark.parametrize("seed", [0, 1])
def test_opened_at_its_outflow_nothing_is_refused_whatever_the_order(
    tmp_path: Path, seed: int
) -> None:
    retail_data.generate(tmp_path / "sample.csv", seed=seed)
    lines = list(retail_data.read_lines(tmp_path / "sample.csv"))
    todo = retail_data.movements(lines)
    assert {item.kind for item in todo} == {"purchase", "receive", "adjust"}
    assert set(retail_data.names(lines)) >= {sku for item in todo for sku in item.lines}
    opening = retail_data.opening_stock(todo)
    forward, counts = replay(todo, opening)
    backward, _ = replay(todo[::-1], opening)
    assert counts.total() == len(todo)
    assert not any("refused" in kind for kind in counts)
    assert forward.digest() == backward.digest()
    assert forward.machine.problems() == backward.machine.problems() == []
    short, counts = replay(todo, dict.fromkeys(opening, 20))
    assert counts["purchase refused"] > 0
    assert short.machine.problems() == []


@pytest.fixture(scope="module")
def real() -> list[Movement]:
    if not REAL.exists():
        pytest.skip("the real data set is not here")
    return retail_data.movements(retail_data.read_lines(REAL))


def test_the_real_month_opened_at_its_outflow(real: list[Movement]) -> None:
    store, counts = replay(real, retail_data.opening_stock(real))
    assert counts == {"purchase": 1_552, "receive": 301, "adjust": 140}
    assert sum(level.on_hand for level in store.iter_levels()) == 18_814
    assert store.digest().value == "47f36d8c81334a12"
    assert store.machine.problems() == []


def test_the_real_month_opened_at_a_hundred_each(real: list[Movement]) -> None:
    store, counts = replay(real, dict.fromkeys(retail_data.opening_stock(real), 100))
    assert counts == {
        "purchase": 541,
        "purchase refused": 1_011,
        "receive": 301,
        "adjust": 125,
        "adjust refused": 15,
    }
    assert store.digest().value == "55b75ebe3f1213a7"
