"""What `distinv doctor` makes of the servers' answers, and of what else is heard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from command_line import CommandLine

from distinv.cli.diagnosis import Finding, diagnose
from distinv.cli.hearing import Heard, HeardServer
from distinv.entry import Ballot, NodeId
from distinv.testing.ports import free_port
from distinv.testing.processes import ServerProcesses
from distinv.wire.events import Notice
from distinv.wire.messages import ServerInfo, StatusReply

NAMES = {1: "north", 2: "south", 3: "east", 4: "west"}
VOTERS = (1, 2, 3)
PLACE = ("10.0.0.9", 4747)


def reply(node: int, role: str, term: int = 3, leader: int = 0, **infos: Any) -> StatusReply:
    lost_us = infos.pop("no_quorum_us", 0)
    roles = dict.fromkeys(VOTERS, "follower") | {int(key[1:]): infos[key] for key in infos}
    servers = tuple(
        ServerInfo(each, NAMES[each], ("10.0.0.9", 4000 + each), role, 9, each in VOTERS)
        for each, role in roles.items()
    )
    return StatusReply(
        *(1, node, NAMES[node], "shop", 77, role, leader, Ballot(term, 1)),
        *(9, 9, 9, 5, "", "", "bully"),
        servers if role != "blank" else (),
        0,
        lost_us,
    )


def heard(node: int, cluster: str = "shop", **changes: Any) -> HeardServer:
    address = ("10.0.0.9", 4000 + node)
    server = HeardServer(NodeId(node), 1, address, NAMES[node], cluster, 77, 0, (1, 1))
    return evolve(server, **changes)


def texts(findings: list[Finding], *, good: bool) -> list[str]:
    return [each.text for each in findings if each.good is good]


# --- a cluster ------------------------------------------------------------------------------------

THREE = [reply(1, "leader"), reply(2, "follower"), reply(3, "follower")]


def test_all_is_well() -> None:
    assert diagnose("shop", THREE) == [Finding(True, "north leads in term 3; voters: 3", "ok")]


def test_a_replica_is_no_fault() -> None:
    found = diagnose(
        "shop",
        [reply(1, "leader", _4="learner"), *THREE[1:], reply(4, "learner")],
    )
    assert texts(found, good=False) == []
    assert texts(found, good=True)[1] == (
        "copies without a vote (voters are odd in number, at most 5): west"
    )


def test_a_replica_that_is_gone_is_mentioned() -> None:
    """It is no vote that is missing; one that was switched off looks the same."""
    found = diagnose("shop", [reply(1, "leader", _4="unreachable"), *THREE[1:]])
    assert found[1] == Finding(True, "copies without a vote that are not reached: west", "--")


def test_a_voter_that_is_gone_is_named() -> None:
    found = diagnose("shop", [reply(1, "leader", _3="unreachable"), reply(2, "follower")])
    assert texts(found, good=False) == ["east votes and is not reached"]


def test_who_is_missing_for_a_majority() -> None:
    (problem, *rest) = texts(diagnose("shop", [reply(2, "follower")]), good=False)
    assert problem.startswith(
        "nobody leads: 2 of 3 votes are needed, and there are 1 (south). Start again: north, east. "
    )
    assert "If too many are lost for good: distinv recover" in problem
    assert rest == ["north votes and is not reached", "east votes and is not reached"]


def test_for_how_long_nobody_leads() -> None:
    (problem, *_) = diagnose("shop", [reply(2, "follower", no_quorum_us=83_000_000)])
    assert problem.text.startswith("nobody leads (for 83 s now): 2 of 3 votes are needed")


def test_a_majority_without_a_leader() -> None:
    (problem, _) = texts(
        diagnose("shop", [reply(2, "follower"), reply(3, "candidate")]), good=False
    )
    assert problem.startswith("nobody leads: 2 of 3 votes are needed, and there are 2. ")
    assert "do south, east hear each other, and do their disks work?" in problem


def test_a_leader_that_only_the_others_reach() -> None:
    (problem, _) = texts(
        diagnose("shop", [reply(2, "follower", leader=1), reply(3, "follower", leader=1)]),
        good=False,
    )
    assert problem == (
        "north leads in term 3, according to south, east, and does not answer here. Does this "
        "machine reach it at 10.0.0.9:4001?"
    )


def test_a_leader_of_whom_nothing_but_the_id_is_known() -> None:
    (problem, *_) = diagnose(
        "shop", [reply(2, "follower", leader=171), reply(3, "follower", leader=171)]
    )
    assert problem.text.startswith("00000000000000ab leads in term 3, according to south, east, ")
    assert problem.text.endswith("Does this machine reach it?")


def test_those_who_lost_the_leader_do_not_count_as_its_followers() -> None:
    replies = [
        reply(2, "follower", leader=1, no_quorum_us=400_000),
        reply(3, "follower", leader=1, no_quorum_us=400_000),
    ]
    assert diagnose("shop", replies)[0].text.startswith("nobody leads: ")


def test_a_blank_server_beside_the_cluster() -> None:
    (problem,) = texts(diagnose("shop", [*THREE, reply(4, "blank")]), good=False)
    assert problem.startswith("in reach of the cluster, but without its data: west.")


# --- birth ----------------------------------------------------------------------------------------

BLANK = [reply(2, "blank"), reply(1, "blank")]


def test_a_cluster_that_is_not_born() -> None:
    (problem,) = texts(diagnose("shop", BLANK), good=False)
    assert problem.startswith("the cluster 'shop' is not born yet. Found so far: north, south. It ")


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ((3, 3), "They wait for 3 servers (--expect): start the others"),
        ((3, 2), "They wait for 2 or 3: start all with the same --expect"),
        ((0, 3), "They wait for as many as are there or 3: start all with the same --expect"),
        (
            (1, 1),
            "They wait for 1 (--expect), and no more: start all with the number that there is",
        ),
        ((2, 2), "It takes seconds; if this lasts, see their logs: do they hear each other?"),
        ((0, 0), "It takes seconds; if this lasts, see their logs: do they hear each other?"),
    ],
)
def test_what_blank_servers_wait_for(expected: tuple[int, int], text: str) -> None:
    servers = tuple(
        heard(node, cluster_id=0, expect=expect) for node, expect in zip((1, 2), expected)
    )
    (problem,) = diagnose("shop", BLANK, Heard(servers=servers))
    assert problem.text.endswith(f". {text}")


# --- nobody answers -------------------------------------------------------------------------------

KEYS = "it has the key 0badcafe, this process has no key"


def why_nobody(**changes: Any) -> list[str]:
    found = diagnose("shop", [], Heard(**changes))
    assert not any(each.good for each in found)
    return [each.text for each in found]


def test_nothing_is_heard() -> None:
    first, second = why_nobody(beacon_port=4999)
    assert first == "no server of the cluster 'shop' answers"
    assert second.startswith("nothing is heard at all. Does a server run (distinv serve)?")
    assert "with the beacon port 4999?" in second
    assert "--servers HOST:PORT" in second


def test_without_a_key_only_this_machine_is_searched() -> None:
    (_, second) = why_nobody(here_only=True)
    assert second.startswith("nothing is heard on this machine.")
    assert "--key FILE" in second


def test_another_name_was_meant() -> None:
    (_, second) = why_nobody(servers=(heard(1, "shops"), heard(2, "shops"), heard(3, "depot")))
    assert second == (
        "other clusters are heard: 'depot' (east at 10.0.0.9:4003); 'shops' (north at "
        "10.0.0.9:4001, south at 10.0.0.9:4002). Is the name right?"
    )


def test_a_cluster_that_announces_itself_and_does_not_answer() -> None:
    (problem,) = why_nobody(servers=(heard(1), heard(2, "depot")))
    assert problem.startswith("heard of the cluster 'shop', but no answer comes from: north at ")
    assert "firewall" in problem


def test_another_key() -> None:
    _, problem = why_nobody(notices=(Notice("wrong_key", PLACE, KEYS),))
    assert problem.startswith(f"heard with another key: 10.0.0.9:4747: {KEYS}. ")
    assert "--key FILE" in problem


def test_nobody_at_the_addresses_that_were_given() -> None:
    refused, silent, other = ("10.0.0.1", 1), ("10.0.0.2", 2), PLACE
    _, first, second, third = why_nobody(
        asked=(refused, silent, other),
        refused=(refused,),
        notices=(Notice("wrong_key", PLACE, KEYS),),
    )
    assert first.startswith("nobody listens at 10.0.0.1:1: is the port right")
    assert second.startswith("10.0.0.2:2 says nothing.")
    assert third.startswith("heard with another key: 10.0.0.9:4747")


def test_the_port_for_announcements_is_taken() -> None:
    (_, second) = why_nobody(deaf="the beacon port 4746/udp is held by another program")
    assert second == (
        "who announces itself cannot be heard: the beacon port 4746/udp is held by another program"
    )


# --- what does not belong there -------------------------------------------------------------------


def besides(**changes: Any) -> list[Finding]:
    first, *rest = diagnose("shop", THREE, Heard(**changes))
    assert first.good
    return rest


def test_clusters_of_other_names_are_nobodys_trouble() -> None:
    assert besides(servers=(heard(4, "depot", cluster_id=5),)) == []


def test_another_cluster_of_that_name() -> None:
    (problem,) = besides(servers=(heard(1), heard(4, cluster_id=0xAB)))
    assert not problem.good
    assert problem.text.startswith(
        "another cluster is also named 'shop' (00000000000000ab): west at 10.0.0.9:4004. The two "
        "never merge"
    )


def test_another_cluster_of_that_name_that_only_the_client_met() -> None:
    (problem,) = besides(notices=(Notice("foreign_cluster", PLACE, "…"),))
    assert problem.text.startswith("another cluster is also named 'shop': 10.0.0.9:4747. ")


def test_another_key_beside_a_cluster_that_works_is_mentioned() -> None:
    """Most likely it is none of ours; and if it should be, it is named."""
    (problem,) = besides(notices=(Notice("wrong_key", PLACE, KEYS),))
    assert problem.mark == "--"
    assert problem.good
    assert problem.text.startswith(f"heard with another key: 10.0.0.9:4747: {KEYS}. ")


def test_a_server_of_another_version() -> None:
    """By what it announces, or by what became of a greeting."""
    (problem,) = besides(servers=(heard(4, speaks=(2, 3)),))
    assert problem.text == (
        "no common version of the protocol with 10.0.0.9:4004: it speaks versions 2 to 3 of the "
        "protocol, this process version 1. Upgrade the older one"
    )
    assert not problem.good
    (problem,) = besides(notices=(Notice("version_mismatch", PLACE, "it speaks version 9"),))
    assert problem.text.startswith("no common version of the protocol with 10.0.0.9:4747: it ")
    assert not problem.good


def test_two_processes_of_one_identity() -> None:
    copy = heard(1, boot=2, address=PLACE)
    (problem,) = besides(servers=(heard(1), copy, heard(2)))
    assert not problem.good
    assert problem.text.startswith(
        "two processes have the identity of north: 10.0.0.9:4001, 10.0.0.9:4747. Was a data "
        "directory copied?"
    )


def test_two_processes_of_one_identity_that_only_the_client_met() -> None:
    (problem,) = besides(notices=(Notice("same_id", PLACE, "…"),))
    assert problem.text.startswith(
        "two processes have one identity, one of them at 10.0.0.9:4747. Was "
    )


def test_a_server_that_was_restarted_is_no_second_one() -> None:
    """At the same place, or at another one and gone from the first."""
    assert besides(servers=(heard(1), heard(1, boot=2))) == []
    moved = heard(1, boot=2, address=PLACE)
    assert besides(servers=(heard(1), moved), refused=(heard(1).address,)) == []


# --- the command, against a real server -----------------------------------------------------------


def test_the_doctor_finds_a_cluster_well(shop: CommandLine) -> None:
    done = shop("doctor", "--timeout", "1")
    assert done.status == 0
    assert "leads in term" in done.out
    assert done.out.startswith("ok  ")
    assert done.err == ""
    (finding,) = shop("doctor", "--timeout", "1", "--json").json["findings"]
    assert finding["good"] is True


def test_the_doctor_finds_nobody(distinv: CommandLine) -> None:
    nowhere = ("--cluster", "no-such", "--beacon-port", str(free_port()), "--timeout", "0.5")
    done = distinv("doctor", *nowhere)
    assert done.status == 1
    first, second = done.out.splitlines()
    assert first == "!!  no server of the cluster 'no-such' answers"
    assert "nothing is heard on this machine" in second
    assert [each["good"] for each in distinv("doctor", *nowhere, "--json").json["findings"]] == [
        False,
        False,
    ]


def test_the_doctor_names_an_address_where_nobody_listens(distinv: CommandLine) -> None:
    address = f"127.0.0.1:{free_port()}"
    done = distinv("doctor", "--cluster", "no-such", "--servers", address, "--timeout", "0.5")
    assert done.status == 1
    assert f"nobody listens at {address}" in done.out


def test_the_doctor_names_another_key(
    one_server: ServerProcesses, distinv: CommandLine, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    assert distinv("keygen", str(key)).status == 0
    port = ("--beacon-port", str(one_server.beacon_port))
    done = distinv("doctor", "--cluster", one_server.cluster, *port, "--key", str(key))
    assert done.status == 1
    assert "!!  heard with another key: 127.0.0.1:" in done.out
    assert "it has no key, this process has the key" in done.out
    assert done.err == ""
