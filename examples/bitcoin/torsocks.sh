#!/bin/sh
# Run a program so that all its connections go through isoproxy, redirected in user space.
#
#     ./torsocks.sh PROGRAM [ARGUMENT...]
#
# No root, no option of the program's own: torsocks (Debian: apt-get install torsocks) takes the
# place of the C library's connect().  -i makes the program an identity of its own.
#
# Programs that do without the C library, as those written in Go, CONNECT DIRECTLY, and nothing
# says so.  Use redirect.sh for them.
set -eu
exec torsocks -a "${ISOPROXY_HOST:-127.0.0.1}" -P "${ISOPROXY_PORT:-9250}" -i "$@"
