"""`isoproxy exec`: a program in a network of its own, from which nothing leads out but we.

Theory of operation
    The command leaves its user, network and mount namespaces for new ones (`namespace`,
    namespaces(7)).  In there every address is on the loopback interface (`interface`), where
    nftables sends each TCP connection, and each query to a name server, to sockets that the
    command opened (`nftables`, `transparent.rules`).  It hands these to the running isoproxy
    (`handover`, `server`), which needs no way into the namespace, hides what would resolve or
    dial for the program (`mounts`), gives up all privileges and becomes the program: its
    signals, exit code and terminal are nobody's but its own.

Invariants
    Nothing is left behind, however it ends: the namespaces end with their last process, and
    the running isoproxy lets go of the sockets when the program's first process has ended.
    The program has the caller's user id, no capabilities, and gains none (no_new_privs).
    What cannot be set up is an error before the program begins.
"""
