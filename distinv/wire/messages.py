"""Every message that crosses the network, one class each. Tags are append-only.

The groups, in the order of a cluster's life: finding each other, birth, election, leadership,
replication, reads, clients. *Ordered* messages travel on the reliable FIFO link; the others
bypass it, may be lost, and are small enough for one datagram.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from distinv.entry import Ballot, Entry, Position, SnapshotHead, VoterSet
from distinv.wire.frame import SPEAKS


class _Message(msgspec.Struct, frozen=True, array_like=True):
    pass


# --- finding each other (unordered) -----------------------------------------------------------


class Seek(_Message, frozen=True, tag=1):
    """Who serves this cluster? Sent by clients; every server of that name answers by a beacon."""

    cluster_name: str


class Beacon(_Message, frozen=True, tag=2):
    """A server makes itself known: periodically, at once on a change, and to whoever seeks."""

    cluster_name: str
    cluster_id: int
    """0 while blank."""
    server_name: str
    leader: int
    """The leader it follows, 0 for none."""
    leader_address: tuple[str, int] | None
    ballot: Ballot
    log_index: int
    expect: int
    """How many servers a blank one waits for, 0 for "as many as are found"."""
    blank_peers: tuple[int, ...]
    """What a blank server has seen of others like it."""
    oldest_protocol: int = SPEAKS[0]
    newest_protocol: int = SPEAKS[1]
    """What it speaks: see `distinv.wire.frame.SPEAKS`."""
    role: str = ""
    """leader, follower, learner, candidate, blank"""
    commit: int = 0
    """How far it knows the log to be committed."""
    no_quorum_us: int = 0
    """For how long it has known of no leader; 0 when it has one. A time that has passed, as
    clocks differ."""


class Claim(_Message, frozen=True, tag=3):
    """I run under the id `node`; does anybody else? `Claimed` comes from who does."""

    node: int
    nonce: int
    """Random, echoed: what answers it is no recording."""
    boot: int
    """The run of the asker."""


class Claimed(_Message, frozen=True, tag=4):
    """I do, too. See `distinv.server.twins` for which of the two stops."""

    node: int
    nonce: int
    boot: int
    """The run of who answers."""
    up_us: int
    """For how long it has taken part; 0 while it still asks whether it may."""


# --- two clusters of one name (unordered, see `distinv.server.dissolving`) --------------------


class Encounter(_Message, frozen=True, tag=7):
    """You belong to another cluster of this name. Do you live, and what are you?"""

    cluster_name: str
    nonce: int
    """Random, echoed: what answers it is no recording."""


class Encountered(_Message, frozen=True, tag=71):
    """What a server whose cluster has a leader answers."""

    nonce: int
    cluster_id: int
    server_name: str
    touched: bool
    """Its log may hold client commands."""


class ClusterDissolved(_Message, frozen=True, tag=9):
    """That cluster is no more: its last entry, which is committed, says so. True for ever."""

    cluster_name: str
    cluster_id: int
    successor: int
    """The cluster of that name which goes on instead; 0: not known."""


# --- birth (ordered) --------------------------------------------------------------------------


class BirthOffer(_Message, frozen=True, tag=5):
    """Here is the cluster's first entry; accept it, or refuse it for ever."""

    proposal: VoterSet


class BirthAnswer(_Message, frozen=True, tag=6):
    """Durable: accepted, or refused for ever."""

    cluster_id: int
    accepted: bool
    rival: VoterSet | None
    """What a refuser has accepted instead."""


class Join(_Message, frozen=True, tag=8):
    """Unordered. I belong to your cluster and am no voter: send me the log."""

    server_name: str


# --- election (unordered) ---------------------------------------------------------------------


class ElectionMessage(_Message, frozen=True, tag=10):
    """An election plugin's own message; the core only looks at the label."""

    label: str
    body: bytes


class NominateHint(_Message, frozen=True, tag=11):
    """The sender's election nominates the receiver."""

    label: str


class PreVote(_Message, frozen=True, tag=12):
    """Would you hear me as a candidate? Moves no ballot."""

    number: int
    """Echoed in the reply; counts one candidate's questions."""
    ballot: Ballot
    """What the candidate would prepare."""
    voters_index: int
    """Where the last voter set stands in its log: who is not in ours may know a later one."""


class PreVoteReply(_Message, frozen=True, tag=13):
    number: int
    granted: bool
    promised: Ballot
    leader: int
    """The leader the refuser hears, 0 for none."""


class Prepare(_Message, frozen=True, tag=14):
    """Promise me to take part in no lower ballot, and tell me what you have."""

    ballot: Ballot
    ordered_by: Ballot
    """The leadership that ordered this hand-over, or `NO_BALLOT`: then stickiness holds."""
    voters_index: int
    """As in `PreVote`."""


class VotersInPlay(msgspec.Struct, frozen=True, array_like=True):
    """One voter set of a log and where it stands."""

    index: int
    ballot: Ballot
    voters: tuple[int, ...]
    committed: bool


class Promise(_Message, frozen=True, tag=15):
    """Sent only when it is durable (invariant 2)."""

    ballot: Ballot
    last: Position
    commit: int
    clock_us: int
    voters: tuple[VotersInPlay, ...]


class PrepareRefused(_Message, frozen=True, tag=16):
    ballot: Ballot
    promised: Ballot
    leader: int


class TransferOrder(_Message, frozen=True, tag=17):
    """The leader of `ballot` orders the receiver to take over at once."""

    ballot: Ballot


class Pull(_Message, frozen=True, tag=18):
    """Send me the entries after `after`, up to and including (`until_ballot`, `until_index`)."""

    ballot: Ballot
    """The candidate's; echoed."""
    after: Position
    until_index: int
    until_ballot: Ballot


class PullReply(_Message, frozen=True, tag=19):
    """Ordered. Entries that follow `after`, or none when the sender does not hold that log."""

    ballot: Ballot
    after: Position
    entries: tuple[Entry, ...]
    held: bool
    """False: I do not hold the entry you pull up to."""
    matches: int
    """When `after` is not in the sender's log: an index at which you should try again."""
    base: int
    """Where the sender's log begins: what is not above that, only a snapshot holds."""


# --- leadership (unordered) -------------------------------------------------------------------


class Heartbeat(_Message, frozen=True, tag=20):
    ballot: Ballot
    commit: int
    last_index: int
    round: int
    """Leadership confirmations asked so far; echoed."""


class HeartbeatAck(_Message, frozen=True, tag=21):
    ballot: Ballot
    verified: int
    """Durable here and verified against this leader in this ballot (invariant 6)."""
    commit: int
    round: int
    clock_us: int
    protocol: int = SPEAKS[1]
    """The newest that it speaks: of what is later, it can hold nothing."""
    abstains: bool = False
    """It was removed by order: without another order it takes no vote."""


class BallotRefused(_Message, frozen=True, tag=22):
    """Your ballot is below what I promised."""

    ballot: Ballot
    promised: Ballot
    leader: int
    """Who I follow in `promised`, 0 when I have not heard that leader."""


# --- replication ------------------------------------------------------------------------------


class Append(_Message, frozen=True, tag=30):
    """Ordered. Entries that follow `previous`; none to ask where the receiver stands."""

    ballot: Ballot
    previous: Position
    entries: tuple[Entry, ...]
    commit: int
    round: int


class AppendAck(_Message, frozen=True, tag=31):
    ballot: Ballot
    verified: int
    commit: int
    round: int
    clock_us: int


class AppendMismatch(_Message, frozen=True, tag=32):
    """`previous` is not in the receiver's log; `matches` is an index to try instead."""

    ballot: Ballot
    previous_index: int
    matches: int


class Behind(_Message, frozen=True, tag=33):
    """Unordered. The leader's log begins after `base`, and the receiver's does not reach so far:
    a snapshot is needed."""

    ballot: Ballot
    base: int


class SnapshotPull(_Message, frozen=True, tag=34):
    """Unordered. The next piece of your snapshot, please; or of any that reaches beyond `above`."""

    digest: bytes
    """Of the snapshot that was begun; empty when none was."""
    offset: int
    above: int


class SnapshotPart(_Message, frozen=True, tag=35):
    """Ordered. `data` from `offset` on of the snapshot that `head` describes."""

    head: SnapshotHead | None
    """None: it is being made, ask again."""
    offset: int
    data: bytes


# --- reads by followers (unordered) -----------------------------------------------------------


class ReadIndex(_Message, frozen=True, tag=40):
    number: int


class ReadIndexReply(_Message, frozen=True, tag=41):
    number: int
    ballot: Ballot
    index: int
    """Every read that waited when the question was sent may be served once this is applied;
    -1 when the receiver does not lead."""


# --- clients (ordered) ------------------------------------------------------------------------


class OpenSession(_Message, frozen=True, tag=50):
    """Open a session; the same nonce gets the same session while it lives."""

    nonce: int
    name: str
    copy: int


class SessionOpened(_Message, frozen=True, tag=51):
    nonce: int
    session: int


class Request(_Message, frozen=True, tag=52):
    """Command `number` of a session. `copy` numbers the tries of this number."""

    session: int
    number: int
    copy: int
    lowest: int
    """The lowest number still unanswered: results below it are not needed any more."""
    command: bytes
    """An encoded inventory command; empty for a void."""


class Reply(_Message, frozen=True, tag=53):
    session: int
    number: int
    result: bytes
    """An encoded `distinv.inventory.commands.Outcome`."""


class NotTaken(_Message, frozen=True, tag=54):
    """This copy was not appended and never will be. `session` is 0 for an OpenSession."""

    session: int
    number: int
    """The number, or the nonce of an OpenSession."""
    copy: int
    reason: str
    """no_leader, not_leader, no_quorum (too few servers hear each other), overloaded, gap,
    invalid_request, session_expired, version_mismatch (some server cannot carry it out yet)"""
    detail: str
    leader: int
    leader_address: tuple[str, int] | None


class Query(_Message, frozen=True, tag=55):
    number: int
    linearizable: bool
    min_seq: int
    query: bytes


class Answer(_Message, frozen=True, tag=56):
    number: int
    result: bytes


class QueryFailed(_Message, frozen=True, tag=57):
    number: int
    reason: str
    detail: str
    leader: int
    leader_address: tuple[str, int] | None


class ServerInfo(msgspec.Struct, frozen=True, array_like=True):
    node: int
    name: str
    address: tuple[str, int] | None
    role: str
    """leader, follower, learner, unreachable"""
    index: int
    """The last log index it is known to hold durably."""
    votes: bool
    """It is in the last voter set, whether or not it is reached."""
    lag: int | None = None
    """Committed entries that it is not known to hold durably; None when nobody knows."""
    no_quorum_us: int | None = None
    """For how long it has known of no leader, 0 when it has one; None when nobody knows."""


class Servers(_Message, frozen=True, tag=58):
    """The server list, pushed at every change: by the leader to the other servers, by every
    server to the clients connected to it."""

    leader: int
    ballot: Ballot
    servers: tuple[ServerInfo, ...]


class Ping(_Message, frozen=True, tag=59):
    """Unordered."""

    number: int


class Pong(_Message, frozen=True, tag=60):
    """Unordered. A server without a leader says so, and clients leave it."""

    number: int
    leader: int
    leader_address: tuple[str, int] | None
    no_quorum_us: int = 0
    """As in `Beacon`."""


class StatusRequest(_Message, frozen=True, tag=61):
    number: int
    digest: bool = True
    """With the inventory's, which takes long when there is much of it."""


class StatusReply(_Message, frozen=True, tag=62):
    number: int
    node: int
    name: str
    cluster_name: str
    cluster_id: int
    role: str
    leader: int
    ballot: Ballot
    last_index: int
    commit: int
    applied: int
    seq: int
    state_digest: str
    digest: str
    election: str
    servers: tuple[ServerInfo, ...]
    sessions: int
    """Sessions in the replicated state at `applied`."""
    no_quorum_us: int = 0
    """As in `Beacon`."""


class EndSession(_Message, frozen=True, tag=63):
    """Ordered. Close a session through the log, so that its undecided numbers are decided."""

    session: int


class SessionEnded(_Message, frozen=True, tag=64):
    """Ordered. The session is closed: a number not applied before never will be."""

    session: int


class Order(_Message, frozen=True, tag=65):
    """Ordered. A wish about the cluster itself, for its leader. Answered by an empty `Answer`, or
    a `QueryFailed`; what is so already is done, so it may be sent again."""

    number: int
    what: str
    """promote, remove, leave (remove, and let it stop), transfer"""
    server: int
    """0 for a transfer to the best follower."""
    confirmed: bool = False
    """Who asks knows that fewer than `Limits.voters_min` may be left, and so the next failure
    stops everything."""


class Dismissed(_Message, frozen=True, tag=66):
    """Ordered. From the leader: you have no vote, by order, and a majority of those who have one
    know it. Nothing of you is needed any more."""

    stop: bool
    """You wished to leave. Else go on without a vote."""
    voters_index: int
    """Where the last voter set stands in the leader's log: only a later one may name you again."""


# --- delivery -----------------------------------------------------------------------------


class MulticastBody(_Message, frozen=True, tag=70):
    """What a multicast strategy sends; ordered when it goes to one peer."""

    body: bytes


Message: TypeAlias = (
    Seek
    | Beacon
    | Claim
    | Claimed
    | Encounter
    | Encountered
    | ClusterDissolved
    | BirthOffer
    | BirthAnswer
    | Join
    | ElectionMessage
    | NominateHint
    | PreVote
    | PreVoteReply
    | Prepare
    | Promise
    | PrepareRefused
    | TransferOrder
    | Pull
    | PullReply
    | Heartbeat
    | HeartbeatAck
    | BallotRefused
    | Append
    | AppendAck
    | AppendMismatch
    | Behind
    | SnapshotPull
    | SnapshotPart
    | ReadIndex
    | ReadIndexReply
    | OpenSession
    | SessionOpened
    | Request
    | Reply
    | NotTaken
    | Query
    | Answer
    | QueryFailed
    | Servers
    | Ping
    | Pong
    | StatusRequest
    | StatusReply
    | EndSession
    | SessionEnded
    | Order
    | Dismissed
    | MulticastBody
)

ORDERED: frozenset[type] = frozenset(
    {
        BirthOffer,
        BirthAnswer,
        PullReply,
        Append,
        AppendMismatch,
        SnapshotPart,
        OpenSession,
        SessionOpened,
        Request,
        Reply,
        NotTaken,
        Query,
        Answer,
        QueryFailed,
        Servers,
        StatusRequest,
        StatusReply,
        EndSession,
        SessionEnded,
        Order,
        Dismissed,
        MulticastBody,
    }
)
"""These travel on the reliable FIFO link; all others bypass it."""
