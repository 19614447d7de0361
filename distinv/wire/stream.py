"""Messages to a stream of bytes and back: each behind its length (u32, big-endian).

The stream is what a link cuts into segments, so many small messages share one segment and a
large one takes many, and nobody else needs to know.
"""

from __future__ import annotations

from collections import deque
from struct import Struct

from distinv.errors import BadDatagram

_LENGTH = Struct(">I")


class StreamWriter:
    """Messages that wait to be cut into segments."""

    def __init__(self, bytes_max: int) -> None:
        self.waiting_bytes = 0
        """Lengths included."""
        self._bytes_max = bytes_max
        self._pieces: deque[bytes | memoryview] = deque()

    def push(self, body: bytes) -> bool:
        """Append a message; False when there is no room for it."""
        size = _LENGTH.size + len(body)
        if self.waiting_bytes + size > self._bytes_max:
            return False
        self._pieces.append(_LENGTH.pack(len(body)) + body)
        self.waiting_bytes += size
        return True

    def cut(self, size: int) -> bytes:
        """Take up to `size` bytes from the front."""
        taken: list[bytes | memoryview] = []
        pieces = self._pieces
        if len(pieces) == 1 and self.waiting_bytes <= size:
            self.waiting_bytes = 0
            return bytes(pieces.popleft())  # most often: one message, and it fits
        left = size
        while pieces and left:
            piece = pieces[0]
            if len(piece) <= left:
                taken.append(pieces.popleft())
                left -= len(piece)
            else:
                view = memoryview(piece)
                taken.append(view[:left])
                pieces[0] = view[left:]
                left = 0
        self.waiting_bytes -= size - left
        return b"".join(taken)


class StreamReader:
    """Segments in order back to messages. Holds at most one message and one segment."""

    def __init__(self, message_bytes_max: int) -> None:
        self.broken = False
        """The other side announced a message beyond the bound: nothing more can be read."""
        self._message_bytes_max = message_bytes_max
        self._partial = bytearray()
        self._needed = 0
        """Below this length `_partial` holds no whole message."""

    def feed(self, segment: bytes, bodies: list[bytes]) -> None:
        """Append the messages that `segment` completes to `bodies`."""
        if self.broken:
            return
        if self._partial:
            self._partial += segment
            if len(self._partial) < self._needed:
                return
            segment = bytes(self._partial)
            self._partial.clear()
        try:
            position = self._split_untrusted(segment, bodies)
        except BadDatagram:
            self.broken = True
            return
        if position < len(segment):
            self._partial += segment[position:]

    def _split_untrusted(self, data: bytes, bodies: list[bytes]) -> int:
        """Append the whole messages of `data`; where the first incomplete one begins."""
        position, end = 0, len(data)
        head, length_at = _LENGTH.size, _LENGTH.unpack_from
        self._needed = head
        while end - position >= head:
            (length,) = length_at(data, position)
            if length > self._message_bytes_max:
                raise BadDatagram("message length")
            start = position + head
            if start + length > end:
                self._needed = head + length
                break
            position = start + length
            bodies.append(data[start:position])
        return position
