"""Messages to bytes and back (MessagePack), and what every field of a message is bound to.

The types say what a field is; `_plan` reads them once and says how far it may go, so that the
core may hash, store and count what it receives without asking again: numbers are those of 63
bits, texts are short, hashes have their length, ports are ports.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from operator import attrgetter
from types import UnionType
from typing import Any, TypeAlias, Union, get_args, get_origin, get_type_hints

import msgspec

from distinv.entry import HASH_BYTES, Entry
from distinv.errors import BadDatagram
from distinv.wire.messages import Message, ReadIndexReply

NUMBER_MAX = 2**63 - 1
TEXT_CHARS_MAX = 4_096
"""The longest text in a message is the detail of an error."""
HOST_CHARS_MAX = 255
PORT_MAX = 65_535
ITEMS_MAX = 65_536
"""More than the smallest entries that fit the largest message that carries any."""

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


encode: Callable[[Message], bytes] = _encoder.encode


def decode_untrusted(body: bytes) -> Message:
    """The message in `body`, every field within its bounds. Raises BadDatagram."""
    try:
        message = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadDatagram("message") from None
    for check in _PLANS[type(message)]:
        check(message)
    return message


Check: TypeAlias = Callable[[Any], None]
"""Raises BadDatagram for a value out of bounds."""

_SPECIAL_BOUNDS: dict[tuple[type, str], tuple[int, int]] = {
    (ReadIndexReply, "index"): (-1, NUMBER_MAX),
    (Entry, "kind"): (0, 255),
}

_LENGTHS = {"hash": (HASH_BYTES,), "digest": (0, HASH_BYTES)}
"""Of the bytes in a field of that name. No digest: of a snapshot that was not begun."""


@cache
def _plan(owner: type) -> tuple[Check, ...]:
    """What to check of a value with named fields (a message, an entry, a ballot)."""
    numbers: list[str] = []
    texts: list[str] = []
    checks: list[Check] = []
    _collect(owner, "", numbers, texts, checks)
    if texts:
        checks.insert(0, _texts_check(texts))
    if numbers:
        checks.insert(0, _numbers_check(numbers))
    return tuple(checks)


def _collect(
    owner: type, prefix: str, numbers: list[str], texts: list[str], checks: list[Check]
) -> None:
    """Sort the fields of `owner` by how they are checked; nested values bring theirs along."""
    for name, hint in get_type_hints(owner).items():
        path = prefix + name
        if (owner, name) in _SPECIAL_BOUNDS:
            checks.append(_range_check(path, *_SPECIAL_BOUNDS[owner, name]))
        elif hint is int:
            numbers.append(path)
        elif hint is str:
            texts.append(path)
        elif hint is bytes:
            if name in _LENGTHS:
                checks.append(_length_check(path, _LENGTHS[name]))
        elif _has_fields(hint):
            _collect(hint, path + ".", numbers, texts, checks)
        elif hint is not bool:
            checks.append(_part_check(path, _value_check(hint)))


def _has_fields(hint: Any) -> bool:
    return isinstance(hint, type) and (issubclass(hint, msgspec.Struct) or hasattr(hint, "_fields"))


def _value_check(hint: Any) -> Check:
    """The check of a value that has no name of its own: an item, or something that may lack."""
    arguments = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _optional_check(_value_check(inner))
    if arguments == (str, int):
        return _check_address
    if get_origin(hint) is tuple and arguments[1:] == (...,):
        return _items_check(_value_check(arguments[0]))
    if hint is int:
        return _check_number
    if _has_fields(hint):
        return _fields_check(hint)
    raise TypeError(f"messages cannot hold {hint}")


def _numbers_check(paths: list[str]) -> Check:
    get = _getter(paths)

    def check(owner: Any) -> None:
        values = get(owner)
        if min(values) < 0 or max(values) > NUMBER_MAX:
            raise BadDatagram("number")

    return check


def _texts_check(paths: list[str]) -> Check:
    get = _getter(paths)

    def check(owner: Any) -> None:
        for text in get(owner):
            if len(text) > TEXT_CHARS_MAX:
                raise BadDatagram("text")

    return check


def _getter(paths: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """All the values at once; `attrgetter` gives a tuple for two and more."""
    get = attrgetter(*paths)
    return get if len(paths) > 1 else lambda owner: (get(owner),)


def _range_check(path: str, low: int, high: int) -> Check:
    get = attrgetter(path)

    def check(owner: Any) -> None:
        if not low <= get(owner) <= high:
            raise BadDatagram("number")

    return check


def _length_check(path: str, lengths: tuple[int, ...]) -> Check:
    get = attrgetter(path)

    def check(owner: Any) -> None:
        if len(get(owner)) not in lengths:
            raise BadDatagram("hash")

    return check


def _part_check(path: str, check_value: Check) -> Check:
    get = attrgetter(path)

    def check(owner: Any) -> None:
        check_value(get(owner))

    return check


def _optional_check(check_value: Check) -> Check:
    def check(value: Any) -> None:
        if value is not None:
            check_value(value)

    return check


def _items_check(check_item: Check) -> Check:
    def check(items: Any) -> None:
        if len(items) > ITEMS_MAX:
            raise BadDatagram("items")
        for item in items:
            check_item(item)

    return check


def _fields_check(owner: type) -> Check:
    plan = _plan(owner)

    def check(value: Any) -> None:
        for check_fields in plan:
            check_fields(value)

    return check


def _check_number(value: int) -> None:
    if not 0 <= value <= NUMBER_MAX:
        raise BadDatagram("number")


def _check_address(value: tuple[str, int]) -> None:
    host, port = value
    if not 0 < len(host) <= HOST_CHARS_MAX or not 0 < port <= PORT_MAX:
        raise BadDatagram("address")


_PLANS = {message: _plan(message) for message in get_args(Message)}
"""Made at import, so that a field that cannot be checked is found then, not on the network."""
