"""A private Tor network on loopback, from the real `tor`, for tests and the demo.

    with TorNetwork() as net:
        net.client.socks, net.client.socks_path   # a bootstrapped client's SocksPorts
        net.client.control().cmd("GETINFO version")
        net.exit_of(accepted_socket)              # which exit a stream came from
        net.dns.queries                           # every name that reached an exit

Theory of operation
    One authority (an exit too), four exits and one client, each a tor process with an
    address of its own in a random 127.x.y.0/24, so that several networks run side by
    side.  Two things make the start quick and sure:

    * The authority does not vote until it holds the descriptor of every relay.  Only then
      is its voting interval lowered (SETCONF), so that the first consensus is complete at
      once and the next one half an hour away.
    * Relays are told to fetch that consensus now (SIGNAL RELOAD), and clients are let onto
      the network (DisableNetwork 0) only when the relays can serve it.

    tor ignores OutboundBindAddress for destinations in 127.0.0.0/8, so the source address
    does not tell exits apart.  `exit_of` finds the process at the other end of an accepted
    connection; "*.exit.test" resolves, at each exit, to that exit's own address.

    Exits resolve names with a stub DNS server in this process.  It answers from `hosts`
    ("*.test" is `server_ip`) and logs every query: a name that is not in the log did not
    reach an exit.  (Exits cache: a second request for a name may not show.)

Invariants
    Every tor ends with the process that started it, SIGKILL included: at first it watches
    our process id (`__OwningControllerProcess`), then it belongs to a control connection
    (TAKEOWNERSHIP).  Directories are removed by `stop`; what a killed process left behind
    is removed by the next network that starts.

Pitfalls
    Let servers listen on `server_ip`, not on 127.0.0.1, whose ephemeral ports other tests
    can use up.  A refused TCP connection on loopback is SOCKS reply 1, not 5.  Latencies
    below 150 ms mean nothing here: loopback answers in 40 ms steps (delayed ACK).
"""

from tests.kit.tornet.control import Address, Control, TorNetError
from tests.kit.tornet.dns import Query, StubDNS
from tests.kit.tornet.network import TorNetwork
from tests.kit.tornet.node import Node

__all__ = ["Address", "Control", "Node", "Query", "StubDNS", "TorNetError", "TorNetwork"]
