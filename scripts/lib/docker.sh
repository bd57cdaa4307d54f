# shellcheck shell=bash
# A Docker engine for the sandbox: the one that is here if it can run the sandbox's hosts, else one of our own.
#
#   source scripts/lib/docker.sh
#   ensure_docker          # sets DOCKER_HOST where the engine is ours; non-zero, and says why, where none can be had
#   ensure_debootstrap     # what the base image is made with; not needed where one is pulled (sandbox_base_image)
#   stop_docker [--purge]  # stops our own engine, and only that; --purge also removes its images and containers
#
# All state is in one directory, LMFLEET_SANDBOX_STATE, in directories that carry the sandbox's mark (molecule/sandbox/tools/state).

LMFLEET_SANDBOX_STATE=${LMFLEET_SANDBOX_STATE:-${XDG_STATE_HOME:-$HOME/.local/state}/lmfleet-sandbox}
export LMFLEET_SANDBOX_STATE

_state_tool=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../molecule/sandbox/tools" && pwd)/state
_docker_root=$LMFLEET_SANDBOX_STATE/docker
_sandbox_subnet=10.77.0.0/24
_docker_socket=$_docker_root/docker.sock
_docker_pidfile=$_docker_root/docker.pid
_runc_wrapper=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../molecule/sandbox/host" && pwd)/runc-wrapper

_say() { printf '%s\n' "sandbox: $*" >&2; }

# Does our own engine run? The pid alone proves nothing: it may have been reused since.
_own_docker_runs() {
  local pid
  pid=$(cat "$_docker_pidfile" 2>/dev/null) || return 1
  tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$_docker_root"
}

# Can the engine at DOCKER_HOST run a privileged container, with addresses that this machine reaches? Prints what is wrong.
# The container's only program is the engine's own init, so no image is needed.
_probe_docker() {
  local answer gateway
  answer=$(docker version --format '{{.Server.Version}}' 2>&1) || { printf '%s\n' "no engine answers: ${answer##*$'\n'}"; return 1; }
  tar -c --files-from /dev/null | docker import - lmfleet-sandbox-probe:latest >/dev/null || return 1
  answer=$(docker run --rm --privileged --network none --init lmfleet-sandbox-probe:latest /sbin/docker-init --version 2>&1) ||
    { printf '%s\n' "it cannot run a privileged container: $answer"; return 1; }
  gateway=$(docker network inspect bridge --format '{{range .IPAM.Config}}{{.Gateway}}{{end}}' 2>/dev/null)
  if [[ -n $gateway ]] && ! ip -4 -o address show | grep -qF " $gateway/"; then
    printf '%s\n' "its containers' network is not on this machine (a remote or rootless engine, or a desktop's)"
    return 1
  fi
}

_engine_is_usable() {
  local why status=0
  why=$(_probe_docker) || status=$?
  docker image rm lmfleet-sandbox-probe:latest >/dev/null 2>&1
  ((status == 0)) || _say "the engine at ${DOCKER_HOST:-the default address}: $why"
  return "$status"
}

# apt-get install, for what is missing. Arguments: command=package or file=package...
_install_missing() {
  local pair packages=()
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || [[ -e ${pair%%=*} ]] || packages+=("${pair#*=}")
  done
  ((${#packages[@]} == 0)) && return 0
  if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
    _say "missing: ${packages[*]}. Install them, or run this as root on Debian or Ubuntu."
    return 1
  fi
  _say "installing ${packages[*]}"
  {
    apt-get update -q &&
      DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${packages[@]}"
  } >"$LMFLEET_SANDBOX_STATE/sandbox-log/apt.log" 2>&1 ||
    { _say "apt-get failed; the end of $LMFLEET_SANDBOX_STATE/sandbox-log/apt.log:"; tail -n 5 "$LMFLEET_SANDBOX_STATE/sandbox-log/apt.log" >&2; return 1; }
}

_lacks_sys_resource() {
  local bounding
  bounding=$(sed -n 's/^CapBnd:\s*//p' /proc/self/status)
  (((0x$bounding >> 24 & 1) == 0))
}

# Starts a dockerd that shares nothing with any other engine of this machine. It has no default bridge: the sandbox makes
# its own network, and images are built with the host's. It leaves the machine's packet filter alone, whose chains another engine
# may have filled, and which it would empty: the hosts need no way out, and the registry's port is served by Docker's own proxy.
_start_own_docker() {
  local runtime=() filter=(--iptables=false) _
  if ((${#_docker_root} > 70)); then
    _say "the path $_docker_root is too long for the sockets below it; set LMFLEET_SANDBOX_STATE to a shorter one"
    return 1
  fi
  dockerd --help 2>&1 | grep -q -- --ip6tables && filter+=(--ip6tables=false)
  "$_state_tool" claim "$LMFLEET_SANDBOX_STATE" docker || return 1
  if _lacks_sys_resource; then
    # A copy: the engine may outlive the checkout that it was started from.
    install -m 0755 "$_runc_wrapper" "$_docker_root/runc-wrapper" || return 1
    runtime=(--add-runtime "lmfleet=$_docker_root/runc-wrapper" --default-runtime lmfleet)
  fi
  rm -f "$_docker_pidfile"
  # An empty configuration of its own: the machine's daemon.json is for the machine's engine.
  printf '{}\n' >"$_docker_root/daemon.json"
  _say "starting an engine of the sandbox's own in $_docker_root"
  setsid dockerd \
    --config-file "$_docker_root/daemon.json" --data-root "$_docker_root/data" --exec-root "$_docker_root/run" \
    --host "unix://$_docker_socket" --pidfile "$_docker_pidfile" --bridge none "${filter[@]}" "${runtime[@]}" \
    >"$_docker_root/dockerd.log" 2>&1 </dev/null &
  for _ in {1..60}; do
    docker version >/dev/null 2>&1 && { _filter add; return 0; }
    kill -0 $! 2>/dev/null || break
    sleep 0.5
  done
  _say "dockerd did not start; the end of $_docker_root/dockerd.log:"
  tail -n 5 "$_docker_root/dockerd.log" >&2
  return 1
}

# Another engine of the machine drops what it did not allow, packets between two hosts of the sandbox among them, where its
# filter sees bridges. Rules of our own, known by their comment, let those pass. Arguments: add or remove.
_filter() {
  local rule=(FORWARD -s "$_sandbox_subnet" -d "$_sandbox_subnet" -m comment --comment lmfleet-sandbox -j ACCEPT)
  command -v iptables >/dev/null || return 0
  if [[ $1 == add ]]; then
    iptables -C "${rule[@]}" 2>/dev/null || iptables -I "${rule[@]}" 2>/dev/null || return 0
  else
    while iptables -D "${rule[@]}" 2>/dev/null; do :; done
  fi
}

ensure_docker() {
  "$_state_tool" claim "$LMFLEET_SANDBOX_STATE" sandbox-log || return 1
  if _own_docker_runs; then
    export DOCKER_HOST=unix://$_docker_socket
    docker version >/dev/null && return 0
    _say "our own dockerd runs but does not answer: see $_docker_root/dockerd.log, then stop it with stop_docker"
    return 1
  fi
  if command -v docker >/dev/null && _engine_is_usable; then
    _say "using the engine at ${DOCKER_HOST:-the default address}"
    return 0
  fi
  if [[ $(uname -s) != Linux ]] || ((EUID != 0)); then
    _say "the sandbox needs a Docker engine on this machine that runs privileged containers, or root on Linux to start one."
    return 1
  fi
  if ! command -v dockerd >/dev/null; then
    _install_missing dockerd=docker.io docker=docker.io iptables=iptables || return 1
    # Newer releases have the client in a package of its own.
    _install_missing docker=docker-cli || return 1
    # Installing may have started the machine's engine.
    _engine_is_usable && return 0
  fi
  _install_missing docker=docker-cli iptables=iptables ip=iproute2 || return 1
  export DOCKER_HOST=unix://$_docker_socket
  _start_own_docker && _engine_is_usable
}

ensure_debootstrap() {
  "$_state_tool" claim "$LMFLEET_SANDBOX_STATE" sandbox-log &&
    _install_missing debootstrap=debootstrap /usr/share/keyrings/debian-archive-keyring.gpg=debian-archive-keyring
}

stop_docker() {
  local pid mounted _
  if _own_docker_runs; then
    pid=$(cat "$_docker_pidfile")
    kill "$pid"
    for _ in {1..120}; do
      _own_docker_runs || break
      sleep 0.5
    done
    if _own_docker_runs; then
      _say "dockerd (pid $pid) did not stop within 60 s"
      return 1
    fi
    _filter remove
  fi
  if [[ ${1:-} == --purge ]] && "$_state_tool" owned "$LMFLEET_SANDBOX_STATE" docker; then
    # What a killed engine left mounted would keep its directory from being removed.
    while read -r mounted; do umount -l "$mounted"; done < <(awk -v root="$_docker_root/" 'index($2, root) == 1 {print $2}' /proc/mounts)
    "$_state_tool" remove "$LMFLEET_SANDBOX_STATE" docker >/dev/null
  fi
}
