"""Bugs planted on purpose, to show that the simulator would notice.

Each is a function of the core or of the store replaced for the time of a run. The switch is this
test kit's (`distinv simulate --plant NAME`); the product has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from attrs import evolve

from distinv.core import quorum
from distinv.core.changes import Changes
from distinv.core.clocks import Clocks
from distinv.core.events import Effect, ReadReady, Send
from distinv.core.follower import Follower
from distinv.core.leader import Leader
from distinv.core.membership import Membership
from distinv.core.node import Node
from distinv.core.sessions import Admission, SessionTable
from distinv.entry import NO_BALLOT, Entry
from distinv.inventory.machine import StateMachine
from distinv.server.twins import Twins
from distinv.storage.api import Recovered
from distinv.storage.memory import MemoryStorage
from distinv.wire.messages import Promise

Bug = Callable[[], AbstractContextManager[None]]


@contextmanager
def _replaced(owner: Any, name: str, replacement: Any) -> Iterator[None]:
    right = getattr(owner, name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, right)


def minority_decides() -> AbstractContextManager[None]:
    """One vote less than a majority counts as a quorum."""
    return _replaced(quorum, "majority", lambda count: max(1, count // 2))


def commit_before_sync() -> AbstractContextManager[None]:
    """Followers acknowledge what they have received, synced or not."""
    return _replaced(Follower, "_acknowledged", lambda follower: follower.verified)


def truncate_matching() -> AbstractContextManager[None]:
    """An Append replaces everything behind its previous entry, also what is equal already."""

    def adopt(node: Node, entries: tuple[Entry, ...]) -> None:
        if entries and node.log.last_index >= entries[0].index:
            node._truncate(entries[0].index - 1)
        for entry in entries:
            node.append(entry)

    return _replaced(Node, "adopt", adopt)


def read_unconfirmed() -> AbstractContextManager[None]:
    """A leader answers reads at once, whether or not it still leads."""

    def read(leader: Leader, ticket: int) -> None:
        leader._node.emit(ReadReady((ticket,), leader._node.commit))

    return _replaced(Leader, "read", read)


def promise_before_sync() -> AbstractContextManager[None]:
    """A promise is sent before it is durable."""
    right = Node.hold

    def hold(node: Node, effect: Effect) -> None:
        if isinstance(effect, Send) and isinstance(effect.message, Promise):
            node.emit(effect)
        else:
            right(node, effect)

    return _replaced(Node, "hold", hold)


@contextmanager
def retry_applied_twice() -> Iterator[None]:
    """A retried command enters the log again, and takes effect again."""
    right = SessionTable.admit

    def admit(
        table: SessionTable, session: int, number: int, lowest: int, stamp: int, now_us: int
    ) -> Admission:
        state = table.get(session)
        if state is not None and number == state.last and number in state.results:
            state.last -= 1
            state.results_bytes -= len(state.results.pop(number))
        return right(table, session, number, lowest, stamp, now_us)

    with ExitStack() as stack:
        stack.enter_context(_replaced(SessionTable, "admit", admit))
        stack.enter_context(_replaced(StateMachine, "last_number", lambda machine, session: None))
        yield


def ballot_forgotten() -> AbstractContextManager[None]:
    """A restarted server remembers its entries, but not what it promised."""
    right = MemoryStorage.recover

    def recover(storage: MemoryStorage) -> Recovered:
        recovered = right(storage)
        last = recovered.entries[-1].ballot if len(recovered.entries) else NO_BALLOT
        return evolve(recovered, promised=last)

    return _replaced(MemoryStorage, "recover", recover)


def old_set_forgotten() -> AbstractContextManager[None]:
    """Only the new voters of a change count, from the moment it is appended."""

    def indexes(membership: Membership, commit: int) -> list[int]:
        return list(membership._log.voter_indexes[-1:])

    return _replaced(Membership, "_indexes_in_play", indexes)


def dismissed_too_early() -> AbstractContextManager[None]:
    """Who leaves is let go as soon as the leader knows that the change is committed."""

    def is_known(changes: Changes) -> bool:
        return changes._node.commit >= changes._node.log.voter_indexes[-1]

    return _replaced(Changes, "_is_known", is_known)


@contextmanager
def learner_promises_nothing() -> Iterator[None]:
    """A server that has no vote by its own log answers no candidate."""

    def unless_learner(send: Callable[[Node, Effect], None]) -> Callable[[Node, Effect], None]:
        def hold(node: Node, effect: Effect) -> None:
            promises = isinstance(effect, Send) and isinstance(effect.message, Promise)
            if not promises or node.is_voter(node.self_id):
                send(node, effect)

        return hold

    with ExitStack() as stack:
        for name in ("hold", "hold_for_promise"):
            stack.enter_context(_replaced(Node, name, unless_learner(getattr(Node, name))))
        yield


def clock_believed() -> AbstractContextManager[None]:
    """A leader stamps with its own clock, whatever time the others have."""
    return _replaced(Clocks, "trusted", lambda clocks, sets: True)


def twin_believed_alone() -> AbstractContextManager[None]:
    """A server asks whether another process has its identity, and does not heed the answer."""
    return _replaced(Twins, "on_claimed", lambda twins, claimed, address, now: None)


CANARY = "minority-decides"

PLANTED: dict[str, Bug] = {
    CANARY: minority_decides,
    "commit-before-sync": commit_before_sync,
    "truncate-matching": truncate_matching,
    "read-unconfirmed": read_unconfirmed,
    "promise-before-sync": promise_before_sync,
    "retry-applied-twice": retry_applied_twice,
    "ballot-forgotten": ballot_forgotten,
    "old-set-forgotten": old_set_forgotten,
    "dismissed-too-early": dismissed_too_early,
    "learner-promises-nothing": learner_promises_nothing,
    "clock-believed": clock_believed,
    "twin-believed-alone": twin_believed_alone,
}

TOLD_BY = {
    "ballot-forgotten": "promise-and-restart",
    "old-set-forgotten": "unsynced-change",
    "dismissed-too-early": "leavers-switched-off",
    "learner-promises-nothing": "promoted-unaware",
    "clock-believed": "clock-ten-years-ahead",
    "twin-believed-alone": "copied-directory",
}
"""The schedule that shows the bug: chance needs long to bring its situation about."""
