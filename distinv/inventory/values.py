"""From rows to what users hold: receipts, items, levels, and refusals as errors."""

from __future__ import annotations

from attrs import frozen

from distinv import errors
from distinv.errors import DistinvError, OutcomeUnknown, Unavailable
from distinv.inventory import commands, queries
from distinv.inventory.commands import Accepted, Outcome, Refused, Trimmed, Voided
from distinv.inventory.queries import Fate
from distinv.model import Item, LedgerEntry, Level, Location, Receipt, Shortage, datetime_of

Refusal = DistinvError
"""What a refused command raises: a Rejected, a NotFound or an InvalidRequest, with its seq."""


def accepted_or_raise(outcome: Outcome) -> Accepted:
    """The outcome when it was accepted. Raises the refusal otherwise."""
    match outcome:
        case Accepted():
            return outcome
        case Refused():
            raise refusal_of(outcome)
        case Trimmed(seq=seq, time_us=time_us, code="", replayed=replayed):
            return Accepted(seq, time_us, replayed=replayed)
        case Trimmed(seq=seq, code=code):
            raise class_of(code)(seq=seq)
        case Voided():
            raise Unavailable("The command was given up before it took effect.")


def refusal_of(refused: Refused) -> Refusal:
    """The error that a refusal stands for."""
    kind, message, seq = class_of(refused.code), refused.message, refused.seq
    match refused.detail:
        case commands.Shortages(rows=rows):
            shortages = tuple(
                Shortage(row.sku, row.location, row.requested, row.available) for row in rows
            )
            return errors.InsufficientStock(message, shortages=shortages, seq=seq)
        case commands.CurrentLevel(level=row):
            return errors.StaleVersion(message, current=level_of(row, seq), seq=seq)
        case commands.CurrentVersion(version=version):
            return errors.StaleVersion(message, current=version, seq=seq)
        case commands.OriginalSeq(seq=original):
            return errors.IdempotencyKeyReused(message, original_seq=original, seq=seq)
        case None:
            return kind(message, seq=seq)


def receipt_of(accepted: Accepted, key: str | None) -> Receipt:
    return Receipt(
        accepted.seq,
        datetime_of(accepted.time_us),
        tuple(level_of(row, accepted.seq) for row in accepted.levels),
        key,
        accepted.replayed,
    )


def level_of(row: commands.LevelRow, as_of: int) -> Level:
    return Level(
        row.sku, row.location, row.on_hand, row.reserved, row.committed, row.version, as_of=as_of
    )


def item_of(row: commands.ItemRow, as_of: int) -> Item:
    return Item(
        row.sku,
        row.name,
        row.unit,
        row.scale,
        row.attributes,
        row.discontinued,
        row.version,
        as_of=as_of,
    )


def location_of(row: commands.LocationRow) -> Location:
    return Location(row.name, row.sellable, row.version)


def ledger_entry_of(row: queries.LedgerRow) -> LedgerEntry:
    occurred = row.occurred_at_us
    return LedgerEntry(
        row.seq,
        datetime_of(row.time_us),
        row.sku,
        row.location,
        row.delta,
        row.on_hand_after,
        row.kind,
        row.reason,
        row.reference or None,
        row.actor,
        row.note or None,
        None if occurred is None else datetime_of(occurred),
    )


def last_item(accepted: Accepted, key: str | None) -> Item:
    if not accepted.items:
        raise _applied_but_lost(accepted, key)
    return item_of(accepted.items[-1], accepted.seq)


def last_location(accepted: Accepted, key: str | None) -> Location:
    if not accepted.locations:
        raise _applied_but_lost(accepted, key)
    return location_of(accepted.locations[-1])


def _applied_but_lost(accepted: Accepted, key: str | None) -> OutcomeUnknown:
    return OutcomeUnknown(
        "It was applied, but its answer is no longer kept: read it.",
        idempotency_key=key,
        seq=accepted.seq,
    )


_BY_CODE: dict[str, type[DistinvError]] = {
    kind.code: kind
    for kind in (
        errors.InvalidRequest,
        errors.InvalidQuantity,
        errors.InvalidSku,
        errors.InvalidLocation,
        errors.TooManyLines,
        errors.NotFound,
        errors.UnknownItem,
        errors.UnknownLocation,
        errors.Rejected,
        errors.InsufficientStock,
        errors.StaleVersion,
        errors.IdempotencyKeyReused,
        errors.TooManyKeys,
        errors.AlreadyExists,
        errors.ItemNotEmpty,
        errors.ItemDiscontinued,
    )
}


def class_of(code: str) -> type[DistinvError]:
    """The class of a refusal's code; one from a newer server is at least a Rejected."""
    return _BY_CODE.get(code, errors.Rejected)


@frozen
class Resolution:
    """What is known about a key, see `Fate`."""

    key: str
    fate: Fate
    session: int
    """Of an undecided number: the session to close through the log before asking again."""
    outcome: Outcome | None

    def conclude(self) -> Receipt | Refusal | None:
        """The receipt, the refusal as a value, or None: it had no effect.

        For an explicit key None means "not so far". Raises OutcomeUnknown when nothing is known
        any more, or nothing is decided yet.
        """
        if self.fate is Fate.ABSENT or self.fate is Fate.NEVER:
            return None
        if self.outcome is None:
            raise OutcomeUnknown(
                f"Nothing certain is known about {self.key!r}: {self.fate}.",
                idempotency_key=self.key,
            )
        if isinstance(self.outcome, Voided):
            return None
        try:
            return receipt_of(accepted_or_raise(self.outcome), self.key)
        except DistinvError as refusal:
            return refusal


def resolution_of(key: str, answer: queries.Resolved) -> Resolution:
    outcome = commands.decode_outcome(answer.outcome) if answer.outcome else None
    return Resolution(key, Fate(answer.fate), answer.session, outcome)
