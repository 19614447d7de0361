"""Sealing: what is opened is what was sealed, under the same key, once."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinv.errors import BadDatagram, ConfigError
from distinv.wire.seal import (
    _SUBKEYS_KEPT,
    KEY_BYTES,
    KeySeal,
    PlainSeal,
    ReplayWindow,
    Seal,
    load_key,
    new_key,
)

KEY = bytes(range(KEY_BYTES))
HEADER = b"header"
BODY = b"body"
SEALS: list[Seal] = [PlainSeal(), KeySeal(KEY)]
each_seal = pytest.mark.parametrize("seal", SEALS, ids=["plain", "key"])


@each_seal
def test_opens_what_it_sealed(seal: Seal) -> None:
    sealed = seal.seal(7, 1, HEADER, BODY)
    assert len(sealed) == len(BODY) + seal.overhead_bytes
    assert seal.open_untrusted(7, 1, HEADER, sealed) == BODY
    assert len(seal.fingerprint) == 4


@each_seal
def test_every_bit_counts(seal: Seal) -> None:
    sealed = seal.seal(7, 1, HEADER, BODY)
    for place in range(len(sealed) * 8):
        damaged = bytearray(sealed)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(BadDatagram):
            seal.open_untrusted(7, 1, HEADER, bytes(damaged))


@each_seal
def test_the_header_is_bound_in(seal: Seal) -> None:
    sealed = seal.seal(7, 1, HEADER, BODY)
    with pytest.raises(BadDatagram):
        seal.open_untrusted(7, 1, b"headex", sealed)


@each_seal
@pytest.mark.parametrize("length", range(20))
def test_too_short(seal: Seal, length: int) -> None:
    with pytest.raises(BadDatagram):
        seal.open_untrusted(7, 1, HEADER, bytes(length))


def test_a_key_binds_sender_and_counter() -> None:
    seal = KeySeal(KEY)
    sealed = seal.seal(7, 1, HEADER, BODY)
    for boot, counter in ((8, 1), (7, 2)):
        with pytest.raises(BadDatagram):
            seal.open_untrusted(boot, counter, HEADER, sealed)
    assert BODY not in sealed


def test_another_key() -> None:
    ours, theirs = KeySeal(KEY), KeySeal(bytes(KEY_BYTES))
    assert ours.fingerprint != theirs.fingerprint
    with pytest.raises(BadDatagram):
        theirs.open_untrusted(7, 1, HEADER, ours.seal(7, 1, HEADER, BODY))


def test_sealed_bytes_do_not_change_between_versions() -> None:
    assert KeySeal(KEY).seal(7, 1, HEADER, BODY).hex() == SEALED_ONCE
    assert KeySeal(KEY).fingerprint.hex() == FINGERPRINT_ONCE


SEALED_ONCE = "2a78a7d339827dd495148c7b81aab7ca9ecfd496"
FINGERPRINT_ONCE = "f9ca58c4"


def test_forged_boots_do_not_push_real_ones_out() -> None:
    seal = KeySeal(KEY)
    sealed = seal.seal(7, 1, HEADER, BODY)
    for boot in range(100, 200):
        with pytest.raises(BadDatagram):
            seal.open_untrusted(boot, 1, HEADER, sealed)
    assert list(seal._subkeys) == [7]


def test_keys_of_processes_are_bounded_and_one_long_unused_is_derived_again() -> None:
    seal = KeySeal(KEY)
    first, second = (seal.seal(boot, 1, HEADER, BODY) for boot in (1, 2))
    for boot in range(3, _SUBKEYS_KEPT + 1):
        seal.seal(boot, 1, HEADER, BODY)
    assert seal.open_untrusted(1, 1, HEADER, first) == BODY
    seal.seal(_SUBKEYS_KEPT + 1, 1, HEADER, BODY)
    assert len(seal._subkeys) == _SUBKEYS_KEPT
    assert 1 in seal._subkeys
    assert 2 not in seal._subkeys
    assert seal.open_untrusted(2, 1, HEADER, second) == BODY


# --- keys -------------------------------------------------------------------------------------


def test_new_keys_differ() -> None:
    assert len(new_key()) == KEY_BYTES
    assert new_key() != new_key()


@pytest.mark.parametrize(
    "content",
    [KEY, KEY.hex().encode(), KEY.hex().upper().encode() + b"\r\n", base64.b64encode(KEY) + b"\n"],
    ids=["raw", "hex", "hex line", "base64"],
)
def test_key_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    assert load_key(path) == load_key(str(path)) == KEY


def test_key_values() -> None:
    assert load_key(None) is None
    assert load_key(KEY) == KEY


@pytest.mark.parametrize("content", [b"", b"x" * 31, KEY.hex().encode()[:-2], b"\xff" * 40])
def test_bad_key_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="neither 32 bytes"):
        load_key(path)


def test_other_bad_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_key(tmp_path / "missing")
    with pytest.raises(ConfigError, match="not 5"):
        load_key(b"short")
    with pytest.raises(ConfigError, match="not 5"):
        KeySeal(b"short")


# --- the replay window ------------------------------------------------------------------------


@given(st.lists(st.integers(1, 60), max_size=80), st.integers(0, 20))
def test_replay_window_against_the_obvious(counters: list[int], floor: int) -> None:
    width = 16
    window = ReplayWindow(width, floor)
    seen: set[int] = set()
    highest = floor
    for counter in counters:
        expected = counter > floor and counter not in seen and counter > highest - width
        assert window.accept(counter) is expected
        if expected:
            seen.add(counter)
            highest = max(highest, counter)


def test_replay_window_is_bounded_for_any_jump() -> None:
    window = ReplayWindow(1_024)
    assert window.accept((1 << 64) - 1)
    assert not window.accept((1 << 64) - 1)
    assert window.accept((1 << 64) - 1_024)
    assert not window.accept((1 << 64) - 1_025)
    assert window._seen.bit_length() <= 1_024
