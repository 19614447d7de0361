"""Valid bytes, spoilt: by bits and lengths, or by the structure that they hold.

Bytes that are wrong from the start get no further than the first check. So most inputs begin as
something that was really sent, and are changed a little: as bytes, or decoded as MessagePack,
changed as a tree and encoded again, so that everything but one field is still right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec

EDGES = (
    *(0, 1, 2, 3, 127, 128, 255, 256, 1_023, 1_024, 4_096, 65_535, 65_536),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**53, 2**62),
    *(2**63 - 1, 2**63, 2**64 - 1, -1, -2, -(2**31), -(2**63)),
)
"""Numbers at which something may turn over."""

BYTES_MAX = 65_535
"""No input is larger than a datagram."""

_unpack = msgspec.msgpack.decode
_pack = msgspec.msgpack.Encoder().encode

_RAW = (
    b"\xc1",  # no MessagePack at all
    b"\xa2\xff\xfe",  # text that is not UTF-8
    b"\xdb\xff\xff\xff\xff",  # text of four gigabytes
    b"\xc6\xff\xff\xff\xff",  # as many bytes
    b"\xdd\xff\xff\xff\xff",  # an array of four thousand million things
    b"\xdf\xff\xff\xff\xff",  # as many pairs
    b"\xcb\x7f\xf0\0\0\0\0\0\0",  # infinity
    b"\xcb\x7f\xf8\0\0\0\0\0\0",  # not a number
    b"\xd6\xff\xff\xff\xff\xff",  # a time stamp
    b"\xc7\x08\x05abcdefgh",  # an extension type
    b"\xa3\xed\xa0\x80",  # half of a surrogate pair
)
_DEPTHS = (3, 40, 500, 1_500, 20_000)


class Mutator:
    """Spoils inputs; `corpus` is what it takes foreign pieces from. All chance is `random`'s."""

    def __init__(self, random: Random, corpus: Sequence[bytes]) -> None:
        self._random = random
        self._corpus = corpus or (b"",)
        self._byte_operations: tuple[Callable[[bytearray], None], ...] = (
            self._flip,
            self._flip,
            self._set,
            self._set_number,
            self._cut,
            self._truncate,
            self._insert,
            self._repeat,
            self._splice,
        )

    def pick(self, things: Sequence[Any]) -> Any:
        """One of them; cheaper than `Random.choice`."""
        return things[int(self._random.random() * len(things))]

    def below(self, limit: int) -> int:
        return int(self._random.random() * limit)

    # --- as bytes -----------------------------------------------------------------------------

    def noise(self) -> bytes:
        """Bytes from nowhere, mostly few."""
        return self._random.randbytes(self.below(1 << self.below(11)))

    def spoilt(self, data: bytes) -> bytes:
        """`data` after one to four changes of its bytes."""
        changed = bytearray(data)
        for _ in range(1 + self.below(4)):
            self.pick(self._byte_operations)(changed)
        return bytes(changed[:BYTES_MAX])

    def _flip(self, data: bytearray) -> None:
        if data:
            data[self.below(len(data))] ^= 1 << self.below(8)

    def _set(self, data: bytearray) -> None:
        if data:
            data[self.below(len(data))] = self.pick((0, 1, 0x7F, 0x80, 0x90, 0xC0, 0xFF))

    def _set_number(self, data: bytearray) -> None:
        """A length or a number of the frame, in big-endian bytes."""
        width = self.pick((1, 2, 4, 8))
        if len(data) >= width:
            at = self.below(len(data) - width + 1)
            number = self.pick(EDGES) % (1 << 8 * width)
            data[at : at + width] = number.to_bytes(width, "big")

    def _cut(self, data: bytearray) -> None:
        at = self.below(len(data) + 1)
        del data[at : at + 1 + self.below(1 + min(len(data), 40))]

    def _truncate(self, data: bytearray) -> None:
        del data[self.below(len(data) + 1) :]

    def _insert(self, data: bytearray) -> None:
        at = self.below(len(data) + 1)
        data[at:at] = self._random.randbytes(1 + self.below(12))

    def _repeat(self, data: bytearray) -> None:
        at = self.below(len(data) + 1)
        piece = data[at : at + 1 + self.below(30)]
        data[at:at] = piece * (1 + self.below(8))

    def _splice(self, data: bytearray) -> None:
        """Go on as something else does."""
        other = self.pick(self._corpus)
        at = self.below(min(len(data), len(other)) + 1)
        data[at:] = other[at:]

    # --- as a tree ----------------------------------------------------------------------------

    def restructured(self, data: bytes) -> bytes:
        """`data` with one to three parts of its MessagePack replaced; spoilt if it holds none."""
        try:
            tree = _unpack(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return self.spoilt(data)
        if not isinstance(tree, list) or not tree:
            return self.spoilt(data)
        for _ in range(1 + self.below(3)):
            self._change(tree)
        try:
            return _pack(tree)[:BYTES_MAX]
        except (msgspec.MsgspecError, OverflowError, TypeError, ValueError):
            return self.spoilt(data)

    def _change(self, tree: list[Any]) -> None:
        """Replace, drop, repeat or move one part, near the root as often as deep inside."""
        parent, at = tree, self.below(len(tree))
        while isinstance(parent[at], list) and parent[at] and self._random.random() < 0.8:
            parent = parent[at]
            at = self.below(len(parent))
        choice = self.below(12)
        if choice == 0:
            del parent[at]
            if not tree:
                tree.append(None)
        elif choice == 1:
            parent.insert(at, parent[at])
        elif choice == 2:
            parent[at : at + 1] = [parent[at]] * self.pick((2, 40, 1_000))
        elif choice == 3:
            other = self.below(len(parent))
            parent[at], parent[other] = parent[other], parent[at]
        else:
            parent[at] = self._instead(parent[at])

    def _instead(self, part: Any) -> Any:
        """Something near `part`, or something of another type."""
        choice = self.below(10)
        if choice < 6:
            if isinstance(part, int) and not isinstance(part, bool):
                return self._number(part)
            if isinstance(part, bytes):
                return self._bytes(part)
            if isinstance(part, str):
                return self._text(part)
        return self._anything()

    def _number(self, number: int) -> int:
        choice = self.below(4)
        if choice == 0:
            return number + 1 if number < 2**64 - 1 else 0
        if choice == 1:
            return number - 1 if number > -(2**63) else 0
        if choice == 2:
            return (number ^ (1 << self.below(63))) & (2**64 - 1)
        return int(self.pick(EDGES))

    def _bytes(self, part: bytes) -> bytes:
        """Bytes within a message are often messages themselves."""
        choice = self.below(4)
        if choice == 0:
            return self.restructured(part)
        return self.spoilt(part) if choice < 3 else bytes(self.pick((0, 1, 16, 1_000, 30_000)))

    def _text(self, part: str) -> str:
        return str(
            self.pick(
                ("", part + "x", part * 3, "\0", "a" * self.pick((64, 65, 256, 5_000)), "Ω" * 200)
            )
        )

    def _anything(self) -> Any:
        choice = self.below(9)
        if choice == 0:
            return msgspec.Raw(self.pick(_RAW))
        if choice == 1:
            return msgspec.Raw(b"\x91" * self.pick(_DEPTHS) + b"\0")
        if choice == 2:
            return self.pick((None, True, False, 0.5, -1e300, {}, [], "", b""))
        if choice == 3:
            return {"a": [1, {"b": None}], "": 2**63}
        if choice == 4:
            return [self.pick(EDGES) for _ in range(self.below(5))]
        if choice == 5:
            return self._random.randbytes(self.below(20))
        return self.pick(EDGES)
