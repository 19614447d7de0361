"""Sealing: who may speak, and what was said is what was sent.

With a cluster key a datagram's body is encrypted and its header bound to it (AES-256-GCM,
NIST SP 800-38D). Every process seals under a key of its own, derived from the cluster key and
the process's random boot number, with its datagram counter as the nonce: a nonce is never used
twice, without any state on disk. Without a key a checksum guards against damage only.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from collections import OrderedDict
from hashlib import blake2b
from pathlib import Path
from typing import Protocol
from zlib import crc32

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from distinv.errors import BadDatagram, ConfigError

KEY_BYTES = 32
FINGERPRINT_BYTES = 4
_SUBKEYS_KEPT = 4_096
"""As many as a process has peers (`Limits.peers_max`); a lost one is derived again in 3 µs."""
_CHECKSUM_BYTES = 4


class Seal(Protocol):
    """What guards a datagram. `boot` and `counter` are those of the sender's header."""

    @property
    def fingerprint(self) -> bytes:
        """Four bytes in clear in every header, so that another key can be named."""
        ...

    @property
    def overhead_bytes(self) -> int:
        """How much longer a sealed body is."""
        ...

    def seal(self, boot: int, counter: int, header: bytes, body: bytes) -> bytes:
        """The sealed body. A pair (boot, counter) must never be used for a second body."""
        ...

    def open_untrusted(self, boot: int, counter: int, header: bytes, sealed: bytes) -> bytes:
        """The body, when it and the header are what the sender sealed. Raises BadDatagram."""
        ...


class PlainSeal:
    """No key: a CRC-32 of header and body. Damage is noticed, forgery is not."""

    fingerprint = bytes(FINGERPRINT_BYTES)
    overhead_bytes = _CHECKSUM_BYTES

    def seal(self, boot: int, counter: int, header: bytes, body: bytes) -> bytes:
        return body + crc32(body, crc32(header)).to_bytes(_CHECKSUM_BYTES, "big")

    def open_untrusted(self, boot: int, counter: int, header: bytes, sealed: bytes) -> bytes:
        body, checksum = sealed[:-_CHECKSUM_BYTES], sealed[-_CHECKSUM_BYTES:]
        if checksum != crc32(body, crc32(header)).to_bytes(_CHECKSUM_BYTES, "big"):
            raise BadDatagram("checksum")
        return body


class KeySeal:
    """The cluster key. Raises ConfigError when it has not 32 bytes."""

    overhead_bytes = 16

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ConfigError(f"a cluster key has {KEY_BYTES} bytes, not {len(key)}")
        self._key = key
        self._subkeys: OrderedDict[int, AESGCM] = OrderedDict()
        digest = _derive(key, b"distinv print", b"", FINGERPRINT_BYTES)
        # All zeros says "no key".
        self.fingerprint = digest if any(digest) else b"\0\0\0\1"

    def seal(self, boot: int, counter: int, header: bytes, body: bytes) -> bytes:
        return self._remember(boot).encrypt(_nonce(counter), body, header)

    def open_untrusted(self, boot: int, counter: int, header: bytes, sealed: bytes) -> bytes:
        cipher = self._subkeys.get(boot) or self._subkey(boot)
        try:
            body = cipher.decrypt(_nonce(counter), sealed, header)
        except (InvalidTag, ValueError):
            raise BadDatagram("seal") from None
        # Only now: forged boots must not push real ones out.
        self._remember(boot, cipher)
        return body

    def _remember(self, boot: int, cipher: AESGCM | None = None) -> AESGCM:
        known = self._subkeys.get(boot)
        if known is not None:
            self._subkeys.move_to_end(boot)
            return known
        if len(self._subkeys) >= _SUBKEYS_KEPT:
            self._subkeys.popitem(last=False)
        self._subkeys[boot] = cipher = cipher or self._subkey(boot)
        return cipher

    def _subkey(self, boot: int) -> AESGCM:
        return AESGCM(_derive(self._key, b"distinv boot", boot.to_bytes(8, "big"), KEY_BYTES))


def _derive(key: bytes, purpose: bytes, data: bytes, size: int) -> bytes:
    """Keyed BLAKE2b (RFC 7693), personalised so that no two purposes share an output."""
    return blake2b(data, key=key, person=purpose, digest_size=size).digest()


def _nonce(counter: int) -> bytes:
    return counter.to_bytes(12, "big")


class ReplayWindow:
    """Which counters of one sender were seen: the last `width`, as the bits of one integer.

    The anti-replay window of IPsec (RFC 4303, section 3.4.3). Everything at or below `floor`
    counts as seen.
    """

    __slots__ = ("_floor", "_mask", "_seen", "_width", "highest")

    def __init__(self, width: int, floor: int = 0) -> None:
        self._width = width
        self._mask = (1 << width) - 1
        self._floor = floor
        self._seen = 0
        """Bit i stands for `highest` - i."""
        self.highest = floor

    def accept(self, counter: int) -> bool:
        """Whether `counter` is seen for the first time; from now on it is seen."""
        ahead = counter - self.highest
        if ahead > 0:
            # A jump may be any 64-bit number: never shift by more than the window.
            self._seen = ((self._seen << ahead) | 1) & self._mask if ahead < self._width else 1
            self.highest = counter
            return True
        if counter <= self._floor or -ahead >= self._width:
            return False
        bit = 1 << -ahead
        if self._seen & bit:
            return False
        self._seen |= bit
        return True


def new_key() -> bytes:
    """A random cluster key."""
    return secrets.token_bytes(KEY_BYTES)


def load_key(value: bytes | str | os.PathLike[str] | None) -> bytes | None:
    """The cluster key that a user gave: its 32 bytes, or the path of a file that holds it.

    The file holds 32 raw bytes, 64 hex digits, or base64. Raises ConfigError.
    """
    if value is None:
        return None
    if isinstance(value, bytes):
        if len(value) != KEY_BYTES:
            raise ConfigError(f"a cluster key has {KEY_BYTES} bytes, not {len(value)}")
        return value
    path = Path(value)
    try:
        with path.open("rb") as file:
            content = file.read(4 * KEY_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot read the cluster key file {path}: {error.strerror}") from None
    key = _decode_key(content)
    if key is None:
        raise ConfigError(
            f"the cluster key file {path} holds neither 32 bytes, nor 64 hex digits, nor base64"
        )
    return key


def _decode_key(content: bytes) -> bytes | None:
    if len(content) == KEY_BYTES:
        return content
    text = content.strip()
    for decode in (bytes.fromhex, _from_base64):
        try:
            key = decode(text.decode("ascii"))
        except (ValueError, binascii.Error):
            continue
        if len(key) == KEY_BYTES:
            return key
    return None


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


__all__ = ["KeySeal", "PlainSeal", "ReplayWindow", "Seal", "load_key", "new_key"]
