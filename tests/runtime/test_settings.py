"""What a user gives, as text."""

from __future__ import annotations

import pytest

from distinv.config import Limits, Network
from distinv.errors import ConfigError
from distinv.runtime.settings import (
    parse_address,
    parse_addresses,
    random_id,
    randomness,
    text_name,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.5:4848", ("10.0.0.5", 4848)),
        ("shop.example", ("shop.example", 4747)),
        (":4848", ("127.0.0.1", 4848)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_an_address(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text, "127.0.0.1", 4747) == address


@pytest.mark.parametrize("text", ["a:b", "a:-1", "a:65536", "::1", "a:", "a:١"])
def test_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="give HOST:PORT"):
        parse_address(text, "127.0.0.1", 4747)


def test_addresses_are_text_or_pairs() -> None:
    network = Network()
    expected = (("10.0.0.5", 4848), ("10.0.0.6", 4747))
    assert parse_addresses(["10.0.0.5:4848", ("10.0.0.6", 4747)], network) == expected
    assert parse_addresses("10.0.0.5:4848, 10.0.0.6", network) == expected
    assert parse_addresses((), network) == ()


@pytest.mark.parametrize("name", ["", "a\tb", None, 7, "a" * 101])
def test_no_name(name: object) -> None:
    with pytest.raises(ConfigError, match="a server's name"):
        text_name("a server's name", name, Limits())


def test_chance_follows_the_seed_and_ids_do_not() -> None:
    assert randomness(7).random() == randomness(7).random()
    assert randomness(None).random() != randomness(None).random()
    ids = [random_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(0 < each < 1 << 63 for each in ids)
