# shellcheck shell=bash
# A virtual environment of the checkout's own, made from pinned requirements.
#
#   source scripts/lib/python.sh
#   ensure_venv                                     # .venv from requirements/control.txt
#   ensure_venv .venv-dev requirements/dev.txt      # another one; both relative to the checkout
#
# Afterwards its programs come first in PATH.

_checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# The first Python of a version that the collection supports and that can make environments. (A version manager's
# launcher may be there without the version, so it is run, not only looked up.)
_find_python() {
  local name
  for name in ${LMFLEET_PYTHON:-python3.11 python3.12 python3}; do
    if "$name" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
      command -v "$name"
      return 0
    fi
  done
  printf '%s\n' "no Python 3.11 or 3.12 with venv is on the PATH (on Debian or Ubuntu: apt-get install python3-venv)," \
    "or name one: LMFLEET_PYTHON=/path/to/python3.12" >&2
  return 1
}

ensure_venv() {
  local venv=$_checkout/${1:-.venv} requirements=$_checkout/${2:-requirements/control.txt} python wanted
  # Requirements include one another, so all of them count; and an environment cannot be moved.
  wanted=$(cat <(printf "%s" "$venv") "$requirements" "$_checkout"/requirements/*.txt | sha256sum)
  if [[ ! -x $venv/bin/python || $(cat "$venv/requirements.sha256" 2>/dev/null) != "$wanted" ]]; then
    python=$(_find_python) || return 1
    printf '%s\n' "installing ${requirements#"$_checkout"/} into ${venv#"$_checkout"/} ($python)" >&2
    "$python" -m venv --clear "$venv" || return 1
    "$venv/bin/python" -m pip install -qq --requirement "$requirements" || return 1
    printf '%s\n' "$wanted" >"$venv/requirements.sha256"
  fi
  export PATH=$venv/bin:$PATH
}
