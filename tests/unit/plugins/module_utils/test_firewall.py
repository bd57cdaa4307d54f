# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The firewall's rules: what they say, that nft takes them, and, in network namespaces, what they let through."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._firewall import ssh_ports, unit_text
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.firewall import (
    Settings,
    faults,
    ranges,
    render,
    table_of,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan
from ansible_collections.lmfleet.lmdeploy.tests.unit.namespaces import Namespace, environment, networks
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import World, bound

__all__ = ["networks"]  # a fixture
JOBS = {"image_share_port": 8731, "model_port": 8730}
USUAL = Settings(ssh_ports=[22], jobs=JOBS)
STRICT = Settings(ssh_ports=[22], jobs=JOBS, strict=True)
RICH = Settings([2222, 22], ["192.0.2.0/24", "192.0.2.7", "2001:db8::/32"], [9100], jobs=JOBS)
GROUPS = {"left": ["node0", "node1"], "right": ["node2", "node3"]}
SHAPES = {
    "tp": bound(nodes()),
    "proxy": bound(nodes(plan_proxy=True, plan_name="llm-1")),
    "dpep": bound(nodes(plan_topology="dpep", plan_gpus=2)),
    "replicas": bound(nodes(4, plan_replicas=["left", "right"]), groups=GROUPS),
}
TP = SHAPES["tp"]


def rules(plan: Plan, node: str = "node0", settings: Settings = USUAL, **more: Any) -> str:
    """The text for a node; ``more`` has for a host what its look says besides."""
    world = World(plan)
    for name, said in more.items():
        world.answers[name]["host"].update(said)
    return render(plan, world.hosts, plan.node(node), settings)


def elements(text: str, name: str) -> list[str]:
    """The elements of a set in the rules."""
    found = text.partition(f"\tset {name} {{")[2].partition("elements = { ")[2].partition(" }")[0]
    return found.split(", ") if found else []


# What they say


def test_the_rules_of_tp_are_these() -> None:
    assert (
        rules(TP)
        == """\
# Of the deployment lmdeploy, made by lmfleet.lmdeploy: another run writes it again.
add table inet lmfleet_lmdeploy
delete table inet lmfleet_lmdeploy
table inet lmfleet_lmdeploy {
    set cluster {
        type ipv4_addr
        flags interval
        elements = { 10.0.0.10/31 }
    }
    set planned {
        type inet_service
        flags interval
        elements = { 6379-6385, 8265, 8730-8731, 10002-10999, 29500 }
    }
    chain input {
        type filter hook input priority -10; policy accept;
        iifname "lo" accept
        ip saddr @cluster accept
        ct state established,related accept
        tcp dport { 22 } accept comment "SSH"
        tcp dport { 23333 } accept comment "for everybody"
        tcp dport @planned counter drop
    }
}
""".replace(" " * 4, "\t")
    )


def test_each_node_closes_its_own_ports_and_only_the_heads_url_is_for_everybody() -> None:
    assert "dport { 23333 } accept" not in rules(TP, "node1")
    assert "for everybody" not in rules(TP, "node1")
    assert elements(rules(TP, "node1"), "planned") == ["6380-6385", "8730-8731", "10002-10999"]
    replicas = rules(SHAPES["replicas"], "node2")
    assert "23333" in elements(replicas, "planned")
    assert elements(rules(SHAPES["dpep"], "node1"), "planned") == ["8730-8731", "23353", "23363"]
    assert 'tcp dport { 8000 } accept comment "for everybody"' in rules(SHAPES["dpep"])
    assert table_of("llm-1") == "lmfleet_llm-1"


def test_all_addresses_of_all_nodes_are_let_in_for_a_host_connects_from_its_interfaces_first() -> None:
    said = {
        "interfaces": {"eth0": ["10.0.9.1", "10.0.0.11"], "lo": ["127.0.0.1"]},
        "interfaces6": {"eth0": ["2001:db8::11"]},
    }
    text = rules(TP, node1=said)
    assert elements(text, "cluster") == ["10.0.0.10/31", "10.0.9.1"]
    assert elements(text, "cluster6") == ["2001:db8::11"]
    assert "ip6 saddr @cluster6 accept" in text


def test_what_the_user_trusts_and_opens_is_let_in() -> None:
    text = rules(TP, settings=RICH)
    assert elements(text, "cluster") == ["10.0.0.10/31", "192.0.2.0/24"]
    assert elements(text, "cluster6") == ["2001:db8::/32"]
    assert "tcp dport { 22, 2222 } accept" in text
    assert "tcp dport { 9100, 23333 } accept" in text
    opened = Settings([22], open_ports=[6379], jobs=JOBS)
    assert elements(rules(TP, settings=opened), "planned")[0] == "6380-6385"


def test_a_port_of_ssh_is_never_closed() -> None:
    assert "8730" not in elements(rules(TP, settings=Settings([8730], jobs={"model_port": 8730})), "planned")


def test_strict_drops_all_but_what_a_host_needs() -> None:
    text = rules(TP, settings=STRICT)
    assert "set planned" not in text
    assert "meta l4proto { icmp, ipv6-icmp } accept" in text
    assert "udp dport { 68, 546 } accept" in text
    assert text.endswith("\t\tcounter drop\n\t}\n}\n")


def test_what_cannot_be_set_is_told_all_at_once() -> None:
    world = World(TP)
    world.answers["node1"] = {"unreachable": "no route to it", "failed": ""}
    told = faults(TP, world.hosts, Settings([22], ["10.0.0.300", "net"], [0, 70000]))
    assert [each.partition(":")[0] for each in told[:4]] == ["firewall_trusted"] * 2 + ["firewall_open_ports"] * 2
    assert told[4].startswith("node1 was not looked at (no route to it)")
    assert faults(TP, World(TP).hosts, RICH) == []


def test_ports_that_follow_each_other_are_one_range() -> None:
    assert ranges([6381, 22, 6379, 6380, 22]) == ["22", "6379-6381"]
    assert ranges([]) == []


# What a host knows


def test_the_port_of_ssh_is_that_of_the_connection_even_behind_sudo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getpid", lambda: 30)
    for pid, parent, variables in (
        (30, 20, b"PATH=/bin"),
        (20, 10, b"SSH_CONNECTION=192.0.2.1 50000 10.0.0.10 2222\0A=b"),
    ):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "environ").write_bytes(variables)
        (tmp_path / str(pid) / "status").write_text(f"Name:\tx\nPPid:\t{parent}\n", encoding="utf-8")
    assert ssh_ports(tmp_path) == [2222]
    (tmp_path / "20" / "environ").write_bytes(b"SSH_CONNECTION=broken")
    assert ssh_ports(tmp_path) == []


def test_the_unit_comes_before_the_network_and_after_what_empties_all(tmp_path: Path) -> None:
    text = unit_text("lmfleet_lmdeploy", tmp_path / "firewall.nft")
    for line in (
        "Before=network-pre.target shutdown.target",
        "After=local-fs.target nftables.service",
        "PartOf=nftables.service",
    ):
        assert line in text.splitlines()
    assert f"--file {tmp_path}/firewall.nft" in text


# That nft takes them


@pytest.mark.usefixtures("networks")
def test_nft_takes_the_rules_of_every_shape() -> None:
    texts = [
        rules(plan, node.name, each)
        for plan in SHAPES.values()
        for node in plan.nodes
        for each in (USUAL, STRICT, RICH)
    ]
    checks = "\n".join("nft --check --file - <<'END'\n" + text + "END" for text in texts)
    done = subprocess.run(
        ["unshare", "--net", "sh", "-ec", checks],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")


# What they let through


ALL_OPEN = """
import socket, sys
for port in {ports}:
    service = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    globals()[f"s{{port}}"] = service
print("there", flush=True)
sys.stdin.read()
"""
CONNECT = (
    "import json; from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._sockets import connect; "
    "print(json.dumps(connect({targets}, {timeout})))"
)
TABLE = (
    "import json, pathlib; from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._firewall import *; "
    "table = Table({name!r}, pathlib.Path({folder!r}), pathlib.Path({folder!r}), pathlib.Path('/nowhere')); "
)
PORTS = [22, 6379, 10002, 23333, 40000]
OPEN = [[port, "reached"] for port in PORTS]
ELSEWHERE = "192.0.2.10"
IPV6 = "2001:db8::10"


class Hosts:
    """A node with all ports open, another node on the cluster's network, and somebody on another one."""

    def __init__(self) -> None:
        self.node, self.peer, self.outside = Namespace(), Namespace(), Namespace()
        self.node.wire(self.peer, "cluster", ("10.0.0.10/24", "10.0.0.11/24"))
        self.node.wire(
            self.outside, "public", ("192.0.2.10/24", "192.0.2.99/24"), ("2001:db8::10/64", "2001:db8::99/64")
        )
        code = ALL_OPEN.format(ports=PORTS)
        argv = self.node.command("python3", "-c", code)
        self._services = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._services.stdout is not None
        assert self._services.stdout.readline() == b"there\n"

    def end(self) -> None:
        self._services.communicate(timeout=60)
        for each in (self.node, self.peer, self.outside):
            each.end()

    def seen_from(self, place: Namespace, *addresses: str, timeout: float = 2) -> dict[str, list[list[Any]]]:
        """By address, how each port is found from there."""
        targets = [(address, port) for address in addresses for port in PORTS]
        found = json.loads(place.python(CONNECT.format(targets=targets, timeout=timeout)))
        ports = [[port, outcome] for (__, port), outcome in zip(targets, found)]
        size = len(PORTS)
        return {address: ports[index * size : (index + 1) * size] for index, address in enumerate(addresses)}

    def table(self, folder: Path, call: str) -> Any:
        """What a method of the table gives on the node."""
        code = TABLE.format(name=table_of(TP.name), folder=str(folder))
        return json.loads(self.node.python(f"{code}print(json.dumps({call}))"))


@pytest.fixture(scope="module")
def hosts(request: pytest.FixtureRequest) -> Iterator[Hosts]:
    request.getfixturevalue("networks")
    found = Hosts()
    try:
        yield found
    finally:
        found.end()


def as_seen(closed: list[int]) -> list[list[Any]]:
    return [[port, "timeout" if port in closed else "reached"] for port in PORTS]


def test_what_is_closed_is_closed_and_what_is_open_is_open(hosts: Hosts, tmp_path: Path) -> None:
    """And the second time nothing is to be changed, somebody else's table stays, and all is open again in the end."""
    others = (
        "table inet theirs {\n\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n\t}\n}\n"
    )
    hosts.node.run("nft", "--file", "-", text=others)
    assert hosts.seen_from(hosts.outside, ELSEWHERE, IPV6, timeout=60) == {ELSEWHERE: OPEN, IPV6: OPEN}
    text = rules(TP)
    armed = hosts.table(tmp_path, f"table.apply({text!r}, 600)")
    assert hosts.table(tmp_path, "table.look()")["as_kept"] is False
    hosts.table(tmp_path, f"table.confirm({text!r}, {armed!r})")
    seen = hosts.table(tmp_path, "table.look()")
    assert (seen["text"], seen["as_kept"], seen["there"]) == (text, True, True)
    closed = as_seen([6379, 10002])
    assert hosts.seen_from(hosts.outside, ELSEWHERE, IPV6) == {ELSEWHERE: closed, IPV6: closed}
    assert hosts.seen_from(hosts.peer, "10.0.0.10", timeout=60)["10.0.0.10"] == OPEN
    assert hosts.seen_from(hosts.node, "127.0.0.1", "10.0.0.10", timeout=60)["10.0.0.10"] == OPEN

    strict = rules(TP, settings=STRICT)
    armed = hosts.table(tmp_path, f"table.apply({strict!r}, 600)")
    hosts.table(tmp_path, f"table.confirm({strict!r}, {armed!r})")
    closed = as_seen([6379, 10002, 40000])
    assert hosts.seen_from(hosts.outside, ELSEWHERE, IPV6) == {ELSEWHERE: closed, IPV6: closed}
    assert hosts.seen_from(hosts.peer, "10.0.0.10", timeout=60)["10.0.0.10"] == OPEN

    hosts.node.run("nft", "add", "rule", "inet", table_of(TP.name), "input", "tcp", "dport", "1", "drop")
    assert hosts.table(tmp_path, "table.look()")["as_kept"] is False
    assert hosts.table(tmp_path, "table.remove(really=False)") is True
    assert hosts.table(tmp_path, "table.look()")["there"] is True
    assert hosts.table(tmp_path, "table.remove(really=True)") is True
    assert hosts.table(tmp_path, "table.remove(really=True)") is False
    assert hosts.node.run("nft", "list", "tables").split() == ["table", "inet", "theirs"]
    assert hosts.seen_from(hosts.outside, ELSEWHERE, timeout=60) == {ELSEWHERE: OPEN}
    hosts.node.run("nft", "delete", "table", "inet", "theirs")


def test_rules_that_nobody_confirms_go_and_what_was_kept_comes_back(hosts: Hosts, tmp_path: Path) -> None:
    def until(call: str, wanted: str) -> None:
        deadline = time.monotonic() + 120
        while (found := hosts.table(tmp_path, "table.look()")[call]) != (wanted == "true"):
            assert time.monotonic() < deadline, found
            time.sleep(0.1)

    shut_out = rules(TP, settings=STRICT).replace("tcp dport { 22 } accept", "tcp dport { 1 } accept")
    armed = hosts.table(tmp_path, f"table.apply({shut_out!r}, 1)")
    until("there", "false")
    assert hosts.seen_from(hosts.outside, ELSEWHERE, timeout=60) == {ELSEWHERE: OPEN}
    with pytest.raises(subprocess.CalledProcessError) as late:
        hosts.table(tmp_path, f"table.confirm({shut_out!r}, {armed!r})")
    assert "were taken back before the new connection came" in late.value.stderr
    assert hosts.table(tmp_path, "table.look()")["text"] == ""

    text = rules(TP)
    armed = hosts.table(tmp_path, f"table.apply({text!r}, 600)")
    hosts.table(tmp_path, f"table.confirm({text!r}, {armed!r})")
    hosts.table(tmp_path, f"table.apply({shut_out!r}, 1)")
    until("as_kept", "true")
    assert hosts.seen_from(hosts.outside, ELSEWHERE) == {ELSEWHERE: as_seen([6379, 10002])}
    hosts.table(tmp_path, "table.remove(really=True)")


def test_rules_that_nft_refuses_change_nothing(hosts: Hosts, tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        hosts.table(tmp_path, "table.apply('table inet lmfleet_lmdeploy { chain input { no such rule } }', 600)")
    assert "nft --check" in refused.value.stderr
    assert hosts.table(tmp_path, "table.look()")["there"] is False
    assert list(tmp_path.iterdir()) == []


# Where systemd runs the host


SYSTEMD = """#!/bin/sh
echo "$(basename $0) $*" >> {log}
case "$*" in *.timer) exit {late};; esac
"""
WITH_SYSTEMD = (
    "import json, os, pathlib; from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._firewall import *; "
    "here = pathlib.Path({here!r}); os.environ['PATH'] = f'{{here}}/bin:' + os.environ['PATH']; "
    "table = Table({name!r}, here / 'kept', here / 'units', here); "
)


class Systemd:
    """Programs of its names that write down what they are asked, for no test can run it; the table itself is real."""

    def __init__(self, hosts: Hosts, here: Path) -> None:
        self._hosts, self._here, self._log = hosts, here, here / "log"
        (here / "bin").mkdir()
        (here / "units").mkdir()
        self.be(late=False)

    def be(self, *, late: bool) -> None:
        """``late``: the timer has fired before it is stopped."""
        for name in ("systemctl", "systemd-run"):
            program = self._here / "bin" / name
            program.write_text(SYSTEMD.format(log=self._log, late=int(late)), encoding="utf-8")
            program.chmod(0o755)

    def asked(self) -> list[str]:
        """What it was asked since the last time."""
        said = self._log.read_text(encoding="utf-8").splitlines() if self._log.exists() else []
        self._log.unlink(missing_ok=True)
        return said

    def table(self, call: str) -> Any:
        code = WITH_SYSTEMD.format(here=str(self._here), name=table_of(TP.name))
        return json.loads(self._hosts.node.python(f"{code}print(json.dumps({call}))"))


UNIT = "lmfleet-lmdeploy-firewall"


def test_systemd_takes_the_rules_back_and_sets_them_at_the_boot(hosts: Hosts, tmp_path: Path) -> None:
    systemd, text = Systemd(hosts, tmp_path), rules(TP)
    armed = systemd.table(f"table.apply({text!r}, 45)")
    [run] = systemd.asked()
    assert run.startswith(f"systemd-run --quiet --collect --unit={armed['unit']} --on-active=45 ")
    assert run.endswith(f"/nft --file {tmp_path}/kept/before.nft")
    systemd.table(f"table.confirm({text!r}, {armed!r})")
    assert systemd.asked() == [
        f"systemctl stop {armed['unit']}.timer",
        "systemctl daemon-reload",
        f"systemctl enable --now {UNIT}.service",
    ]
    assert systemd.table("table.look()")["as_kept"] is True
    (tmp_path / "units" / f"{UNIT}.service").write_text("somebody's own\n", encoding="utf-8")
    assert systemd.table("table.look()")["as_kept"] is False
    assert systemd.table("table.remove(really=True)") is True
    assert systemd.asked() == [f"systemctl disable --now {UNIT}.service", "systemctl daemon-reload"]
    assert list((tmp_path / "units").iterdir()) == []
    assert systemd.table("table.look()")["there"] is False


def test_rules_that_systemd_has_taken_back_are_not_kept(hosts: Hosts, tmp_path: Path) -> None:
    systemd, text = Systemd(hosts, tmp_path), rules(TP)
    armed = systemd.table(f"table.apply({text!r}, 45)")
    systemd.be(late=True)
    with pytest.raises(subprocess.CalledProcessError) as late:
        systemd.table(f"table.confirm({text!r}, {armed!r})")
    assert "were taken back" in late.value.stderr
    assert list((tmp_path / "units").iterdir()) == []
    systemd.table("table.remove(really=True)")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    file = tmp_path / f"{UNIT}.service"
    file.write_text(
        unit_text("lmfleet_lmdeploy", tmp_path / "firewall.nft").replace("=nft ", "=/bin/true "), encoding="utf-8"
    )
    done = subprocess.run(
        ["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if UNIT in line]) == (0, [])
