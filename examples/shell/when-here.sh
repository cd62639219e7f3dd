#!/bin/sh
# Runs a command whenever a peer is there: at once if it already is, and each time it comes back.
#
#   when-here.sh PEER COMMAND...
#   when-here.sh nas rsync -a ~/photos nas:
#
# PEER is a name or an id. The command finds ATONCE_PEER_ID and ATONCE_PATH in its environment. Needs jq, and socat or
# the nc of OpenBSD. It ends with an error when the daemon goes: let systemd start it again.
set -eu

if [ $# -lt 2 ]; then
  echo "usage: when-here.sh PEER COMMAND..." >&2
  exit 2
fi
peer=$1
shift

# Where the daemon is, as the atonce command finds it.
socket=${ATONCE_SOCKET:-}
if [ -z "$socket" ]; then
  if [ -e /run/atonce/atonced.sock ]; then
    socket=/run/atonce/atonced.sock
  elif [ -n "${XDG_RUNTIME_DIR:-}" ]; then
    socket=$XDG_RUNTIME_DIR/atonce/atonced.sock
  else
    directory=/tmp/atonce-$(id -u)
    socket=$directory/atonced.sock
    # Anybody may create a directory in /tmp: what another user put there is not our daemon.
    found=$(stat -c '%u %a' "$directory" 2>/dev/null) || found="$(id -u) 700"
    if [ $((0${found#* } & 022)) != 0 ] && [ "${found% *}" = "$(id -u)" ]; then
      echo "when-here: others may write to $directory" >&2
      exit 1
    fi
    if [ "${found% *}" != "$(id -u)" ]; then
      echo "when-here: $directory belongs to another user" >&2
      exit 1
    fi
  fi
fi
if [ ! -S "$socket" ]; then
  echo "when-here: no daemon at $socket; start atonced, or set ATONCE_SOCKET" >&2
  exit 1
fi
command -v jq >/dev/null || { echo "when-here: jq is missing (apt install jq)" >&2; exit 1; }

# Both keep their writing side open, or the daemon would close the connection.
if command -v socat >/dev/null; then
  talk() { socat STDIO,ignoreeof "UNIX-CONNECT:$socket"; }
elif command -v nc >/dev/null; then
  talk() { nc -U "$socket"; }
else
  echo "when-here: socat or nc is missing (apt install socat)" >&2
  exit 1
fi

events='
  if .ev == "error" then "when-here: \(.message)\n" | halt_error(1)
  elif .ev == "enter" and (.peer.name == $peer or .peer.id == $peer) then "\(.peer.id) \(.path)"
  else empty end'

echo '{"op":"watch"}' | talk | jq -r --unbuffered --arg peer "$peer" "$events" | while read -r id path; do
  ATONCE_PEER_ID=$id ATONCE_PATH=$path "$@" </dev/null || echo "when-here: $1 ended with $?" >&2
done
echo "when-here: the daemon closed the connection" >&2
exit 1
