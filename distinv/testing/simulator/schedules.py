"""Stories of who votes: the moments in which a change of the voters could lose data.

Each is told against a world drawn from a seed (`stage.py`): `distinv simulate --schedule NAME`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from distinv.testing.simulator.drawing import MS
from distinv.testing.simulator.stage import Heal, Schedule, Stage, Story
from distinv.testing.simulator.world import EPOCH_US, FOREVER_US

if TYPE_CHECKING:
    from distinv.testing.simulator.servers import SimServer

TEN_YEARS_US = 10 * 365 * 24 * 3_600 * 1_000 * MS
HONEST_US = 120_000 * MS
"""No other clock is further from the right time in a run."""

SCHEDULES: dict[str, Schedule] = {}


def _schedule(
    name: str, *, servers: int, late: tuple[int, ...] = ()
) -> Callable[[Callable[[Stage], Story]], Callable[[Stage], Story]]:
    def keep(story: Callable[[Stage], Story]) -> Callable[[Stage], Story]:
        SCHEDULES[name] = Schedule(name, story, servers, late)
        return story

    return keep


@_schedule("unsynced-change", servers=3, late=(1, 2))
def unsynced_change(stage: Stage) -> Story:
    """A sole leader loses power with its 1 → 3 change unsynced.

    The newcomers have the change durably, the leader never had it. By their log they are two of
    three; but by the set before they are nobody, and the one voter of that set does not know of
    them when it returns: it decides alone.
    """
    alone, *newcomers = stage.servers
    yield stage.until("it leads alone", lambda: alone.leads)
    for server in newcomers:
        stage.run.start(server)
    yield stage.until("it has appended the change", lambda: stage.is_changing(alone))
    alone.disk.stall(FOREVER_US)
    change = stage.node(alone).voters_index
    ballot = stage.node(alone).log.ballot_at(change)
    stage.insist(len(stage.set_of(alone)) == 3, "the change is one to three voters")
    knowing = stage.chance.choice((newcomers, newcomers, newcomers[:1]))
    for server in newcomers:
        if server not in knowing:
            stage.silence(alone, server)
    names = " and ".join(server.name for server in knowing)
    yield stage.until(
        f"{names} hold the change durably",
        lambda: all(stage.holds_durably(each, change, ballot) for each in knowing),
    )
    alone.crash(0)
    stage.insist(alone.disk.last_index < change, "the change was not durable where it was made")
    stage.join()
    yield stage.while_passes(stage.chance.randrange(300 * MS, 3_000 * MS))
    stage.part([alone])
    alone.disk.stalled_until = 0
    stage.run.start(alone)
    yield stage.until("it leads alone again", lambda: alone.leads)
    yield stage.while_passes(stage.chance.randrange(500 * MS))
    stage.join()
    yield Heal(tuple(stage.servers))
    yield stage.until("all know three voters", lambda: stage.agrees(stage.servers, 3))


@_schedule("swap-and-election", servers=4)
def swap_and_election(stage: Stage) -> Story:
    """A swap of one voter for another races a change of leader.

    {L, A, B} becomes {L, A, N} in the leader's log, and before that is committed L is cut off:
    alone, or together with N (then they are a majority of the new set), or when A holds the swap
    as well. The others elect a leader, who may or may not know of it.
    """
    yield stage.somebody_leads()
    leader = stage.leader
    assert leader is not None
    yield stage.until("all voters are there", lambda: len(stage.voters(leader)) == 3)
    (newcomer,) = [each for each in stage.servers if each not in stage.voters(leader)]
    yield stage.until(
        "the newcomer has kept up",
        lambda: leader.leads and stage.streams(leader, newcomer),
    )
    kept, goes = stage.chance.sample([v for v in stage.voters(leader) if v is not leader], 2)
    wanted = tuple(sorted([leader.node_id, kept.node_id, newcomer.node_id]))
    leader.order(goes.node_id, votes=False)
    yield stage.until("the swap is appended", lambda: stage.is_changing(leader))
    stage.insist(stage.set_of(leader) == wanted, f"{newcomer.name} shall vote for {goes.name}")
    index = stage.node(leader).voters_index
    ballot = stage.node(leader).log.ballot_at(index)
    how = stage.chance.choice(("alone", "with the newcomer", "known to another"))
    if how == "known to another":
        stage.silence(leader, goes)
        stage.silence(leader, newcomer)
        yield stage.until(
            f"{kept.name} holds the swap", lambda: stage.holds_durably(kept, index, ballot)
        )
    stage.part([leader, newcomer] if how == "with the newcomer" else [leader])
    yield stage.until(
        "another one leads in a later term",
        lambda: any(each.leads and stage.node(each).promised > ballot for each in (kept, goes)),
    )
    yield stage.while_passes(stage.chance.randrange(1_000 * MS))
    stage.join()
    yield Heal(tuple(stage.servers))
    yield stage.until("all know three voters", lambda: stage.agrees(stage.servers, 3))


@_schedule("leavers-switched-off", servers=5)
def leavers_switched_off(stage: Stage) -> Story:
    """5 → 3, the leavers are switched off at their dismissal, and the leader dies with them.

    Of the three that are to vote one has never seen the change. It and the third one must be
    able to go on by themselves: that is what the dismissal promised.
    """
    yield stage.somebody_leads()
    leader = stage.leader
    assert leader is not None
    stage.insist(len(stage.voters(leader)) == 5, "five vote")
    leaver = stage.chance.choice([each for each in stage.servers if each is not leader])
    yield stage.until("the leaver runs", lambda: leaver.engine)
    leaver.leave()
    yield stage.until(
        "the change is appended",
        lambda: any(each.leads and stage.is_changing(each) for each in stage.servers),
    )
    leader = stage.leader
    assert leader is not None
    change = stage.node(leader).voters_index
    staying = [each for each in stage.voters(leader) if each is not leader]
    stage.insist(len(staying) == 2, "three are to vote, the leader among them")
    stage.insist(leaver not in staying, "the leaver is not to")
    unaware = stage.chance.choice(staying)
    stage.silence(leader, unaware)
    yield stage.until(f"{leaver.name} is dismissed", lambda: leaver.left)
    stage.insist(stage.node(unaware).voters_index < change, f"{unaware.name} knows of no change")
    for server in stage.servers:
        if server not in staying:
            server.crash(0)
    yield Heal(tuple(staying))
    yield stage.until("both know three voters", lambda: stage.agrees(staying, 3))


@_schedule("promoted-unaware", servers=5, late=(3, 4))
def promoted_unaware(stage: Stage) -> Story:
    """A promoted server does not know it yet while the leader dies.

    The change 3 → 5 is committed by a majority of both sets; another voter and the second
    newcomer have never seen it. Then the leader and the first newcomer die, and the second is one
    of the three of five that there are: it must answer as the voter that it does not know to be.
    """
    newcomers = stage.servers[3:]
    yield stage.somebody_leads()
    for server in newcomers:
        stage.run.start(server)
    yield stage.until(
        "the change is appended",
        lambda: any(each.leads and stage.is_changing(each) for each in stage.servers),
    )
    leader = stage.leader
    assert leader is not None
    change = stage.node(leader).voters_index
    stage.insist(len(stage.voters(leader)) == 5, "five are to vote")
    others = [each for each in stage.servers if each not in (leader, *newcomers)]
    unaware, aware = stage.chance.choice(others), stage.chance.sample(newcomers, 2)
    promoted = aware.pop()
    for server in (unaware, promoted):
        stage.silence(leader, server)
    yield stage.until(
        "the change is committed", lambda: leader.leads and stage.node(leader).commit >= change
    )
    for server in (unaware, promoted):
        stage.insist(stage.node(server).voters_index < change, f"{server.name} knows of no change")
    for server in (leader, *aware):
        server.crash(0)
    rest = [*others, promoted]
    yield Heal(tuple(rest))
    yield stage.until("they know five voters", lambda: stage.agrees(rest, 5))


@_schedule("promise-and-restart", servers=3)
def promise_and_restart(stage: Stage) -> Story:
    """A server promises a new leader, restarts, and hears nobody but the old one.

    The old leader stood still, and goes on as if nothing had happened. The new one has the promise
    that makes it a leader, and is not heard for a moment. Should the restarted server help the old
    one to decide anything, both have decided.
    """
    yield stage.somebody_leads()
    old = stage.leader
    assert old is not None
    others = [each for each in stage.servers if each is not old]
    yield stage.until("all follow it", lambda: all(each.applied > 2 for each in others))
    stage.insist(old.leads, "it leads still")
    ballot = stage.node(old).promised
    old.pause(FOREVER_US)
    stage.tell(f"{old.name} stands still")

    def promisers() -> list[SimServer]:
        return [
            each
            for each in others
            if stage.has_promised(each) > ballot
            and stage.has_promised(each).node not in (each.node_id, old.node_id, 0)
        ]

    yield stage.until("one has promised the other, durably", promisers)
    (promiser,) = promisers()
    (new,) = [each for each in others if each is not promiser]
    promiser.crash(0)
    for server in (old, promiser):
        stage.silence(new, server)
    promiser.took_part = False
    stage.run.start(promiser)
    yield stage.until("it takes part again", lambda: promiser.took_part)
    old.resume()
    yield stage.while_passes(stage.chance.randrange(50 * MS, 400 * MS))
    stage.join()
    yield Heal(tuple(stage.servers))


@_schedule("copied-directory", servers=3)
def copied_directory(stage: Stage) -> Story:
    """A server's directory is copied while it works, and a second process starts with the copy.

    It has the same id, and an old log: what it promised and acknowledged would not be true. It
    asks first, is answered, and stops before it has said anything under that id, however often it
    is started. The original goes on, and raises an alarm.
    """
    yield stage.somebody_leads()
    original, copy = yield from stage.copy_one()
    copied = copy.disk.last_index
    stage.lose_nothing_between(original, copy)
    if stage.chance.random() < 0.5:
        yield from stage.make_lead(stage.chance.choice(stage.servers))
    yield stage.until("the original has gone on", lambda: original.applied > copied)
    for _ in range(stage.chance.randrange(1, 4)):
        stage.run.start(copy)
        yield stage.until("the copy has asked", lambda: copy.took_part or not copy.alive)
        stage.demand(not copy.took_part, "the copy has taken no part")
        stage.demand(copy.displaced, "it has stopped because of the original")
        yield stage.owed("the original has raised an alarm", lambda: original.alarms)
        stage.demand(original.engine and original.displaced is None, "the original goes on")
        yield stage.while_passes(stage.chance.randrange(500 * MS))
    yield Heal(tuple(stage.servers))


@_schedule("moved-directory", servers=3)
def moved_directory(stage: Stage) -> Story:
    """A server's directory is moved to another machine, and then somebody starts the old one.

    Nothing is wrong with the move: the server goes on there. The old machine, whose directory was
    the same and is older by now, must not take part again.
    """
    yield stage.somebody_leads()
    moved = stage.chance.choice(stage.servers)
    yield stage.until("it has a log", lambda: moved.applied > 2)
    moved.crash()
    new = stage.run.copy_of(moved)
    stage.lose_nothing_between(moved, new)
    stage.run.start(new)
    yield stage.owed("it takes part there", lambda: new.took_part)
    moved.took_part, moved_to = False, moved.disk.last_index
    yield stage.until("it has gone on", lambda: new.applied > moved_to)
    stage.run.start(moved)
    yield stage.owed("the old one has asked", lambda: moved.took_part or not moved.alive)
    stage.demand(moved.displaced and not moved.took_part, "it stopped before it took part")
    stage.demand(new.engine and new.displaced is None, "the new one goes on")
    yield Heal(tuple([each for each in stage.servers if each is not moved]))
    stage.demand(new.engine and new.displaced is None, "the new one has gone on")


@_schedule("clock-ten-years-ahead", servers=3)
def clock_ten_years_ahead(stage: Stage) -> Story:
    """A server whose clock is ten years ahead is made to lead.

    Everything that expires does so on the time that a leader writes into the log, and that never
    goes back. So it must not write its own, but leave to one whose clock others share: no
    session expires, no key is forgotten.
    """
    wrong = stage.chance.choice(stage.servers)
    wrong.skew_us += TEN_YEARS_US
    stage.tell(f"the clock of {wrong.name} is ten years ahead")
    yield stage.somebody_leads()
    yield stage.until(
        "every client has a session", lambda: all(each.session_id for each in stage.clients)
    )
    sessions = [each.session_id for each in stage.clients]
    yield from stage.make_lead(wrong)
    ballot = stage.node(wrong).promised
    others = [each for each in stage.servers if each is not wrong]
    yield stage.owed(
        "another one leads in a later term",
        lambda: any(each.leads and stage.node(each).promised > ballot for each in others),
    )
    for client in stage.clients:  # what they sent with keys comes again
        client.crash()
        stage.run.start_client(client)
    yield stage.while_passes(stage.chance.randrange(1_000 * MS))
    yield Heal(tuple(stage.servers))
    latest = EPOCH_US + stage.world.now + HONEST_US
    time_us = stage.world.history.time_us
    stage.demand(time_us < latest, f"the log's time {time_us} is not in the future")
    for server in stage.servers:
        missing = [each for each in sessions if not server.knows_session(each)]
        stage.demand(not missing, f"no session has expired on {server.name}")


@_schedule("copied-directory-unheard", servers=3)
def copied_directory_unheard(stage: Stage) -> Story:
    """The copy is cut off while it asks, and takes part; then the two hear each other.

    The newer one stops, whichever of them the others heard.
    """
    yield stage.somebody_leads()
    original, copy = yield from stage.copy_one()
    for server in stage.servers:
        stage.silence(server, copy)
        stage.silence(copy, server)
    copy.start()
    yield stage.until("the copy takes part", lambda: copy.took_part)
    yield stage.while_passes(stage.chance.randrange(2_000 * MS))
    stage.demand(copy.displaced is None, "nobody has told the copy")
    stage.world.unblock(original.host, copy.host)
    stage.world.unblock(copy.host, original.host)
    yield stage.owed("the copy has stopped", lambda: copy.displaced)
    yield stage.owed("the original has raised an alarm", lambda: original.alarms)
    stage.demand(original.alive and original.displaced is None, "the original goes on")
    yield Heal(tuple(stage.servers))
