"""Between an election plugin and the core: a plugin may waste its budget, nothing else.

Whatever the plugin raises is logged, whom it names is checked, how often it nominates is
limited. The core's watchdog nominates by itself after a random time without a leader and does
not share that budget, so no plugin can keep a cluster without a leader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from distinv.config import Timing
from distinv.core.events import Effect, Send, Tell
from distinv.election.api import Election, ElectionAction, Nominate, SendElection
from distinv.entry import Ballot, NodeId
from distinv.wire.messages import ElectionMessage, NominateHint

_ACTIONS_MAX = 64
"""What one call may ask for; a well-behaved election needs one per member."""

_SENDS_MAX = 64
"""Messages per heartbeat interval: elections that answer each message with more would otherwise
flood the network, and the leader's heartbeats with it."""

_CALLS_PER_GAP = 10
"""Deadlines per heartbeat interval: a plugin that is always due must not keep this server busy."""


class Elector:
    """Calls the plugin, and turns what it returns into effects and nominations of this node."""

    def __init__(self, label: str, election: Election, self_id: NodeId, timing: Timing) -> None:
        self.label = label
        self._election = election
        self._self_id = self_id
        self._gap_us = timing.heartbeat_us
        self.members: tuple[NodeId, ...] = ()
        """The voters in play, as it was told them last."""
        self._next_nomination = 0
        self._not_before = 0
        """Whatever time the plugin names, it is not called again before this one."""
        self._complaint_gap_us = timing.notice_us
        self._complain_at = 0
        self._sends_left = _SENDS_MAX
        self._sends_until = 0
        self._out: list[Effect] = []
        self.nominated: str | None = None
        """Why this node was nominated since the last look, or None."""
        self.was_called = False
        """There may be effects, or a nomination, that nobody has taken yet."""

    def take_effects(self) -> list[Effect]:
        out, self._out = self._out, []
        return out

    def deadline(self) -> int | None:
        try:
            due = self._election.deadline()
        except Exception:  # a plugin may do anything
            return None
        if due is None or not isinstance(due, int):
            return None
        return due if due > self._not_before else self._not_before

    def on_suspect(self, leader: NodeId | None, now: int) -> None:
        self._call(lambda: self._election.on_suspect(leader, now), now)

    def on_message(self, source: NodeId, message: ElectionMessage, now: int) -> None:
        if message.label == self.label and source in self.members:
            self._call(lambda: self._election.on_message(source, message.body, now), now)

    def on_leader(self, leader: NodeId, ballot: Ballot, now: int) -> None:
        self._call(lambda: self._election.on_leader(leader, ballot, now), now)

    def on_members(self, voters: Sequence[NodeId], now: int) -> None:
        self.members = tuple(voters)
        self._call(lambda: self._election.on_members(self.members, now), now)

    def on_deadline(self, now: int) -> None:
        due = self.deadline()
        if due is not None and due <= now:
            self._not_before = now + self._gap_us // _CALLS_PER_GAP
            self._call(lambda: self._election.on_deadline(now), now)

    def _call(self, ask: Callable[[], Iterable[ElectionAction]], now: int) -> None:
        self.was_called = True
        try:
            for count, action in enumerate(ask()):
                if count >= _ACTIONS_MAX:
                    break
                self._act(action, now)
        except Exception as problem:  # a plugin may do anything
            if now >= self._complain_at:
                self._complain_at = now + self._complaint_gap_us
                self._out.append(Tell("error", f"election {self.label!r} failed: {problem!r}"))

    def _act(self, action: ElectionAction, now: int) -> None:
        if isinstance(action, SendElection):
            if now >= self._sends_until:
                self._sends_until = now + self._gap_us
                self._sends_left = _SENDS_MAX
            if action.to in self.members and isinstance(action.body, bytes) and self._sends_left:
                self._sends_left -= 1
                self._out.append(Send(action.to, ElectionMessage(self.label, action.body)))
        elif isinstance(action, Nominate):
            if action.node not in self.members or now < self._next_nomination:
                return
            self._next_nomination = now + self._gap_us
            if action.node == self._self_id:
                self.nominated = f"election {self.label!r} nominates this server"
            else:
                self._out.append(Send(action.node, NominateHint(self.label)))
