"""What `distinv status` makes of the servers' answers, and how it prints that."""

from __future__ import annotations

import pytest

from distinv.cli import status
from distinv.cli.output import plain, print_table
from distinv.client.status import ClusterStatus, ServerStatus, cluster_status
from distinv.entry import Ballot
from distinv.wire.messages import ServerInfo, StatusReply

INFOS = (
    ServerInfo(1, "north", None, "follower", 9, True, 0, 3_200_000),
    ServerInfo(2, "south", ("10.0.0.2", 4747), "unreachable", 9, True, 4, None),
    ServerInfo(3, "east", ("10.0.0.3", 4747), "unreachable", 9, True, None, None),
    ServerInfo(4, "west", ("10.0.0.4", 4747), "learner", 9, False, 0, 3_100_000),
)


def reply(node: int, name: str, role: str, leader: int = 0, no_quorum_us: int = 0) -> StatusReply:
    return StatusReply(
        *(1, node, name, "shop", 77, role, leader, Ballot(3, 2), 9, 9, 8, 5, "state", "digest"),
        "bully",
        INFOS,
        0,
        no_quorum_us,
    )


def survivors() -> ClusterStatus:
    replies = [reply(1, "north", "follower", 0, 3_200_000), reply(4, "west", "learner", 0, 40_000)]
    return cluster_status(replies, {1: ("10.0.0.1", 4747)})


def test_votes_and_the_time_without_a_quorum_are_shown() -> None:
    found = {each.name: each for each in survivors().servers}
    assert {name: each.votes for name, each in found.items()} == {
        "north": True,
        "south": True,
        "east": True,
        "west": False,
    }
    assert found["north"].no_quorum_us == 3_200_000
    assert found["west"].no_quorum_us == 40_000
    assert found["south"] == ServerStatus(
        2, "south", ("10.0.0.2", 4747), "unreachable", True, None, None, 4, None, None, None
    )


def test_people_read_it_in_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    found = survivors()
    assert status.headline(found) == "cluster shop (000000000000004d): nobody leads, term 3"
    rows = [status.row(server) for server in found.servers]
    print_table((*status.COLUMNS, "digest"), rows)
    printed = capsys.readouterr().out.splitlines()
    assert [line.rstrip() for line in printed] == [
        "name   role         vote  seq  index  lag  quorum          address        "
        "state_digest  digest",
        "-----  -----------  ----  ---  -----  ---  --------------  -------------  "
        "------------  ------",
        "east   unreachable  yes                                    10.0.0.3:4747",
        "north  follower     yes   5    8      1    none for 3.2 s  10.0.0.1:4747  "
        "state         digest",
        "south  unreachable  yes               4                    10.0.0.2:4747",
        "west   learner      no    5    8      1    none for 40 ms  10.0.0.4:4747  "
        "state         digest",
    ]


def test_programs_read_all_of_it() -> None:
    shown = {each["name"]: each for each in plain(survivors())["servers"]}
    assert shown["north"]["votes"] is True
    assert shown["north"]["no_quorum_us"] == 3_200_000
    assert shown["south"]["no_quorum_us"] is None
    assert shown["south"]["lag"] == 4
