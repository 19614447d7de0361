"""What the servers' answers, and what else was heard, say about a cluster: in plain words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import frozen

from distinv.cli.hearing import Heard, HeardServer
from distinv.transport.api import Address
from distinv.wire.events import Notice
from distinv.wire.frame import SPEAKS, common_protocol, mismatch
from distinv.wire.messages import StatusReply


@frozen
class Finding:
    """One line, and whether anybody has to do anything about it."""

    good: bool
    text: str
    mark: str = ""
    """What stands before it; else `ok` or `!!`."""


def good(text: str) -> Finding:
    return Finding(True, text, "ok")


def bad(text: str) -> Finding:
    return Finding(False, text, "!!")


def by_the_way(text: str) -> Finding:
    """Nothing of this cluster's, perhaps; or the reason of what is wrong with it."""
    return Finding(True, text, "--")


NOTHING = Heard()
_SECOND_US = 1_000_000


def diagnose(cluster: str, replies: Sequence[StatusReply], heard: Heard = NOTHING) -> list[Finding]:
    """From what all servers answered that answered; what matters most comes first."""
    members = [reply for reply in replies if reply.role != "blank"]
    if not replies:
        found = _nobody(cluster, heard)
    elif not members:
        found = [_unborn(cluster, replies, heard)]
    else:
        best = max(members, key=lambda reply: (reply.ballot, reply.last_index))
        blank = [reply.name for reply in replies if reply.role == "blank"]
        found = [_leader(best, members), *_missing(best, members), *_replicas(best, members)]
        found += [_joining(blank)] if blank else []
        found += _namesakes(cluster, best.cluster_id, heard)
    found += _twins(heard)
    found += _other_keys(heard, blamed=not replies)
    found += _other_versions(cluster, heard)
    return found


# --- nobody answers -------------------------------------------------------------------------------


def _nobody(cluster: str, heard: Heard) -> list[Finding]:
    silent = [each for each in heard.servers if each.cluster == cluster]
    if silent:
        names = _list(_at(each) for each in silent)
        return [
            bad(
                f"heard of the cluster {cluster!r}, but no answer comes from: {names}. Does a "
                "firewall let UDP through in one direction only?"
            )
        ]
    found = [bad(f"no server of the cluster {cluster!r} answers")]
    if heard.asked:
        known = [each.address for each in heard.notices]
        return [*found, *(_asked(each, heard) for each in heard.asked if each not in known)]
    others = _other_clusters(cluster, heard)
    if others:
        found.append(bad(f"other clusters are heard: {others}. Is the name right?"))
    if heard.deaf:
        found.append(bad(f"who announces itself cannot be heard: {heard.deaf}"))
    if not (others or heard.deaf or _wrong_keys(heard)):
        found.append(bad(_where_to_look(heard)))
    return found


def _asked(address: Address, heard: Heard) -> Finding:
    where = _place(address)
    if address in heard.refused:
        return bad(f"nobody listens at {where}: is the port right, and does the server run?")
    return bad(
        f"{where} says nothing. Is the machine up, and is it a server of this cluster? Does a "
        "firewall let UDP through?"
    )


def _where_to_look(heard: Heard) -> str:
    port = f"the beacon port {heard.beacon_port}"
    if heard.here_only:
        return (
            "nothing is heard on this machine. Does a server run here (distinv serve), with "
            f"{port}? Servers on other machines are looked for with the cluster's key only: "
            "--key FILE (or --insecure)"
        )
    return (
        "nothing is heard at all. Does a server run (distinv serve)? On this network, with "
        f"{port}? Does a firewall let UDP through? Where broadcasts do not pass, name a server: "
        "--servers HOST:PORT"
    )


def _other_clusters(cluster: str, heard: Heard) -> str:
    names: dict[str, list[str]] = {}
    for each in heard.servers:
        if each.cluster != cluster:
            names.setdefault(each.cluster, []).append(_at(each))
    return "; ".join(f"{name!r} ({_list(servers)})" for name, servers in sorted(names.items()))


# --- the cluster ----------------------------------------------------------------------------------


def _unborn(cluster: str, replies: Sequence[StatusReply], heard: Heard) -> Finding:
    names = sorted(reply.name for reply in replies)
    ids = {reply.node for reply in replies}
    expected = sorted({each.expect for each in heard.servers if each.node in ids})
    text = f"the cluster {cluster!r} is not born yet. Found so far: {_list(names)}"
    if len(expected) > 1:
        numbers = " or ".join(str(each or "as many as are there") for each in expected)
        return bad(f"{text}. They wait for {numbers}: start all with the same --expect")
    if expected and expected[0] > len(names):
        return bad(f"{text}. They wait for {expected[0]} servers (--expect): start the others")
    if expected and expected[0] and expected[0] < len(names):
        return bad(
            f"{text}. They wait for {expected[0]} (--expect), and no more: start all with the "
            "number that there is"
        )
    return bad(f"{text}. It takes seconds; if this lasts, see their logs: do they hear each other?")


def _leader(best: StatusReply, members: Sequence[StatusReply]) -> Finding:
    voters = {each.node: each.name for each in best.servers if each.votes}
    needed = len(voters) // 2 + 1
    leaders = [reply for reply in members if reply.role == "leader"]
    if leaders:
        newest = max(leaders, key=lambda reply: reply.ballot)
        return good(f"{newest.name} leads in term {newest.ballot.term}; voters: {len(voters)}")
    answering = {reply.node for reply in members}
    here = [name for node, name in voters.items() if node in answering]
    gone = [name for node, name in voters.items() if node not in answering]
    followed = [reply for reply in members if reply.leader and not reply.no_quorum_us]
    if len(here) >= needed and followed:
        return _led_from_afar(best, followed)
    since = max((reply.no_quorum_us for reply in members), default=0)
    lasting = f" (for {since // _SECOND_US} s now)" if since >= _SECOND_US else ""
    votes = f"nobody leads{lasting}: {needed} of {len(voters)} votes are needed, and there are "
    if len(here) >= needed:
        return bad(
            f"{votes}{len(here)}. An election takes less than a second; if this lasts, do "
            f"{_list(here)} hear each other, and do their disks work? See their logs"
        )
    return bad(
        f"{votes}{len(here)} ({_list(here) or 'none'}). Start again: {_list(gone)}. If too many "
        "are lost for good: distinv recover, on the server that has come farthest"
    )


def _led_from_afar(best: StatusReply, followed: Sequence[StatusReply]) -> Finding:
    newest = max(followed, key=lambda reply: reply.ballot)
    infos = {each.node: each for each in best.servers}
    info = infos.get(newest.leader)
    name = f"{newest.leader:016x}" if info is None else info.name
    where = "" if info is None or info.address is None else f" at {_place(info.address)}"
    return bad(
        f"{name} leads in term {newest.ballot.term}, according to "
        f"{_list(each.name for each in followed)}, and does not answer here. Does this machine "
        f"reach it{where}?"
    )


def _missing(best: StatusReply, members: Sequence[StatusReply]) -> list[Finding]:
    here = {reply.node for reply in members}
    return [
        bad(f"{each.name} votes and is not reached")
        for each in best.servers
        if each.votes and (each.node not in here or each.role == "unreachable")
    ]


def _replicas(best: StatusReply, members: Sequence[StatusReply]) -> list[Finding]:
    """Servers that have the log and do not vote are no fault."""
    here = {reply.node for reply in members}
    rest = [each for each in best.servers if not each.votes]
    learners = [each.name for each in rest if each.role == "learner" and each.node in here]
    gone = [each.name for each in rest if each.role == "unreachable" or each.node not in here]
    found = []
    if learners:
        found.append(
            good(f"copies without a vote (voters are odd in number, at most 5): {_list(learners)}")
        )
    if gone:
        found.append(by_the_way(f"copies without a vote that are not reached: {_list(gone)}"))
    return found


def _joining(blank: Sequence[str]) -> Finding:
    return bad(
        f"in reach of the cluster, but without its data: {_list(blank)}. It takes seconds, once "
        "there is a leader; if this lasts, see their logs"
    )


# --- what does not belong there -------------------------------------------------------------------


def _namesakes(cluster: str, cluster_id: int, heard: Heard) -> list[Finding]:
    """Two clusters of one name never merge."""
    others: dict[str, list[str]] = {}
    for each in heard.servers:
        if each.cluster == cluster and each.cluster_id not in (0, cluster_id):
            others.setdefault(f" ({each.cluster_id:016x})", []).append(_at(each))
    noticed = [_place(each.address) for each in heard.notices if each.kind == "foreign_cluster"]
    if noticed and not others:
        others[""] = noticed
    return [
        bad(
            f"another cluster is also named {cluster!r}{which}: {_list(servers)}. The two never "
            "merge: see docs/operations.md, two clusters of one name"
        )
        for which, servers in sorted(others.items())
    ]


def _twins(heard: Heard) -> list[Finding]:
    """One id in two places: a data directory was copied."""
    found = [
        f"two processes have the identity of {runs[0].name}: "
        f"{_list(sorted(_place(run.address) for run in runs))}"
        for runs in heard.runs()
    ]
    noticed = [_place(each.address) for each in heard.notices if each.kind == "same_id"]
    if noticed and not found:
        found = [f"two processes have one identity, one of them at {_list(sorted(noticed))}"]
    return [
        bad(
            f"{each}. Was a data directory copied? The newer one stops when the two hear each "
            "other; if this lasts, stop one: see docs/operations.md, a copied data directory"
        )
        for each in found
    ]


def _other_keys(heard: Heard, *, blamed: bool) -> list[Finding]:
    """Of somebody else's cluster, or the reason of the trouble."""
    keys = _wrong_keys(heard)
    if not keys:
        return []
    places = "; ".join(f"{_place(each.address)}: {each.detail}" for each in keys)
    text = (
        f"heard with another key: {places}. Whoever is to be of one cluster needs the same "
        "--key FILE (or DISTINV_KEY)"
    )
    return [bad(text) if blamed else by_the_way(text)]


def _other_versions(cluster: str, heard: Heard) -> list[Finding]:
    versions = {
        _place(each.address): each.detail
        for each in heard.notices
        if each.kind == "version_mismatch"
    }
    for each in heard.servers:
        if each.cluster == cluster and not common_protocol(each.speaks, SPEAKS):
            versions[_place(each.address)] = mismatch(each.speaks, SPEAKS)
    return [
        bad(f"no common version of the protocol with {where}: {detail}. Upgrade the older one")
        for where, detail in sorted(versions.items())
    ]


def _wrong_keys(heard: Heard) -> list[Notice]:
    """One for each place: a process at one address has one key."""
    found = {each.address: each for each in heard.notices if each.kind == "wrong_key"}
    return [found[address] for address in sorted(found)]


# --- words ----------------------------------------------------------------------------------------


def _at(server: HeardServer) -> str:
    return f"{server.name} at {_place(server.address)}"


def _place(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
