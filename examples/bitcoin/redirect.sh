#!/bin/sh
# Run a program so that its Bitcoin connections go through isoproxy's proxy, by nftables.
#
#     sudo ./redirect.sh GROUP PROGRAM [ARGUMENT...]
#
# GROUP is a system group made for this; the program runs as the user who called sudo, in
# that group alone.  The proxy must listen on 127.0.0.1:1324 and on [::1]:1324.
#
# The rules stay when the program ends, for others may run in the same group, and what the
# program started may live on.  Once nothing does:
#
#     sudo nft delete table inet isoproxy_bitcoin_GROUP
set -eu
group=$1
shift
rules=$(isoproxy bitcoin redirect --print "$group")
printf '%s\n' "$rules" | nft -f -
exec setpriv --reuid "${SUDO_UID:-$(id -u)}" --regid "$group" --clear-groups -- "$@"
