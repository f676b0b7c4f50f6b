"""Who may share a circuit: the one place that decides it.

Theory of operation
    An *isolation tuple* is what is known about a stream: the session group of the
    listener it came in on, the client's address and protocol, the SOCKS user name and
    password, the destination.  A listener's flags (Tor's, see tor(1) SocksPort) select
    the fields that separate streams there.  The selected fields, in a canonical
    length-prefixed encoding, are hashed under a secret of the current *epoch*:

        key = BLAKE2b(key = epoch secret, fields)

    Two streams share exactly when their keys are equal.  There is no table to fill or to
    overflow; a key tells nothing about the tuple; a new epoch (NEWNYM) changes every key
    at once, and a renewal (`renewals`) the key of one identity.  What goes to Tor as SOCKS
    credentials is derived a second time, from the key and the purpose of the stream, so
    that an application's stream, the look-up of its name and its Bitcoin flow never share a
    circuit, and neither does anything else.

Invariants
    * Only an `Isolator` builds an `IsolationKey`: `key_for` from a tuple, `import_key` from
      what another process of ours exported in this epoch.  Everybody else carries keys.
    * Fields are raw bytes.  Absent, empty and every byte value differ.  Framing cannot
      collide: ("ab", "c") and ("a", "bc") are different tuples.
    * We are never looser than Tor.  We are stricter where it costs nothing: absent and
      empty credentials differ here; listeners of one session group that isolate by
      different fields never share.
    * Nothing in here prints: `repr` of a key shows a label that is keyed per process.

    Proposal 351: user names that begin with `<torS0X>` are reserved.  Exactly `<torS0X>0`
    is the form whose password isolates; all others are refused as Tor refuses them.
"""

from isoproxy.isolation.client import budget_of, client_of_address, client_of_uid, describe_client
from isoproxy.isolation.flags import (
    DEFAULT_ISOLATION,
    FLAG_NAMES,
    ClientProtocol,
    Isolate,
    parse_isolation,
)
from isoproxy.isolation.key import (
    APP,
    P2P,
    PROP351_PREFIX,
    PROP351_USERNAME,
    CredentialForm,
    Credentials,
    IsolationKey,
    Isolator,
    Purpose,
    accepts_username,
    name_purpose,
    upstream_credentials,
)
from isoproxy.isolation.tuples import (
    IsolationTuple,
    ListenerRule,
    canonical_fields,
    own_group,
    shared_group,
)

__all__ = [
    "APP",
    "DEFAULT_ISOLATION",
    "FLAG_NAMES",
    "P2P",
    "PROP351_PREFIX",
    "PROP351_USERNAME",
    "ClientProtocol",
    "CredentialForm",
    "Credentials",
    "Isolate",
    "IsolationKey",
    "IsolationTuple",
    "Isolator",
    "ListenerRule",
    "Purpose",
    "accepts_username",
    "budget_of",
    "canonical_fields",
    "client_of_address",
    "client_of_uid",
    "describe_client",
    "name_purpose",
    "own_group",
    "parse_isolation",
    "shared_group",
    "upstream_credentials",
]
