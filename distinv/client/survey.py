"""Asking every server what it is: one round of status requests."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from distinv.client.calls import CallBook
from distinv.entry import NodeId
from distinv.errors import DistinvError
from distinv.wire.messages import StatusReply, StatusRequest


@define(eq=False)
class Survey:
    """One round. Its id is its number on the wire."""

    id: int
    deadline: int
    digest: bool
    """Wanted in the replies."""
    surveys: Surveys
    asked: dict[NodeId, None] = field(factory=dict)
    """The servers asked, as an ordered set."""
    replies: dict[NodeId, StatusReply] = field(factory=dict)
    settle_at: int | None = None
    """When to be content with the replies there are; None before the first question."""

    def expire(self, now: int) -> None:
        self.surveys.end(self)


class Surveys:
    """The rounds under way. A server that does not reply in time is left out."""

    def __init__(
        self, *, book: CallBook, patience_us: int, unavailable: Callable[[str], DistinvError]
    ) -> None:
        self._book = book
        self._patience_us = patience_us
        self._unavailable = unavailable
        self._open: dict[int, Survey] = {}

    def submit(self, deadline: int, *, digest: bool) -> int:
        survey = Survey(self._book.new_id(), deadline, digest, self)
        self._open[survey.id] = survey
        self._book.enter(survey)
        return survey.id

    def detach(self, survey: Survey) -> None:
        self._book.abandon(survey.id)
        self._open.pop(survey.id, None)

    def end(self, survey: Survey) -> None:
        """Finish with what came, or fail when nothing did."""
        if self._open.pop(survey.id, None) is None:
            return
        if survey.replies:
            self._book.finish(survey.id, tuple(survey.replies.values()))
        else:
            self._book.fail(survey.id, self._unavailable(""))

    @property
    def under_way(self) -> bool:
        return bool(self._open)

    def questions(self, servers: list[NodeId], now: int) -> list[tuple[NodeId, StatusRequest]]:
        """Whom to ask now, and what."""
        asked: list[tuple[NodeId, StatusRequest]] = []
        for survey in self._open.values():
            for node in servers:
                if node not in survey.asked:
                    survey.asked[node] = None
                    asked.append((node, StatusRequest(survey.id, survey.digest)))
            if survey.settle_at is None and survey.asked:
                survey.settle_at = now + self._patience_us
        return asked

    def reply(self, source: NodeId, message: StatusReply, servers: list[NodeId]) -> None:
        survey = self._open.get(message.number)
        if survey is None or source not in survey.asked:
            return
        survey.replies[source] = message
        if all(node in survey.replies for node in servers):
            self.end(survey)

    def on_deadline(self, now: int) -> None:
        for survey in list(self._open.values()):
            if survey.settle_at is None or now < survey.settle_at:
                continue
            if survey.replies:
                self.end(survey)
            else:
                survey.asked.clear()
                survey.settle_at = None

    def deadline(self) -> int | None:
        if not self._open:
            return None
        times = [item.settle_at for item in self._open.values() if item.settle_at is not None]
        return min(times, default=None)
