#!/usr/bin/env bash
# Prometheus, promtool and Alertmanager for the tests of alerts and dashboard, where they are not installed: Debian's
# packages, unpacked into .tools/prometheus. Not installed, because that would start them on this host.
set -euo pipefail
cd "$(dirname "$0")/.."
dir="$PWD/.tools/prometheus"
there() { command -v "$1" >/dev/null || [ -x "$dir/usr/bin/$1" ]; }
packages=()
there prometheus && there promtool || packages+=(prometheus)
there prometheus-alertmanager || there alertmanager || packages+=(prometheus-alertmanager)
[ ${#packages[@]} = 0 ] && exit 0
command -v apt-get >/dev/null || { echo "prometheus: no apt-get here; install ${packages[*]} by hand" >&2; exit 1; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
# _apt, which downloads, must be able to write there.
chmod 777 "$tmp"
fetch() { (cd "$tmp" && apt-get download -qq "${packages[@]}" >/dev/null 2>&1); }
fetch || { [ "$(id -u)" = 0 ] && apt-get update -qq && fetch; } ||
  { echo "prometheus: cannot fetch Debian's packages ${packages[*]}; run 'apt-get update' as root once" >&2; exit 1; }
mkdir -p "$dir"
for package in "$tmp"/*.deb; do dpkg-deb -x "$package" "$dir"; done
