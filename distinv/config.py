"""Every number of distinv that can be set, with its unit in its name and its reason beside it.

`Timing` and `Limits` are values; the presets are functions. Nothing else in the package holds
a time-out or a bound of its own but for what no user would ever set.
"""

from __future__ import annotations

from attrs import evolve, frozen

MILLISECOND = 1_000
SECOND = 1_000_000


@frozen(kw_only=True)
class Timing:
    """All durations, in microseconds."""

    heartbeat_us: int = 50 * MILLISECOND
    """A leader says at least this often that it lives."""
    suspect_floor_us: int = 300 * MILLISECOND
    """Six heartbeats: a shorter silence is loss or a busy machine, not a crash."""
    suspect_ceiling_us: int = 2 * SECOND
    """However irregular the arrivals were, a longer silence is a crash."""
    probe_after_us: int = 120 * MILLISECOND
    """Two missed heartbeats: ask the kernel whether the leader's process still has its port."""
    watchdog_us: int = 600 * MILLISECOND
    """Without a leader for this long plus a random part as long again, nominate oneself. Others'
    campaigns meanwhile do not begin it anew (`Follower`)."""
    quorum_us: int = 600 * MILLISECOND
    """A leader that hears no quorum for this long steps down: twice the suspicion's floor."""
    campaign_us: int = 400 * MILLISECOND
    """A ballot that has not become a leadership by then is given up."""
    campaign_backoff_us: int = 100 * MILLISECOND
    """First back-off after a failed campaign; doubles up to sixteenfold, with full jitter."""
    transfer_us: int = 500 * MILLISECOND
    """An ordered hand-over that has not happened by then is called off."""
    pull_stall_us: int = 400 * MILLISECOND
    """A candidate whose synchronisation makes no progress for this long gives up."""
    disk_stall_us: int = 1 * SECOND
    """A leader whose disk has not finished a write for this long steps down."""
    autopilot_us: int = 1 * SECOND
    """How often a leader asks itself who should vote."""
    promote_after_us: int = 3 * SECOND
    """A server that has kept up with the log for this long may be given a vote."""
    evict_after_us: int = 600 * SECOND
    """A voter that is silent for this long is replaced: a machine restarts in less."""
    order_us: int = 2 * SECOND
    """How long a leader works on an order to give or take a vote before it says "not yet": less
    than a client waits before it turns to another server (`client_read_us`)."""
    retry_us: int = 100 * MILLISECOND
    """How often an unanswered prepare, probe or pull is sent again."""
    election_answer_us: int = 100 * MILLISECOND
    """How long an election plugin waits for a peer's answer before it goes on without it."""
    beacon_us: int = 5 * SECOND
    """How often a server that belongs to a cluster announces itself."""
    beacon_unjoined_us: int = 250 * MILLISECOND
    """How often one that looks for its cluster does."""
    discovery_window_us: int = 1_500 * MILLISECOND
    """How long blank servers listen before one of them proposes a cluster."""
    roll_call_us: int = 60 * MILLISECOND
    """How long a server that finds an identity on its disk asks whether another process has it
    before it takes part: three calls, each with time for a turn of the other (`tick_us`). Well
    below `suspect_floor_us`: nobody waits for its vote because of that."""
    link_nak_us: int = 15 * MILLISECOND
    """How long a gap may stay before it is asked for again."""
    link_ack_us: int = 5 * MILLISECOND
    """How long an acknowledgement may wait for a datagram to ride on."""
    link_retransmit_us: int = 60 * MILLISECOND
    """The first retransmission of an unacknowledged tail; doubles with jitter up to a second."""
    link_retransmit_ceiling_us: int = 1 * SECOND
    """A dead peer costs one datagram a second; a live one is asked no later than that."""
    link_idle_us: int = 30 * SECOND
    """A link on which nothing was heard for this long is forgotten."""
    compact_us: int = 10 * SECOND
    """How often it is looked whether the journal holds more than is kept of it."""
    snapshot_pace_us: int = 10 * MILLISECOND
    """Between two pieces of a snapshot: 12.8 MB/s, which leaves the giver its time."""
    snapshot_rest_us: int = 10 * SECOND
    """Between two copies of the store for others: each one reads and writes all of it. And before
    a server asks again whose last snapshot was no good: it may be of a later format."""
    snapshot_rest_ceiling_us: int = 300 * SECOND
    """That rest doubles with each one that was no good: every try reads and sends a whole store."""
    read_round_us: int = 10 * MILLISECOND
    """An unanswered leadership confirmation is sent again after this."""
    tick_us: int = 20 * MILLISECOND
    """The budget of one turn's apply."""
    client_deadline_us: int = 10 * SECOND
    """A call of a client ends after this, one way or another."""
    client_backoff_floor_us: int = 20 * MILLISECOND
    client_backoff_ceiling_us: int = 1 * SECOND
    client_silence_us: int = 300 * MILLISECOND
    """A server that owes an answer and says nothing for this long is left for another."""
    client_ping_us: int = 100 * MILLISECOND
    """How often a server that owes an answer is asked whether it lives."""
    client_named_us: int = 10 * MILLISECOND
    """Between two questions to whoever is named as the leader: several may be in one change, a
    hundred a second are mischief, and cost less than what named them."""
    client_answer_us: int = 1 * SECOND
    """A living server that answered no command for this long is sent them again; doubles."""
    client_read_us: int = 3 * SECOND
    """One that answered no read for this long is left for another: a digest takes its time."""
    client_denied_us: int = 1 * SECOND
    """So long must refusals of the key go on before a call says so; two refusals at least."""
    max_clock_skew_us: int = 5 * SECOND
    """A leader whose clock is further than this from a majority's does not stamp."""
    notice_us: int = 1 * SECOND
    """The same warning about the same address is given, and answered, once in this time."""
    alarm_us: int = 60 * SECOND
    """What only a person can end is said again after this."""
    store_flush_us: int = 200 * MILLISECOND
    """So long after the last entry applied the store ends its transaction: in a quiet moment."""
    store_flush_applied_us: int = 20 * MILLISECOND
    """Or after so much time spent applying: nothing else is done while it ends."""


@frozen(kw_only=True, cache_hash=True)
class Limits:
    """A bound on everything that can grow."""

    lines_per_command: int = 5_000
    """The largest real order seen has 1,106 lines."""
    page_rows: int = 1_000
    quantity_max: int = 10**12
    level_max: int = 2**63 - 1
    sku_chars: int = 128
    name_chars: int = 255
    reference_chars: int = 255
    note_chars: int = 2_000
    attributes_bytes: int = 16_384
    key_chars: int = 128
    keys_max: int = 1_000_000
    keys_kept_us: int = 7 * 24 * 3600 * SECOND
    sessions_max: int = 10_000
    session_kept_us: int = 24 * 3600 * SECOND
    session_window: int = 1_024
    session_results_bytes: int = 1 << 20
    """Beyond it a recorded result shrinks to its seq and code."""
    batch_commands: int = 512
    batch_bytes: int = 1 << 20
    """Commands in one log entry."""
    message_bytes: int = 4 << 20
    """The largest message a link carries."""
    link_window_fragments: int = 1_024
    link_window_bytes: int = 256 << 10
    """In flight on one link; below the kernel's default receive buffer."""
    link_queue_bytes: int = 16 << 20
    """Waiting behind the window; one that would exceed it is moved to catch-up."""
    link_reorder_bytes: int = 8 << 20
    replay_window: int = 1_024
    """Datagrams of a sender that may overtake one another; what is older counts as a replay."""
    hello_attempts: int = 4
    """Greetings to an address that answers none, while nothing is queued for it."""
    notices_max: int = 256
    """Addresses remembered to rate-limit warnings; one more, and the oldest is forgotten."""
    peers_max: int = 4_096
    inbox_datagrams: int = 4_096
    turn_datagrams: int = 256
    pending_commands: int = 16_384
    """A leader that holds this many unanswered commands says Overloaded."""
    pending_reads: int = 16_384
    pull_bytes: int = 256 << 10
    """One step of a catch-up: what a link carries in `pull_stall_us` though it loses 30 %."""
    log_cache_bytes: int = 16 << 20
    """Payloads of applied entries kept in memory for laggards."""
    snapshot_piece_bytes: int = 128 << 10
    """Read, sealed and sent in one turn of the giver."""
    snapshot_takers: int = 4
    """Servers that get pieces of a snapshot at the same time; one more asks again later."""
    snapshot_bytes_max: int = 64 << 30
    """A larger one is a mistake, or an attack on the disk."""
    log_keep_entries: int = 10_000
    """So many of the last entries are kept for servers that were away, instead of a snapshot…"""
    log_keep_bytes: int = 64 << 20
    """… unless they are larger than this."""
    append_window_entries: int = 1_024
    """Entries under way to a follower that is catching up."""
    servers_max: int = 64
    voters_max: int = 5
    """Two of five may fail; more voters make every write wait for more disks."""
    voters_min: int = 3
    """Never are there less because voters are gone; only an order goes below."""
    dissolved_remembered: int = 8
    """Dissolved clusters that a server tells stragglers of: the last ones, in one datagram."""
    births_refused: int = 1_000
    """Proposals of a cluster that a blank server refuses before it ignores further ones."""
    forfeit_entries: int = 10_000
    """A candidate that misses more lets the fresher server lead, rather than make all wait."""
    journal_segment_bytes: int = 8 << 20
    """Zero-filled ahead: about 900 batches, made in some 10 ms on a solid-state disk."""
    client_attempts: int = 8
    """Silent attempts of one command; with the doubling patience they outlast the deadline."""
    client_window_bytes: int = 4 << 20
    """Commands under way to one server: well below `link_queue_bytes`."""
    client_queue_bytes: int = 64 << 20
    """Commands that wait in a client; one more is refused as Overloaded."""
    reason_chars: int = 64
    """A reason or a unit is a word, not a story."""
    scale_max: int = 12
    """With `quantity_max` units a line still holds one whole thing."""
    locations_max: int = 10_000
    """All of them are kept in memory."""
    page_bytes: int = 1 << 20
    """A page ends early rather than outgrow a message."""
    page_scan_rows: int = 20_000
    """A filtered list looks at no more rows for one page: about 20 ms."""
    keys_forgotten: int = 1_024
    """Expired keys that one log entry forgets: twice the commands that it may hold."""
    levels_cached: int = 100_000
    """Levels a store keeps in memory beyond a flush, as items: about 60 MB."""
    store_checkpoint_rows: int = 16_000
    """Rows written until the store's write-ahead log is copied beside the loop: at most so many
    pages, 64 MB, and most often far fewer."""
    store_flush_entries: int = 120
    """Entries applied in one transaction of the store; what a crash loses is applied again."""
    cluster_name_bytes: int = 100
    """A cluster's or a server's name: both fit into an announcement of one datagram."""


@frozen(kw_only=True)
class FaultSettings:
    """What the transport `faulty` does to what it sends. Every other transport ignores it."""

    loss: float = 0.0
    """The probability that a datagram is dropped, each by itself, beacons included."""
    duplicate: float = 0.0
    """The probability that a datagram that was not dropped is sent twice."""
    delay: float = 0.0
    """The probability that a datagram is held back, so that later ones overtake it."""
    delay_max_us: int = 20 * MILLISECOND
    """One that is held back waits for a random time up to this."""
    seed: int | None = None
    """The same seed drops the same datagrams of a transport at the same address."""


@frozen(kw_only=True)
class Network:
    """Where datagrams go."""

    host: str = "127.0.0.1"
    """Loopback until there is a key, see docs/security.md."""
    port: int = 4747
    port_explicit: bool = False
    """An explicitly given port that is in use is an error; the default one gives way."""
    beacon_port: int = 4746
    beacon_group: str = "239.255.47.46"
    payload_bytes: int = 1_200
    """Below every MTU."""
    payload_loopback_bytes: int = 32_000
    receive_buffer_bytes: int = 4 << 20
    probe_wait_us: int = 10 * MILLISECOND
    """How long one probe waits for a refusal: far above a switched network's round trip."""
    probe_tries: int = 3
    """A lost probe is repeated; together well below the time in which a silence is suspected."""
    interfaces_kept_us: int = 1 * SECOND
    """How long a list of the machine's interfaces is used: a cable takes longer to plug in."""
    faults: FaultSettings = FaultSettings()


@frozen(kw_only=True)
class Config:
    """Everything that can be set, in one value."""

    timing: Timing = Timing()
    limits: Limits = Limits()
    network: Network = Network()


def lan() -> Config:
    """A switched network, machines shared with other work. The default."""
    return Config()


def local() -> Config:
    """All servers on one machine: the same times, since a loaded machine pauses like a network."""
    return lan()


def test() -> Config:
    """In-memory clusters: patience costs nothing under a simulated clock.

    A roll call is as short as turns are there.
    """
    timing = evolve(Timing(), discovery_window_us=300 * MILLISECOND, roll_call_us=15 * MILLISECOND)
    return evolve(lan(), timing=timing)
