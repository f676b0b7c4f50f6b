"""Programs that know no proxy: their connections are redirected, their DNS is answered here.

Theory of operation
    A program asks the DNS for a name and gets a *virtual address* (Tor's AutomapHostsOnResolve,
    tor(1)), which stands for the name and nothing else.  It connects there, the kernel redirects
    the connection to us and remembers where it was going, and the name is the target: onion
    services, `.bit` and ordinary names all arrive as names, and nothing is resolved before it
    is dialled.

    virtual_addresses   what stands for what, for each client
    answer              the DNS
    rules               nftables, in a namespace and at a gateway
"""
