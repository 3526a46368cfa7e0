#!/usr/bin/env bash
# Runs all tests: with cargo-nextest (.config/nextest.toml) where it is installed, else with cargo test. Arguments go to
# the runner. Its own closing lines are the last that is printed.
set -euo pipefail
cd "$(dirname "$0")/.."
if cargo nextest --version >/dev/null 2>&1; then
  exec cargo nextest run --features lab --no-fail-fast "$@"
fi
# Servers, agents and their timing want a core each.
threads=$(($(nproc) > 4 ? 4 : 2))
exec cargo test --features lab --no-fail-fast "$@" -- --test-threads=$threads
