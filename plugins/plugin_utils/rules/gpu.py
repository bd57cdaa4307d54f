# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nvidia-smi, the driver and the kernel's log show of a host's GPUs: their own words, and what to do first."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .types import ERROR, WARNING, OfHost, Rule, Unknown

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
# A process with less is a tool that looks.
SMALL_MIB = 256
# What an XID means that hardware or its firmware causes, by NVIDIA's list; others are mostly a program's own faults.
XIDS = {
    48: "double-bit ECC error",
    62: "internal micro-controller halt",
    63: "a row of memory is to be remapped at the next reset",
    64: "a row of memory could not be remapped",
    74: "NVLink error",
    79: "the GPU has fallen off the bus",
    92: "many single-bit ECC errors",
    94: "contained memory error",
    95: "uncontained memory error",
    110: "security fault of the GPU",
    119: "the GPU's own processor (GSP) gave no answer",
    120: "error of the GPU's own processor (GSP)",
    121: "error of the link to the processor (C2C)",
    136: "link training failed",
    140: "ECC error that cannot be corrected",
    143: "the GPU could not be initialized",
    **dict.fromkeys(range(144, 151), "NVLink error"),
}
Devices = Sequence[Mapping[str, Any]]


# ---- nvidia-smi's text


def _sick_lines(of: OfHost) -> list[str]:
    """What nvidia-smi says instead of GPUs: its error, or lines between those of GPUs that have a known cause."""
    seen = of.known("host.gpus")
    if seen.get("error"):
        return [seen["error"]]
    lines = [line.strip() for line in str(seen.get("listing") or "").splitlines() if line.strip()]
    return [line for line in lines if not re.match(r"(?:GPU|MIG) ", line) and _known(line)]


def _driver(of: OfHost) -> Iterator[str]:
    for line in _sick_lines(of)[:1]:
        said = line if of.known("host.gpus").get("error") else f"nvidia-smi -L says: {line.rstrip('.')}"
        yield f"{said}: {_remedy(line)}."


def _listing(of: OfHost) -> str:
    """The text of nvidia-smi -L; raises ``Unknown`` where it is no list of GPUs, which is told already."""
    if _sick_lines(of):
        raise Unknown("nvidia-smi gave no list of the GPUs")
    return str(of.known("host.gpus").get("listing") or "")


def _devices(of: OfHost) -> list[Mapping[str, str]]:
    """The rows of nvidia-smi --query-gpu; raises ``Unknown`` where there are none."""
    _listing(of)
    found = of.known("host.gpus").get("devices")
    if not found:
        raise Unknown("nvidia-smi --query-gpu told nothing")
    return list(found)


def _well(of: OfHost) -> list[Mapping[str, str]]:
    """Those that answer."""
    return [each for each in _devices(of) if not any(_known(str(value)) for value in each.values())]


def _count(of: OfHost) -> Iterator[str]:
    has = sum(line.startswith("GPU ") for line in _listing(of).splitlines())
    if has < of.node.gpus:
        missing = f"nvidia-smi -L lists {has} of the {of.node.gpus} GPUs that plan_gpus says"
        yield f"{missing}: lower it, or find the missing ones (lspci | grep -i nvidia; dmesg | grep -i -e nvrm -e xid)."


def _lost(of: OfHost) -> Iterator[str]:
    broken = [each for each in _devices(of) if any(_known(str(value)) for value in each.values())]
    if broken:
        [shown, *__] = [str(value) for value in broken[0].values() if _known(str(value))]
        yield f"nvidia-smi shows {shown} for {_gpus(broken)}: {_remedy(shown)}."


def _mig(of: OfHost) -> Iterator[str]:
    listing = _listing(of)
    on = [each["index"] for each in of.known("host.gpus").get("devices") or [] if each["mig"] == "Enabled"]
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


def _prohibited(of: OfHost) -> Iterator[str]:
    closed = [each for each in _devices(of) if each["compute_mode"] == "Prohibited"]
    if closed:
        yield (
            f"{_gpus(closed)} {_is(closed)} in compute mode Prohibited, in which no process may use {_them(closed)}: "
            f"nvidia-smi -i {_indices(closed)} -c DEFAULT."
        )


def _mixed(of: OfHost) -> Iterator[str]:
    kinds = sorted({each["name"] for each in _well(of)})
    if len(kinds) > 1:
        yield f"the GPUs are of different kinds ({', '.join(kinds)}); an engine is as fast as its slowest."


def _exclusive(of: OfHost) -> Iterator[str]:
    alone = [each for each in _well(of) if each["compute_mode"].startswith("Exclusive")]
    if alone:
        yield (
            f"{_gpus(alone)} {_is(alone)} in compute mode {alone[0]['compute_mode']}, in which a second process on a GPU fails: "
            f"nvidia-smi -i {_indices(alone)} -c DEFAULT."
        )


def _held(of: OfHost) -> Iterator[str]:
    held = [each for each in _well(of) if each["used"].isdigit() and int(each["used"]) > HELD]
    if held and not list(_foreign_processes(of)):  # else they are told by name
        most = max(held, key=lambda each: int(each["used"]))
        yield (
            f"{_gpus(held)} {_is(held)} in use by something else (GPU {most['index']}: {most['used']} of {most['total']} MiB), "
            "and the engine may find too little memory: see nvidia-smi, and stop what holds it."
        )


# ---- who else uses them


def _foreign_processes(of: OfHost) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """GPU and process of each that is no container's of this deployment and holds memory."""
    own = [each.id for each in of.host.own(of.plan.name).values()]
    for gpu in of.get("host.gpus.details") or ():
        for process in gpu.get("processes") or ():
            ours = process.get("container") and process["container"] in own
            used = process.get("used_mib")
            if not ours and (used is None or used >= SMALL_MIB):
                yield gpu["index"], process


def _processes(of: OfHost) -> Iterator[str]:
    found: dict[tuple[int, str], list[str]] = {}
    for index, process in _foreign_processes(of):
        used = process.get("used_mib")
        told = f"GPU {index}" if used is None else f"GPU {index} ({used} MiB)"
        found.setdefault((process["pid"], process.get("name") or "?"), []).append(told)
    for (pid, name), gpus in found.items():
        yield (
            f"a process that is not of this deployment, {name} (pid {pid}), holds memory of {', '.join(gpus)}, and the engine may "
            f"find too little: see what it is (ps -fp {pid}), and stop it."
        )
    if any(each.get("processes") is None for each in of.details):
        raise Unknown("nvidia-smi did not tell the processes")


def _users(of: OfHost) -> Iterator[str]:
    for each in of.known("gpu_users"):
        if each.get("deployment") != of.plan.name and not re.search(
            r"dcgm|exporter", f"{each['name']} {each['image']}"
        ):
            gpus = each["gpus"] if isinstance(each["gpus"], str) else f"GPU {', '.join(map(str, each['gpus']))}"
            whose = f" of the deployment {each['deployment']}" if each.get("deployment") else ""
            yield (
                f"the container {each['name']}{whose} ({each['image']}) was given GPUs as well ({gpus}): stop it before "
                "the engine needs them (docker stop), or see that it leaves their memory free."
            )


# ---- what each GPU says of itself


def _where(key: str, bad: Callable[[Any], bool], told: Callable[[Devices], str]) -> Callable[[OfHost], Iterator[str]]:
    """A check of one key of every GPU; where a GPU does not tell it, that is unknown."""

    def check(of: OfHost) -> Iterator[str]:
        details = of.details
        found = [each for each in details if each.get(key) is not None and bad(each[key])]
        if found:
            yield told(found)
        silent = [each for each in details if each.get(key) is None]
        if silent:
            raise Unknown(f"nvidia-smi does not tell {key} of {_gpus(silent)}")

    return check


def _ecc(found: Devices) -> str:
    return (
        f"{_gpus(found)} had memory errors since the last reset that ECC could not correct "
        f"({', '.join(str(each['ecc_uncorrected']) for each in found)}): see nvidia-smi -q -d ECC,ROW_REMAPPER, and reset "
        f"{_them(found)} while nothing uses {_them(found)} (nvidia-smi --gpu-reset -i {_indices(found)}, or reboot)."
    )


def _recovery(found: Devices) -> str:
    return (
        f"{_gpus(found)} {_needs(found)} recovery by the driver's own word ({', '.join(sorted({e['recovery'] for e in found}))}): "
        f"stop what uses {_them(found)}, then nvidia-smi --gpu-reset -i {_indices(found)}, or reboot the host."
    )


def _slow(found: Devices) -> str:
    reasons = sorted({reason for each in found for reason in each["slowdown"]})
    return (
        f"{_gpus(found)} {_is(found)} slowed down now ({', '.join(reasons)}): see nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER, "
        "fans, air flow and power supplies."
    )


def _xids(of: OfHost) -> Iterator[str]:
    buses = {str(each.get("bus")): each["index"] for each in of.get("host.gpus.details") or ()}
    for each in of.known("host.kernel.xids"):
        if each["xid"] in XIDS:
            index = buses.get(str(each["bus"]))
            gpu = f"GPU {index} ({each['bus']})" if index is not None else f"the GPU at {each['bus']}"
            times = "" if each.get("count", 1) == 1 else f", {each['count']} times"
            yield (
                f"the kernel's log has XID {each['xid']} of {gpu} since the host was started{times}: {XIDS[each['xid']]}. Look "
                "at dmesg | grep -i xid and nvidia-smi -q; reset the GPU or reboot the host, and have it replaced where it "
                "comes back."
            )


def _cuda(of: OfHost) -> Iterator[str]:
    has = of.known("host.gpus.cuda")
    needs = next((host.image_answer.get("cuda") for host in of.hosts.values() if host.image_answer), None)
    if not needs:
        raise Unknown("the image did not say which CUDA it has")
    if _version(has) < _version(needs):
        yield (
            f"the driver {of.get('host.gpus.driver') or ''} has CUDA {has}, and the image CUDA {needs}: install a newer one, "
            "or set plan_image to an image with an older CUDA (it may run all the same, by the image's compatibility "
            "libraries)."
        )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


def _known(text: str) -> bool:
    return any(re.search(pattern, text.lower()) for pattern in _REMEDIES)


def _remedy(text: str) -> str:
    return next((remedy for pattern, remedy in _REMEDIES.items() if re.search(pattern, text.lower())), _OTHERWISE)


def _indices(devices: Devices) -> str:
    return ",".join(str(each["index"]) for each in devices)


def _gpus(devices: Devices) -> str:
    return f"GPU {', '.join(str(each['index']) for each in devices)}"


def _is(devices: Sequence[object]) -> str:
    return "is" if len(devices) == 1 else "are"


def _needs(devices: Sequence[object]) -> str:
    return "needs" if len(devices) == 1 else "need"


def _them(devices: Sequence[object]) -> str:
    return "it" if len(devices) == 1 else "them"


LIST, ROWS = ("host.gpus.listing",), ("host.gpus.details",)
RULES = (
    Rule(
        id="gpu.driver",
        severity=ERROR,
        title="nvidia-smi lists the GPUs, and has nothing else to say",
        check=_driver,
        remedy="By nvidia-smi's own words: reboot after an update, load the module, replace a GPU.",
        needs=LIST,
    ),
    Rule(
        id="gpu.count",
        severity=ERROR,
        title="The host has the GPUs that `plan_gpus` says",
        check=_count,
        remedy="Lower `plan_gpus`, or find the missing ones.",
        needs=LIST,
    ),
    Rule(
        id="gpu.lost",
        severity=ERROR,
        title="Every GPU answers",
        check=_lost,
        remedy="See `dmesg | grep -i xid`, reboot the host.",
        needs=LIST,
    ),
    Rule(
        id="gpu.mig",
        severity=ERROR,
        title="MIG is off",
        check=_mig,
        remedy="`nvidia-smi -mig 0`.",
        needs=LIST,
    ),
    Rule(
        id="gpu.compute-mode",
        severity=ERROR,
        title="No GPU is in compute mode Prohibited",
        check=_prohibited,
        remedy="`nvidia-smi -c DEFAULT`.",
        needs=LIST,
    ),
    Rule(
        id="gpu.mixed",
        severity=WARNING,
        title="The GPUs of a host are of one kind",
        check=_mixed,
        remedy="Plan with hosts whose GPUs are the same.",
        needs=LIST,
    ),
    Rule(
        id="gpu.exclusive",
        severity=WARNING,
        title="No GPU is in an exclusive compute mode",
        check=_exclusive,
        remedy="`nvidia-smi -c DEFAULT`.",
        needs=LIST,
    ),
    Rule(
        id="gpu.memory-held",
        severity=WARNING,
        title="The memory of the GPUs is free where no container of the deployment runs",
        check=_held,
        remedy="Stop what holds it.",
        needs=LIST,
        applies=lambda of: of.idle,
    ),
    Rule(
        id="gpu.processes",
        severity=WARNING,
        title="No process of somebody else holds memory of the GPUs",
        check=_processes,
        remedy="Stop it.",
        needs=ROWS,
    ),
    Rule(
        id="gpu.users",
        severity=WARNING,
        title="No other container was given the GPUs",
        check=_users,
        remedy="Stop it, or see that it leaves their memory free.",
        needs=("gpu_users",),
        applies=lambda of: of.real,
    ),
    Rule(
        id="gpu.ecc",
        severity=WARNING,
        title="No memory errors that ECC could not correct",
        check=_where("ecc_uncorrected", lambda count: count > 0, _ecc),
        remedy="Reset the GPU; replace it where they come back.",
        needs=ROWS,
    ),
    Rule(
        id="gpu.remap-pending",
        severity=WARNING,
        title="No row of memory waits for its remapping",
        check=_where(
            "remap_pending",
            bool,
            lambda found: (
                f"{_gpus(found)} {_is(found)} to remap rows of memory at the next reset: reset {_them(found)} before a deployment "
                f"(nvidia-smi --gpu-reset -i {_indices(found)}, or reboot)."
            ),
        ),
        remedy="Reset the GPU, or reboot.",
        needs=ROWS,
    ),
    Rule(
        id="gpu.remap-failed",
        severity=WARNING,
        title="No remapping of a row of memory has failed",
        check=_where(
            "remap_failed",
            bool,
            lambda found: (
                f"{_gpus(found)} could not remap a row of memory: have {_them(found)} replaced (nvidia-smi -q -d ROW_REMAPPER "
                "shows it to the vendor)."
            ),
        ),
        remedy="Have the GPU replaced.",
        needs=ROWS,
    ),
    Rule(
        id="gpu.recovery",
        severity=WARNING,
        title="No GPU waits for a reset",
        check=_where("recovery", lambda action: action.lower() not in ("none", "n/a", ""), _recovery),
        remedy="Reset the GPU, or reboot.",
        needs=ROWS,
    ),
    Rule(
        id="gpu.xid",
        severity=WARNING,
        title="The kernel's log has no error (XID) that hardware causes",
        check=_xids,
        remedy="Reset the GPU or reboot; replace it where it comes back.",
        needs=("host.kernel.xids",),
        applies=lambda of: of.real,
    ),
    Rule(
        id="gpu.slowdown",
        severity=WARNING,
        title="No GPU is slowed down by heat or power",
        check=_where("slowdown", bool, _slow),
        remedy="See to cooling and power.",
        needs=ROWS,
    ),
    Rule(
        id="gpu.persistence",
        severity=WARNING,
        title="The driver stays loaded (persistence mode)",
        check=_where(
            "persistence",
            lambda on: not on,
            lambda found: (
                f"persistence mode is off for {_gpus(found)}, so the driver starts again with every first process, which takes "
                "seconds and forgets settings: systemctl enable --now nvidia-persistenced, or nvidia-smi -pm 1."
            ),
        ),
        remedy="`systemctl enable --now nvidia-persistenced`.",
        needs=ROWS,
    ),
    Rule(
        id="gpu.driver-cuda",
        severity=WARNING,
        title="The driver's CUDA is not older than the image's",
        check=_cuda,
        remedy="Update the driver, or set `plan_image` to an image with an older CUDA.",
        needs=("host.gpus.cuda",),
    ),
)
