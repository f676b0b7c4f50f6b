"""SOCKS4, 4a and 5 without sockets: RFC 1928, RFC 1929, and Tor's extensions.

Theory of operation
    `Server` is fed what a client sends and yields at most one `Request`; `Client` says
    what to send to Tor's SocksPort and yields at most one `Reply`.  Neither performs
    input or output.  After each `receive` the caller must write `data_to_send()`, in one
    write: Electrum recognises Tor by twelve bytes (method choice and reply of a RESOLVE)
    that must arrive in one read.

    The server answers pipelined messages in order.  Bytes behind the request belong to
    the application ("optimistic data"): they wait in `leftover` and are never dropped.
    The client waits for Tor's method choice before it sends user name and password,
    because Tor loses that choice when both come in one segment; credentials, request and
    optimistic data then go out together.

    Tor's extensions: commands RESOLVE (F0) and RESOLVE_PTR (F1), reply codes F0-F7
    (proposal 304), an authentication message accepted although NO AUTH was chosen.

Invariants
    Buffers are bounded by the longest legal message.  User names, passwords and hosts
    are raw bytes; absent and empty differ.  A refused client is always told, in the
    protocol it speaks, before the connection closes.
"""

from isoproxy.socks.client import Client, Reply
from isoproxy.socks.server import Server
from isoproxy.socks.wire import Address, AddressType, Command, Request, Version, encode_reply

__all__ = [
    "Address",
    "AddressType",
    "Client",
    "Command",
    "Reply",
    "Request",
    "Server",
    "Version",
    "encode_reply",
]
