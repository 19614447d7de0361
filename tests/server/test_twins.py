"""Two processes of one id: which of them stops, who is told what, and what proves nothing."""

from __future__ import annotations

from random import Random

import pytest
from attrs import define, field

from distinv import IdentityInUse
from distinv.config import Limits, Timing
from distinv.entry import NodeId
from distinv.server.twins import Twins
from distinv.transport.api import Address
from distinv.wire.messages import Claim, Claimed

SECOND = 1_000_000
NODE = NodeId(0x2A)
LIMITS = Limits()
HERE: Address = ("10.0.0.1", 4747)
THERE: Address = ("10.0.0.2", 4747)


@define
class Process:
    """One of the two, and what it told people."""

    boot: int
    since: int | None
    limits: Limits = LIMITS
    told: list[tuple[str, str]] = field(factory=list)
    twins: Twins = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.twins = Twins(
            node=NODE,
            boot=self.boot,
            since=self.since,
            random=Random(self.boot),
            timing=Timing(),
            limits=self.limits,
            tell=lambda text, level: self.told.append((text, level)),
        )

    def asks(self, other: Process, now: int, travel_us: int = 100) -> None:
        """A question, its answer, and what this one makes of that."""
        question = self.twins.question(now)
        (answer, *_) = other.twins.on_claim(question, HERE, now + travel_us)
        assert isinstance(answer, Claimed)
        self.twins.on_claimed(answer, THERE, now + 2 * travel_us)

    @property
    def stops(self) -> bool:
        return self.twins.displaced is not None


def both_ask(one: Process, other: Process, now: int) -> None:
    one.asks(other, now)
    other.asks(one, now)


@pytest.mark.parametrize("boots", [(1, 2), (2, 1)])
def test_the_younger_stops_and_the_elder_raises_an_alarm(boots: tuple[int, int]) -> None:
    elder, younger = Process(boots[0], since=0), Process(boots[1], since=50 * SECOND)
    both_ask(elder, younger, 60 * SECOND)
    assert younger.stops
    assert not elder.stops
    refusal = younger.twins.displaced
    assert isinstance(refusal, IdentityInUse)
    assert str(refusal).startswith(
        "another process at 10.0.0.2:4747 has this server's identity (000000000000002a) and was "
        "there first: this one stops"
    )
    assert "empty data directory" in str(refusal)
    assert "\n" not in str(refusal)
    ((text, level),) = elder.told
    assert text.startswith("another process at 10.0.0.2:4747 has this server's identity")
    assert "came later: it stops, this one goes on" in text
    assert level == "error"
    assert not younger.told


@pytest.mark.parametrize("boots", [(1, 2), (2, 1)])
def test_who_only_asks_gives_way_to_who_takes_part(boots: tuple[int, int]) -> None:
    """Even if that one began in this very microsecond."""
    running, asking = Process(boots[0], since=SECOND), Process(boots[1], since=None)
    both_ask(running, asking, SECOND)
    assert asking.stops
    assert not running.stops


def test_of_two_that_ask_the_higher_boot_gives_way() -> None:
    low, high = Process(1, since=None), Process(2, since=None)
    both_ask(low, high, SECOND)
    assert high.stops
    assert not low.stops


def test_of_two_that_cannot_be_told_apart_the_higher_boot_stops() -> None:
    low, high = Process(1, since=0), Process(2, since=0)
    both_ask(low, high, SECOND)
    assert high.stops
    assert not low.stops


@pytest.mark.parametrize("difference_us", [1, 99, 100, 101, 199, 200, 201, 5_000])
@pytest.mark.parametrize("elder_boot", [1, 2])
def test_never_do_both_go_on(difference_us: int, elder_boot: int) -> None:
    """However close they began; that both stop, if each asks before it hears, is harmless."""
    elder, younger = Process(elder_boot, since=0), Process(3 - elder_boot, since=difference_us)
    both_ask(elder, younger, SECOND)
    assert younger.stops or elder.stops
    if difference_us > 200:
        assert not elder.stops


def test_a_long_way_makes_nobody_older() -> None:
    """The answer was made a second after the question, and came a second later."""
    elder, younger = Process(2, since=0), Process(1, since=5 * SECOND)
    elder.asks(younger, 10 * SECOND, travel_us=SECOND)
    younger.asks(elder, 10 * SECOND, travel_us=SECOND)
    assert younger.stops
    assert not elder.stops


def test_what_repeats_no_question_of_this_process_proves_nothing() -> None:
    process = Process(1, since=50 * SECOND)
    process.twins.question(60 * SECOND)
    for nonce in range(100):
        process.twins.on_claimed(Claimed(NODE, nonce, 2, 100 * SECOND), THERE, 61 * SECOND)
    assert not process.stops
    assert not process.told


def test_an_answer_about_another_id_is_none() -> None:
    process = Process(1, since=50 * SECOND)
    nonce = process.twins.question(60 * SECOND).nonce
    process.twins.on_claimed(Claimed(NODE + 1, nonce, 2, 100 * SECOND), THERE, 61 * SECOND)
    assert not process.stops


def test_a_process_is_not_its_own_twin() -> None:
    """What it says comes back to it, by broadcast or by somebody's mischief."""
    process = Process(1, since=50 * SECOND)
    question = process.twins.question(60 * SECOND)
    assert process.twins.on_claim(question, HERE, 60 * SECOND) == []
    process.twins.on_claimed(Claimed(NODE, question.nonce, 1, 100 * SECOND), HERE, 60 * SECOND)
    assert not process.stops
    assert not process.told


def test_a_claim_to_another_id_is_nobodys_affair() -> None:
    process = Process(1, since=0)
    assert process.twins.on_claim(Claim(NODE + 1, 7, 2), THERE, SECOND) == []


def test_who_asks_is_answered_and_asked() -> None:
    """So both of them know."""
    process = Process(1, since=SECOND)
    answer, question = process.twins.on_claim(Claim(NODE, 7, 2), THERE, 3 * SECOND)
    assert answer == Claimed(NODE, 7, 1, 2 * SECOND)
    assert isinstance(question, Claim)
    assert (question.node, question.boot) == (NODE, 1)
    assert question.nonce != 7


def test_one_place_that_is_heard_is_asked_once_in_a_while() -> None:
    process, pause_us = Process(1, since=0), Timing().notice_us
    assert process.twins.on_heard(THERE, SECOND) is not None
    assert process.twins.on_heard(THERE, SECOND) is None
    assert process.twins.on_heard(HERE, SECOND) is not None
    assert process.twins.on_heard(THERE, SECOND + pause_us - 1) is None
    assert process.twins.on_heard(THERE, SECOND + pause_us) is not None


def test_every_answer_brings_a_question_until_that_is_answered() -> None:
    """Whoever has to give way ends with the first answer that reaches it, whichever that is."""
    elder, younger = Process(1, since=0), Process(2, since=None)
    now, pause_us = SECOND, Timing().notice_us
    for _ in range(2):
        _, question = elder.twins.on_claim(younger.twins.question(now), THERE, now)
        assert isinstance(question, Claim)
    answer, *_ = younger.twins.on_claim(question, HERE, now)
    assert isinstance(answer, Claimed)
    elder.twins.on_claimed(answer, THERE, now)
    assert len(elder.twins.on_claim(younger.twins.question(now), THERE, now + pause_us - 1)) == 1
    assert len(elder.twins.on_claim(younger.twins.question(now), THERE, now + pause_us)) == 2


def test_two_that_ask_each_other_come_to_an_end() -> None:
    one, other = Process(1, since=0), Process(2, since=50 * SECOND)
    sides = [(one, THERE), (other, HERE)]
    messages: list[Claim | Claimed] = [one.twins.question(60 * SECOND)]
    for exchange in range(10):
        hearer, source = sides[(exchange + 1) % 2]
        answers: list[Claim | Claimed] = []
        for message in messages:
            if isinstance(message, Claimed):
                hearer.twins.on_claimed(message, source, 60 * SECOND)
            else:
                answers += hearer.twins.on_claim(message, source, 60 * SECOND)
        messages = answers
    assert messages == []
    assert other.stops
    assert len(one.told) == 1


def test_the_alarm_is_raised_once_a_minute_for_a_place() -> None:
    elder, younger = Process(1, since=0), Process(2, since=50 * SECOND)
    elder.asks(younger, 60 * SECOND)
    elder.asks(younger, 60 * SECOND + Timing().alarm_us - 1_000)
    assert len(elder.told) == 1
    elder.asks(younger, 60 * SECOND + Timing().alarm_us)
    assert len(elder.told) == 2


def test_the_first_that_was_met_is_named() -> None:
    younger = Process(9, since=50 * SECOND)
    younger.asks(Process(1, since=0), 60 * SECOND)
    first = younger.twins.displaced
    younger.asks(Process(2, since=0), 61 * SECOND)
    assert younger.twins.displaced is first


def test_what_is_remembered_is_bounded() -> None:
    process = Process(1, since=0, limits=Limits(notices_max=8))
    for port in range(1, 100):
        assert process.twins.on_heard(("10.0.0.3", port), SECOND) is not None
        assert max(process.twins.remembered) <= 8
    assert process.twins.remembered == (8, 8)
