# shellcheck shell=bash
# Programs that tests run beside the collection: those of this machine, else out of the distribution's packages, which are unpacked into
# .cache/packages and not installed: nothing is started.
#
#   source scripts/lib/packages.sh
#   ensure_packages      # afterwards all of _programs are in PATH; says why, where they cannot be had

_packages_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/.cache/packages
_programs=(promtool prometheus prometheus-node-exporter haproxy nft)
# What they need of libraries that a small machine lacks is fetched with them.
_packages=(prometheus prometheus-node-exporter haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1
  nftables libnftables1 libnftnl11 libjansson4)

_has_programs() { local each; for each in "${_programs[@]}"; do command -v "$each" || return 1; done; } >/dev/null

_download_packages() (
  cd "$1" && apt-get download -qq "${_packages[@]}"
)

# wrap_programs ROOT NAME...: programs of ROOT/usr/sbin that find their libraries below ROOT, in ROOT/bin.
wrap_programs() {
  local root=$1 each
  shift
  mkdir -p "$root/bin"
  for each in "$@"; do
    cat >"$root/bin/$each" <<'EOF'
#!/bin/sh
root=$(cd "$(dirname "$0")/.." && pwd)
LD_LIBRARY_PATH=$(echo "$root"/usr/lib/*-linux-gnu)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
exec "$root/usr/sbin/${0##*/}" "$@"
EOF
    chmod 755 "$root/bin/$each"
  done
}

ensure_packages() {
  local draft log package
  export PATH=$PATH:/usr/sbin  # where distributions have HAProxy and nft, and users do not look
  _has_programs && return 0
  if [[ ! -d $_packages_root ]]; then
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
      printf '%s\n' "one of ${_programs[*]} is missing, and there is no apt-get: install Prometheus, node_exporter, HAProxy and" \
        "nftables by this machine's package manager." >&2
      return 1
    fi
    mkdir -p "${_packages_root%/*}"
    # Others may do the same at this moment: what is there is whole.
    draft=$(mktemp -d "$_packages_root.XXXXXX") || return 1
    log=$draft/apt.log
    printf '%s\n' "fetching Prometheus, HAProxy and nftables from the distribution into .cache/packages" >&2
    # A fresh machine has no list of packages yet.
    if ! { _download_packages "$draft" || { apt-get update -qq && _download_packages "$draft"; }; } >"$log" 2>&1; then
      printf '%s\n' "apt-get could not fetch ${_packages[*]}:" >&2
      tail -n 5 "$log" >&2
      rm -r "$draft"
      return 1
    fi
    for package in "$draft"/*.deb; do dpkg-deb -x "$package" "$draft" || { rm -r "$draft"; return 1; }; done
    rm "$draft"/*.deb
    wrap_programs "$draft" haproxy nft
    mv -T "$draft" "$_packages_root" 2>/dev/null || rm -r "$draft"
  fi
  export PATH=$_packages_root/bin:$_packages_root/usr/bin:$PATH
  _has_programs || { printf '%s\n' "$_packages_root lacks one of its programs: remove it, and run this again." >&2; return 1; }
}
