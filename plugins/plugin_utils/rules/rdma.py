# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""RDMA between hosts: what GPUs need to speak it themselves, ports, rates, link layers and GIDs of the network cards.

DeepEP (third-party/README.md) needs one of two: the driver's parameters, or gdrdrv.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..planning.rdma import ACTIVE, CHOSEN, ETHERNET, PER_GPU, are_shared, routable
from ..planning.types import some
from .types import GROUP, WARNING, Found, OfAll, OfHost, Rule, Unknown

# Ways on which NCCL does not let a network card reach a GPU's memory by itself (NCCL_NET_GDR_LEVEL), the nearer first.
FAR = {"NODE": "through another PCI root of the processor", "SYS": "across the processors' interconnect"}
Port = tuple[str, Mapping[str, Any]]  # the device's name, and what is told of the port


def _between_hosts(of: OfHost) -> bool:
    """Whether GPUs of several hosts speak RDMA to each other: expert parallelism cannot do without."""
    return of.engine.ep > 1 and of.several


def _may_use_it(of: OfHost) -> bool:
    return of.several and of.real


def _devices(of: OfHost) -> Iterator[str]:
    if not of.known("host.rdma.devices"):
        yield (
            "there is no RDMA device (/sys/class/infiniband is empty), and DeepEP needs one between hosts: load its driver "
            "(modprobe mlx5_ib), or set plan_ep: 1."
        )


def _peermem(of: OfHost) -> Iterator[str]:
    if not (of.get("host.rdma.open") or {"nvidia_peermem", "nv_peer_mem"} & set(of.known("host.rdma.modules"))):
        yield "nvidia_peermem is not loaded, by which network cards reach GPU memory: modprobe nvidia_peermem."


def _ibgda(of: OfHost) -> Iterator[str]:
    parameters = of.known("host.rdma.parameters")
    has = parameters.get("EnableStreamMemOPs") == "1" and "PeerMappingOverride=1" in parameters.get(
        "RegistryDwords", ""
    )
    if not has and "gdrdrv" not in of.known("host.rdma.modules"):
        yield (
            "the driver does not let GPUs start transfers themselves (IBGDA), without which DeepEP between hosts was seen to "
            'hang: put options nvidia NVreg_EnableStreamMemOPs=1 NVreg_RegistryDwords="PeerMappingOverride=1;" into '
            "/etc/modprobe.d/nvidia.conf, run update-initramfs -u and reboot; or load gdrdrv, of GDRCopy."
        )


def _mlx5(of: OfHost) -> Iterator[str]:
    hcas = of.known("host.hcas")
    if hcas and not any(each.get("driver") in (None, "mlx5_core") for each in hcas):
        drivers = ", ".join(sorted({str(each["driver"]) for each in hcas}))
        yield (
            f"no RDMA device is one of mlx5_core ({drivers}), and DeepEP between hosts (NVSHMEM's IBGDA) knows no other: use "
            "hosts with NVIDIA's cards, or set plan_ep: 1."
        )


# ---- ports


def _ports(hcas: Any, state: str | None = ACTIVE) -> list[Port]:
    return [
        (f"{hca['device']}:{port['port']}" if len(hca["ports"]) > 1 else hca["device"], port)
        for hca in hcas
        for port in hca["ports"]
        if state is None or port["state"] == state
    ]


def _active(of: OfHost) -> Iterator[str]:
    hcas = of.known("host.hcas")
    if hcas and not _ports(hcas):
        states = (
            ", ".join(f"{name} {port['state'] or 'unknown'}" for name, port in _ports(hcas, None)) or "none has a port"
        )
        yield (
            f"no port of an RDMA device is active ({states}), and DeepEP needs one between hosts: see ibstat, cable and "
            "switch; on InfiniBand a subnet manager has to run."
        )


def _chosen(of: OfHost) -> bool:
    """Whether a person has said which devices are used."""
    return bool(of.environment("NCCL_IB_HCA"))


def _rates(of: OfHost) -> Iterator[str]:
    rates: dict[float, list[str]] = {}
    silent = []
    for name, port in _ports(of.known("host.hcas")):
        if port["rate_gbps"] is None:
            silent.append(name)
        else:
            rates.setdefault(port["rate_gbps"], []).append(name)
    if len(rates) > 1 and not _chosen(of):
        told = "; ".join(f"{rate:g} Gbit/s: {', '.join(names)}" for rate, names in sorted(rates.items()))
        yield (
            f"the RDMA devices have links of different rates ({told}), and NCCL uses all of them: name those of the cluster's "
            "network with NCCL_IB_HCA in plan_environment, or see why a link is slower (ibstat, ethtool)."
        )
    if silent:
        raise Unknown(f"the rate of {', '.join(silent)} could not be read")


def _layers(of: OfHost) -> Iterator[str]:
    layers: dict[str, list[str]] = {}
    for name, port in _ports(of.known("host.hcas")):
        if port["layer"]:
            layers.setdefault(port["layer"], []).append(name)
    if len(layers) > 1 and not _chosen(of):
        told = "; ".join(f"{layer}: {', '.join(names)}" for layer, names in layers.items())
        yield (
            f"the RDMA devices are of different link layers ({told}), and the cluster's network has one: name its devices with "
            "NCCL_IB_HCA in plan_environment."
        )


def _gids(of: OfHost) -> Iterator[str]:
    without, silent = [], []
    for hca in of.known("host.hcas"):
        for name, port in _ports([hca]):
            if port["layer"] != ETHERNET:
                continue
            if port.get("gids") is None:
                silent.append(name)
            elif not routable(port):
                without.append((name, hca.get("netdevs") or []))
    if without and not _chosen(of):
        told = ", ".join(f"{name} ({', '.join(netdevs) or 'no interface'})" for name, netdevs in without)
        yield (
            f"RDMA devices on Ethernet have no RoCE v2 GID with an IPv4 address: {told}. NCCL and NVSHMEM do not get across a "
            "router or, often, to the other host then: give each interface an IPv4 address on the cluster's network "
            "(show_gids, ip address), or leave the device out with NCCL_IB_HCA in plan_environment."
        )
    if silent:
        raise Unknown(f"the GIDs of {', '.join(silent)} could not be read")


def _distance(of: OfHost) -> Iterator[str]:
    links = of.known("host.gpus.links")
    names = {hca["device"] for hca in of.known("host.hcas") if _ports([hca])}
    used = {name.partition(":")[0] for name in of.node.rdma.devices} & names if of.node.rdma else names
    silent = []
    far: dict[str, list[str]] = {}
    for index in range(of.node.gpus):
        ways = {way for name, way in (links.get(f"GPU{index}") or {}).items() if name in used}
        if not ways:
            silent.append(str(index))
        elif ways <= FAR.keys():
            far.setdefault(min(ways, key=list(FAR).index), []).append(str(index))
    for way, gpus in far.items():
        yield (
            f"GPU {', '.join(gpus)} {'reaches' if len(gpus) == 1 else 'reach'} every active RDMA device only {FAR[way]} ({way} in "
            "nvidia-smi topo -m), at a part of its rate: see why a nearer one is down, or in which slot it is."
        )
    if silent and used:
        raise Unknown(f"nvidia-smi does not tell the ways of GPU {', '.join(silent)} to RDMA devices")


def _shared(of: OfHost) -> Iterator[str]:
    derived = {name for service in of.plan.services_on(of.node.name) for name in service.derived}
    if PER_GPU in derived or any(of.environment(name) for name in CHOSEN if name not in derived):
        return
    links = of.known("host.gpus.links")
    names = [f"{hca['device']}:{port['port']}" for hca in of.known("host.hcas") for __, port in _ports([hca])]
    used = of.node.rdma.devices if of.node.rdma else names
    groups = are_shared(used, links, of.node.gpus)
    if groups:
        told = "; ".join(f"GPU {' and '.join(map(str, group))}" for group in groups)
        yield (
            f"GPUs that have several RDMA devices equally near get the same one from NVSHMEM ({told}), while others of the host "
            f"stay idle: {_apart(of)}"
        )


def _apart(of: OfHost) -> str:
    """What gives each GPU a device of its own."""
    if of.engine.launcher == "native":
        return "set plan_launcher: torchrun, with which the plan tells each rank its own."
    return (
        "set plan_topology: dpep with a rank for each GPU, where the plan tells each rank its own; or use an image whose DeepEP "
        "takes DEEP_EP_DEVICE_TO_HCA_MAPPING."
    )


def _redirected(of: OfHost) -> Iterator[str]:
    bridges = of.known("host.acs")
    if bridges:
        one = len(bridges) == 1
        yield (
            f"{'a port' if one else 'ports'} of PCI switches above GPUs and network cards {'has' if one else 'have'} ACS on "
            f"({some(bridges)}), so what a card and a GPU send each other goes through the processor, at a part of its rate: "
            "switch ACS off in the firmware, or with setpci at each boot (lspci -vvv, ACSCtl); in a virtual machine's host it has "
            "to stay on."
        )


# ---- beside other hosts


def _by_port(of: OfAll) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Port -> host -> what is told of it."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for host, hcas in of.each("host.hcas").items():
        for name, port in _ports(hcas, None):
            found.setdefault(name, {})[host] = port
    return found


def _down_here(of: OfAll) -> Iterator[Found]:
    for name, hosts in _by_port(of).items():
        down = {host: port for host, port in hosts.items() if port["state"] not in (None, ACTIVE)}
        if down and any(port["state"] == ACTIVE for port in hosts.values()):
            told = ", ".join(f"{host} ({port['state']}, {port.get('physical') or '?'})" for host, port in down.items())
            others = ", ".join(host for host, port in hosts.items() if port["state"] == ACTIVE)
            yield Found(
                f"{told}: the RDMA device {name} is not active, and it is on {others}: see ibstat {name.partition(':')[0]}, "
                "cable, transceiver and switch port.",
                tuple(down),
            )


def _rates_differ(of: OfAll) -> Iterator[Found]:
    for name, hosts in _by_port(of).items():
        rates: dict[float, list[str]] = {}
        for host, port in hosts.items():
            if port["state"] == ACTIVE and port["rate_gbps"] is not None:
                rates.setdefault(port["rate_gbps"], []).append(host)
        if len(rates) > 1:
            told = "; ".join(f"{rate:g} Gbit/s on {', '.join(names)}" for rate, names in sorted(rates.items()))
            slow = rates[min(rates)]
            yield Found(
                f"The RDMA device {name} has links of different rates ({told}), and all hosts wait for the slowest: see cable, "
                f"transceiver and the switch port's settings of {', '.join(slow)}.",
                tuple(slow),
            )


def _layers_differ(of: OfAll) -> Iterator[Found]:
    layers: dict[str, list[str]] = {}
    for host, hcas in of.each("host.hcas").items():
        found = sorted({port["layer"] for __, port in _ports(hcas) if port["layer"]})
        if found:
            layers.setdefault(" and ".join(found), []).append(host)
    if len(layers) > 1:
        told = "; ".join(f"{layer} on {', '.join(names)}" for layer, names in layers.items())
        yield Found(
            f"The hosts' RDMA devices are of different link layers ({told}), and these do not speak to each other: set the ports' "
            "type with mlxconfig (LINK_TYPE_P1), or name the devices with NCCL_IB_HCA in plan_environment.",
            tuple(name for names in layers.values() for name in names),
        )


def _several(of: OfAll) -> bool:
    return any(len(engine.nodes) > 1 for engine in of.plan.engines)


RDMA, HCAS = ("host.rdma",), ("host.hcas",)
RULES = (
    Rule(
        id="rdma.device",
        severity=WARNING,
        title="There is an RDMA device, for expert parallelism over several hosts",
        check=_devices,
        remedy="Load its driver, or set `plan_ep: 1`.",
        needs=RDMA,
        applies=_between_hosts,
    ),
    Rule(
        id="rdma.peermem",
        severity=WARNING,
        title="Network cards reach GPU memory, for expert parallelism over several hosts",
        check=_peermem,
        remedy="`modprobe nvidia_peermem`.",
        needs=RDMA,
        applies=_between_hosts,
    ),
    Rule(
        id="rdma.ibgda",
        severity=WARNING,
        title="GPUs may start transfers themselves (IBGDA), for expert parallelism over several hosts",
        check=_ibgda,
        remedy="Set the driver's parameters, or load gdrdrv.",
        needs=RDMA,
        applies=_between_hosts,
    ),
    Rule(
        id="rdma.mlx5",
        severity=WARNING,
        title="A network card is one of mlx5, for expert parallelism over several hosts",
        check=_mlx5,
        remedy="Use other hosts, or set `plan_ep: 1`.",
        needs=HCAS,
        applies=lambda of: _between_hosts(of) and of.real,
    ),
    Rule(
        id="rdma.active",
        severity=WARNING,
        title="A port of an RDMA device is active, for expert parallelism over several hosts",
        check=_active,
        remedy="See ibstat, cable, switch and subnet manager.",
        needs=HCAS,
        applies=lambda of: _between_hosts(of) and of.real,
    ),
    Rule(
        id="rdma.rates",
        severity=WARNING,
        title="The active RDMA devices of a host are equally fast",
        check=_rates,
        remedy="Name those of the cluster's network with `NCCL_IB_HCA` in `plan_environment`.",
        needs=HCAS,
        applies=_may_use_it,
    ),
    Rule(
        id="rdma.layers",
        severity=WARNING,
        title="The active RDMA devices of a host are of one link layer",
        check=_layers,
        remedy="Name those of the cluster's network with `NCCL_IB_HCA` in `plan_environment`.",
        needs=HCAS,
        applies=_may_use_it,
    ),
    Rule(
        id="rdma.gid",
        severity=WARNING,
        title="Active RDMA devices on Ethernet have a RoCE v2 GID with an IPv4 address",
        check=_gids,
        remedy="Give their interfaces an IPv4 address.",
        needs=HCAS,
        applies=_may_use_it,
    ),
    Rule(
        id="rdma.distance",
        severity=WARNING,
        title="Every GPU has an active RDMA device at its own PCI root",
        check=_distance,
        remedy="See which device is down, and in which slots they are.",
        needs=("host.gpus.links", "host.hcas"),
        applies=_may_use_it,
    ),
    Rule(
        id="rdma.acs",
        severity=WARNING,
        title="PCI switches let GPUs and network cards reach each other directly (ACS is off)",
        check=_redirected,
        remedy="Switch ACS off in the firmware, or with setpci.",
        needs=("host.acs",),
        applies=_may_use_it,
    ),
    Rule(
        id="rdma.shared",
        severity=WARNING,
        title="No two GPUs have the same RDMA device while another one is as near, for expert parallelism over several hosts",
        check=_shared,
        remedy="Set `plan_topology: dpep` and `plan_launcher: torchrun`, where each rank is told its own.",
        needs=("host.gpus.links", "host.hcas"),
        applies=lambda of: _between_hosts(of) and of.real,
    ),
)
TOGETHER = (
    Rule(
        id="rdma.port-down",
        severity=WARNING,
        title="An RDMA device that is active on one host is so on all that have it",
        check=_down_here,
        remedy="See ibstat, cable, transceiver and switch port.",
        needs=HCAS,
        scope=GROUP,
        applies=_several,
    ),
    Rule(
        id="rdma.same-rate",
        severity=WARNING,
        title="An RDMA device is equally fast on all hosts",
        check=_rates_differ,
        remedy="See cable, transceiver and the switch port's settings.",
        needs=HCAS,
        scope=GROUP,
        applies=_several,
    ),
    Rule(
        id="rdma.same-layer",
        severity=WARNING,
        title="The RDMA devices of all hosts are of one link layer",
        check=_layers_differ,
        remedy="Set the ports' type, or name devices with `NCCL_IB_HCA`.",
        needs=HCAS,
        scope=GROUP,
        applies=_several,
    ),
)
