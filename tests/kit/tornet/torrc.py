"""The settings of the private network's nodes, as torrc fragments.

All of them were found to be needed on tor 0.4.9; TestingTorNetwork sets the many that let
Tor run on private addresses.
"""

from __future__ import annotations

from typing import Final

COMMON: Final = """
TestingTorNetwork 1
SafeLogging 0
LogTimeGranularity 1
AvoidDiskWrites 1
NumCPUs 1
# no country lookups: saves 35 MB and 0.1 s of every process
GeoIPFile /dev/null
GeoIPv6File /dev/null
ShutdownWaitLength 0
HeartbeatPeriod 30 minutes
DormantTimeoutEnabled 0
ClientDNSRejectInternalAddresses 0
ClientRejectInternalAddresses 0
ExtendAllowPrivateAddresses 1
EnforceDistinctSubnets 0
PathsNeededToBuildCircuits 0.25
# Loopback teaches tor timeouts of some 50 ms; a machine that stops for a moment then loses all
# circuits at once, and clients shun the introduction points concerned for two minutes.
LearnCircuitBuildTimeout 0
TestingClientDownloadInitialDelay 0
TestingClientConsensusDownloadInitialDelay 0
TestingServerDownloadInitialDelay 0
TestingServerConsensusDownloadInitialDelay 0
"""

RELAY: Final = """
ContactInfo tornet
AssumeReachable 1
SocksPort 0
ExitPolicyRejectPrivate 0
ExitPolicyRejectLocalInterfaces 0
RefuseUnknownExits 0
ServerDNSAllowBrokenConfig 1
ServerDNSDetectHijacking 0
ServerDNSRandomizeCase 0
ServerDNSSearchDomains 0
ServerDNSAllowNonRFC953Hostnames 1
DoSCircuitCreationEnabled 0
DoSConnectionEnabled 0
ExtraInfoStatistics 0
DirReqStatistics 0
HiddenServiceStatistics 0
OverloadStatistics 0
# observed bandwidth stays 0 for all, so that paths are chosen uniformly
CountPrivateBandwidth 0
"""

EXIT: Final = """
ExitRelay 1
IPv6Exit 1
# one port that no exit allows, as on the real network
ExitPolicy reject *:25
ExitPolicy accept *:*
"""

MIDDLE: Final = """
ExitRelay 0
ExitPolicy reject *:*
"""

# A relay that got the microdescriptor consensus before the other one asks for that other one
# again and again; "Not modified" counts as a failure, for which tor holds the authority to be
# down.  One relay less, and its onion services find no path for their circuits.  Whoever is
# told which guards to use does not hold a directory to be down.
NO_AUTHORITY: Final = """
EntryNodes 127.0.0.0/8
"""

# The initial voting interval means "never": the launcher lowers it when all descriptors
# are in.  2 s is tor's minimum for the delays.
AUTHORITY: Final = """
AuthoritativeDirectory 1
V3AuthoritativeDirectory 1
AuthDirTestReachability 0
AuthDirMaxServersPerAddr 0
TestingAuthDirTimeToLearnReachability 0
TestingMinExitFlagThreshold 0
TestingMinFastFlagThreshold 0
TestingDirAuthVoteGuard *
TestingDirAuthVoteHSDir *
MinUptimeHidServDirectoryV2 0
V3AuthNIntervalsValid 12
V3AuthVotingInterval 1800
V3AuthVoteDelay 2
V3AuthDistDelay 2
TestingV3AuthInitialVotingInterval 1800
TestingV3AuthInitialVoteDelay 2
TestingV3AuthInitialDistDelay 2
TestingV3AuthVotingStartOffset {offset}
"""

# Fixed ports on an address of its own: ":auto" on 127.0.0.1 fails when other tests have
# filled its ephemeral ports with TIME_WAIT sockets, and "auto" next to a fixed port of the
# same kind breaks at every SETCONF (tor mistakes one listener for the other).
CLIENT: Final = """
ClientOnly 1
ConnectionPadding 0
CircuitPadding 0
SocksPort {ip}:9050
SocksPort unix:{dir}/socks ExtendedErrors IsolateSOCKSAuth KeepAliveIsolateSOCKSAuth
ControlPort {ip}:9051
ConfluxEnabled {conflux}
"""


def head(
    *, nickname: str, directory: str, control: str, cookie: str, log_level: str, log: str
) -> str:
    """The part that differs from node to node."""
    return (
        f"Nickname {nickname}\nDataDirectory {directory}\nControlSocket {control}\n"
        f"CookieAuthentication 1\nCookieAuthFile {cookie}\nLog {log_level} file {log}\n"
    )


def authority_keys_only(*, directory: str, ip: str, or_port: int, nickname: str) -> str:
    """Just enough for `tor --list-fingerprint` to make a relay's identity."""
    return (
        f"DataDirectory {directory}\nORPort {ip}:{or_port}\nAddress {ip}\n"
        f"Nickname {nickname}\nExitRelay 0\nTestingTorNetwork 1\n"
        f"DirAuthority x 127.0.0.1:1 {'0' * 40}\n"
    )


def fill(options: str, *, ip: str, directory: str) -> str:
    """Options given by a test: "{ip}" and "{dir}" stand for the client's own."""
    return options.replace("{ip}", ip).replace("{dir}", directory).rstrip("\n") + "\n"
