"""The example's election keeps the contract, and nominates the server with the least to do."""

from __future__ import annotations

import importlib.util
import sys
from functools import partial
from pathlib import Path
from random import Random
from types import ModuleType

from hypothesis import given, settings
from hypothesis import strategies as st

from distinv.election.api import Election, ElectionContext, Nominate, SendElection
from distinv.entry import NodeId
from distinv.testing.conformance.electorate import ANSWER_US, TIMING, Electorate

EXAMPLES = Path(__file__).parents[2] / "examples"
SECOND = 1_000_000

electorate = partial(Electorate, insistent=False)
"""Nobody suspects twice: whatever comes of it is the elections' own doing."""


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where its annotations are looked up
    spec.loader.exec_module(module)
    return module


LOWEST_LOAD = load(EXAMPLES / "lowest_load_election" / "lowest_load_election.py")


def lowest_load(context: ElectionContext) -> Election:
    election: Election = LOWEST_LOAD.LowestLoad(context)
    return election


def make_busy(election: Election, delay_us: int) -> None:
    """Call it late, as a busy event loop does."""
    for _ in range(30):
        due = election.deadline()
        assert due is not None
        list(election.on_deadline(due + delay_us))


def test_among_equals_the_highest_id_is_nominated_by_everybody() -> None:
    net = electorate(lowest_load, 5)
    net.lead(5)
    net.kill(5)
    net.suspect(net.alive(), 5)
    net.run(ANSWER_US)
    assert [each.whom for each in net.nominations] == [4, 4, 4, 4]


def test_the_least_busy_is_nominated() -> None:
    net = electorate(lowest_load, 5)
    for node, delay_us in ((1, 9_000), (2, 500), (3, 90_000), (4, 20_000)):
        make_busy(net.machines[NodeId(node)], delay_us)
    net.kill(5)
    net.suspect([1], 5)
    assert net.run_until_nominated(SECOND) == 2


def test_a_live_server_is_nominated_in_bounded_time_under_loss() -> None:
    for seed in range(40):
        net = electorate(lowest_load, 5, seed=seed, loss=0.3)
        net.lead(5)
        net.kill(5)
        net.kill(3)
        net.suspect(net.alive(), 5)
        assert net.run_until_nominated(SECOND) is not None, f"seed {seed}"


def test_a_leader_ends_it() -> None:
    net = electorate(lowest_load, 5, ordains=True)
    net.suspect(net.alive(), None)
    net.run(5 * SECOND)
    assert net.leader == 5
    assert len(net.nominations) == 5


def test_while_none_leads_it_asks_again_less_and_less_often() -> None:
    net = electorate(lowest_load, 3)
    net.suspect([1], None)
    net.run(20 * SECOND)
    times = [each.at for each in net.nominations]
    assert 5 <= len(times) <= 20


def test_a_replica_takes_no_part() -> None:
    replica = lowest_load(ElectionContext(NodeId(9), Random(1), TIMING))
    list(replica.on_members((NodeId(1), NodeId(2)), 0))
    assert list(replica.on_suspect(NodeId(1), 0)) == []
    assert replica.deadline() is None


@given(st.lists(st.tuples(st.integers(0, 4), st.binary(max_size=40))))
@settings(max_examples=50)
def test_hostile_bytes_are_dropped(messages: list[tuple[int, bytes]]) -> None:
    election = lowest_load(ElectionContext(NodeId(2), Random(1), TIMING))
    list(election.on_members((NodeId(1), NodeId(2), NodeId(3)), 0))
    list(election.on_suspect(None, 0))
    for source, body in messages:
        for action in election.on_message(NodeId(source), body, 1):
            assert isinstance(action, SendElection | Nominate)
    assert election.deadline() == ANSWER_US
