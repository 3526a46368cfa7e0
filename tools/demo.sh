#!/usr/bin/env bash
# The demo: real nats-servers in three regions with an agent each; one route is stalled silently, and the agents find and
# heal it. Everything ends with this script. With a terminal it stays for a look at the pages, until Enter.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${CARGO_TARGET_DIR:-target}/debug
server=${NATS_SERVER:-$PWD/.tools/servers/2.10.26/nats-server}
dir=$(mktemp -d)
lab=
finish() {
  [ -z "$lab" ] || { kill "$lab" 2>/dev/null; wait "$lab" 2>/dev/null; } || true
  rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT TERM

say() { printf '\n== %s\n' "$*"; }
fail() { echo "demo: $*" >&2; cat "$dir/up.log" >&2; exit 1; }
now() { date +%s%N; }
ms() { echo $(((($(now) - $1)) / 1000000)); }

# Where sockets may not be destroyed (not root) the agent climbs on: it restarts its server.
mode=restart
say "Six servers of $("$server" --version | awk '{print $2}') in three regions, one agent each, mode $mode"
"$bin/watchdog-lab" up --regions iad,fra,nrt --per-region 2 --server "$server" --agents "$mode" \
  --agent-bin "$bin/watchdog" --dir "$dir/lab" >"$dir/up.log" 2>&1 &
lab=$!
for _ in $(seq 300); do
  grep -q '^nrt-2 ' "$dir/up.log" && break
  kill -0 "$lab" 2>/dev/null || fail "the lab has ended"
  sleep 0.1
done
grep -q '^nrt-2 ' "$dir/up.log" || fail "the lab is not up after 30 s"
cat "$dir/up.log"
addr=$(awk '/^control/ {print $2}' "$dir/up.log")
page() { sed -n "s|^$1 .* page \(http://[^ /]*\)/.*|\1|p" "$dir/up.log"; }
ctl() { "$bin/watchdog-lab" ctl --addr "$addr" "$@"; }

# One host's word for what its agent hears from one source.
verdict() { # receiver source
  "$bin/watchdog" matrix --output json --agent "$(page "$1")" 2>/dev/null | python3 -c '
import json, sys
print(next((s["verdict"] for s in json.load(sys.stdin)["sources"] if s["host"] == sys.argv[1]), ""))' "$2" 2>/dev/null || true
}
until_verdict() { # receiver source word tenths
  for _ in $(seq "$4"); do
    [ "$(verdict "$1" "$2")" = "$3" ] && return 0
    sleep 0.1
  done
  fail "$1 does not call $2 $3"
}
until_verdict fra-2 iad-1 ok 300

say "All is well: watchdog matrix"
"$bin/watchdog" matrix --agent "$(page fra-2)"

say "Stalling the route iad-1 > fra-2: TCP stays up, PING and PONG pass, messages do not"
began=$(now)
ctl stall iad-1 fra-2
until_verdict fra-2 iad-1 stalled 150
echo "fra-2 calls iad-1 stalled after $(ms "$began") ms"
until_verdict fra-2 iad-1 ok 600
echo "fra-2 hears iad-1 again after $(ms "$began") ms"

say "What fra-2 decided: watchdog history"
"$bin/watchdog" history --agent "$(page fra-2)"
say "watchdog status"
"$bin/watchdog" status --agent "$(page fra-2)"

if [ -t 0 ] && [ -t 1 ]; then
  say "The page of fra-2: $(page fra-2)/ . More faults: $bin/watchdog-lab ctl --addr $addr --help"
  read -r -p "Enter ends the demo. " _ || true
fi
say "Done; all servers and agents are stopped"
