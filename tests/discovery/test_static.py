"""Given servers are the targets; names are looked up once."""

from __future__ import annotations

import anyio
import pytest

from distinv.config import Network
from distinv.discovery.api import DiscoveryContext
from distinv.discovery.static import open_static
from distinv.errors import ConfigError
from distinv.transport.api import Address

pytestmark = pytest.mark.anyio


def context(*servers: Address) -> DiscoveryContext:
    return DiscoveryContext(Network(), servers, loopback_only=True, server=True)


async def test_targets_are_the_servers_in_order_without_repetition() -> None:
    servers = (("10.0.0.5", 4747), ("10.0.0.4", 4747), ("10.0.0.5", 4747), ("10.0.0.5", 4748))
    discovery = await open_static(context(*servers))
    assert discovery.targets() == (("10.0.0.5", 4747), ("10.0.0.4", 4747), ("10.0.0.5", 4748))


async def test_names_are_looked_up() -> None:
    discovery = await open_static(context(("localhost", 4747)))
    assert ("127.0.0.1", 4747) in discovery.targets()


@pytest.mark.parametrize(
    ("server", "says"),
    [
        (("not..a.name", 4747), "cannot find an IPv4 address of 'not..a.name'"),
        (("::1", 4747), "cannot find an IPv4 address"),
        (("10.0.0.1", 65_536), "a port is at most 65535"),
        (("10.0.0.1", -1), "a port is at most 65535"),
        (("10.0.0.1", 0), "needs a port"),
    ],
)
async def test_what_cannot_be_reached_by_anybody_is_an_error(server: Address, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        await open_static(context(server))
    assert "\n" not in str(raised.value)


async def test_no_servers_is_an_error() -> None:
    with pytest.raises(ConfigError, match="needs servers"):
        await open_static(context())


async def test_there_is_nothing_to_hear() -> None:
    discovery = await open_static(context(("10.0.0.5", 4747)))
    with anyio.fail_after(5):
        await discovery.listen(lambda datagram: pytest.fail("it heard something"))
        await discovery.aclose()
