#!/usr/bin/env bash
# Prometheus and promtool for the tests of alerts and dashboard, where they are not installed: Debian's package, unpacked
# into .tools/prometheus. Not installed, because that would start a Prometheus on this host.
set -euo pipefail
cd "$(dirname "$0")/.."
dir="$PWD/.tools/prometheus"
if command -v prometheus >/dev/null && command -v promtool >/dev/null; then exit 0; fi
[ -x "$dir/usr/bin/promtool" ] && exit 0
command -v apt-get >/dev/null || { echo "prometheus: no apt-get here; install prometheus and promtool by hand" >&2; exit 1; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
# _apt, which downloads, must be able to write there.
chmod 777 "$tmp"
fetch() { (cd "$tmp" && apt-get download -qq prometheus >/dev/null 2>&1); }
fetch || { [ "$(id -u)" = 0 ] && apt-get update -qq && fetch; } ||
  { echo "prometheus: cannot fetch Debian's package; run 'apt-get update' as root once" >&2; exit 1; }
mkdir -p "$dir.part"
dpkg-deb -x "$tmp"/prometheus_*.deb "$dir.part"
rm -rf "$dir"
mv "$dir.part" "$dir"
