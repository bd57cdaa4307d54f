# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin: has a host put the deployment's rules there, comes in again by a new connection, and has them kept."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.failure import failure
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.firewall import Settings, faults, render, table_of
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.job import bad
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result, warn
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run

MODULE = "lmfleet.lmdeploy.nft_table"
SSH_PORT = 22
MISSING = "nftables is not installed: apt-get install nftables, or set firewall_packages to what has the program nft."
ARGUMENT_SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["looked", "present", "absent"], "default": "present"},
    "folder": {"type": "path", "default": "/etc/lmfleet"},
    "trusted": {"type": "list", "elements": "str", "default": []},
    "open_ports": {"type": "list", "elements": "int", "default": []},
    "strict": {"type": "bool", "default": False},
    "rollback": {"type": "float", "default": 60},
    "image_share_port": {"type": "int", "default": 8731},
    "model_port": {"type": "int", "default": 8730},
}


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.firewall``; documented in plugins/modules/firewall.py."""

    _supports_check_mode = True

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Have the rules, or have none."""
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        __, options = self.validate_argument_spec(ARGUMENT_SPEC)
        run = Run()
        plan = run.plan
        self._node = plan.node(self._vars["inventory_hostname"])
        self._given = {"table": table_of(plan.name), "folder": f"{options['folder']}/{plan.name}"}
        if options["state"] == "absent":
            changed = self._module(state="absent")["changed"]
            gone = f"- table inet {self._given['table']}\n" if changed else ""
            return {"changed": changed, "diff": {"prepared": gone}}
        seen = self._module(state="looked")["seen"]
        if options["state"] == "looked":
            return {"changed": False, "nft": seen["nft"]}
        hosts = run.hosts()
        settings = Settings(
            ssh_ports=seen["ssh_ports"] or [self._port()],
            trusted=options["trusted"],
            open_ports=options["open_ports"],
            strict=options["strict"],
            jobs={name: options[name] for name in ("image_share_port", "model_port")},
        )
        wrong = faults(plan, hosts, settings)
        if wrong:
            return {"changed": False, "failed": True, "msg": "\n  - ".join(["No rule was set. To mend first:", *wrong])}
        return self._present(seen, render(plan, hosts, self._node, settings), options["rollback"])

    def _present(self, seen: dict[str, Any], text: str, rollback_s: float) -> dict[str, Any]:
        changed = not (seen["as_kept"] and seen["text"] == text)
        told = {
            "persistent": seen["persistent"],
            "file": f"{self._given['folder']}/firewall.nft",
            "diff": {"before_header": "kept", "after_header": "planned", "before": seen["text"], "after": text},
        }
        if not changed or self._task.check_mode:
            if changed and seen["nft"]:
                self._module(state="checked", text=text)
            return {"changed": changed, **told}
        if not seen["nft"]:
            raise AnsibleError(f"{self._where}: {MISSING}")
        armed = self._module(state="applied", text=text, seconds=rollback_s)["armed"]
        self._come_in_again(rollback_s)
        self._module(state="confirmed", text=text, armed=armed)
        if not seen["persistent"]:
            warn(
                f"{self._where}: there is no systemd, so nothing sets the rules again after a reboot. Have the system's start run "
                f"nft -f {told['file']}."
            )
        return {"changed": True, **told}

    @property
    def _where(self) -> str:
        return f"{self._node.name} ({self._node.address})"

    def _port(self) -> int:
        """The port of the connection, where the host itself cannot tell it."""
        return int(self._vars.get("ansible_port") or SSH_PORT)

    def _module(self, **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(MODULE, {**self._given, **arguments}, task_vars=self._vars)
        if bad(answer):
            raise AnsibleError(f"{self._where}: the firewall was not set ({arguments['state']}): {failure(answer)}.")
        return answer

    def _come_in_again(self, rollback_s: float) -> None:
        """A connection that was there before the rules is let through by them, and proves nothing."""
        if getattr(self._connection, "transport", "") == "ssh":
            self._connection.reset()
        try:
            self._low_level_execute_command("true", sudoable=False)
        except AnsibleConnectionFailure as error:
            raise AnsibleConnectionFailure(
                f"{self._where}: no new connection came in after its firewall was set: {error}. The host takes the rules back by "
                f"itself {rollback_s:g} s after it got them; wait for that, and see with --check --diff what they let in. If "
                "Ansible connects to another port than sshd's own there (a NAT, a jump), add it to firewall_open_ports."
            ) from None
