# shellcheck shell=bash
# A virtual environment of the checkout's own, made from pinned requirements.
#
#   source scripts/lib/python.sh
#   ensure_venv                                     # .venv from requirements/control.txt
#   ensure_venv .venv-dev requirements/dev.txt      # another one; both relative to the checkout
#   remove_venv                                     # the one of ensure_venv, and no other
#
# Afterwards its programs come first in PATH. One that is there and was made by hand is left alone: .cache/venv is made instead.

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

# An environment that ensure_venv made has this file.
_venv_mark=requirements.sha256

_venv_of() {
  local venv=$_checkout/$1
  if [[ -e $venv && ! -f $venv/$_venv_mark ]]; then venv=$_checkout/.cache/${1#.}; fi
  printf '%s\n' "$venv"
}

remove_venv() {
  local venv
  venv=$(_venv_of .venv)
  [[ ! -f $venv/$_venv_mark ]] || rm -rf "$venv"
}

ensure_venv() {
  local venv requirements=$_checkout/${2:-requirements/control.txt} python wanted
  venv=$(_venv_of "${1:-.venv}")
  # Requirements include one another, so all of them count; and an environment cannot be moved.
  wanted=$(cat <(printf "%s" "$venv") "$requirements" "$_checkout"/requirements/*.txt | sha256sum)
  if [[ ! -x $venv/bin/python || $(cat "$venv/$_venv_mark" 2>/dev/null) != "$wanted" ]]; then
    python=$(_find_python) || return 1
    printf '%s\n' "installing ${requirements#"$_checkout"/} into ${venv#"$_checkout"/} ($python)" >&2
    "$python" -m venv --clear "$venv" && : >"$venv/$_venv_mark" || return 1
    "$venv/bin/python" -m pip install -qq --requirement "$requirements" || return 1
    printf '%s\n' "$wanted" >"$venv/$_venv_mark"
  fi
  export PATH=$venv/bin:$PATH
}
