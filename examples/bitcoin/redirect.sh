#!/bin/sh
# Run a program so that its Bitcoin connections go through isoproxy's proxy, by nftables.
#
#     sudo ./redirect.sh [-c FILE] GROUP PROGRAM [ARGUMENT...]
#
# FILE is isoproxy's configuration, where it is not the system's; without any the proxy is
# the one that `isoproxy bitcoin proxy` opens.
#
# GROUP is a system group made for this; the program runs as the user who called sudo, in
# that group alone.  The proxy must listen on 127.0.0.1:1324 and on [::1]:1324.
#
# The rules stay when the program ends, for others may run in the same group, and what the
# program started may live on.  Once nothing does:
#
#     sudo nft delete table inet isoproxy_bitcoin_GROUP
set -eu
config=
if [ "$1" = -c ]; then
    config=$2
    shift 2
fi
group=$1
shift
rules=$(isoproxy bitcoin redirect --print ${config:+-c "$config"} "$group")
printf '%s\n' "$rules" | nft -f -
exec setpriv --reuid "${SUDO_UID:-$(id -u)}" --regid "$group" --clear-groups -- "$@"
