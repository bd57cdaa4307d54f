# shellcheck shell=bash
# Prometheus, promtool and node_exporter for tests: those of this machine, else out of the distribution's packages, which are unpacked
# into .cache/prometheus and not installed: nothing is started.
#
#   source scripts/lib/prometheus.sh
#   ensure_prometheus      # afterwards promtool, prometheus and prometheus-node-exporter are in PATH; says why, where they cannot be had

_prometheus_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/.cache/prometheus

_has_prometheus() { command -v promtool && command -v prometheus && command -v prometheus-node-exporter; } >/dev/null

_download_prometheus() (
  cd "$1" && apt-get download -qq prometheus prometheus-node-exporter
)

ensure_prometheus() {
  local draft log package
  _has_prometheus && return 0
  if [[ ! -d $_prometheus_root ]]; then
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
      printf '%s\n' "promtool, prometheus or prometheus-node-exporter is missing, and there is no apt-get: install Prometheus and" \
        "node_exporter by this machine's package manager." >&2
      return 1
    fi
    mkdir -p "${_prometheus_root%/*}"
    # Others may do the same at this moment: what is there is whole.
    draft=$(mktemp -d "$_prometheus_root.XXXXXX") || return 1
    log=$draft/apt.log
    printf '%s\n' "fetching Prometheus from the distribution into .cache/prometheus" >&2
    # A fresh machine has no list of packages yet.
    if ! { _download_prometheus "$draft" || { apt-get update -qq && _download_prometheus "$draft"; }; } >"$log" 2>&1; then
      printf '%s\n' "apt-get could not fetch prometheus and prometheus-node-exporter:" >&2
      tail -n 5 "$log" >&2
      rm -r "$draft"
      return 1
    fi
    for package in "$draft"/*.deb; do dpkg-deb -x "$package" "$draft" || { rm -r "$draft"; return 1; }; done
    rm "$draft"/*.deb
    mv -T "$draft" "$_prometheus_root" 2>/dev/null || rm -r "$draft"
  fi
  export PATH=$_prometheus_root/usr/bin:$PATH
  _has_prometheus || { printf '%s\n' "$_prometheus_root lacks one of its programs: remove it, and run this again." >&2; return 1; }
}
