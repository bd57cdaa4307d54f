#!/usr/bin/env python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Measure ways to bring a model from one host to three others; docs/model_transfer.md has what came out.

The hosts are network namespaces of this machine, joined by a bridge in a namespace of its own, each link limited to --rate by tc
in both directions, so that the links are measured and not this machine's cores. Nothing outside of these namespaces is touched;
all is removed at the end. As root, with iproute2. What a way needs and is not here leaves it out: rsync; sshd and ssh for rsync
over SSH; aria2c; a Python with the package libtorrent (--torrent-python). --cut also kills the second host's part halfway, and
lets it go on.

    sudo python3 tools/bench_fanout.py --gigabytes 4 --rate 1gbit --cut
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "collections"))
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.text import columns

ROOT = Path(__file__).resolve().parent.parent
HOSTS, SHARDS, PORT = 4, 163, 8731
SWITCH = "lmf-switch"
PATIENCE_S = 3600
IP, CMP = "/usr/sbin/ip", "/usr/bin/cmp"


def name(host: int) -> str:
    """The host's network namespace."""
    return f"lmf-host{host}"


def address(host: int) -> str:
    """The host's address; it exists in the namespaces alone."""
    return f"10.99.0.{host + 1}"


def sh(*argv: str) -> str:
    """Run a command that has to succeed; its output."""
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


class Lab:
    """Hosts with their directories, and the processes that run on them."""

    def __init__(self, folder: Path, rate: str, size: int, torrent_python: str, sshd: str) -> None:
        self.folder, self.rate, self.size = folder, rate, size
        self.torrent_python, self.sshd = torrent_python, sshd
        self.running: list[subprocess.Popen[Any]] = []

    def up(self) -> None:
        """Make namespaces, links and the model on the first host."""
        sh("ip", "netns", "add", SWITCH)
        sh("ip", "-n", SWITCH, "link", "add", "bridge0", "type", "bridge")
        sh("ip", "-n", SWITCH, "link", "set", "bridge0", "up")
        limit = ["root", "tbf", "rate", self.rate, "burst", "256kb", "latency", "50ms"]
        for host in range(HOSTS):
            space = name(host)
            # sshd wants a user of its own; `ip netns exec` lays these files over /etc.
            over = Path("/etc/netns", space)
            over.mkdir(parents=True)
            users = Path("/etc/passwd").read_text("utf-8")
            over.joinpath("passwd").write_text(users + "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n", "utf-8")
            sh("ip", "netns", "add", space)
            sh("ip", "-n", SWITCH, "link", "add", f"port{host}", "type", "veth", "peer", "name", "eth0", "netns", space)
            sh("ip", "-n", SWITCH, "link", "set", f"port{host}", "master", "bridge0", "up")
            sh("ip", "-n", space, "link", "set", "lo", "up")
            sh("ip", "-n", space, "addr", "add", f"{address(host)}/24", "dev", "eth0")
            sh("ip", "-n", space, "link", "set", "eth0", "up")
            sh("ip", "-n", space, "route", "add", "default", "dev", "eth0")
            sh("tc", "-n", space, "qdisc", "add", "dev", "eth0", *limit)
            sh("tc", "-n", SWITCH, "qdisc", "add", "dev", f"port{host}", *limit)
            self.model(host).mkdir(parents=True)
        for shard in range(SHARDS):
            file = self.model(0) / f"model-{shard + 1:05d}-of-{SHARDS:06d}.safetensors"
            file.write_bytes(os.urandom(self.size // SHARDS))

    def down(self) -> None:
        """Remove all that was made."""
        self.end()
        for space in (SWITCH, *map(name, range(HOSTS))):
            subprocess.run([IP, "netns", "del", space], check=False, capture_output=True)
            shutil.rmtree(f"/etc/netns/{space}", ignore_errors=True)
        with contextlib.suppress(OSError):
            Path("/etc/netns").rmdir()

    def model(self, host: int) -> Path:
        """The model's directory on a host."""
        return self.folder / f"host{host}" / "model"

    def run(self, host: int, *argv: str, **more: Any) -> subprocess.Popen[Any]:
        """Start a command on a host."""
        more.setdefault("stderr", subprocess.DEVNULL)
        started = subprocess.Popen([IP, "netns", "exec", name(host), *argv], start_new_session=True, **more)
        self.running.append(started)
        return started

    def end(self) -> None:
        """End what runs on the hosts."""
        for each in self.running:
            if each.poll() is None:
                os.killpg(each.pid, signal.SIGKILL)
                each.wait()
        self.running.clear()

    def empty(self) -> None:
        """Take the model from all hosts but the first."""
        for host in range(1, HOSTS):
            shutil.rmtree(self.model(host))
            self.model(host).mkdir()

    def sent(self, host: int) -> int:
        """Bytes that the host has sent so far, headers and acknowledgements among them."""
        return int(sh("ip", "netns", "exec", name(host), "cat", "/sys/class/net/eth0/statistics/tx_bytes"))

    def check(self, hosts: Sequence[int]) -> None:
        """Raise where a host has not got the model."""
        for host in hosts:
            for file in self.model(0).iterdir():
                subprocess.run([CMP, "-s", str(file), str(self.model(host) / file.name)], check=True)


def until(done: Callable[[], bool], running: Sequence[subprocess.Popen[Any]]) -> None:
    """Wait; raises where one of those that run has ended with an error before."""
    end = time.monotonic() + PATIENCE_S
    while not done():
        for each in running:
            if each.poll():
                raise RuntimeError(f"{each.args!r} ended with {each.returncode}")
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.1)


# ---- the ways


def over_ssh(lab: Lab, hosts: Sequence[int]) -> None:
    """Rsync over SSH from the first host to others, one after another."""
    keys, conf = lab.folder / "keys", lab.folder / "sshd.conf"
    if not keys.exists():
        keys.mkdir(mode=0o700)
        for key in ("user", "host"):
            sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / key))
    Path("/run/sshd").mkdir(exist_ok=True)
    conf.write_text(
        f"Port 2222\nHostKey {keys}/host\nAuthorizedKeysFile {keys}/user.pub\nStrictModes no\nUsePAM no\nPidFile none\n"
    )
    remote = f"ssh -p 2222 -i {keys}/user -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    for host in hosts:
        lab.run(host, lab.sshd, "-D", "-f", str(conf))
    time.sleep(1)
    for host in hosts:
        target = f"root@{address(host)}:{lab.model(host).parent}/"
        until_ended(lab.run(0, "rsync", "-a", "-e", remote, str(lab.model(0)), target))


def until_ended(each: subprocess.Popen[Any]) -> None:
    """Wait for a command that has to succeed."""
    if each.wait(PATIENCE_S):
        raise RuntimeError(f"{each.args!r} ended with {each.returncode}")


def rsync_chain(lab: Lab, streams: int = 4) -> None:
    """A rsync daemon on every host; each host takes from the one before it what that has whole, four files at a time."""
    for host in range(HOSTS):
        conf = lab.folder / f"rsyncd{host}.conf"
        conf.write_text(
            f"reverse lookup = no\nuse chroot = no\nuid = 0\ngid = 0\naddress = {address(host)}\nport = {PORT}\n"
            f"[m]\npath = {lab.model(host)}\nread only = yes\nexclude = .part\n"
        )
        lab.run(host, "rsync", "--daemon", "--no-detach", f"--config={conf}")
    time.sleep(1)
    names = sorted(file.name for file in lab.model(0).iterdir())
    takers = []
    for host in range(1, HOSTS):
        fetch = f"rsync -tW --partial-dir=.part rsync://{address(host - 1)}:{PORT}/m/$f . 2>/dev/null && sha256sum $f"
        loop = f"for f in $FILES; do until {fetch}; do sleep 0.2; done; done"
        for stream in range(streams):
            more = {"FILES": " ".join(names[stream::streams])}
            takers.append(
                lab.run(
                    host,
                    "sh",
                    "-c",
                    loop,
                    cwd=lab.model(host),
                    env={**os.environ, **more},
                    stdout=subprocess.DEVNULL,
                )
            )
    for taker in takers:
        until_ended(taker)


MAKE_TORRENT = """
import libtorrent as lt, sys
made = lt.create_torrent(lt.list_files(sys.argv[1]), flags=lt.create_torrent.v1_only)
lt.set_piece_hashes(made, sys.argv[2])
open(sys.argv[3], "wb").write(lt.bencode(made.generate()))
"""
TORRENT = """
import libtorrent as lt, pathlib, sys, time
own, folder, torrent, seed, done, *peers = sys.argv[1:]
session = lt.session({"listen_interfaces": own + ":6881", "enable_dht": False, "enable_lsd": False, "enable_upnp": False,
    "enable_natpmp": False, "enable_outgoing_utp": False, "enable_incoming_utp": False, "unchoke_slots_limit": -1,
    "max_out_request_queue": 500, "out_enc_policy": 2, "in_enc_policy": 2})
wanted = lt.add_torrent_params()
wanted.ti, wanted.save_path = lt.torrent_info(torrent), folder
if seed != "no":
    wanted.flags |= lt.torrent_flags.seed_mode
if seed == "super":
    wanted.flags |= lt.torrent_flags.super_seeding
handle = session.add_torrent(wanted)
while True:
    for peer in peers:
        handle.connect_peer((peer, 6881))
    for __ in range(20):
        if seed == "no" and handle.status().is_seeding:
            pathlib.Path(done).touch()
        time.sleep(0.1)
"""


def libtorrent(lab: Lab, seed: str = "plain") -> None:
    """A BitTorrent client on every host, each told of all others; the torrent is made first, which reads the model."""
    torrent = make_torrent(lab)
    done = [lab.folder / f"done{host}" for host in range(HOSTS)]
    for host in range(HOSTS):
        done[host].unlink(missing_ok=True)
        peers = [address(each) for each in range(HOSTS) if each != host]
        mine = [address(host), str(lab.model(host).parent), str(torrent), "no" if host else seed, str(done[host])]
        lab.run(host, lab.torrent_python, "-c", TORRENT, *mine, *peers)
    until(lambda: all(file.exists() for file in done[1:]), lab.running)


def make_torrent(lab: Lab) -> Path:
    """The torrent of the model on the first host."""
    torrent = lab.folder / "model.torrent"
    sh(lab.torrent_python, "-c", MAKE_TORRENT, str(lab.model(0)), str(lab.model(0).parent), str(torrent))
    return torrent


def aria2(lab: Lab) -> None:
    """aria2 with the same torrent, peers found by local peer discovery."""
    torrent = make_torrent(lab)
    touch = lab.folder / "touch"
    touch.write_text('#!/bin/sh\ntouch "$DONE"\n')
    touch.chmod(0o755)
    done = [lab.folder / f"done{host}" for host in range(HOSTS)]
    common = ["aria2c", "--quiet", "--enable-dht=false", "--bt-enable-lpd=true", "--bt-lpd-interface=eth0"]
    common += ["--file-allocation=falloc", "--seed-ratio=0", "--listen-port=6881", "--disable-ipv6"]
    for host in range(HOSTS):
        done[host].unlink(missing_ok=True)
        own = ["--check-integrity=true"] if host == 0 else [f"--on-bt-download-complete={touch}"]
        environment = {**os.environ, "DONE": str(done[host])}
        lab.run(host, *common, *own, "-d", str(lab.model(host).parent), str(torrent), env=environment)
    until(lambda: all(file.exists() for file in done[1:]), lab.running)


def ours(lab: Lab, *, cut: bool = False) -> list[dict[str, Any]]:
    """``programs/fanout.py`` on every host; the results. ``cut``: the third host's is killed halfway, and started again."""
    url = [f"http://{address(host)}:{PORT}" for host in range(HOSTS)]
    told = [lab.folder / f"told{host}" for host in range(HOSTS)]

    def start(host: int) -> subprocess.Popen[Any]:
        config = {"root": str(lab.model(host)), "revision": "", "host": address(host), "port": PORT, "api_key": "bench"}
        config |= {"before": url[:host][::-1], "others": url[host + 1 :]}
        file = lab.folder / f"config{host}.json"
        file.write_text(json.dumps(config))
        with told[host].open("w") as out:
            return lab.run(
                host,
                sys.executable,
                "-m",
                "programs.fanout",
                str(file),
                cwd=ROOT,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def last(host: int, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for line in told[host].read_text().splitlines():
            if line.startswith(f'{{"event": "{kind}"'):
                found = json.loads(line)
        return found

    started = [start(host) for host in range(HOSTS)]
    before: dict[str, Any] = {}
    if cut:
        until(lambda: last(2, "progress").get("bytes", 0) > lab.size / 2, started)
        os.killpg(started[2].pid, signal.SIGKILL)
        started[2].wait()
        before = last(2, "progress")
        time.sleep(2)
        started[2] = start(2)
    until(lambda: all(last(host, "result") for host in range(HOSTS)), started)
    results = [last(host, "result") for host in range(HOSTS)]
    if cut:
        results[2]["told before the cut"] = before["bytes"]
    for result in results:
        if not result["ok"]:
            raise RuntimeError(result["fault"])
    return results


WAYS: dict[str, tuple[Callable[[Lab], Any], Sequence[int]]] = {
    "one copy (rsync over SSH)": (lambda lab: over_ssh(lab, [1]), [1]),
    "rsync over SSH, one host after another": (lambda lab: over_ssh(lab, [1, 2, 3]), [1, 2, 3]),
    "rsync daemons in a chain": (rsync_chain, [1, 2, 3]),
    "aria2 (BitTorrent)": (aria2, [1, 2, 3]),
    "libtorrent": (libtorrent, [1, 2, 3]),
    "libtorrent, super-seeding": (lambda lab: libtorrent(lab, "super"), [1, 2, 3]),
    "chain over HTTP (aiohttp)": (ours, [1, 2, 3]),
}


def needs(way: str, lab: Lab) -> bool:
    """Whether what a way needs is here."""
    tools = ["rsync"] if "rsync" in way else ["aria2c"] if "aria2" in way else []
    if "SSH" in way:
        tools += [lab.sshd, "ssh", "ssh-keygen"]
    if "torrent" in way.lower():
        tools.append(lab.torrent_python or "none")
    return all(shutil.which(tool) for tool in tools)


def measured(lab: Lab, way: str) -> tuple[float, list[float]]:
    """(seconds, copies of the model that each host sent)."""
    act, hosts = WAYS[way]
    before = [lab.sent(host) for host in range(HOSTS)]
    began = time.monotonic()
    act(lab)
    seconds = time.monotonic() - began
    sent = [(lab.sent(host) - before[host]) / lab.size for host in range(HOSTS)]
    lab.end()
    lab.check(hosts)
    lab.empty()
    return seconds, sent


def cut_line(lab: Lab) -> str:
    """What a cut costs the host that it happens to."""
    result = ours(lab, cut=True)[2]
    lab.end()
    lab.check([1, 2, 3])
    lab.empty()
    there = result["told before the cut"]
    kept = result["total"] - result["needed"] + result["resumed"]
    return (
        f"cut off with {there / 1e6:.0f} MB of {lab.size / 1e6:.0f} there: {kept / 1e6:.0f} MB were used again "
        f"({result['resumed'] / 1e6:.0f} MB of it in unfinished files), {max(0, there - kept) / 1e6:.0f} MB came twice"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every way --runs times, in turns, and print the table of medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4)
    parser.add_argument("--rate", default="1gbit", help="of each link, in each direction, as tc writes it")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--cut", action="store_true")
    parser.add_argument("--only", default="", help="ways whose names have this word")
    parser.add_argument("--torrent-python", default="", help="a Python with the package libtorrent")
    parser.add_argument("--sshd", default="/usr/sbin/sshd")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="lmf-fanout-") as folder:
        lab = Lab(Path(folder), options.rate, int(options.gigabytes * 1e9), options.torrent_python, options.sshd)
        ways = [way for way in WAYS if needs(way, lab) and (options.only in way or way == next(iter(WAYS)))]
        taken: dict[str, list[float]] = {way: [] for way in ways}
        sent: dict[str, list[float]] = {}
        try:
            lab.up()
            for __ in range(options.runs):
                for way in ways:
                    seconds, sent[way] = measured(lab, way)
                    taken[way].append(seconds)
                    print(f"{way}: {seconds:.1f} s", flush=True)
            cost = cut_line(lab) if options.cut else ""
        finally:
            lab.down()
    medians = [statistics.median(taken[way]) if way in taken else 0.0 for way in WAYS]
    one, serial = medians[:2]
    rows: list[tuple[str, ...]] = [
        ("way", "seconds", "of one copy", "of one after another", "copies sent by each host")
    ]
    for way in ways:
        median = statistics.median(taken[way])
        ratios = [f"{median / base:.2f}" if base else "" for base in (one, serial)]
        rows.append((way, f"{median:.1f}", *ratios, " ".join(f"{share:.2f}" for share in sent[way])))
    print("\n".join(columns(rows)))
    if cost:
        print(cost)
    return 0


if __name__ == "__main__":
    sys.exit(main())
