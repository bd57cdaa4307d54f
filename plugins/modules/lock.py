#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The action plugin of the same name says who asks, and makes an error of a refusal.

from __future__ import annotations

DOCUMENTATION = r"""
module: lock
short_description: One run at a time on a deployment
version_added: 0.1.0
description:
  - A run takes the lock before its first change, keeps it between its steps, and releases it at its end. A second run is
    refused meanwhile, and told who has it, from where and since when.
  - A lock that nobody holds is no obstacle. It may be taken when it was released; when its run gave no sign of life for
    O(lease_s); when the host was restarted since; when its run was of the same user on the same control node and its
    process does not exist any more, as after Ctrl-C or a kill; or when it is named by O(break_run).
  - It is a file on one host, the deployment's head. Run it there only, and with the same privileges every time.
  - Content of the file that is no lock is put aside beside it, with C(.broken) at the end of its name.
options:
  path:
    description: The lock file, such as V(/var/lib/lmfleet/lmdeploy/lock.json). Its directory is made where it is missing.
    type: path
    required: true
  state:
    description: >-
      V(taken) takes the lock, or fails. Again in the same run it is as V(kept). V(kept) is the sign of life, and fails where
      the lock is not this run's any more. V(released) gives it back, and leaves another run's alone. V(seen) only looks, and
      does not fail.
    type: str
    choices: [taken, kept, released, seen]
    default: taken
  lease_s:
    description: >-
      Seconds without a sign of life after which the lock may be taken by others. Longer than the longest step between two
      of them.
    type: int
    default: 900
  expected_serial:
    description: >-
      The RV(serial) that was seen when the run looked at its hosts. V(taken) fails if it is another one now, since another
      run has been there. Does not matter to a run that has the lock already.
    type: int
  deployment:
    description: The deployment's name, for messages.
    type: str
    default: ""
  break_run:
    description: The run of the lock, as the refusal names it, if it is known to be dead.
    type: str
    default: ""
  me:
    description: The run that asks. Filled in by the action plugin; a task cannot give it.
    type: dict
    required: true
    suboptions:
      run:
        description: Its UUID.
        type: str
        required: true
      user:
        description: Its account.
        type: str
        required: true
      who:
        description: Its account and who became it, for people.
        type: str
        required: true
      control:
        description: The control node's name.
        type: str
        required: true
      machine:
        description: The control node's machine id.
        type: str
        required: true
      control_boot:
        description: The control node's boot id.
        type: str
        required: true
      pid_space:
        description: The PID namespace on the control node.
        type: str
        required: true
      pid:
        description: The main process of ansible-playbook.
        type: int
        required: true
      start:
        description: When that process began, in ticks since the boot.
        type: str
        required: true
      what:
        description: The playbook.
        type: str
        required: true
  gone:
    description: A run that is certain to have ended. Filled in by the action plugin; a task cannot give it.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: >-
      V(taken) tells whether it would be refused, does not fail, and changes nothing. V(kept) and V(released) are skipped,
      since nothing was taken.
  diff_mode:
    support: none
    description: The lock is not part of the deployment, so a task never counts as changed.
author:
  - lmfleet contributors (@lmfleet)
"""

EXAMPLES = r"""
- name: See whether another run comes between
  lmfleet.lmdeploy.lock:
    path: /var/lib/lmfleet/lmdeploy/lock.json
    state: seen
  register: look

- name: Be the only run
  lmfleet.lmdeploy.lock:
    path: /var/lib/lmfleet/lmdeploy/lock.json
    deployment: lmdeploy
    lease_s: 900
    expected_serial: "{{ look.serial }}"
    break_run: "{{ converge_break_lock | default('') }}"

- name: Give a sign of life
  lmfleet.lmdeploy.lock:
    path: /var/lib/lmfleet/lmdeploy/lock.json
    deployment: lmdeploy
    state: kept

- name: Let others run
  lmfleet.lmdeploy.lock:
    path: /var/lib/lmfleet/lmdeploy/lock.json
    state: released
"""

RETURN = r"""
held:
  description: Whether this run has the lock now; in check mode, whether it would.
  returned: success, or refused
  type: bool
refused:
  description: >-
    Why not, or with O(state=seen) what would be in the way. V(held) by another run; V(serial), since another
    run was there after O(expected_serial) was seen; V(lost), since
    it is not this run's any more. Else empty.
  returned: success, or refused
  type: str
serial:
  description: Grows with every taking, and stays after the release. Zero where nobody has ever taken the lock,
    and -1 while another run has it, so that what is seen then is never taken for what is so later.
  returned: success, or refused
  type: int
lock:
  description: The content of the file, of this run or of the one that has it or had it last. Empty where there is none.
  returned: success, or refused
  type: dict
  contains:
    format: {description: The format of the file., type: int}
    run: {description: The UUID of the run., type: str}
    user: {description: Its account on the control node., type: str}
    who: {description: The same for people., type: str}
    control: {description: The control node's name., type: str}
    machine: {description: The control node's machine id., type: str}
    control_boot: {description: The control node's boot id., type: str}
    pid_space: {description: The PID namespace there., type: str}
    pid: {description: The main process of ansible-playbook there., type: int}
    start: {description: When that process began., type: str}
    what: {description: The playbook., type: str}
    serial: {description: See RV(serial)., type: int}
    since: {description: When it was taken., type: str}
    released: {description: When it was released. Empty while it is held., type: str}
    boot: {description: The host's boot id., type: str}
    taken_uptime: {description: The host's uptime when it was taken., type: float}
    seen_uptime: {description: The host's uptime at the last sign of life., type: float}
    expires_uptime: {description: The host's uptime when it ends without another., type: float}
    expires: {description: The same by the calendar., type: str}
abandoned:
  description: The lock of another run that had not released it, and that this run took over. Else empty.
  returned: success
  type: dict
why:
  description: Why it could be taken over.
  returned: success
  type: str
broken:
  description: Where the content of the file lies that was no lock. Else empty.
  returned: success
  type: str
now:
  description: The host's uptime.
  returned: success
  type: float
msg:
  description: What was done; on failure, who has the lock, from where and since when, and what to do.
  returned: always
  type: str
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._lock import LockError, LockFile, Outcome, Run, told

RUN_SPEC = {
    "run": {"type": "str", "required": True},
    "user": {"type": "str", "required": True},
    "who": {"type": "str", "required": True},
    "control": {"type": "str", "required": True},
    "machine": {"type": "str", "required": True},
    "control_boot": {"type": "str", "required": True},
    "pid_space": {"type": "str", "required": True},
    "pid": {"type": "int", "required": True},
    "start": {"type": "str", "required": True},
    "what": {"type": "str", "required": True},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["taken", "kept", "released", "seen"], "default": "taken"},
            "lease_s": {"type": "int", "default": 900},
            "expected_serial": {"type": "int"},
            "deployment": {"type": "str", "default": ""},
            "break_run": {"type": "str", "default": ""},
            "me": {"type": "dict", "required": True, "options": RUN_SPEC},
            "gone": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    options = module.params
    if options["lease_s"] < 1:
        module.fail_json(msg=f"lease_s is {options['lease_s']}, it must be 1 or more")
    try:
        outcome = asked(LockFile(Path(options["path"])), options, module.check_mode)
    except (LockError, OSError) as error:
        module.fail_json(
            msg=f"The lock {options['path']} could not be used: {error}. On this host every run has to become"
            f" one and the same user (ansible_user, ansible_become), who owns it: see ls -l {options['path']}."
        )
    module.exit_json(changed=False, **told(outcome))


def asked(file: LockFile, options: Mapping[str, Any], check: bool) -> Outcome:
    """What the task wants of the lock."""
    me = Run(**options["me"])
    if options["state"] == "taken":
        return file.take(
            me, options["lease_s"], gone=options["gone"], expected_serial=options["expected_serial"], dry=check
        )
    if options["state"] == "kept":
        return file.keep(me.run, options["lease_s"], dry=check)
    if options["state"] == "released":
        return file.release(me.run, dry=check)
    return file.seen(me.run, options["gone"])


if __name__ == "__main__":
    main()
