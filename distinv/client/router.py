"""Finding the servers, choosing the one to talk to, and leaving it when it does not answer.

The server talked to is the *home*: the leader when it is known and answers, else any server
that does. A home is left at once when it is gone or silent, and when another turns out to lead;
nothing is sent to a server that has not shown that it lives since the home was lost, so a call
does not waste its attempts on the dead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from distinv.client.approach import Approach
from distinv.client.backoff import Backoff
from distinv.client.refusals import Refusals
from distinv.client.servers import Server, ServerTable
from distinv.client.silence import Silence
from distinv.client.work import Work
from distinv.config import Limits, Timing
from distinv.entry import Ballot, NodeId
from distinv.errors import DistinvError
from distinv.transport.api import Address
from distinv.wire.codec import encode
from distinv.wire.endpoint import Endpoint, Incoming, LinkReset, Notice, PeerSeen
from distinv.wire.messages import Beacon, ClusterDissolved, Ping, Pong, Seek, Servers

LEADERLESS = frozenset({"no_leader", "no_quorum", "not_leader"})
"""Reasons by which a server says that it cannot serve because it follows no leader."""


class Router:
    """See the module."""

    def __init__(
        self,
        *,
        cluster_name: str,
        endpoint: Endpoint,
        timing: Timing,
        limits: Limits,
        random: Random,
        targets: Callable[[], Sequence[Address]],
        work: Work,
    ) -> None:
        self.table = ServerTable(limits.servers_max)
        self.home: NodeId | None = None
        self._cluster_name = cluster_name
        self._endpoint = endpoint
        self._timing = timing
        self._limits = limits
        self._random = random
        self._targets = targets
        self._work = work
        self._seek = encode(Seek(cluster_name))
        self._refusals = Refusals(cluster_name)
        self._leaderless = False
        """The home follows no leader, so it serves nothing."""
        self._avoid: NodeId | None = None
        """The home that was left last: anybody else is better."""
        self._lost_at = 0
        """Since when there is no home: only who was heard after that is alive."""
        self._settle_at: int | None = None
        """When to be content with the best of those heard."""
        self._approach = Approach(timing.client_ping_us, timing.client_named_us)
        self._search_backoff = Backoff(random, timing.client_ping_us, timing.beacon_us)
        self._search_at = 0
        self._searched_at: int | None = None
        self._silence = Silence(timing)
        self._wanted_since: int | None = None
        self._pings = 0
        self._probes: list[Address] = []

    @property
    def ready(self) -> bool:
        """There is a home to send to, and no better one about to answer."""
        return self.home is not None and self._approach.waits_until is None

    def unavailable(self, reason: str) -> DistinvError:
        """Why a call that nobody took in cannot be served now."""
        return self._refusals.unavailable(reason, connected=self.home is not None)

    def probes(self) -> list[Address]:
        """Where to ask the kernel whether anybody listens; the answer is `on_refused`."""
        asked, self._probes = self._probes, []
        return asked

    # --- what is heard ------------------------------------------------------------------------

    def on_beacon(self, incoming: Incoming, beacon: Beacon, now: int) -> None:
        if beacon.cluster_name != self._cluster_name:
            return
        if not self._admit_cluster(incoming, beacon, now):
            return
        server = self.table.heard(incoming.peer, incoming.address, beacon.server_name, now)
        server.follows = beacon.leader
        server.role = beacon.role or server.role
        server.is_alone_for(beacon.no_quorum_us, now)
        self.table.at_commit(server, beacon.commit)
        if self._endpoint.connected(incoming.peer) and self._has_moved(server, now):
            self._endpoint.forget(incoming.peer)
        if not self._endpoint.connected(incoming.peer):
            self._endpoint.connect(incoming.peer, incoming.address, now)
        if beacon.leader:
            self._learn_leader(beacon.leader, beacon.leader_address, beacon.ballot, now)
        if incoming.fresh:
            self.heard(server, now)

    def _has_moved(self, server: Server, now: int) -> bool:
        """It is announced from one address, and from the one that its link uses nothing comes."""
        if self.home is not None or now - self._lost_at < self._timing.client_ping_us:
            return False
        at = self._endpoint.address_of(server.node)
        return at != server.heard_from and not server.heard_since(self._lost_at)

    def _admit_cluster(self, incoming: Incoming, beacon: Beacon, now: int) -> bool:
        """Whether the server belongs to the cluster this client has joined, or may join now.

        A client holds to the first cluster of the name that it finds: a session is worth nothing
        in another. While it has none, a cluster of which nothing is left is given up.
        """
        endpoint = self._endpoint
        if beacon.cluster_id and endpoint.cluster_id == 0:
            endpoint.cluster_id = beacon.cluster_id
            self._lost_at = now
        if not incoming.foreign and beacon.cluster_id in (0, endpoint.cluster_id):
            return True
        self._refusals.foreign(incoming.address, beacon.cluster_id)
        if self.home is not None or self._work.bound or not self._nobody_answers(now):
            return False
        endpoint.cluster_id = beacon.cluster_id
        self._forget_cluster(now)
        return True

    def on_dissolved(self, message: ClusterDissolved, now: int) -> None:
        """The cluster is no more. Nothing of this client's is in it, or it would still be."""
        named = message.cluster_name == self._cluster_name
        if not named or message.cluster_id != self._endpoint.cluster_id:
            return
        if message.cluster_id and self.home is None and not self._work.bound:
            self._endpoint.cluster_id = 0
            self._forget_cluster(now)

    def _nobody_answers(self, now: int) -> bool:
        since = now - self._timing.suspect_ceiling_us
        if self._lost_at > since:
            return False
        return not any(server.heard_since(since) for server in self.table.everything())

    def _forget_cluster(self, now: int) -> None:
        for server in self.table.everything():
            self._endpoint.forget(server.node)
        self.table = ServerTable(self._limits.servers_max)
        self._avoid = None
        self._lost_at = now

    def heard(self, server: Server, now: int) -> None:
        """A fresh message: the server lives."""
        server.heard_at = now
        if self.home is None:
            self._refusals.clear()
            self._consider(server, now)
        elif server.node == self.table.leader and self._approach.under_way:
            self._attach(server, now, resume=self._approach.is_news)

    def on_pong(self, server: Server, message: Pong, now: int) -> None:
        server.follows = message.leader
        server.is_alone_for(message.no_quorum_us, now)
        if server.node == self.home:
            if message.leader == 0:
                self._become_leaderless(now)
                return
            self.served(now)  # but what it refused it may refuse again: no hurry
        if message.leader == 0 or not (
            server.node == self.home or self.home is None or self._leaderless
        ):
            return
        self._learn_leader(message.leader, message.leader_address, None, now)
        if self._leaderless and self.ready and message.leader != self.home:
            self._attach(server, now)  # it follows another than the one who serves nothing

    def on_servers(self, server: Server, message: Servers, now: int) -> None:
        if not message.leader:
            self._on_leaderless_list(server, message, now)
            return
        if message.ballot < self.table.ballot:
            return
        if self._knows_best(server, message):
            self.table.replace(message.servers, (server.node, self.home), now)
        server.follows = message.leader
        self._learn_leader(message.leader, None, message.ballot, now)
        if server.node == self.home:
            self.served(now)
            self._work.resume()

    def _knows_best(self, server: Server, message: Servers) -> bool:
        """Its list counts for more than the present one. A follower that cannot hear the leader
        and has not noticed has an old one of the same ballot."""
        served = self.home is not None and not self._leaderless
        heads = server.node in (self.home, message.leader)
        return heads or not served or message.ballot > self.table.ballot

    def _on_leaderless_list(self, server: Server, message: Servers, now: int) -> None:
        """It has lost its leader, however old that one was; others may have another, and know
        better than it who is there."""
        server.follows = 0
        if server.node != self.home:
            return
        if message.ballot >= self.table.ballot:
            self.table.replace(message.servers, (server.node, self.home), now)
        self._become_leaderless(now)

    def on_not_taken(
        self, server: Server, reason: str, leader: int, address: Address | None, now: int
    ) -> None:
        """The home cannot serve; perhaps it says who can."""
        if server.node != self.home or reason not in LEADERLESS:
            return
        if not leader or leader == server.node:
            self._become_leaderless(now)
            return
        if not self._learn_leader(leader, address, None, now) and reason == "not_leader":
            self.move_to_leader(now)
        if reason == "not_leader" and self.home == server.node and self._approach.ask_at is None:
            self._approach.ask_on(now)

    def served(self, now: int) -> None:
        """The home serves, so it has a leader."""
        if self._leaderless:
            self._leaderless = False
            self._rest(now)

    def on_link_reset(self, event: LinkReset, now: int) -> None:
        if event.peer == self.home:
            self._work.rewind(now, pause=True)

    def on_peer_seen(self, event: PeerSeen, now: int) -> None:
        server = self.table.get(event.peer)
        if server is not None:
            server.heard_from = event.address
            self.heard(server, now)
            if self._leaderless:
                self.touch(server.node, now)  # perhaps it has a leader

    def on_notice(self, event: Notice, now: int) -> None:
        self._refusals.note(event, now)

    def on_refused(self, address: Address, now: int) -> None:
        """The kernel says that nobody listens there."""
        home = self.table.get(self.home) if self.home is not None else None
        if home is not None and address == self._home_address(home):
            self._leave(now, silent=False)

    # --- choosing -----------------------------------------------------------------------------

    def _consider(self, server: Server, now: int) -> None:
        """Without a home: take the leader, wait a moment for it, or take who answers."""
        leader = self.table.leader if self.table.leader != self._avoid else None
        good = server.node != self._avoid and server.follows != 0
        if server.node == leader or (leader is None and good) or len(self.table) == 1:
            self._attach(server, now)
        elif self._settle_at is None:
            self._settle_at = now + self._timing.client_ping_us

    def _attach(self, server: Server, now: int, *, resume: bool = True) -> None:
        """`resume`: it may well take what was refused so far, so that is sent at once."""
        if self.home is not None and self.home != server.node:
            self._endpoint.reset(self.home, now)
        self.home = server.node
        if server.node == self.table.leader:
            self._approach.is_news = False
        self._avoid = None
        self._settle_at = None
        self._approach.stop()
        self._leaderless = False
        self._silence.end()
        self._rest(now)
        if server.follows == 0:
            self._become_leaderless(now)
        self._work.rewind(now)
        if resume:
            self._work.resume()

    def _leave(self, now: int, *, silent: bool) -> None:
        if self.home is None:
            return
        self._endpoint.reset(self.home, now)
        self._avoid = self.home
        self.home = None
        self._lost_at = now
        self._approach.stop()
        self._leaderless = False
        self._silence.end()
        self._search_soon(now)
        if silent:
            self._work.silent(now)
        else:
            self._work.rewind(now)

    def leave_impatient(self, now: int, *, silent: bool) -> None:
        """The home lives and does not do its work: try another. `silent`: that was an attempt."""
        self._leave(now, silent=silent)

    def _learn_leader(
        self, leader: int, address: Address | None, ballot: Ballot | None, now: int
    ) -> bool:
        """True when that was another than before, which has then been acted upon."""
        node = NodeId(leader)
        if address is not None:
            self.table.told(node, address)
        previous = self.table.leader
        if not self.table.learn_leader(node, ballot):
            return False
        news = self._approach.named(now, certain=ballot is not None)
        if news:
            self._work.resume()
        if self.home is None:
            self._approach.ask_soon(now)
        elif self.home != node:
            self.move_to_leader(now, news=news, resend=previous is not None)
        elif previous is not None:
            self.served(now)
            self._work.rewind(now)
        return True

    def move_to_leader(self, now: int, *, news: bool = False, resend: bool = False) -> None:
        """Ask the leader for a sign of life; when it comes, it is the new home.

        `news`: begin anew if that goes on. `resend`: when the leader does not answer, what the
        home took in is sent again.
        """
        leader = self.table.leader
        waits = self._approach.waits_until is not None
        if leader is None or leader == self.home or (waits and not news):
            return
        self._approach.wait(now, resend=resend)
        self._approach.ask_soon(now)

    def _ask_named(self, now: int) -> None:
        leader = self.table.leader
        if self._approach.asks(now) and leader is not None and leader != self.home:
            self.touch(leader, now)

    def _ask_leader(self, now: int) -> None:
        leader = self.table.leader
        if leader is None or leader == self.home or self.home is None or not self._work.wanted:
            self._approach.ask_at = None
            return
        self._approach.ask_on(now)
        self.touch(leader, now)

    def _become_leaderless(self, now: int) -> None:
        if not self._leaderless:
            self._leaderless = True
            self._search_soon(now)

    # --- searching ----------------------------------------------------------------------------

    def wake(self, now: int) -> None:
        """Somebody wants something: search at once, if that was not done just now."""
        if self.home is None and self._searched_at is not None:
            self._search_at = min(self._search_at, self._searched_at + self._timing.client_ping_us)

    def _search_soon(self, now: int) -> None:
        self._search_backoff.reset()
        self._search_at = now
        if self._searched_at is not None:
            self._search_at = max(now, self._searched_at + self._timing.client_ping_us // 2)
        self._settle_at = None

    def _rest(self, now: int) -> None:
        """All is well: look for other servers rarely."""
        self._search_backoff.reset()
        quiet = self._timing.link_idle_us
        self._search_at = now + quiet + self._random.randrange(quiet)

    def _search(self, now: int) -> None:
        for address in self._targets()[: 4 * self._limits.servers_max]:
            self._endpoint.send_to(address, self._seek, now)
        self._searched_at = now
        if self.home is not None and not self._leaderless:
            self._rest(now)
            return
        for server in self.table.everything():
            self.touch(server.node, now)
        pause = self._search_backoff.interval_us()
        if self._work.wanted:
            pause = min(pause, self._timing.client_backoff_ceiling_us)
        self._search_at = now + pause

    def touch(self, node: NodeId, now: int) -> None:
        """Ask a server for a sign of life, also where others say that it lives by now."""
        endpoint, server = self._endpoint, self.table.get(node)
        connected = endpoint.connected(node)
        if server is not None and server.told is not None:
            asked = endpoint.address_of(node) if connected else server.address
            if server.told != asked and now >= server.seek_after:
                server.seek_after = now + self._timing.client_ping_us // 2
                endpoint.send_to(server.told, self._seek, now)
        if connected:
            self._pings += 1
            endpoint.send_now(node, encode(Ping(self._pings)), now)
        elif server is not None and server.address is not None:
            endpoint.connect(node, server.address, now)

    # --- health -------------------------------------------------------------------------------

    def update(self, now: int) -> None:
        """Note since when an answer is owed and wanted. Call at the end of a turn."""
        self._ask_named(now)
        if self.home is None or not (self._work.owed or self._leaderless):
            self._silence.end()
        else:
            self._silence.owe(now)
        if not self._work.wanted:
            self._wanted_since = None
        elif self._wanted_since is None:
            self._wanted_since = now

    def connect_home(self, now: int) -> None:
        """A link that was idle has been forgotten: get in touch again before sending."""
        if self.home is not None and not self._endpoint.connected(self.home):
            self.touch(self.home, now)

    def forgive(self, now: int) -> None:
        """This process itself stood still."""
        self._silence.forgive(now)

    def _quiet_since(self) -> int | None:
        """Since when the home has owed an answer and said nothing."""
        if self.home is None:
            return None
        home = self.table.get(self.home)
        return self._silence.since(home.heard_at if home is not None else None)

    def _watch_home(self, now: int) -> None:
        quiet_since = self._quiet_since()
        if quiet_since is None or self.home is None:
            return
        if self._silence.probes(quiet_since, now):
            home = self.table.get(self.home)
            if home is not None and (address := self._home_address(home)) is not None:
                self._probes.append(address)
        if self._silence.is_too_long(quiet_since, now):
            self._leave(now, silent=True)
        elif self._silence.pings(quiet_since, now):
            self.touch(self.home, now)

    def _home_address(self, home: Server) -> Address | None:
        return self._endpoint.address_of(home.node) or home.address

    # --- time ---------------------------------------------------------------------------------

    def on_deadline(self, now: int) -> None:
        self._watch_home(now)
        if self._approach.gives_up(now):
            self._work.rewind(now)
        if self._approach.ask_at is not None and now >= self._approach.ask_at:
            self._ask_leader(now)
        if self._settle_at is not None and now >= self._settle_at:
            self._settle_at = None
            best = self.table.best_alive(self._lost_at, self._avoid)
            if self.home is None and best is not None:
                self._attach(best, now)
        if now >= self._search_at:
            self._search(now)
        denied_at = self._denied_at()
        if denied_at is not None and now >= denied_at:
            self._work.deny(now)

    def _denied_at(self) -> int | None:
        since = self._refusals.denied_since
        if self.home is not None or since is None or self._wanted_since is None:
            return None
        return max(since, self._wanted_since) + self._timing.client_denied_us

    def deadline(self) -> int:
        """When to call `on_deadline`; there is always something to look for."""
        first = self._search_at
        for time in (
            self._approach.waits_until,
            self._approach.ask_at,
            self._approach.question_at,
            self._settle_at,
            self._denied_at() if self.home is None else None,
            self._silence_at() if self._silence.owed_since is not None else None,
        ):
            if time is not None and time < first:
                first = time
        return first

    def _silence_at(self) -> int | None:
        quiet_since = self._quiet_since()
        return None if quiet_since is None else self._silence.due_at(quiet_since)
