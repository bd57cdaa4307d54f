# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nvidia-smi and the driver show of a host's GPUs, judged: its own words, and what to do first. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Tried in this order over nvidia-smi's own words; in lower case.
_REMEDIES = {
    r"driver/library version mismatch|nvml library version": (
        "the driver was updated while its old kernel module was loaded: reboot the host, or stop everything that uses the GPUs "
        "and load the module again (systemctl stop nvidia-persistenced nvidia-fabricmanager; rmmod nvidia_uvm nvidia_drm "
        "nvidia_modeset nvidia; modprobe nvidia)"
    ),
    r"couldn.t communicate with the nvidia driver|driver is not loaded|driver not loaded|no such device": (
        "the kernel module is not loaded: modprobe nvidia, and where that fails see dmesg | grep -i nvrm (after a kernel update "
        "the driver has to be built for it: dkms status; with Secure Boot it has to be signed)"
    ),
    r"fallen off the bus|gpu is lost|requires reset|reset required|unable to determine the device handle|unknown error|err!": (
        "a GPU does not answer any more: see dmesg | grep -i xid, reboot the host (or nvidia-smi --gpu-reset where nothing uses "
        "it), and have it replaced where it comes back"
    ),
    r"no devices were found|no devices found": (
        "the driver runs and sees no GPU: see lspci | grep -i nvidia and dmesg | grep -i nvrm; where the GPUs were given to a "
        "virtual machine (vfio-pci), take them back"
    ),
    r"timed out|did not stop printing": "a sick GPU makes nvidia-smi hang: see dmesg | grep -i xid, and reboot the host",
    r"insufficient permissions|permission denied|not permitted": (
        "this user may not open the GPUs: run the play with become"
    ),
    r"shared object file|libnvidia-ml|nvml": (
        "the driver's library does not go with it: install the driver again, of one version in all its parts"
    ),
}
_OTHERWISE = "mend the driver first (a reboot after its update, nvidia-fabricmanager)"
# Above what the driver holds by itself, in MiB.
HELD = 4096


def device_faults(seen: Mapping[str, Any], planned: int) -> Iterator[str]:
    """Why the GPUs of a host will not do for ``planned`` of them; ``seen`` is ``gpus`` of M(observe)'s host."""
    listing, devices = str(seen.get("listing") or ""), seen.get("devices") or []
    if seen.get("error"):
        yield f"{seen['error']}: {_remedy(seen['error'])}."
        return
    stray = [line.strip() for line in listing.splitlines() if line.strip() and not re.match(r"\s*(?:GPU|MIG) ", line)]
    sick = [line for line in stray if _known(line)]
    if sick:
        yield f"nvidia-smi -L says: {sick[0].rstrip('.')}: {_remedy(sick[0])}."
        return
    has = sum(line.startswith("GPU ") for line in listing.splitlines())
    if has < planned:
        missing = f"nvidia-smi -L lists {has} of the {planned} GPUs that plan_gpus says"
        yield f"{missing}: lower it, or find the missing ones (lspci | grep -i nvidia; dmesg | grep -i -e nvrm -e xid)."
    broken = [each for each in devices if any(_known(str(value)) for value in each.values())]
    if broken:
        [shown, *__] = [str(value) for value in broken[0].values() if _known(str(value))]
        yield f"nvidia-smi shows {shown} for {_gpus(broken)}: {_remedy(shown)}."
    yield from _mig_faults(listing, devices)
    closed = [each for each in devices if each["compute_mode"] == "Prohibited"]
    if closed:
        yield (
            f"{_gpus(closed)} {_is(closed)} in compute mode Prohibited, in which no process may use {_them(closed)}: "
            f"nvidia-smi -i {_indices(closed)} -c DEFAULT."
        )


def device_warnings(seen: Mapping[str, Any], idle: bool) -> Iterator[str]:
    """What may be meant; ``idle``: no container of the deployment runs there, so nothing should hold the GPUs."""
    devices = [each for each in seen.get("devices") or [] if not any(_known(str(value)) for value in each.values())]
    kinds = sorted({each["name"] for each in devices})
    if len(kinds) > 1:
        yield f"the GPUs are of different kinds ({', '.join(kinds)}); an engine is as fast as its slowest."
    alone = [each for each in devices if each["compute_mode"].startswith("Exclusive")]
    if alone:
        yield (
            f"{_gpus(alone)} {_is(alone)} in compute mode {alone[0]['compute_mode']}, in which a second process on a GPU fails: "
            f"nvidia-smi -i {_indices(alone)} -c DEFAULT."
        )
    held = [each for each in devices if each["used"].isdigit() and int(each["used"]) > HELD]
    if idle and held:
        most = max(held, key=lambda each: int(each["used"]))
        yield (
            f"{_gpus(held)} {_is(held)} in use by something else (GPU {most['index']}: {most['used']} of {most['total']} MiB), "
            "and the engine may find too little memory: see nvidia-smi, and stop what holds it."
        )


def rdma_warnings(seen: Mapping[str, Any] | None) -> Iterator[str]:
    """What expert parallelism over several hosts lacks on one; ``seen`` is ``rdma`` of M(observe)'s host.

    DeepEP (third-party/README.md) needs one of two: the driver's parameters, or gdrdrv.
    """
    if seen is None:
        return
    if not seen["devices"]:
        yield (
            "there is no RDMA device (/sys/class/infiniband is empty), and DeepEP needs one between hosts: load its driver "
            "(modprobe mlx5_ib), or set plan_ep: 1."
        )
    modules, parameters = seen["modules"], seen["parameters"]
    if not (seen["open"] or {"nvidia_peermem", "nv_peer_mem"} & set(modules)):
        yield "nvidia_peermem is not loaded, by which network cards reach GPU memory: modprobe nvidia_peermem."
    has = parameters.get("EnableStreamMemOPs") == "1" and "PeerMappingOverride=1" in parameters.get(
        "RegistryDwords", ""
    )
    if not has and "gdrdrv" not in modules:
        yield (
            "the driver does not let GPUs start transfers themselves (IBGDA), without which DeepEP between hosts was seen to "
            'hang: put options nvidia NVreg_EnableStreamMemOPs=1 NVreg_RegistryDwords="PeerMappingOverride=1;" into '
            "/etc/modprobe.d/nvidia.conf, run update-initramfs -u and reboot; or load gdrdrv, of GDRCopy."
        )


def _mig_faults(listing: str, devices: Sequence[Mapping[str, str]]) -> Iterator[str]:
    on = [each["index"] for each in devices if each["mig"] == "Enabled"]
    current = ""
    for line in listing.splitlines():
        match = re.match(r"GPU (\d+):", line)
        current = match.group(1) if match else current
        if line.strip().startswith("MIG ") and current and current not in on:
            on.append(current)
    if on:
        names = ", ".join(on)
        yield (
            f"MIG is on for GPU {names}, which gives containers parts of a GPU, and an engine needs whole ones: "
            f"nvidia-smi -i {','.join(on)} -mig 0, and reboot where it says that the change is pending."
        )


def _known(text: str) -> bool:
    return any(re.search(pattern, text.lower()) for pattern in _REMEDIES)


def _remedy(text: str) -> str:
    return next((remedy for pattern, remedy in _REMEDIES.items() if re.search(pattern, text.lower())), _OTHERWISE)


def _indices(devices: Sequence[Mapping[str, str]]) -> str:
    return ",".join(each["index"] for each in devices)


def _gpus(devices: Sequence[Mapping[str, str]]) -> str:
    return f"GPU {', '.join(each['index'] for each in devices)}"


def _is(devices: Sequence[object]) -> str:
    return "is" if len(devices) == 1 else "are"


def _them(devices: Sequence[object]) -> str:
    return "it" if len(devices) == 1 else "them"
