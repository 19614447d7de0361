"""Ports for servers that are started later."""

from __future__ import annotations

import socket
import subprocess
import sys
from random import Random

import pytest

from distinv.testing.ports import PORTS, ReservedPorts, free_port
from distinv.testing.processes import ServerProcesses
from distinv.testing.server_process import ServerFailed


def few_ports(count: int) -> range:
    first = Random().randrange(PORTS.start, PORTS.stop - count)
    return range(first, first + count)


def test_they_are_not_those_of_clients() -> None:
    assert all(12_000 <= free_port() < 32_000 for _ in range(10))


def test_no_port_is_given_twice_before_it_is_bound() -> None:
    """One birth in thousands failed: two of its servers, or of another beside it, had one port."""
    few = few_ports(40)
    one, other = ReservedPorts(few), ReservedPorts(few)
    taken = [ports.take() for _ in range(10) for ports in (one, other)]
    assert len(set(taken)) == 20
    one.release()
    other.release()
    assert set(few) >= {one.take() for _ in range(20)}
    one.release()


def test_nor_by_another_process() -> None:
    few = few_ports(40)
    code = (
        "from distinv.testing.ports import ReservedPorts\n"
        f"ports = ReservedPorts({few!r})\n"
        "print(*[ports.take() for _ in range(10)], flush=True)\n"
        "input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = {int(port) for port in other.stdout.readline().split()}
        ports = ReservedPorts(few)
        ours = {ports.take() for _ in range(10)}
        other.communicate("\n")
    ports.release()
    assert (len(theirs), len(ours), theirs & ours) == (10, 10, set())


def test_a_port_that_is_bound_is_not_free() -> None:
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", port))
        with pytest.raises(ServerFailed, match="no UDP port is free"):
            ReservedPorts([port]).take()
    ReservedPorts([port]).take()


def test_servers_that_are_never_started_keep_none() -> None:
    servers = ServerProcesses(3)
    port = servers.beacon_port
    with pytest.raises(ServerFailed, match="no UDP port is free"):
        ReservedPorts([port]).take()
    del servers
    assert ReservedPorts([port]).take() == port
