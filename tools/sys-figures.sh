#!/usr/bin/env bash
# System traffic of real meshes beside what the model says, and what a storm of it costs an agent: the tables of
# docs/measured.md. Fails where a row is off by more than 15 % at rest or 25 % for a restart. QUIET=1h watches a quiet mesh
# for so long at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
lab=${LAB:-target/release/watchdog-lab}
failed=0
table() { "$lab" sys-table --at-once "$@" || failed=1; }
table --sizes "${SIZES:-10,20,40}"
table --no-head --sizes 10 --clients 20
table --no-head --sizes 10 --clusters 2
echo
"$lab" storm-cost --versions 2.10.26,2.15.1
"$lab" storm-cost --versions 2.9.10 --system | tail -n 2
echo
"$lab" storm --server .tools/servers/2.9.10/nats-server --hosts 40 --settle 100s 1 3
if [ -n "${QUIET:-}" ]; then
  "$lab" quiet --server .tools/servers/2.15.1/nats-server --hosts 20 --for "$QUIET" || failed=1
fi
exit $failed
