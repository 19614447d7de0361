"""What a campaign, or a history by itself, has come to: as JSON and in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from distinv.testing.torture.campaign import Outcome
from distinv.testing.torture.checker import Judgement
from distinv.testing.torture.evidence import Problem
from distinv.testing.torture.history import Call
from distinv.testing.torture.plan import Kind

_FAULTS = {
    Kind.LEADER_KILL: "leader_kills",
    Kind.PAUSE: "pauses",
    Kind.PARTITION: "partitions",
    Kind.ISOLATION: "isolations",
    Kind.ONE_WAY: "one_way_cuts",
    Kind.CLIENTS: "client_cuts",
    Kind.LOSS: "losses",
    Kind.DISK_FULL: "disks_full",
    Kind.RESTART: "full_restarts",
    Kind.ROLLING: "rolling_restarts",
    Kind.LEAVE: "leaves",
    Kind.DISK_LOST: "disks_lost",
}
_PROBLEM_CALLS = 3


def campaign_report(outcome: Outcome) -> dict[str, Any]:
    """The object that `distinv torture --json` prints."""
    settings = outcome.settings
    if outcome.skipped:
        return {"verdict": outcome.verdict, "reason": outcome.skipped}
    report: dict[str, Any] = {
        "verdict": outcome.verdict,
        "problems": [problem_report(problem) for problem in outcome.problems],
        "seed": settings.seed,
        "seconds": round(outcome.seconds, 1),
        "servers": settings.servers,
        "clients": settings.clients,
        "callers": settings.clients * settings.callers,
        "election": settings.election,
        "backend": settings.server_backend,
        "loss": settings.loss,
        "sealed": settings.sealed or settings.namespaces,
        "namespaces": settings.namespaces,
    }
    report |= count_calls(outcome.calls, outcome.judgement)
    gap_us = outcome.write_gap_us
    report["write_gap_ms_max"] = None if gap_us is None else round(gap_us / 1_000, 1)
    report |= count_faults(outcome.faults)
    if outcome.left_out:
        report["left_out"] = outcome.left_out
    if settings.history is not None:
        report["history"] = str(settings.history)
    if outcome.directory is not None:
        report["directory"] = str(outcome.directory)
    return report


def history_report(calls: Sequence[Call], judgement: Judgement) -> dict[str, Any]:
    """The object that `distinv torture --check FILE --json` prints."""
    return {
        "verdict": "ok" if judgement.ok else "failed",
        "problems": [problem_report(problem) for problem in judgement.problems],
        "servers_compared": judgement.servers_compared,
    } | count_calls(calls, judgement)


def count_faults(counts: Counter[str]) -> dict[str, int]:
    """What was done to the servers, by its name in the report."""
    found = {name: counts[kind] for kind, name in _FAULTS.items()}
    return found | {
        "server_kills": counts["server_kills"],
        "leader_pauses": counts["leader_pauses"],
        "disk_full_stops": counts["disk_full_stops"],
        "disk_full_survivals": counts["disk_full_survivals"],
        "snapshots": counts["snapshots"],
    }


def count_calls(calls: Sequence[Call], judgement: Judgement | None) -> dict[str, Any]:
    """How the calls ended, and what became of those whose outcome was unknown at first."""
    commands = Counter(call.outcome for call in calls if call.is_command)
    refusals = Counter(
        call.answer.get("code", "")
        for call in calls
        if call.is_command and call.outcome == "refused"
    )
    reads = Counter(
        call.arguments.get("read", "linearizable") for call in calls if call.operation == "levels"
    )
    return {
        "operations": sum(commands.values()) + sum(reads.values()),
        "accepted": commands["accepted"],
        "refused": commands["refused"],
        "refusals": dict(sorted(refusals.items())),
        "unavailable": commands["unavailable"],
        "abandoned": commands["abandoned"],
        "unknown_outcomes": commands["unknown"],
        "unknown_outcomes_resolved": _resolved(calls, judgement),
        "open_outcomes": len(judgement.evidence.unplaced) if judgement is not None else 0,
        "reads_linearizable": reads["linearizable"],
        "reads_local": reads["local"],
        "last_seq": judgement.evidence.last_seq if judgement is not None else 0,
    }


def _resolved(calls: Sequence[Call], judgement: Judgement | None) -> dict[str, int]:
    """What became of unknown outcomes: said by `resolve` or the same key again, or the ledger."""
    answers = {
        str(call.arguments["key"]): call.outcome
        for call in calls
        if call.operation == "resolve" and call.outcome in ("accepted", "refused", "none")
    }
    answers |= {
        call.key: call.outcome
        for call in calls
        if call.is_command and call.key and call.outcome in ("accepted", "refused")
    }
    rows = judgement.evidence.ledger.references.values() if judgement is not None else ()
    in_ledger = dict.fromkeys(rows, "ledger")
    found = Counter(
        answers.get(str(call.answer.get("key"))) or in_ledger.get(call.reference, "open")
        for call in calls
        if call.is_command and call.outcome == "unknown"
    )
    return {name: found[name] for name in ("accepted", "refused", "none", "ledger", "open")}


def problem_report(problem: Problem) -> dict[str, Any]:
    """A problem with the calls that prove it, as they stand in the history."""
    calls = [
        {
            "client": call.client,
            "start": call.start,
            "end": call.end,
            "operation": call.operation,
            "arguments": call.arguments,
            "answer": call.answer,
            "seq": call.seq,
        }
        for call in problem.calls[:_PROBLEM_CALLS]
        if call.operation not in ("ledger", "servers")
    ]
    return {"kind": problem.kind, "text": problem.text, "calls": calls}


def describe_problems(problems: Sequence[Problem]) -> Iterator[str]:
    """Lines for people."""
    for problem in problems:
        yield f"WRONG ({problem.kind}): {problem.text}"
        for call in problem.calls[:_PROBLEM_CALLS]:
            yield f"    {call.describe():.300}"


def describe_campaign(outcome: Outcome) -> Iterator[str]:
    """Lines for people."""
    if outcome.skipped:
        yield f"skipped: {outcome.skipped}"
        return
    report = campaign_report(outcome)
    faults = count_faults(outcome.faults)
    done = [f"{count} {name.replace('_', ' ')}" for name, count in faults.items() if count]
    yield ", ".join(done) or "nothing was done to the servers"
    yield from _describe_calls(report)
    if outcome.write_gap_us is not None:
        yield f"no answer to any command for at most {report['write_gap_ms_max']:.0f} ms"
    for kind, reason in outcome.left_out.items():
        yield f"left out: {kind}, {reason}"
    yield from describe_problems(outcome.problems)
    if outcome.directory is not None:
        yield f"data, logs and history are kept in {outcome.directory}"
    if outcome.verdict == "ok":
        yield "verdict ok: nothing lost, nothing done twice, one order explains every answer"
    if outcome.verdict == "interrupted":
        yield "interrupted, not judged"


def describe_history(calls: Sequence[Call], judgement: Judgement) -> Iterator[str]:
    """Lines for people."""
    yield from _describe_calls(history_report(calls, judgement))
    yield from describe_problems(judgement.problems)
    if not judgement.servers_compared:
        yield "servers were not compared"
    if judgement.ok:
        yield "verdict ok: one order explains every answer"


def _describe_calls(report: dict[str, Any]) -> Iterator[str]:
    resolved = report["unknown_outcomes_resolved"]
    yield (
        f"{report['operations']} operations: {report['accepted']} accepted, "
        f"{report['refused']} refused, {report['unavailable']} certainly not done, "
        f"{report['reads_linearizable']} reads and {report['reads_local']} local ones"
    )
    yield (
        f"{report['unknown_outcomes']} unknown outcomes: {resolved['accepted']} had been accepted, "
        f"{resolved['refused']} refused, {resolved['none']} had had no effect, "
        f"{resolved['ledger']} stand in the ledger, {resolved['open']} do not; "
        f"{report['abandoned']} callers went away"
    )
