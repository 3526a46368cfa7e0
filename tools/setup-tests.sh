#!/usr/bin/env bash
# What tests need besides the servers. What cannot be had is named: the tests that need it say "skipped" and pass.
set -euo pipefail
cd "$(dirname "$0")/.."

lacks() { echo "setup: $1" >&2; }

tools/prometheus.sh || lacks "no Prometheus or no Alertmanager: alerts, dashboard and inhibition are not run (tests catalogue, dashboards, alertmanager)"
if [ "$(id -u)" != 0 ]; then
  lacks "not root: skipped are the tests on a real etcd, under a real systemd, those of socket resets and those that change users or mount"
elif ! command -v apt-get >/dev/null; then
  lacks "no apt-get: tests under a real systemd are skipped unless systemd, dbus and polkit are installed"
else
  tools/setup-root-tests.sh || lacks "packages are missing: the tests under a real systemd may be skipped"
fi
