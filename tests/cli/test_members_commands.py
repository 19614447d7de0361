"""`distinv promote`, `remove`, `leave`, `hand-over`: one clear line, whatever is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from attrs import frozen
from command_line import CommandLine, Ran

from distinv.cli.members import who_leads
from distinv.testing.ports import free_port
from distinv.testing.processes import ServerProcesses

DEADLINE_S = 60.0


@frozen
class Cluster:
    """Four servers, of which three vote, and the command line to ask them with."""

    portal: BlockingPortal
    processes: ServerProcesses
    run: CommandLine

    def servers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.run("status", "--json").json["servers"]
        return found

    def named(self, role: str, *, votes: bool = True) -> list[str]:
        return [
            each["name"]
            for each in self.servers()
            if (each["role"], each["votes"]) == (role, votes)
        ]

    def eventually(self, condition: Callable[[], bool]) -> None:
        """Look until it holds: nothing is assumed about how long that takes."""
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, self.run("status").out

    def settled(self) -> bool:
        return len(self.named("leader")) == 1 and len(self.named("follower")) == 2


@pytest.fixture(scope="module")
def four() -> Iterator[tuple[BlockingPortal, ServerProcesses]]:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(
            ServerProcesses(4, cluster="members", expect=3)
        ) as servers,
    ):
        yield portal, servers


@pytest.fixture
def cluster(
    four: tuple[BlockingPortal, ServerProcesses], capsys: pytest.CaptureFixture[str]
) -> Cluster:
    portal, processes = four
    cluster = Cluster(portal, processes, CommandLine(capsys, *processes.client_arguments))
    cluster.eventually(cluster.settled)
    return cluster


def one_line(ran: Ran) -> str:
    """What was said on standard error: one line of the command's, and nothing else."""
    assert ran.err.startswith("distinv: ")
    assert ran.err.count("\n") == 1
    return ran.err.removeprefix("distinv: ").rstrip("\n")


@pytest.mark.parametrize("order", ["promote", "remove", "leave", "hand-over"])
def test_a_server_that_is_not_there(order: str, cluster: Cluster) -> None:
    ran = cluster.run(order, "nobody", "--json")
    assert ran.status == 1
    said = one_line(ran)
    assert said.startswith("There is no server 'nobody' in this cluster; there are ")
    assert ran.json == {"error": {"code": "not_found", "message": said, "retryable": False}}
    for server in cluster.processes.servers:
        assert server.name in said


def test_leadership_is_handed_over(cluster: Cluster) -> None:
    (leader,) = cluster.named("leader")
    done = cluster.run("hand-over")
    assert done.status == 0
    assert done.err == ""
    other = done.out.removesuffix(" leads\n")
    assert other in {server.name for server in cluster.processes.servers} - {leader}
    done = cluster.run("hand-over", leader, "--json")
    assert done.json == {"done": f"{leader} leads"}
    assert cluster.run("hand-over", leader).out == f"{leader} leads\n", "it is so already"
    assert cluster.named("leader") == [leader]


class _Followers:
    """A client whose servers follow the leader of before for another moment."""

    def __init__(self, *leaders: str | None) -> None:
        self.leaders = [*leaders]

    async def cluster(self) -> SimpleNamespace:
        servers = [SimpleNamespace(name=f"s{number}", node=number) for number in (1, 2, 3)]
        return SimpleNamespace(leader=self.leaders.pop(0), servers=servers)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("heir", "leaders", "told"),
    [
        (None, ("s1", None, "s1", "s3"), "s3 leads"),
        ("s2", ("s1", "s2"), "s2 leads"),
        (3, (None, "s1", "s3"), "s3 leads"),
        ("s1", ("s1",), "s1 leads"),
    ],
)
async def test_the_leader_of_before_is_not_taken_for_its_successor(
    heir: str | int | None, leaders: tuple[str | None, ...], told: str
) -> None:
    """The order was done, some servers had not heard of it, and the old leader was named."""
    followers: Any = _Followers(*leaders)
    assert await who_leads(followers, heir, "s1") == told


def test_who_has_no_vote_cannot_lead(cluster: Cluster) -> None:
    cluster.eventually(lambda: len(cluster.named("learner", votes=False)) == 1)
    (learner,) = cluster.named("learner", votes=False)
    ran = cluster.run("hand-over", learner)
    assert ran.status == 2
    assert one_line(ran) == f"{learner} has no vote, and cannot lead: promote it first"


def test_a_server_may_be_named_by_its_id(cluster: Cluster) -> None:
    (leader,) = (each for each in cluster.servers() if each["role"] == "leader")
    node = f"{leader['node']:016x}"
    assert cluster.run("promote", node).out == f"{node} votes\n"
    assert cluster.run("promote", "0123456789abcdef").status == 1
    assert cluster.run("promote", "0123456789abcdeg").status == 1


def test_three_become_one_only_with_yes(cluster: Cluster) -> None:
    """Last in this file: of the four servers two are left, then."""
    cluster.eventually(lambda: len(cluster.named("learner", votes=False)) == 1)
    (learner,) = cluster.named("learner", votes=False)
    done = cluster.run("remove", learner, "--json")
    assert done.json == {"done": f"{learner} does not vote any more"}
    leaving = cluster.named("follower")[0]
    for order in ("remove", "leave"):
        ran = cluster.run(order, leaving, "--json")
        assert ran.status == 2
        said = one_line(ran)
        assert said.startswith("then only one server votes: the others are copies")
        assert "--yes" in said
        assert ran.json["error"]["code"] == "invalid_request"
    assert cluster.settled(), "nothing was changed"
    done = cluster.run("leave", leaving, "--yes")
    assert done.status == 0
    assert done.out == f"{leaving} has left and stops\n"
    process = cluster.processes[leaving]
    assert cluster.portal.call(process.wait_ended) == 0
    cluster.eventually(lambda: len(cluster.named("leader")) == 1)
    assert cluster.named("follower") == []


@pytest.mark.parametrize("order", ["remove", "leave"])
def test_the_last_server_is_needed(
    order: str, one_server: ServerProcesses, shop: CommandLine
) -> None:
    (server,) = one_server.servers
    ran = shop(order, server.name, "--yes", "--json")
    assert ran.status == 2
    said = one_line(ran)
    assert said.startswith("nobody else could vote: without it there is no cluster. Start another")
    assert ran.json["error"]["message"] == said


def test_nobody_is_there_to_take_over(shop: CommandLine) -> None:
    ran = shop("hand-over")
    assert ran.status == 2
    assert one_line(ran).startswith("no other server that votes is there to take over")


@pytest.mark.parametrize("order", ["promote", "remove", "leave"])
def test_no_server_is_named(order: str, distinv: CommandLine) -> None:
    ran = distinv(order, "--cluster", "shop")
    assert ran.status == 2
    assert "required: SERVER" in ran.err


@pytest.mark.parametrize("arguments", [("promote", "a"), ("leave", "a"), ("hand-over",)])
def test_no_cluster_is_there(arguments: tuple[str, ...], distinv: CommandLine) -> None:
    nowhere = ("--cluster", "no-such", "--beacon-port", str(free_port()), "--timeout", "0.3")
    ran = distinv(*arguments, *nowhere, "--json")
    assert ran.status == 3
    assert one_line(ran) == "No server of the cluster 'no-such' answers."
    assert ran.json["error"]["code"] == "no_server"
    assert ran.json["error"]["retryable"] is True
