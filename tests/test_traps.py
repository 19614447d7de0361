"""The known traps of protocols like this one, and what would fail without the answer to each.

Collected from papers, from the source of other systems, and from what their users report. A test is
named `file::test`, a scene of tests/transcripts `scene.txt`, and a bug that the simulator must
notice when it is planted `plant name` (docs/simulator.md).
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from distinv.testing.simulator.planted import PLANTED

TESTS = Path(__file__).parent

TRAPS: dict[str, tuple[str, ...]] = {
    "two nominators out-ballot each other for ever": (
        "core/test_pitfalls.py::test_two_nominators_out_ballot_each_other_for_ever",
        "core/test_campaigns.py::test_who_promised_gives_the_other_time",
        "duelling-nominators.txt",
    ),
    "a returning bully deposes a healthy leader": (
        "core/test_pitfalls.py::test_a_returning_bully_deposes_a_healthy_leader",
        "core/test_hand_over.py::test_nobody_is_ordered_before_it_has_everything",
        "transfer.txt",
    ),
    "the nominee's log is stale": (
        "core/test_pitfalls_voters.py::test_the_nominees_log_is_stale",
        "core/test_campaigns.py::test_a_candidate_pulls_exactly_what_was_promised",
        "forfeit.txt",
        "conflicting-tail.txt",
    ),
    "a server that sends but cannot hear (or hears only some) keeps deposing the leader": (
        "core/test_pitfalls.py::test_a_server_that_sends_but_cannot_hear_keeps_deposing_the_leader",
        "core/test_pitfalls.py::test_a_server_that_hears_only_some_keeps_deposing_the_leader",
        "core/test_pitfalls.py::test_a_leader_that_cannot_hear_stays_in_office",
        "one-way-partition.txt",
    ),
    "leader alive, disk dead: heartbeats go on, the cluster hangs": (
        "core/test_pitfalls.py::"
        "test_leader_alive_and_disk_dead_heartbeats_go_on_and_the_cluster_hangs",
        "runtime/test_cluster.py::test_a_leader_whose_disk_hangs_lets_others_lead",
        "disk-stalled-leader.txt",
    ),
    "a candidate promised a high ballot, then was cut off: it refuses the healthy leader for "
    "ever": (
        "core/test_pitfalls.py::"
        "test_a_candidate_cut_off_after_a_high_promise_refuses_the_healthy_leader_for_ever",
        "core/test_pitfalls.py::test_such_a_refusal_is_followed_at_most_once_in_a_while",
        "cut-off-candidate.txt",
    ),
    "a follower commits or acknowledges a stale tail after an empty heartbeat": (
        "core/test_invariants.py::"
        "test_6_a_stale_tail_is_neither_acknowledged_nor_committed_after_an_empty_heartbeat",
        "core/test_invariants.py::test_6_it_starts_at_nothing_in_each_ballot",
        "stale-tail.txt",
    ),
    "a leader that crashed before its own sync leads again in the same ballot": (
        "core/test_invariants.py::"
        "test_1_a_leader_that_crashes_before_its_own_sync_leads_in_another_ballot",
        "core/test_invariants.py::test_1_a_restarted_candidate_goes_above_every_ballot_in_its_record",
        "plant ballot-forgotten",
        "durable-first.txt",
    ),
    "stale reads from a deposed leader": (
        "core/test_reads.py::test_a_deposed_leader_serves_no_read",
        "core/test_reads.py::test_no_read_before_the_no_op_of_the_own_ballot_is_committed",
        "plant read-unconfirmed",
        "read-index-across-leaders.txt",
        "isolated-leader-late-write.txt",
    ),
    "clock leases": (
        "core/test_pitfalls.py::test_a_leader_that_slept_through_an_election_serves_nobody",
    ),
    "two voters, one dies": ("core/test_pitfalls_voters.py::test_two_voters_one_dies",),
    "a follower truncates entries that match": (
        "core/test_invariants.py::test_8_entries_that_match_are_not_truncated",
        "core/test_replication.py::test_acknowledgements_of_another_ballot_do_not_count",
        "core/test_durability.py::test_a_late_sync_does_not_vouch_for_what_replaced_its_entry",
        "plant truncate-matching",
        "matching-entries.txt",
    ),
    "epoch recorded before the log is durable": (
        "core/test_pitfalls.py::test_the_epoch_is_recorded_before_the_log_is_durable",
        "core/test_invariants.py::test_2_an_append_above_the_promise_raises_it_in_the_same_write",
        "plant commit-before-sync",
        "durable-first.txt",
    ),
    "fsync fails and the program goes on": (
        "storage/test_journal_faults.py::test_a_failed_commit_is_never_tried_again",
        "runtime/test_cluster.py::test_a_failing_disk_stops_the_server_and_nobody_else",
    ),
    'a corrupt entry treated as "never received"': (
        "storage/test_journal_torn.py::test_any_flipped_bit_is_found",
        "storage/test_journal_torn.py::test_a_damaged_journal_is_refused_and_left_alone",
        "runtime/test_opening.py::test_a_corrupt_entry_is_found",
    ),
    "a data directory is copied, and two processes have one id": (
        "server/test_roll_call.py::test_an_elder_keeps_a_copy_from_starting",
        "server/test_roll_call.py::test_two_that_run_find_out_as_soon_as_they_hear_each_other",
        "server/test_twins.py::test_never_do_both_go_on",
        "runtime/test_copied_directory.py::test_the_copy_of_a_running_server_does_not_start",
        "plant twin-believed-alone",
    ),
    "a server returns with an empty disk under its old id": (
        "core/test_pitfalls_voters.py::test_a_server_returns_with_an_empty_disk_under_its_old_id",
        "runtime/test_cluster_pitfalls.py::"
        "test_a_server_returns_with_an_empty_disk_under_its_old_id",
        "core/test_birth.py::test_an_id_is_unknown_until_it_is_durable",
    ),
    "answers remembered on the leader only, at receipt, outside snapshots, or expired by a local "
    "clock": (
        "server/test_front.py::test_what_was_applied_is_answered_by_any_server",
        "inventory/test_session_commands.py::"
        "test_a_second_copy_has_no_effect_and_gets_the_recorded_answer",
        "inventory/test_session_commands.py::"
        "test_expiry_follows_the_logs_time_even_of_an_entry_without_commands",
        "server/test_front.py::test_only_the_log_says_that_a_session_has_expired",
        "plant retry-applied-twice",
        "retry-across-leaders.txt",
    ),
    "the retried command is still in the old leader's log": (
        "client/test_client_rerouting.py::test_what_an_old_leader_took_is_not_applied_again",
        "retry-across-leaders.txt",
    ),
    'the retry limit hits and the caller is told "failed"': (
        "client/test_client_outcome.py::test_eight_silent_attempts_are_the_most",
        "client/test_client_outcome.py::test_one_copy_without_an_answer_makes_the_outcome_unknown",
        "client/test_client_outcome.py::test_an_unknown_outcome_names_the_callers_own_key",
    ),
    "a joining voter stops the cluster": (
        "core/test_pitfalls_voters.py::test_a_joining_server_stops_the_cluster",
        "core/test_invariants.py::test_5_learners_do_not_count",
        "core/test_changes.py::test_a_server_that_does_not_keep_up_is_given_none",
        "one-becomes-three.txt",
    ),
    "a removed server disrupts": (
        "core/test_changes.py::test_a_removed_server_disrupts_nobody",
        "core/test_changes.py::test_who_was_removed_by_order_is_not_promoted_by_a_later_leader",
    ),
    "a change of voters races a change of leader": (
        "core/test_changes.py::test_a_swap_races_a_change_of_leader",
        "core/test_changes.py::test_a_sole_leader_crashes_with_its_change_unsynced",
        "core/test_changes.py::test_no_change_before_the_own_noop_nor_while_one_is_under_way",
        "plant old-set-forgotten",
        "swap-across-leaders.txt",
    ),
    "who leaves is needed by those who do not know that it has left": (
        "core/test_changes.py::"
        "test_five_become_three_the_leavers_are_switched_off_and_the_leader_dies",
        "core/test_changes.py::test_a_promoted_server_does_not_know_it_yet_while_the_leader_dies",
        "plant dismissed-too-early",
        "plant learner-promises-nothing",
    ),
    "one wrong clock makes everything expire": (
        "core/test_clocks.py::test_a_majority_that_differs_is_right",
        "core/test_clocks.py::test_a_silent_one_is_no_reason_to_believe_the_own_clock",
        "core/test_hand_over.py::test_a_leader_whose_clock_is_outvoted_hands_over",
        "plant clock-believed",
    ),
    "eviction shrinks the cluster away": (
        "core/test_changes.py::test_eviction_does_not_shrink_the_cluster_away",
        "core/test_changes.py::test_a_leader_that_hears_nobody_any_more_changes_nothing",
    ),
    "the only one who can win waits for those who cannot": (
        "core/test_turns.py::test_whose_promises_are_lost_campaigns_once_before_who_can_win",
        "core/test_turns.py::test_who_cannot_get_what_it_lacks_campaigns_once_before_who_has_it",
    ),
    "a server that runs an earlier release than the cluster applies another history": (
        "core/test_gate.py::test_a_new_kind_waits_until_every_voter_speaks_it",
        "core/test_gate.py::test_a_follower_stops_at_an_entry_of_a_later_release",
        "inventory/test_session_commands.py::"
        "test_a_committed_command_of_a_later_release_stops_the_server",
        "server/test_front.py::test_a_command_that_some_server_cannot_carry_out_is_not_taken",
    ),
    "fresh servers outvote an old one and roll its data back": (
        "core/test_birth.py::test_fresh_servers_do_not_outvote_an_old_one",
    ),
    "failed discovery makes every server its own cluster": (
        "core/test_birth.py::test_servers_wait_for_those_they_expect",
        "core/test_birth.py::"
        "test_who_expects_nobody_may_split_but_no_two_clusters_share_an_acceptor",
        "server/test_engine_pitfalls.py::test_two_clusters_of_one_name_meet",
    ),
    "election finished, but the winner is already gone; no leader and nobody electing": (
        "core/test_pitfalls.py::test_the_winner_is_already_gone",
        "core/test_pitfalls.py::test_no_leader_and_nobody_electing",
        "bully-crash.txt",
        "ring-crash.txt",
    ),
    "snapshot and applied index not atomic": (
        "inventory/test_store_file.py::"
        "test_what_was_not_flushed_is_lost_with_its_position_and_applied_again",
    ),
    "a promise too large for a datagram": (
        "core/test_pitfalls_voters.py::test_a_promise_too_large_for_a_datagram",
    ),
    "clients glued to a server that has no quorum": (
        "client/test_client_leader.py::test_a_home_without_a_leader_is_left_before_it_is_silent",
        "client/test_client_leader.py::test_a_leader_out_of_quorum_is_no_quorum",
        "server/test_front.py::test_clients_are_told_when_too_few_servers_are_there",
    ),
    "forged or replayed datagrams": (
        "wire/test_seal.py::test_every_bit_counts",
        "wire/test_seal.py::test_replay_window_against_the_obvious",
        "wire/test_handshake.py::test_replayed_datagrams_of_an_old_boot_never_flip_the_link",
        "core/test_invariants.py::test_1_a_term_out_of_the_blue_is_not_followed_but_approached",
    ),
    "the slowest receiver stalls everybody": (
        "core/test_replication.py::test_a_slow_disk_holds_nobody_up",
        "core/test_replication.py::test_a_dead_follower_holds_nobody_up",
    ),
    "gap repair takes half a second": (
        "wire/test_link.py::test_a_gap_is_asked_for_after_three_later_datagrams",
        "gap-repair.txt",
    ),
    "large datagrams ride on IP fragmentation": (
        "transport/test_udp.py::test_off_loopback_the_payload_is_small",
        "wire/test_endpoint.py::test_every_payload_size",
        "wire/test_delivery.py::test_large_messages_among_small_ones",
    ),
    "the last message is lost and nobody notices": (
        "wire/test_delivery.py::test_a_lost_last_message_is_noticed",
        "lost-last-message.txt",
    ),
    "a pause of the event loop looks like a dead peer": (
        "core/test_pitfalls.py::test_a_pause_of_the_event_loop_looks_like_a_dead_peer",
        "core/test_failure.py::test_own_sleep_is_no_silence_of_the_leader",
    ),
}


@cache
def _tests_of(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


@pytest.mark.parametrize("trap", TRAPS)
def test_what_would_fail_is_there(trap: str) -> None:
    for witness in TRAPS[trap]:
        file, _, name = witness.partition("::")
        if name:
            assert name in _tests_of(TESTS / file), witness
        elif witness.endswith(".txt"):
            assert (TESTS / "transcripts" / witness).is_file(), witness
        else:
            assert witness.removeprefix("plant ") in PLANTED, witness


def test_every_scene_and_every_planted_bug_is_about_a_trap() -> None:
    named = {witness for witnesses in TRAPS.values() for witness in witnesses}
    scenes = {path.name for path in (TESTS / "transcripts").glob("*.txt")}
    plants = {f"plant {name}" for name in PLANTED}
    assert scenes - named == {"old-ballot-entry.txt"}
    assert plants - named == {"plant minority-decides", "plant promise-before-sync"}
