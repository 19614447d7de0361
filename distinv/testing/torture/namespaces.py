"""Each server a host of its own: network namespaces behind a bridge, on one machine.

A server's namespace has one interface with one address of a private network; the other end of
that cable is a port of a bridge, in a namespace of its own, as is the clients' end. So servers
find each other by real broadcast, and what is cut is what a network cuts:

partition    the ports of one side are moved to a second bridge: nothing crosses
isolation    the cable is unplugged at the bridge, or the interface is set down in the host
"mute"       the bridge drops all that comes from the host, broadcasts included
"deaf"       the bridge sends nothing to the host, broadcasts included
"pair"       a blackhole route: what the host sends to one other vanishes, but for broadcasts
clients      the same route at the clients
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from distinv.testing.processes import Place
from distinv.testing.torture.privileges import (
    NotPermitted,
    name_of,
    remove_leftovers,
    require_root,
    run_command,
)

_NETWORK = "10.213.37"
_CLIENTS = 250
"""The last part of the clients' address; servers are 1, 2, …"""
_NEW_NETWORK = 0x40000000
"""CLONE_NEWNET of sched.h."""


class Namespaces:
    """The hosts and their network, which is also a `Wires`. A context manager."""

    def __init__(self, servers: int) -> None:
        """Raises NotPermitted, with the reason, when this machine or user cannot make them."""
        require_root("ip")
        require_root("bridge")
        remove_leftovers()
        self._switch = name_of("b")
        self._hosts = [name_of(f"s{number}") for number in range(1, servers + 1)]
        self._clients = name_of("c")
        self._made: list[str] = []
        self._healing: list[tuple[str, ...]] = []
        """The commands that undo what is broken now, last ones first."""
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Namespaces:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything. Processes in it keep running, without a network."""
        while self._made:
            try:
                run_command("ip", "netns", "del", self._made.pop())
            except NotPermitted:
                pass  # it is gone already

    @property
    def places(self) -> list[Place]:
        """Where the servers run."""
        return [Place(prefix=("ip", "netns", "exec", host)) for host in self._hosts]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and the threads and processes that it starts, are on the clients' host."""
        with open("/proc/thread-self/ns/net", "rb") as home:
            with Path("/run/netns", self._clients).open("rb") as clients:
                _enter(clients.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    # --- the network ----------------------------------------------------------------------------

    def _make(self) -> None:
        self._add(self._switch)
        for bridge in ("br0", "br1"):
            self._on_switch("link", "add", bridge, "type", "bridge")
            self._on_switch("link", "set", bridge, "up")
        for number, host in enumerate(self._hosts, 1):
            self._plug(host, number)
        self._plug(self._clients, _CLIENTS)

    def _add(self, namespace: str) -> None:
        run_command("ip", "netns", "add", namespace)
        self._made.append(namespace)
        run_command("ip", "-n", namespace, "link", "set", "lo", "up")

    def _plug(self, host: str, number: int) -> None:
        """A host with one cable to the switch."""
        self._add(host)
        port = f"p{number}"
        run_command(
            *("ip", "link", "add", "eth0", "address", _hardware(number), "netns", host),
            *("type", "veth", "peer", "name", port, "netns", self._switch),
        )
        self._on_switch("link", "set", port, "master", "br0", "up")
        run_command(
            *("ip", "-n", host, "addr", "add", f"{_NETWORK}.{number}/24"),
            *("broadcast", "+", "dev", "eth0"),
        )
        run_command("ip", "-n", host, "link", "set", "eth0", "up")

    def _on_switch(self, *command: str) -> None:
        run_command("ip", "-n", self._switch, *command)

    def _do(self, command: tuple[str, ...], undo: tuple[str, ...]) -> None:
        run_command(*command)
        self._healing.append(undo)

    # --- what breaks ----------------------------------------------------------------------------

    def partition(self, side: Sequence[int]) -> None:
        for server in side:
            move = ("ip", "-n", self._switch, "link", "set", f"p{server + 1}", "master")
            self._do((*move, "br1"), (*move, "br0"))

    def isolate(self, server: int) -> None:
        """Unplug its cable at the switch; of every second server set the interface down."""
        host, port = self._hosts[server], f"p{server + 1}"
        at = (host, "eth0") if server % 2 else (self._switch, port)
        link = ("ip", "-n", at[0], "link", "set", at[1])
        self._do((*link, "down"), (*link, "up"))

    def cut_one_way(self, server: int, way: str, other: int) -> None:
        if way == "pair":
            self._blackhole(self._hosts[server], other)
            return
        port = ("bridge", "-n", self._switch, "link", "set", "dev", f"p{server + 1}")
        if way == "mute":
            # A locked port takes only frames from addresses that the bridge knows.
            self._do(
                (*port, "learning", "off", "locked", "on"),
                (*port, "learning", "on", "locked", "off"),
            )
        else:
            floods = ("learning", "flood", "bcast_flood", "mcast_flood")
            self._do(
                (*port, *(word for name in floods for word in (name, "off"))),
                (*port, *(word for name in floods for word in (name, "on"))),
            )
        self._forget(server)

    def cut_clients(self, servers: Sequence[int]) -> None:
        for server in servers:
            self._blackhole(self._clients, server)

    def lose(self, loss: float) -> None:
        """Real links lose nothing by themselves; the plan of a campaign leaves it out."""

    def heal(self) -> None:
        while self._healing:
            run_command(*self._healing.pop())

    def _blackhole(self, host: str, server: int) -> None:
        target = f"{_NETWORK}.{server + 1}/32"
        route = ("ip", "-n", host, "route")
        self._do((*route, "add", "blackhole", target), (*route, "del", "blackhole", target))

    def _forget(self, server: int) -> None:
        """The bridge forgets where the host is; it may not have known."""
        entry = ("fdb", "del", _hardware(server + 1), "dev", f"p{server + 1}", "master")
        try:
            run_command("bridge", "-n", self._switch, *entry)
        except NotPermitted:
            pass


def _hardware(number: int) -> str:
    return f"02:00:00:00:00:{number:02x}"


def _enter(namespace: int) -> None:
    if hasattr(os, "setns"):  # from Python 3.12 on
        os.setns(namespace, _NEW_NETWORK)
        return
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(namespace, _NEW_NETWORK) != 0:
        number = ctypes.get_errno()
        raise NotPermitted(f"setns: {os.strerror(number)}")
