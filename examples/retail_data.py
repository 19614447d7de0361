"""Turn the lines of a retailer's invoices into inventory commands.

The input has the form of the UCI "Online Retail" data set (Chen, D. (2015), UCI Machine Learning
Repository, CC BY 4.0): a CSV file, possibly gzipped, with the columns `InvoiceNo, StockCode,
Description, Quantity, InvoiceDate, UnitPrice, CustomerID, Country`, one line per invoice line.
`generate` makes a small file of that form out of a seed.

Each invoice becomes one movement:

- lines of services (postage, fees, vouchers, …) are dropped, and with them invoices that have
  nothing else; invoices `A…` (bad debts) are skipped;
- an invoice `C…` is a return: `receive` with the reason `returned`;
- one whose every line costs nothing and has no customer is an `adjust` by signed quantities
  (negative is a write-off);
- every other one is a `purchase`.

A sku is the upper-cased stock code, lines of one sku are summed, and the reference is the
invoice's number.
"""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import IO, Any, Literal

from attrs import field, frozen

COLUMNS = (
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
)

SERVICES = frozenset(
    ["POST", "DOT", "M", "C2", "D", "S", "B", "PADS", "BANK CHARGES", "AMAZONFEE", "CRUK"]
)


@frozen
class InvoiceLine:
    invoice: str
    code: str
    """Upper-cased."""
    description: str
    quantity: int
    free: bool
    customer: str

    @property
    def is_service(self) -> bool:
        return self.code in SERVICES or self.code.startswith("GIFT_")


@frozen
class Movement:
    """One command: call the inventory's method named `kind` with `lines` and `options`."""

    kind: Literal["purchase", "receive", "adjust"]
    reference: str
    lines: dict[str, int]
    """Quantities by sku, positive but for `adjust`."""
    options: dict[str, Any] = field(factory=dict)
    """The keyword arguments: reference, and where it is not the default, reason."""

    def outflow(self) -> dict[str, int]:
        """What it takes out of stock."""
        if self.kind == "purchase":
            return dict(self.lines)
        if self.kind == "receive":
            return {}
        return {sku: -delta for sku, delta in self.lines.items() if delta < 0}


def read_lines(path: str | os.PathLike[str]) -> Iterator[InvoiceLine]:
    """The lines of a CSV file; one whose name ends in `.gz` is unpacked on the way."""
    with _open_text(Path(path)) as text:
        for row in csv.DictReader(text):
            yield InvoiceLine(
                invoice=row["InvoiceNo"].strip(),
                code=row["StockCode"].strip().upper(),
                description=row["Description"].strip(),
                quantity=int(row["Quantity"]),
                free=float(row["UnitPrice"]) == 0,
                customer=row["CustomerID"].strip(),
            )


def _open_text(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def invoices(lines: Iterable[InvoiceLine]) -> dict[str, list[InvoiceLine]]:
    """Lines by invoice, in the order of each invoice's first line."""
    grouped: dict[str, list[InvoiceLine]] = {}
    for line in lines:
        grouped.setdefault(line.invoice, []).append(line)
    return grouped


def movement(lines: list[InvoiceLine]) -> Movement | None:
    """What one invoice does to the stock; None when nothing."""
    reference = lines[0].invoice
    sums: dict[str, int] = {}
    for line in lines:
        if not line.is_service:
            sums[line.code] = sums.get(line.code, 0) + line.quantity
    sums = {sku: quantity for sku, quantity in sums.items() if quantity}
    if not sums or reference.startswith("A"):
        return None
    options = {"reference": reference}
    if reference.startswith("C"):
        taken_back = {sku: abs(quantity) for sku, quantity in sums.items()}
        return Movement("receive", reference, taken_back, {**options, "reason": "returned"})
    if all(line.free and not line.customer for line in lines):
        return Movement("adjust", reference, sums, options)
    return Movement("purchase", reference, sums, options)


def movements(lines: Iterable[InvoiceLine]) -> list[Movement]:
    """One movement per invoice that moves stock, in the order of the file."""
    found = (movement(group) for group in invoices(lines).values())
    return [item for item in found if item is not None]


def names(lines: Iterable[InvoiceLine]) -> dict[str, str]:
    """A name for every stocked sku: its last description that is not empty."""
    known: dict[str, str] = {}
    for line in lines:
        if not line.is_service:
            known[line.code] = line.description or known.get(line.code, "")
    return known


def opening_stock(todo: Iterable[Movement]) -> dict[str, int]:
    """Each sku's gross outflow: opened with it, nothing is refused, whatever the order."""
    stock: dict[str, int] = {}
    for item in todo:
        for sku, quantity in item.outflow().items():
            stock[sku] = stock.get(sku, 0) + quantity
    return stock


# --- a sample of the same form ----------------------------------------------------------------

_WORDS = ("HEART", "LANTERN", "CAFÉ", "TEA", "HOLDER", "UNION JACK", "PAPER", "CAKE", "BÜRO", "SET")


def generate(
    path: str | os.PathLike[str], *, seed: int = 0, invoice_count: int = 200, sku_count: int = 60
) -> None:
    """Write a CSV file with the oddities of the real one; the same seed makes the same file."""
    random = Random(seed)
    codes = [_code(random, number) for number in range(sku_count)]
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number in range(invoice_count):
            writer.writerows(_invoice(random, 536_365 + number, codes))


def _code(random: Random, number: int) -> str:
    """Numbers, some with a letter; every sixth differs from the one before by that alone."""
    base = 20_000 + 7 * (number - (number % 6 == 5))
    return f"{base}{random.choice('AB') if number % 6 in (4, 5) else ''}"


def _invoice(random: Random, number: int, codes: list[str]) -> list[tuple[object, ...]]:
    kind = random.choices(("sale", "return", "stocktake", "debt"), (80, 12, 7, 1))[0]
    invoice = {"return": f"C{number}", "debt": f"A{number}"}.get(kind, str(number))
    known = kind != "stocktake" and random.random() < 0.8
    customer = random.randint(12_346, 18_287) if known else ""
    when = f"2010-12-{1 + number % 23:02} {8 + number % 10:02}:{number % 60:02}"
    rows: list[tuple[object, ...]] = []
    for _ in range(1 if kind == "stocktake" else min(40, 1 + int(random.expovariate(0.15)))):
        code = random.choice(codes)
        if kind == "debt":
            code = "B"
        elif kind != "stocktake" and random.random() < 0.04:
            code = random.choice(("POST", "DOT", "gift_0001_20", "M"))
        elif random.random() < 0.1:
            code = code.lower()
        quantity = random.choice((1, 2, 3, 6, 6, 12, 24, 48))
        if kind == "return" or (kind == "stocktake" and random.random() < 0.7):
            quantity = -quantity
        price = 0 if kind == "stocktake" else random.choice((0.85, 1.25, 2.55, 4.95))
        words = random.sample(_WORDS, 2) if random.random() < 0.95 else []
        row = (invoice, code, " ".join(words), quantity, when, price, customer, "United Kingdom")
        rows += [row] * (2 if random.random() < 0.03 else 1)
    return rows
