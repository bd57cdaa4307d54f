# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVLink and NVSwitch: the fabric manager, the fabric's state, links that are down."""

from __future__ import annotations

from collections.abc import Iterator

from .types import ERROR, WARNING, OfHost, Rule, Unknown

WELL = "completed"
NONE = ("", "n/a", "not supported", "[n/a]")


def _states(of: OfHost) -> dict[int, str]:
    """By GPU, the state of the fabric in lower case, of those that are part of one."""
    seen = {each["index"]: str(each.get("fabric") or "").lower() for each in of.get("host.gpus.details") or ()}
    return {index: state for index, state in seen.items() if state not in NONE}


def _needs_manager(of: OfHost) -> bool:
    """Whether it is needed here. A virtual machine whose GPUs are in the fabric already has the manager elsewhere."""
    if not of.known("host.fabric_manager.needed"):
        return False
    states = _states(of)
    return not states or any(state != WELL for state in states.values())


def _manager(of: OfHost) -> Iterator[str]:
    if not _needs_manager(of):
        return
    if of.known("host.fabric_manager.running") is False:
        yield (
            "this host has NVSwitches, and nvidia-fabricmanager does not run, without which CUDA does not start (error 802, "
            "system not yet initialized): install nvidia-fabricmanager of the driver's version, and systemctl enable --now "
            "nvidia-fabricmanager."
        )


def _version(of: OfHost) -> Iterator[str]:
    if not of.known("host.fabric_manager.needed"):
        return
    has, driver = of.known("host.fabric_manager.version"), of.known("host.gpus.driver")
    if has != driver:
        yield (
            f"nvidia-fabricmanager is {has} and the driver {driver}, and they have to be of one version, else the manager ends "
            f"at its next start: install nvidia-fabricmanager {driver}."
        )


def _state(of: OfHost) -> Iterator[str]:
    states = _states(of) if of.known("host.fabric_manager.needed") else {}
    if _needs_manager(of) and of.get("host.fabric_manager.running") is False:
        raise Unknown("nvidia-fabricmanager does not run")
    bad = {index: state for index, state in states.items() if state != WELL}
    if bad:
        told = ", ".join(f"GPU {index}: {state}" for index, state in bad.items())
        yield (
            f"the GPUs are not in the NVLink fabric yet ({told}), and CUDA does not start before (error 802): see systemctl "
            "status nvidia-fabricmanager and /var/log/fabricmanager.log; a minute after the host's start this may be over."
        )


def _status(of: OfHost) -> Iterator[str]:
    states = _states(of)
    for each in of.details:
        status = str(each.get("fabric_status") or "").lower()
        if states.get(each["index"]) == WELL and status not in (*NONE, "success"):
            yield (
                f"GPU {each['index']} was not brought into the NVLink fabric well ({each['fabric_status']}): see "
                "/var/log/fabricmanager.log and dmesg | grep -i -e nvswitch -e xid, then reset the GPUs or reboot."
            )


def _links(of: OfHost) -> Iterator[str]:
    details = of.details
    down = [each for each in details if each.get("nvlinks_down")]
    if down:
        told = ", ".join(f"GPU {each['index']}: {each['nvlinks_down']}" for each in down)
        yield (
            f"NVLinks are down ({told}), so NCCL is slower or goes another way: see nvidia-smi nvlink -s and dmesg | grep -i "
            "xid, and reset the GPUs or reboot."
        )
    silent = [str(each["index"]) for each in details if each.get("nvlinks_down") is None]
    if silent:
        raise Unknown(f"nvidia-smi does not tell the NVLinks of GPU {', '.join(silent)}")


def _switches(of: OfHost) -> Iterator[str]:
    for each in of.known("host.kernel.sxids"):
        if each["fatal"]:
            times = "" if each.get("count", 1) == 1 else f", {each['count']} times"
            said = str(each.get("text", "")).strip()
            yield (
                f"the kernel's log has the fatal SXid {each['sxid']} of the NVSwitch at {each['bus']} since the host was started"
                f"{times}{f' ({said})' if said else ''}: GPUs behind it cannot reach each other until they are reset. Look at "
                "dmesg | grep -i sxid and /var/log/fabricmanager.log; reset all GPUs and NVSwitches (nvidia-smi -r) or reboot the "
                "host, and have it looked at where it comes back."
            )


RULES = (
    Rule(
        id="fabric.manager",
        severity=ERROR,
        title="nvidia-fabricmanager runs where NVSwitches need it",
        check=_manager,
        remedy="Install and start nvidia-fabricmanager of the driver's version.",
        needs=("host.fabric_manager",),
        applies=lambda of: of.real and not of.serves,
    ),
    Rule(
        id="fabric.version",
        severity=WARNING,
        title="nvidia-fabricmanager is of the driver's version",
        check=_version,
        remedy="Install nvidia-fabricmanager of the driver's version.",
        needs=("host.fabric_manager",),
        applies=lambda of: of.real,
    ),
    Rule(
        id="fabric.state",
        severity=ERROR,
        title="The GPUs are in the NVLink fabric",
        check=_state,
        remedy="See `/var/log/fabricmanager.log`; reset the GPUs or reboot.",
        needs=("host.gpus.details", "host.fabric_manager"),
        applies=lambda of: of.real and not of.serves,
    ),
    Rule(
        id="fabric.status",
        severity=WARNING,
        title="The GPUs were brought into the NVLink fabric without a fault",
        check=_status,
        remedy="See `/var/log/fabricmanager.log`; reset the GPUs or reboot.",
        needs=("host.gpus.details",),
        applies=lambda of: of.real,
    ),
    Rule(
        id="fabric.sxid",
        severity=WARNING,
        title="The kernel's log has no fatal error (SXid) of an NVSwitch",
        check=_switches,
        remedy="Reset all GPUs and NVSwitches, or reboot.",
        needs=("host.kernel.sxids",),
        applies=lambda of: of.real,
    ),
    Rule(
        id="nvlink.down",
        severity=WARNING,
        title="No NVLink is down",
        check=_links,
        remedy="See `nvidia-smi nvlink -s`; reset the GPUs or reboot.",
        needs=("host.gpus.details",),
    ),
)
