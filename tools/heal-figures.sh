#!/usr/bin/env bash
# Stalls one route of six real servers, RUNS times per server version and mode, and prints a Markdown table of medians and
# maxima: stall to verdict, stall to messages that flow again. Clients that lost their server are counted.
set -euo pipefail
cd "$(dirname "$0")/.."
lab=${LAB:-target/release/watchdog-lab}
runs=${RUNS:-7}
echo "| server | mode | runs | verdict median / max (s) | flowing median / max (s) | clients disconnected |"
echo "|---|---|---|---|---|---|"
for version in 2.9.10 2.10.26 2.15.1; do
  for mode in reset restart; do
    # Without the capability to destroy sockets only a restart is left.
    as=(); [ "$mode" = reset ] || as=(setpriv --bounding-set=-net_admin)
    out=$(for _ in $(seq "$runs"); do
      "${as[@]}" "$lab" demo --server ".tools/servers/$version/nats-server" --mode "$mode" --bound 40s || echo "NOT HEALED"
    done)
    figures() { sed -n "s/^$1 *\([0-9.]*\) s$/\1/p" <<<"$out" | sort -n | awk '{v[NR]=$1} END {if (NR) printf "%s / %s", v[int((NR+1)/2)], v[NR]; else printf "none"}'; }
    lost=$(sed -n 's/^clients disconnected *//p' <<<"$out" | awk '{n+=$1} END {print n+0}')
    bad=$(grep -c "^NOT HEALED" <<<"$out" || true)
    echo "| $version | $mode | $runs ($bad not healed) | $(figures 'stall to first verdict') | $(figures 'stall to flowing again') | $lost |"
  done
done
