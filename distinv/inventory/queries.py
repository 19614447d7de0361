"""Questions and their answers as they cross the network: one class each, tags append-only.

Every answer says at which `seq` it holds. A question that has no answer is answered by a
`Failure` with an error's code; nothing a user may ask makes a server raise.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

import msgspec

from distinv.config import Limits
from distinv.errors import InvalidRequest, TooManyLines
from distinv.inventory.commands import ItemRow, LevelRow, LocationRow, Row
from distinv.inventory.rules import LIMITS, check_location, check_sku, check_text

# --- questions --------------------------------------------------------------------------------


class AskLevels(Row, frozen=True, tag=1):
    """Levels in one consistent cut, in the order asked."""

    keys: tuple[tuple[str, str], ...]
    """(sku, location)"""


class AskItem(Row, frozen=True, tag=2):
    sku: str


class AskItems(Row, frozen=True, tag=3):
    """Items in the order of their skus."""

    prefix: str
    after: str | None
    limit: int


class AskLocations(Row, frozen=True, tag=4):
    pass


class AskLevelList(Row, frozen=True, tag=5):
    """Levels in the order of sku and location: those that a command has named so far."""

    prefix: str
    location: str | None
    below: int | None
    """Only where less than this is available."""
    after: tuple[str, str] | None
    limit: int


class AskAvailable(Row, frozen=True, tag=6):
    """The sum over sellable locations, or over those of `locations` that are sellable."""

    sku: str
    locations: tuple[str, ...] | None


class AskLedger(Row, frozen=True, tag=7):
    """Ledger entries in the order of (seq, line), or the other way round."""

    sku: str | None
    location: str | None
    reference: str | None
    since_seq: int | None
    since_us: int | None
    after: tuple[int, int] | None
    limit: int
    newest_first: bool


class AskResolve(Row, frozen=True, tag=8):
    """What became of the command with this key?"""

    key: str


class AskDigest(Row, frozen=True, tag=9):
    pass


Query: TypeAlias = (
    AskLevels
    | AskItem
    | AskItems
    | AskLocations
    | AskLevelList
    | AskAvailable
    | AskLedger
    | AskResolve
    | AskDigest
)

# --- answers ----------------------------------------------------------------------------------


class LedgerRow(Row, frozen=True):
    seq: int
    time_us: int
    sku: str
    location: str
    delta: int
    on_hand_after: int
    kind: str
    reason: str
    reference: str
    actor: str
    note: str
    occurred_at_us: int | None


class Fate(StrEnum):
    """What is known about a key."""

    DECIDED = "decided"
    """Accepted, refused or voided: the outcome tells."""
    ABSENT = "absent"
    """An explicit key that no accepted command bears so far."""
    UNDECIDED = "undecided"
    """A number the session has not come to: close the session through the log, ask again."""
    NEVER = "never"
    """The session closed below this number: it never took effect and never will."""
    DROPPED = "dropped"
    """Decided, but the result is no longer kept."""
    UNKNOWN = "unknown"
    """No such session: it expired, or never was."""


class Failure(Row, frozen=True, tag=1):
    seq: int
    code: str
    message: str


class Levels(Row, frozen=True, tag=2):
    seq: int
    levels: tuple[LevelRow, ...]
    next: tuple[str, str] | None = None


class Items(Row, frozen=True, tag=3):
    seq: int
    items: tuple[ItemRow, ...]
    next: str | None = None


class Locations(Row, frozen=True, tag=4):
    seq: int
    locations: tuple[LocationRow, ...]


class Number(Row, frozen=True, tag=5):
    seq: int
    value: int


class LedgerPage(Row, frozen=True, tag=6):
    seq: int
    entries: tuple[LedgerRow, ...]
    next: tuple[int, int] | None = None


class Resolved(Row, frozen=True, tag=7):
    seq: int
    fate: str
    """A `Fate`."""
    session: int
    """The session of an undecided number, else 0."""
    outcome: bytes
    """The encoded outcome of a decided key, else empty."""


class DigestValue(Row, frozen=True, tag=8):
    seq: int
    value: str


Answer: TypeAlias = (
    Failure | Levels | Items | Locations | Number | LedgerPage | Resolved | DigestValue
)

_encoder = msgspec.msgpack.Encoder()
_query_decoder = msgspec.msgpack.Decoder(Query)
_answer_decoder = msgspec.msgpack.Decoder(Answer)


def encode_query(query: Query) -> bytes:
    return _encoder.encode(query)


def encode_answer(answer: Answer) -> bytes:
    return _encoder.encode(answer)


def decode_answer(data: bytes) -> Answer:
    """Decode what a server answered. Raises InvalidRequest when it is not an answer."""
    try:
        answer: Answer = _answer_decoder.decode(data)
    except (msgspec.MsgspecError, ValueError):
        raise InvalidRequest("The answer cannot be read.") from None
    return answer


def decode_query_untrusted(data: bytes, limits: Limits = LIMITS) -> Query:
    """Decode and check one question. Raises InvalidRequest and its subclasses only."""
    try:
        query: Query = _query_decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise InvalidRequest("The bytes are not a query.") from None
    check_query(query, limits)
    return query


def check_query(query: Query, limits: Limits = LIMITS) -> None:
    """Raises InvalidRequest, InvalidSku, InvalidLocation, TooManyLines."""
    match query:
        case AskLevels(keys=keys):
            if len(keys) > limits.lines_per_command:
                raise TooManyLines(f"At most {limits.lines_per_command} levels at a time.")
            for sku, location in keys:
                check_sku(sku, limits)
                check_location(location, limits)
        case AskItem(sku=sku):
            check_sku(sku, limits)
        case AskAvailable(sku=sku, locations=locations):
            check_sku(sku, limits)
            if locations is not None and len(locations) > limits.locations_max:
                raise TooManyLines(f"At most {limits.locations_max} locations at a time.")
            for name in locations or ():
                check_location(name, limits)
        case AskItems():
            _check_page(query.limit, limits)
            check_text("A prefix", query.prefix, limits.sku_chars)
            if query.after is not None:
                check_sku(query.after, limits)
        case AskLevelList():
            _check_level_list(query, limits)
        case AskLedger():
            _check_ledger(query, limits)
        case AskResolve(key=key):
            check_text("A key", key, limits.key_chars)
        case AskLocations() | AskDigest():
            pass


def _check_page(limit: int, limits: Limits) -> None:
    if type(limit) is not int or not 1 <= limit <= limits.page_rows:
        raise InvalidRequest(f"A page has 1 to {limits.page_rows} rows.")


def _check_level_list(query: AskLevelList, limits: Limits) -> None:
    _check_page(query.limit, limits)
    check_text("A prefix", query.prefix, limits.sku_chars)
    if query.location is not None:
        check_location(query.location, limits)
    if query.below is not None:
        _check_signed("below", query.below)
    if query.after is not None:
        check_text("after", query.after[0], limits.sku_chars)
        check_text("after", query.after[1], limits.sku_chars)


def _check_ledger(query: AskLedger, limits: Limits) -> None:
    _check_page(query.limit, limits)
    if query.sku is not None:
        check_sku(query.sku, limits)
    if query.location is not None:
        check_location(query.location, limits)
    if query.reference is not None:
        check_text("A reference", query.reference, limits.reference_chars)
    for value in (query.since_seq, query.since_us, *(query.after or ())):
        if value is not None:
            _check_signed("A place in the ledger", value)


def _check_signed(what: str, value: object) -> None:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise InvalidRequest(f"{what} is an int of 64 bits.")
