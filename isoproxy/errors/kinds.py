"""The kinds of failure; the value is the metric label."""

from __future__ import annotations

from enum import Enum


class ErrorKind(Enum):
    """Why something failed; the value is the metric label."""

    # the client's side of the conversation
    MALFORMED = "malformed"
    TOO_LONG = "too_long"
    HANDSHAKE_TIMEOUT = "handshake_timeout"
    COMMAND_NOT_SUPPORTED = "command_not_supported"
    ADDRESS_TYPE_NOT_SUPPORTED = "address_type_not_supported"
    AUTH_REQUIRED = "auth_required"
    RESERVED_USERNAME = "reserved_username"
    # our policy
    NAME_SYNTAX = "name_syntax"
    NAME_NEVER_SENT_TO_TOR = "name_never_sent_to_tor"
    ADDRESS_REFUSED = "address_refused"
    NOT_ALLOWED = "not_allowed"
    BUSY = "busy"
    CIRCUITS_PENDING = "circuits_pending"
    STALE_KEY = "stale_key"
    INTERNAL = "internal"
    # Tor and what is behind it
    TOR_UNREACHABLE = "tor_unreachable"
    TOR_PROTOCOL = "tor_protocol"
    DIAL_TIMEOUT = "dial_timeout"
    GENERAL_FAILURE = "general_failure"
    EXIT_POLICY = "exit_policy"
    NETWORK_UNREACHABLE = "network_unreachable"
    HOST_UNREACHABLE = "host_unreachable"
    CONNECTION_REFUSED = "connection_refused"
    TTL_EXPIRED = "ttl_expired"
    ONION_NOT_FOUND = "onion_not_found"
    ONION_INVALID = "onion_invalid"
    ONION_INTRO_FAILED = "onion_intro_failed"
    ONION_REND_FAILED = "onion_rend_failed"
    ONION_AUTH_MISSING = "onion_auth_missing"
    ONION_AUTH_WRONG = "onion_auth_wrong"
    ONION_BAD_ADDRESS = "onion_bad_address"
    ONION_INTRO_TIMEOUT = "onion_intro_timeout"
    # names
    NAME_ABSENT = "name_absent"
    NAME_EXPIRED = "name_expired"
    NAME_UNCONFIRMED = "name_unconfirmed"
    NAME_NO_ADDRESS = "name_no_address"
    NAME_INVALID_VALUE = "name_invalid_value"
    NAME_UNVERIFIABLE = "name_unverifiable"
    NAME_NO_QUORUM = "name_no_quorum"
    NAME_BUDGET = "name_budget"
    NAME_BACKEND_DOWN = "name_backend_down"
    NAME_BACKEND_REFUSED = "name_backend_refused"
    NAME_SYNCHRONISING = "name_synchronising"
    NAME_WRONG_CLOCK = "name_wrong_clock"
    NAME_TIMEOUT = "name_timeout"
    # ourselves
    CONFIG = "config"
    OPERATION = "operation"
    V2_REQUIRED = "v2_required"
