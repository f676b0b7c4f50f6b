"""The twenty-one known defects of StemNS, and the test here that each of them would fail.

Two of them are of several parts, each with a row of its own.

The list is held against the tests that exist, so that none gets lost by a renaming.
"""

from __future__ import annotations

import importlib

import pytest

DEFECTS = {
    "the client's address is lost, for only NEW carries it": (
        "unit.stemns_plugin.test_streams.test_the_source_address_comes_from_the_new_event"
    ),
    "upper case and a last dot reach an exit's resolver": (
        "unit.stemns_plugin.test_streams.test_ours_is_looked_up_whatever_its_spelling"
    ),
    "only the first stream of a circuit counts": (
        "unit.test_sharing.test_a_group_is_bound_by_all_of_its_members_and_not_by_the_first"
    ),
    "the union of the fields, where Tor asks the newcomer alone": (
        "network.stemns_plugin.test_tor_oracle.test_tor_and_the_rule_agree_on_every_pair"
    ),
    "one retry delays every other answer": (
        "process.prop279.test_host.test_a_query_that_never_answers_delays_no_other"
    ),
    "state is shared between threads": (
        "unit.stemns_plugin.test_controller.test_under_load_one_listing_serves_many_streams"
    ),
    "an answer to an unknown query ends the reader": (
        "process.prop279.test_host.test_second_answers_and_strange_lines_are_ignored"
    ),
    "a stream that is gone ends the reader": (
        "unit.stemns_plugin.test_controller.test_a_stream_that_is_gone_or_attached_is_no_trouble"
    ),
    "an empty line ends the reader": (
        "process.prop279.test_host.test_second_answers_and_strange_lines_are_ignored"
    ),
    "INIT is not checked": (
        "process.prop279.test_host.test_a_plugin_that_does_not_greet_is_tried_again_with_growing_waits"
    ),
    "the redirection's reply is not checked": (
        "unit.stemns_plugin.test_controller.test_an_unconfirmed_redirect_is_never_attached"
    ),
    "the answer is not checked": (
        "unit.stemns_plugin.test_streams.test_what_must_not_reach_an_exit_is_never_redirected_to"
    ),
    "a dead plugin stays dead": "process.prop279.test_host.test_a_killed_plugin_is_started_anew",
    "a full pipe stops every stream": (
        "process.prop279.test_host.test_a_program_that_does_not_read_is_not_written_to_without_bound"
    ),
    "no CANCEL when the stream ends first": (
        "process.prop279.test_host.test_a_caller_who_goes_away_cancels_its_query"
    ),
    "retries for streams that are gone": (
        "unit.stemns_plugin.test_controller.test_a_client_that_goes_away_ends_the_lookup"
    ),
    "a plugin process per suffix": (
        "network.stemns_plugin.test_network.test_the_program_with_a_plugin_and_a_restart_of_tor"
    ),
    "the first suffix that fits, not the longest": (
        "unit.stemns_plugin.test_suffix_router.test_the_longest_suffix_wins"
    ),
    "RESOLVE is sent to an onion": (
        "unit.stemns_plugin.test_streams.test_a_resolve_stream_gets_an_address_or_nothing"
    ),
    "reverse look-ups of private data pass": (
        "unit.stemns_plugin.test_streams.test_reverse_lookups_of_internal_addresses_are_closed"
    ),
    "an alias to another name of ours goes to an exit": (
        "unit.stemns_plugin.test_suffix_router.test_an_alias_to_a_name_of_ours_is_resolved_again"
    ),
    "when the controller dies, Tor stands still": (
        "unit.stemns_plugin.test_controller.test_streams_that_wait_at_the_start_are_served"
    ),
    "the list of circuits grows without end": (
        "unit.test_sharing.test_the_least_recently_used_group_is_forgotten_first"
    ),
    "the plugin's state has a fixed place": "process.prop279.test_host.test_asks_and_answers",
}


@pytest.mark.parametrize("place", DEFECTS.values(), ids=DEFECTS.keys())
def test_each_defect_has_its_test(place: str) -> None:
    module, _, name = place.rpartition(".")
    assert callable(getattr(importlib.import_module(f"tests.{module}"), name))


def test_none_is_missing() -> None:
    assert len(DEFECTS) == 21 + 3
