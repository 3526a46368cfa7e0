#!/usr/bin/env bash
# Installs what the tests under a real systemd need (Debian, Ubuntu), where it is missing. Run as root.
set -euo pipefail
missing=()
[ -x /lib/systemd/systemd ] || missing+=(systemd)
command -v dbus-daemon >/dev/null || missing+=(dbus)
[ -x /usr/lib/polkit-1/polkitd ] || missing+=(polkitd)
command -v setpriv >/dev/null && command -v unshare >/dev/null || missing+=(util-linux)
command -v ip >/dev/null || missing+=(iproute2)
command -v iptables >/dev/null || missing+=(iptables)
command -v ps >/dev/null || missing+=(procps)
command -v etcd >/dev/null || missing+=(etcd-server)
[ ${#missing[@]} -gt 0 ] || exit 0
[ "$(id -u)" = 0 ] || { echo "setup: root is needed to install ${missing[*]}" >&2; exit 1; }
command -v apt-get >/dev/null || { echo "setup: no apt-get here; install ${missing[*]} by hand" >&2; exit 1; }
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
