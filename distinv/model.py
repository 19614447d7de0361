"""What users hold: the nouns of the inventory as frozen values.

Quantities are whole numbers of an item's smallest unit, times are aware datetimes in UTC, and
`seq` is a place in the total order of the commands. `as_of` says at which seq a value was read;
it takes no part in comparisons.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Generic, Literal, TypeAlias, TypeVar

from attrs import Factory, field, frozen

from distinv.errors import InvalidQuantity

T = TypeVar("T")

AttributeValue: TypeAlias = str | int | bool | None
"""What an item's attribute may hold. Fractions are written as text."""

Read: TypeAlias = Literal["linearizable", "local"]
"""`linearizable` sees everything acknowledged before; `local` answers at once and may lag."""

MAIN = "main"
"""The location that exists from the start."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def datetime_of(time_us: int) -> datetime:
    """Microseconds since 1970 as an aware datetime, capped at the ends of the calendar."""
    try:
        return EPOCH + timedelta(microseconds=time_us)
    except OverflowError:
        end = datetime.max if time_us > 0 else datetime.min
        return end.replace(tzinfo=UTC)


@frozen
class Item:
    """The catalogue entry of a sku. A quantity of `10**scale` is one `unit`."""

    sku: str
    name: str = ""
    unit: str = "each"
    scale: int = 0
    attributes: Mapping[str, AttributeValue] = field(factory=dict, hash=False)
    discontinued: bool = False
    version: int = 0
    """The seq of the last change."""
    as_of: int = field(default=0, eq=False, kw_only=True)

    def to_units(self, amount: str | int | Decimal) -> int:
        """`amount` of `unit` as a quantity: with scale 3, "1.25" is 1250.

        Raises InvalidQuantity for a float, for what is not a number, and for an amount finer
        than the scale.
        """
        if isinstance(amount, bool) or not isinstance(amount, str | int | Decimal):
            raise InvalidQuantity(f"{amount!r} is not a str, an int or a Decimal.")
        try:
            exact = Decimal(amount)
        except InvalidOperation:
            raise InvalidQuantity(f"{amount!r} is not a number.") from None
        if not exact.is_finite():
            raise InvalidQuantity(f"{amount!r} is not a finite number.")
        if not exact:
            return 0
        if exact.adjusted() + self.scale > 18:
            raise InvalidQuantity(f"{amount!r} {self.unit} is too much.")
        sign, digits, exponent = exact.as_tuple()
        shift = int(exponent) + self.scale
        coefficient = int("".join(map(str, digits)))
        if shift >= 0:
            units = coefficient * 10**shift
        elif len(digits) > -shift and coefficient % 10**-shift == 0:
            units = coefficient // 10**-shift
        else:
            raise InvalidQuantity(f"{amount!r} is finer than {self.scale} decimal places.")
        return int(-units if sign else units)

    def from_units(self, quantity: int) -> Decimal:
        """A quantity as an amount of `unit`: with scale 3, 1250 is Decimal("1.250")."""
        if isinstance(quantity, bool) or not isinstance(quantity, int):
            raise InvalidQuantity(f"{quantity!r} is not an int.")
        digits = tuple(map(int, str(abs(quantity))))
        return Decimal((int(quantity < 0), digits, -self.scale))


@frozen
class Location:
    """A place where stock is kept. Nothing is sold from one that is not `sellable`."""

    name: str
    sellable: bool = True
    version: int = 0


def _available(level: Level) -> int:
    return level.on_hand - level.reserved - level.committed


@frozen
class Level:
    """The stock of one sku at one location. `available` is what may still be sold."""

    sku: str
    location: str
    on_hand: int
    reserved: int = 0
    committed: int = 0
    version: int = 0
    """The seq of the last command that named this level; 0 when none ever did."""
    available: int = field(init=False, default=Factory(_available, takes_self=True))
    as_of: int = field(default=0, eq=False, kw_only=True)


@frozen
class Line:
    """One line of a command. Without a location it takes the command's."""

    sku: str
    quantity: int
    location: str | None = None


Lines: TypeAlias = Mapping[str, int] | Line | Sequence[Line]


@frozen
class Shortage:
    """One line that fell short: what was asked for, after summing, and what there was."""

    sku: str
    location: str
    requested: int
    available: int


@frozen
class Receipt:
    """A command was applied at `seq`; `levels` are those it named, as it left them."""

    seq: int
    at: datetime
    levels: tuple[Level, ...] = ()
    idempotency_key: str | None = None
    """The key that `resolve` takes: the caller's own, or `session:number`."""
    replayed: bool = False
    """The key had been used before: this is the first use's receipt, and nothing was done."""


@frozen
class LedgerEntry:
    """The immutable effect of one applied line."""

    seq: int
    at: datetime
    sku: str
    location: str
    delta: int
    on_hand_after: int
    kind: str
    """receive, ship, adjust, set_on_hand or transfer."""
    reason: str
    reference: str | None = None
    actor: str = ""
    """The name the client gave itself."""
    note: str | None = None
    occurred_at: datetime | None = None
    """When it happened according to the caller; the order is by `seq` alone."""


Cursor: TypeAlias = str | tuple[str, str] | tuple[int, int]


@frozen
class Page(Generic[T]):
    """A part of a list. Pass `next` as `after` for the following part; None: there is none.

    A page may hold fewer rows than `limit` and still have a `next`.
    """

    items: tuple[T, ...]
    next: Cursor | None = None
    as_of: int = field(default=0, eq=False)

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@frozen
class Digest:
    """The fingerprint of all stock at `seq`: 16 hex digits, equal wherever the stock is equal."""

    seq: int
    value: str
