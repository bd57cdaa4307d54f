# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One table of nftables on this host: put there in one step, taken back unless that is confirmed, kept over a reboot, removed.

Nothing else of nftables is read or changed. Runs on the hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ._files import READABLE, write
from ._processes import leave_behind, stop

SYSTEMD = Path("/run/systemd/system")  # is there where systemd runs the host
UNITS = Path("/etc/systemd/system")
ANCESTORS = 40
COMMAND_S = 30


class FirewallError(Exception):
    """What cannot be done, in nft's or systemd's words."""


class Table:
    """The table ``name`` of the family inet; its files are in ``folder``, its unit in ``units``."""

    def __init__(self, name: str, folder: Path, units: Path = UNITS, systemd: Path = SYSTEMD) -> None:
        self.name = name
        self.file = folder / "firewall.nft"
        self._listed, self._before = folder / "firewall.listed", folder / "before.nft"
        self._folder = folder
        self._has_systemd = systemd.is_dir()
        self._unit = f"{name.replace('_', '-', 1)}-firewall.service"
        self._unit_file = units / self._unit

    # ---- what is there

    def look(self) -> dict[str, Any]:
        """``{"nft", "text", "there", "as_kept", "persistent", "ssh_ports"}``.

        ``text`` is what was confirmed last; ``as_kept``: the table is what that made, and would come back after a reboot.
        """
        found = self._listing() if nft() else None
        return {
            "nft": bool(nft()),
            "text": _text_of(self.file),
            "there": found is not None,
            "as_kept": found is not None and digest(found) == _text_of(self._listed) and self._is_enabled(),
            "persistent": self._has_systemd,
            "ssh_ports": ssh_ports(),
        }

    def _listing(self) -> str | None:
        """The table as nft lists it, without counters; None where there is none."""
        done = _run([nft(), "--stateless", "list", "table", "inet", self.name])
        if done.returncode == 0:
            return done.stdout
        if "No such file or directory" in done.stderr:
            return None
        raise FirewallError(_last(done.stderr))

    # ---- what is to be

    def check(self, text: str) -> None:
        """Raise FirewallError where nft or the kernel would refuse the rules. Changes nothing."""
        _checked([nft(), "--check", "--file", "-"], text)

    def apply(self, text: str, seconds: float) -> dict[str, Any]:
        """Have the rules from now on, until ``seconds`` are over or ``confirm`` is called with what this returns."""
        self.check(text)
        before = self._listing()
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._before.exists():  # else of rules that nobody has confirmed: what was before those is the way back
            _write(self._before, f"{self._gone()}{before or ''}")
        armed = self._arm(seconds)
        try:
            _checked([nft(), "--file", "-"], text)
        except FirewallError:
            self._disarm(armed)
            raise
        return {**armed, "listing": digest(self._listing() or "")}

    def confirm(self, text: str, armed: Mapping[str, Any]) -> None:
        """Keep the rules, over a reboot too. Raises FirewallError where they were taken back meanwhile."""
        in_time = self._disarm(armed)
        if not in_time or digest(self._listing() or "") != armed["listing"]:
            raise FirewallError("the rules were taken back before the new connection came: nothing was kept")
        _write(self.file, text)
        _write(self._listed, str(armed["listing"]))
        self._before.unlink()
        if self._has_systemd:
            self._enable()

    def remove(self, *, really: bool) -> bool:
        """Have no such table, and none after a reboot. Whether anything was there; without ``really`` it stays."""
        there = bool(nft()) and self._listing() is not None
        files = [each for each in (self.file, self._listed, self._before) if each.exists()]
        unit = self._unit_file.exists()
        if really:
            if unit:
                self._forget()
            if there:
                _checked([nft(), "--file", "-"], self._gone())
            for each in files:
                each.unlink()
            with contextlib.suppress(OSError):  # something of somebody else is in it, or it is not there
                self._folder.rmdir()
        return there or unit or bool(files)

    def _gone(self) -> str:
        return f"add table inet {self.name}\ndelete table inet {self.name}\n"

    # ---- the way back

    def _arm(self, seconds: float) -> dict[str, Any]:
        """Have what was there before put back after ``seconds``, whatever becomes of this connection."""
        argv = [nft(), "--file", str(self._before)]
        if not self._has_systemd:
            return {"process": leave_behind(lambda: _later(seconds, argv))}
        # A process of this session might end with it.
        unit = f"{self._unit.partition('.')[0]}-back-{os.getpid()}"
        options = [
            "--quiet",
            "--collect",
            f"--unit={unit}",
            f"--on-active={seconds:g}",
            "--timer-property=AccuracySec=1s",
        ]
        _checked(["systemd-run", *options, *argv])
        return {"unit": unit}

    @staticmethod
    def _disarm(armed: Mapping[str, Any]) -> bool:
        """Whether it was in time."""
        if armed.get("unit"):
            return _run(["systemctl", "stop", f"{armed['unit']}.timer"]).returncode == 0
        return stop(armed["process"])

    # ---- the reboot

    def _is_enabled(self) -> bool:
        return not self._has_systemd or _text_of(self._unit_file) == unit_text(self.name, self.file)

    def _forget(self) -> None:
        if self._has_systemd:
            _checked(["systemctl", "disable", "--now", self._unit])
        self._unit_file.unlink()
        if self._has_systemd:
            _checked(["systemctl", "daemon-reload"])

    def _enable(self) -> None:
        _write(self._unit_file, unit_text(self.name, self.file))
        _checked(["systemctl", "daemon-reload"])
        _checked(["systemctl", "enable", "--now", self._unit])


def unit_text(table: str, file: Path) -> str:
    """The unit that puts the table there at the boot, before the network is up, and when nftables.service has emptied all."""
    nft_path = nft() or "nft"
    return f"""\
# Made by lmfleet.lmdeploy.
[Unit]
Description=Firewall of a deployment of lmfleet.lmdeploy ({table})
DefaultDependencies=no
Conflicts=shutdown.target
After=local-fs.target nftables.service
Before=network-pre.target shutdown.target
Wants=network-pre.target
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service
RequiresMountsFor={file}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={nft_path} --file {file}
ExecReload={nft_path} --file {file}
ExecStop=-{nft_path} delete table inet {table}

[Install]
WantedBy=multi-user.target nftables.service
"""


def ssh_ports(proc: Path = Path("/proc")) -> list[int]:
    """The port of this host by which the connection came that this process is part of; empty where it is none of SSH.

    sudo takes SSH_CONNECTION out of the environment, so those of the processes before it are read too.
    """
    pid = os.getpid()
    for __ in range(ANCESTORS):
        try:
            environment = (proc / str(pid) / "environ").read_bytes().split(b"\0")
            status = (proc / str(pid) / "status").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        for entry in environment:
            words = entry.partition(b"SSH_CONNECTION=")[2].split()
            if entry.startswith(b"SSH_CONNECTION=") and len(words) == 4 and words[3].isdigit():
                return [int(words[3])]
        pid = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:")), 0)
        if pid < 1:
            return []
    return []


def nft() -> str:
    """The program; empty where it is not installed."""
    return shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or ""


def digest(text: str) -> str:
    """What stands for a listing."""
    return hashlib.sha256(text.encode()).hexdigest()


def _later(seconds: float, argv: Sequence[str]) -> None:
    time.sleep(seconds)
    _run(argv)


def _run(argv: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(
            list(argv), input=text, capture_output=True, text=True, check=False, timeout=COMMAND_S, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FirewallError(f"{argv[0]}: {error}") from None


def _checked(argv: Sequence[str], text: str = "") -> None:
    done = _run(argv, text)
    if done.returncode:
        raise FirewallError(f"{Path(argv[0]).name} {argv[1]}: {_last(done.stderr)}")


def _last(text: str) -> str:
    """What nft says of the first error: it shows the rule, and points into it, on the lines after."""
    return " ".join(line.strip() for line in text.strip().splitlines()[:2]) or "it failed, and said nothing"


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _write(path: Path, text: str) -> None:
    write(path, text.encode(), READABLE)
