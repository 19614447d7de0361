"""The built-in multicast "fanout": over the reliable FIFO link, once to each peer.

The link already gives what a multicast promises (FIFO per sender, gap-free or stalled), so
there is nothing to remember here and nothing to wait for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from distinv.entry import NodeId
from distinv.multicast.api import Deliver, MulticastAction, MulticastContext, Unicast


class Fanout:
    def on_send(self, peers: Sequence[NodeId], body: bytes, now: int) -> Iterable[MulticastAction]:
        return [Unicast(peer, body) for peer in peers]

    def on_message(self, source: NodeId, body: bytes, now: int) -> Iterable[MulticastAction]:
        return (Deliver(source, body),)

    def on_peer_lost(self, peer: NodeId, now: int) -> Iterable[MulticastAction]:
        return ()

    def on_deadline(self, now: int) -> Iterable[MulticastAction]:
        return ()

    def deadline(self) -> int | None:
        return None


def fanout(context: MulticastContext) -> Fanout:
    """The factory that is registered under the name "fanout"."""
    return Fanout()
