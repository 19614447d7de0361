"""Commands and outcomes as they stand in the log: one class each. Tags are append-only.

A command is a list of operations that take effect together or not at all; every method of the
client but `execute` makes a list of one. An outcome is what became of a command. Both are
encoded as MessagePack arrays.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import msgspec

from distinv.config import Limits
from distinv.errors import InvalidLocation, InvalidQuantity, InvalidRequest, TooManyLines
from distinv.inventory.rules import (
    LIMITS,
    check_delta,
    check_level,
    check_location,
    check_quantity,
    check_sku,
    check_text,
    check_version,
)
from distinv.model import AttributeValue


class Row(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An array of known length: what is too long is refused before anything nested is read."""


class LineRow(Row, frozen=True):
    sku: str
    quantity: int
    location: str | None = None
    """None: the operation's."""


class About(Row, frozen=True):
    """What a person wants to know about an operation later."""

    reason: str = ""
    reference: str = ""
    note: str = ""
    occurred_at_us: int | None = None


NOTHING = About()


# --- operations -------------------------------------------------------------------------------


class PutItem(Row, frozen=True, tag=1):
    """Create or change a catalogue entry; None keeps what is there."""

    sku: str
    name: str | None = None
    unit: str | None = None
    scale: int | None = None
    attributes: dict[str, AttributeValue] | None = None
    discontinued: bool | None = None
    if_version: int | None = None
    """0: only when there is no such item."""
    about: About = NOTHING


class DeleteItem(Row, frozen=True, tag=2):
    sku: str
    if_version: int | None = None
    about: About = NOTHING


class PutLocation(Row, frozen=True, tag=3):
    name: str
    sellable: bool = True
    about: About = NOTHING


class DeleteLocation(Row, frozen=True, tag=4):
    name: str
    about: About = NOTHING


class Receive(Row, frozen=True, tag=5):
    lines: tuple[LineRow, ...]
    location: str
    about: About = NOTHING


class Ship(Row, frozen=True, tag=6):
    lines: tuple[LineRow, ...]
    location: str
    about: About = NOTHING


class Adjust(Row, frozen=True, tag=7):
    """The quantities are signed."""

    lines: tuple[LineRow, ...]
    location: str
    about: About = NOTHING


class SetOnHand(Row, frozen=True, tag=8):
    """Exactly one of `if_version`, `if_on_hand` and `force` is given."""

    sku: str
    quantity: int
    location: str
    if_version: int | None = None
    if_on_hand: int | None = None
    force: bool = False
    about: About = NOTHING


class Transfer(Row, frozen=True, tag=9):
    """The lines name no location of their own."""

    lines: tuple[LineRow, ...]
    source: str
    destination: str
    about: About = NOTHING


Operation: TypeAlias = (
    PutItem
    | DeleteItem
    | PutLocation
    | DeleteLocation
    | Receive
    | Ship
    | Adjust
    | SetOnHand
    | Transfer
)


OPERATION_SINCE: dict[type[Operation], int] = {
    PutItem: 1,
    DeleteItem: 1,
    PutLocation: 1,
    DeleteLocation: 1,
    Receive: 1,
    Ship: 1,
    Adjust: 1,
    SetOnHand: 1,
    Transfer: 1,
}
"""The protocol since which each exists, for ever. A leader takes none before all servers are known
to speak that; a server that meets one that is not here stops, and has to be upgraded. An operation
that gets another field, or another meaning, becomes another operation."""


class Command(Row, frozen=True):
    """The envelope. With a `key` it takes effect once, however often it is sent."""

    operations: tuple[Operation, ...]
    key: str = ""

    @property
    def protocol(self) -> int:
        """The oldest in which it can be carried out."""
        return max([OPERATION_SINCE[type(each)] for each in self.operations])


# --- outcomes ---------------------------------------------------------------------------------


class LevelRow(Row, frozen=True):
    sku: str
    location: str
    on_hand: int
    reserved: int
    committed: int
    version: int


class ItemRow(Row, frozen=True):
    sku: str
    name: str
    unit: str
    scale: int
    attributes: dict[str, AttributeValue]
    discontinued: bool
    version: int


class LocationRow(Row, frozen=True):
    name: str
    sellable: bool
    version: int


class ShortageRow(Row, frozen=True):
    sku: str
    location: str
    requested: int
    available: int


class Shortages(Row, frozen=True, tag=1):
    rows: tuple[ShortageRow, ...]


class CurrentLevel(Row, frozen=True, tag=2):
    level: LevelRow


class CurrentVersion(Row, frozen=True, tag=3):
    version: int


class OriginalSeq(Row, frozen=True, tag=4):
    seq: int


Detail: TypeAlias = Shortages | CurrentLevel | CurrentVersion | OriginalSeq


class Accepted(Row, frozen=True, tag=1):
    """Applied at `seq`. A replay gives the first use's outcome, with `replayed` set."""

    seq: int
    time_us: int
    levels: tuple[LevelRow, ...] = ()
    """Each level that was named, once, as the command left it."""
    items: tuple[ItemRow, ...] = ()
    locations: tuple[LocationRow, ...] = ()
    replayed: bool = False


class Refused(Row, frozen=True, tag=2):
    """Ordered at `seq`, without effect. `code` names the class in `distinv.errors`."""

    seq: int
    time_us: int
    code: str
    message: str
    detail: Detail | None = None


class Voided(Row, frozen=True, tag=3):
    """The number was given up before a command came under it. It has no seq."""

    time_us: int


class Trimmed(Row, frozen=True, tag=4):
    """All that is left of an outcome that outgrew the limits; `code` is "" when accepted."""

    seq: int
    time_us: int
    code: str
    replayed: bool = False


Outcome: TypeAlias = Accepted | Refused | Voided | Trimmed

_SMALL_BYTES = 256
"""Commands of a few lines; remembering longer ones could take much memory."""

_encoder = msgspec.msgpack.Encoder()
_command_decoder = msgspec.msgpack.Decoder(Command)
_outcome_decoder = msgspec.msgpack.Decoder(Outcome)


def encode_command(command: Command) -> bytes:
    return _encoder.encode(command)


def encode_outcome(outcome: Outcome) -> bytes:
    return _encoder.encode(outcome)


def decode_outcome(data: bytes) -> Outcome:
    """Decode what a server answered. Raises InvalidRequest when it is not an outcome."""
    try:
        outcome: Outcome = _outcome_decoder.decode(data)
    except (msgspec.MsgspecError, ValueError):
        raise InvalidRequest("The answer is not an outcome.") from None
    return outcome


def decode_command_untrusted(data: bytes, limits: Limits = LIMITS) -> Command:
    """Decode and check one command.

    Raises InvalidRequest and its subclasses only, with messages that are the same everywhere:
    they become part of the replicated state.
    """
    if len(data) <= _SMALL_BYTES:
        return _decode_small_untrusted(data, limits)
    return _decode_untrusted(data, limits)


def is_of_later_release(data: bytes) -> bool:
    """Whether these bytes, which are no command, are well-formed all the same.

    Then they are none of this release. Other bytes are a command in none.
    """
    try:
        _command_decoder.decode(data)
    except msgspec.ValidationError:
        return True
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    return False


@lru_cache(maxsize=1_024)
def _decode_small_untrusted(data: bytes, limits: Limits) -> Command:
    """A leader reads every command twice: as it comes, and once it is committed."""
    return _decode_untrusted(data, limits)


def _decode_untrusted(data: bytes, limits: Limits) -> Command:
    if len(data) > limits.batch_bytes:
        raise TooManyLines(f"A command has at most {limits.batch_bytes} bytes.")
    try:
        command = _command_decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise InvalidRequest("The bytes are not a command.") from None
    check_command(command, limits)
    return command


# --- checks -----------------------------------------------------------------------------------


def check_command(command: Command, limits: Limits = LIMITS) -> None:
    """Everything about a command that can be told without looking at the stock.

    Raises InvalidRequest, InvalidQuantity, InvalidSku, InvalidLocation, TooManyLines.
    """
    if not command.operations:
        raise InvalidRequest("A command has at least one operation.")
    if command.key:
        check_key(command.key, limits)
    count = 0
    for operation in command.operations:
        check_operation(operation, limits)
        count += len(operation.lines) if isinstance(operation, _WITH_LINES) else 1
    if count > limits.lines_per_command:
        raise TooManyLines(f"A command has at most {limits.lines_per_command} lines, not {count}.")


def check_operation(operation: Operation, limits: Limits = LIMITS) -> None:
    """Raises what `check_command` does."""
    if operation.about is not NOTHING:
        _check_about(operation.about, limits)
    if isinstance(operation, _WITH_LINES):
        _check_lines(operation, limits)
    elif isinstance(operation, SetOnHand):
        _check_set_on_hand(operation, limits)
    elif isinstance(operation, PutItem):
        _check_put_item(operation, limits)
    elif isinstance(operation, DeleteItem):
        check_sku(operation.sku, limits)
        if operation.if_version is not None:
            check_version(operation.if_version)
    else:
        check_location(operation.name, limits)


_WITH_LINES = (Receive, Ship, Adjust, Transfer)


def check_key(key: object, limits: Limits = LIMITS) -> None:
    """Raises InvalidRequest."""
    check_text("An idempotency key", key, limits.key_chars)
    if parse_session_key(str(key)) is not None:
        raise InvalidRequest("An idempotency key may not look like a session's key.")


def session_key(session: int, number: int) -> str:
    """The key of a command that was sent without one: its session in 16 hex digits, its number.

    The form is kept free: no explicit key may look like it.
    """
    return f"s{session:016x}:{number}"


def parse_session_key(key: str) -> tuple[int, int] | None:
    """The session and number that a `session_key` names, None for any other key."""
    head, colon, tail = key.partition(":")
    if colon and len(head) == 17 and len(tail) <= 19 and tail.isascii() and tail.isdigit():
        digits = head[1:]
        if head[0] == "s" and all(digit in "0123456789abcdef" for digit in digits):
            return int(digits, 16), int(tail)
    return None


def _check_about(about: About, limits: Limits) -> None:
    if about.reason:
        check_text("A reason", about.reason, limits.reason_chars)
    if about.reference:
        check_text("A reference", about.reference, limits.reference_chars)
    if about.note:
        check_text("A note", about.note, limits.note_chars)
    at = about.occurred_at_us
    if at is not None and not -(2**63) <= at < 2**63:
        raise InvalidRequest("occurred_at is out of range.")


def _check_lines(operation: Receive | Ship | Adjust | Transfer, limits: Limits) -> None:
    if not operation.lines:
        raise InvalidRequest("A command has at least one line.")
    if len(operation.lines) > limits.lines_per_command:
        raise TooManyLines(
            f"A command has at most {limits.lines_per_command} lines, not {len(operation.lines)}."
        )
    transfer = isinstance(operation, Transfer)
    check = check_delta if isinstance(operation, Adjust) else check_quantity
    chars, most = limits.sku_chars, limits.quantity_max
    for line in operation.lines:
        sku, quantity = line.sku, line.quantity
        # What nearly every line is like is told here, without a call.
        plain = type(sku) is str and sku.isascii() and 0 < len(sku) <= chars and "\0" not in sku
        if not plain:
            check_sku(sku, limits)
        if type(quantity) is not int or not 1 <= quantity <= most:
            check(quantity, limits)
        if line.location is not None:
            if transfer:
                raise InvalidLocation("The lines of a transfer name no location of their own.")
            check_location(line.location, limits)
    if isinstance(operation, Transfer):
        check_location(operation.source, limits)
        check_location(operation.destination, limits)
        if operation.source == operation.destination:
            raise InvalidLocation("A transfer needs two different locations.")
    else:
        check_location(operation.location, limits)


def _check_set_on_hand(operation: SetOnHand, limits: Limits) -> None:
    check_sku(operation.sku, limits)
    check_location(operation.location, limits)
    check_quantity(operation.quantity, limits, least=0)
    conditions = (operation.if_version is not None) + (operation.if_on_hand is not None)
    if conditions + operation.force != 1:
        raise InvalidRequest("Give exactly one of if_version, if_on_hand and force=True.")
    if operation.if_version is not None:
        check_version(operation.if_version)
    if operation.if_on_hand is not None:
        check_level(operation.if_on_hand, limits)


def _check_put_item(operation: PutItem, limits: Limits) -> None:
    check_sku(operation.sku, limits)
    if operation.name is not None:
        check_text("A name", operation.name, limits.name_chars)
    if operation.unit is not None:
        check_text("A unit", operation.unit, limits.reason_chars)
    scale = operation.scale
    if scale is not None and (type(scale) is not int or not 0 <= scale <= limits.scale_max):
        raise InvalidQuantity(f"A scale is an int from 0 to {limits.scale_max}.")
    if operation.if_version is not None:
        check_version(operation.if_version)
    if operation.attributes is not None:
        _check_attributes(operation.attributes, limits)


def _check_attributes(attributes: dict[str, AttributeValue], limits: Limits) -> None:
    for name, value in attributes.items():
        check_text("An attribute's name", name, limits.name_chars)
        if isinstance(value, str):
            check_text("An attribute", value, limits.attributes_bytes)
        elif value is not None and not isinstance(value, bool | int):
            raise InvalidRequest("An attribute is text, an int, a bool or None.")
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise InvalidRequest("An attribute is out of range.")
    if len(_encoder.encode(attributes)) > limits.attributes_bytes:
        raise InvalidRequest(f"An item's attributes have at most {limits.attributes_bytes} bytes.")
