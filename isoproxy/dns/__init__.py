"""The DNS server for names under bit (RFC 1035): question, answer, rendering, signing, sockets."""
