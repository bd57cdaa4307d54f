# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a host gave no answer, by what Ansible, OpenSSH, Paramiko or sudo wrote: the line that says it, and what to do first.

Pure. The entries are in the order in which they are tried: what names a cause comes before what only names a consequence, as
a host key that changed comes before the failed verification, and a jump host before the connection that it closed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

LONGEST = 300  # characters of a line that is shown


@dataclasses.dataclass(frozen=True)
class Trouble:
    """``kind`` is a word for tests and programs, ``said`` the line that decides, ``remedy`` a sentence; empty where unknown."""

    kind: str
    said: str
    remedy: str

    def told(self) -> str:
        """Both, as sentences."""
        return f"{self.said.rstrip('.')}. {self.remedy}".rstrip()


@dataclasses.dataclass(frozen=True)
class _Kind:
    kind: str
    pattern: str
    remedy: str
    whole: bool = False  # all lines are shown, not only the one that matched

    def match(self, text: str) -> re.Match[str] | None:
        return re.search(self.pattern, text, re.IGNORECASE)


_HOME = "~/.ssh/known_hosts"  # of the control node
# {0} is the first group of the pattern that matched, or HOST.
_SUDO = (
    _Kind(
        "sudo right",
        r"is not in the sudoers file|is not allowed to (?:execute|run)|may not run sudo|must have a tty",
        "The login works, but this user may not become root: give it the right in /etc/sudoers.d on the host, or set "
        "ansible_user: root.",
    ),
    _Kind(
        "sudo missing",
        r"sudo: (?:command )?not found|sudo.*no such file",
        "The host has no sudo: install it there, or set ansible_user: root and ansible_become: false.",
    ),
    # After those that say more: Ansible's own words for it fit them too.
    _Kind(
        "sudo password",
        r"missing sudo password|incorrect (?:sudo|become) password|sudo: (?:\d+ incorrect|a password is|no password was)"
        r"|waiting for (?:privilege escalation|become)",
        "The login works, but sudo asks for a password: run with --ask-become-pass, set ansible_become_password (in a vault), "
        "or allow sudo without a password for this user.",
        whole=True,
    ),
    _Kind(
        "disk",
        r"no space left on device|disk quota exceeded",
        "The disk of Ansible's temporary directory on the host is full: look with df -h and df -i, and free some space.",
    ),
    _Kind(
        "temporary directory",
        r"failed to create temporary directory|failed to set permissions on the temporary|read-only file system"
        r"|authentication or permission failure",
        "The login works, but Ansible cannot make its temporary directory (~/.ansible/tmp) there: look for a full or read-only "
        "disk (df -h ~; touch ~/x), and whether the home directory belongs to the user; or set ansible_remote_tmp.",
    ),
)
_UNREACHABLE = (
    *_SUDO,
    _Kind(
        "ControlPath",
        r"controlpath.*too long|too long for unix domain socket",
        "Set a shorter directory for SSH's sockets on the control node: export ANSIBLE_SSH_CONTROL_PATH_DIR=/tmp/cp.",
    ),
    _Kind(
        "host key changed",
        r"host key for (\S+) has changed|host key mismatch for (\S+)|host key for server '?([^\s']+)'? does not match",
        "The host shows another key than the control node knows. Where it was installed again, compare the fingerprint "
        "(on its console: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub) and forget the old key: ssh-keygen -R '{0}'. Where "
        "nobody changed it, another machine answers at this address.",
    ),
    _Kind(
        "host key unknown",
        r"no \S+ host key is known for (\S+)|authenticity of host '?([^\s']+)|'?(\S+?)'? not found in known_hosts"
        r"|host key verification failed|remote host identification has changed|add this host's fingerprint",
        f"The control node does not know the host's key yet: log in to {{0}} once by hand with ssh, compare the fingerprint "
        f"and accept it; or add it to {_HOME} from a source that you trust.",
    ),
    # Before the refusal or the time-out, which may be the jump host's own.
    _Kind(
        "jump host",
        r"unknown port 65535|stdio forwarding failed|open failed: (?:connect failed|administratively prohibited)"
        r"|proxyjump|proxycommand|proxy command|jump host",
        "The jump host (ProxyJump or ProxyCommand in ansible_ssh_common_args or ~/.ssh/config) let nothing through: log in to "
        "the jump host by hand, and from there to this host; see that the jump host is up, and allows TCP forwarding.",
        whole=True,
    ),
    _Kind(
        "key file",
        r"unprotected private key file|permissions \S+ for '?([^\s']+)'? are too open|bad permissions",
        "SSH ignores a private key that others can read: chmod 600 {0}.",
    ),
    _Kind(
        "key file",
        r"(?:no such identity: |identity file )(\S+?):? (?:no such file|not accessible)|load key \"?([^\s\"]+)\"?:",
        "The private key {0} cannot be read on the control node: correct ansible_ssh_private_key_file.",
    ),
    _Kind(
        "sshpass",
        r"install the sshpass program",
        "SSH with a password needs sshpass on the control node: apt-get install sshpass, or use a key.",
    ),
    _Kind(
        "password",
        r"invalid/incorrect (?:username/)?password|password has expired|change your password|account (?:has )?expired",
        "The host refuses the password: correct ansible_user and ansible_password, or renew the account's password there.",
    ),
    _Kind(
        "denied",
        r"too many authentication failures",
        "The agent offers too many keys: set ansible_ssh_private_key_file, and ansible_ssh_common_args: -o IdentitiesOnly=yes.",
    ),
    _Kind(
        "denied",
        r"permission denied \(([^)]*)\)|permission denied, please try again|please login as the user"
        r"|(?<!\w)authentication failed|failed to authenticate|no authentication methods available",
        "The host answers, and refuses the login: see that ansible_user and ansible_ssh_private_key_file are right, that the key "
        "is in ~/.ssh/authorized_keys of that user on the host (ssh-copy-id), and that a key with a passphrase is in the agent "
        "(ssh-add -l).",
    ),
    _Kind(
        "name",
        r"could not resolve hostname (\S+?):? |name or service not known|nodename nor servname|name resolution"
        r"|no address associated with hostname|getaddrinfo failed",
        "The control node cannot resolve the name: correct ansible_host in the inventory, or the DNS.",
    ),
    _Kind(
        "algorithm",
        r"unable to negotiate with|no matching (?:host key type|key exchange method|cipher|mac)",
        "The SSH of the control node and that of the host have no algorithm in common: update the older one.",
    ),
    _Kind(
        "no route",
        r"no route to host|network is unreachable|host is unreachable|no route",
        "There is no way to the address from the control node: see that the host is up, and look at address, VPN and routes "
        "(ip route get ADDRESS).",
    ),
    _Kind(
        "refused",
        r"connection refused|unable to connect to port",
        "Something answers at the address, but no SSH at that port: see that sshd runs there (systemctl status ssh), and "
        "that ansible_host and ansible_port are right.",
    ),
    _Kind(
        "banner",
        r"banner exchange|reading ssh protocol banner|banner timeout",
        "The port is open, but SSH does not speak: the host may be out of memory or hang (look at its console), or another "
        "service listens at this port (ansible_port).",
    ),
    _Kind(
        "time-out",
        r"timed out|time-?out|no answer in the time",
        "Nothing answers: see that the host is up, that the address is right, and that no firewall drops the SSH port.",
    ),
    _Kind(
        "closed",
        r"connection closed by|connection reset|exchange_identification|broken pipe|shared connection to \S+ closed"
        r"|not allowed at this time",
        "The host takes the connection and closes it: look at sshd's log there (journalctl -u ssh), for MaxStartups, "
        "AllowUsers, a ban (fail2ban), or a host that is shutting down.",
    ),
    _Kind(
        "settings",
        r"unknown option|bad configuration option|bad owner or permissions|command-line: line|\bssh: not found",
        "SSH on the control node does not accept its own settings: correct ansible_ssh_common_args, ansible_ssh_extra_args or "
        "~/.ssh/config.",
    ),
)
_FAILED = (
    *_SUDO,
    _Kind(
        "interpreter",
        r"module interpreter '?([^\s']+)'? was not found|(\S*python\S*): (?:command )?not found|set the interpreter"
        r"|(\S*python\S*): no such file|no python interpreters? found",
        "The host has no Python at the path that Ansible uses: apt-get install python3 there, or set ansible_python_interpreter to "
        "one that is there (Python 3.9 or newer).",
    ),
    _Kind(
        "interpreter",
        r"minimum of python version|requires (?:a minimum of )?python|python (?:3\.[0-8]|2\.\d)\b|object is not subscriptable"
        r"|syntaxerror|future feature annotations|unsupported operand type\(s\) for \||no module named '?ansible",
        "Python on the host is too old, 3.9 or newer is needed: set ansible_python_interpreter to a newer one, which also has "
        "the Docker SDK.",
    ),
    _Kind(
        "killed",
        r"memoryerror|cannot allocate memory|\bkilled\b",
        "The host has no memory left: see who takes it (free -h; dmesg | grep -i oom).",
    ),
    _Kind("time-out", r"timed out|time-?out", "The host or one of its disks hangs: see whether df -h answers there."),
)


# What Ansible puts before SSH's own words; the second where it was sending a module (pipelining).
ANSIBLES = (
    r'failed to connect to the host via \w+:\s*|data could not be sent to remote host "[^"]*"\. '
    r"make sure this host can be reached over ssh:\s*"
)
# The connection itself works: what fails is on the host.
REACHED = frozenset(each.kind for each in _SUDO)
# A host that is switched off looks like this.
GONE = frozenset(("no route", "time-out"))


def unreachable(text: str) -> Trouble:
    """Why a host cannot be reached, from the message of the connection; ``kind`` is empty where it is none of those known."""
    return _first(_UNREACHABLE, text, ANSIBLES)


def failed(text: str) -> Trouble:
    """Why a host that was reached gave no answer, from the module's message and what it wrote beside it."""
    return _first(_FAILED, text, "")


def _first(kinds: Sequence[_Kind], text: str, prefix: str) -> Trouble:
    text = re.sub(prefix, "", text, count=1, flags=re.IGNORECASE) if prefix else text
    for each in kinds:
        match = each.match(text)
        if match:
            named = next((group.rstrip(":.") for group in match.groups() if group), "HOST")
            said = _shown(_whole(text)) if each.whole else _line_of(text, match)
            return Trouble(each.kind, said, each.remedy.format(named))
    return Trouble("", _shown(_whole(text)), "")


def _line_of(text: str, match: re.Match[str]) -> str:
    begins, ends = text.rfind("\n", 0, match.start()) + 1, text.find("\n", match.end())
    line = text[begins : ends if ends >= 0 else len(text)]
    if len(line) > LONGEST:  # advice of Ansible's own
        line = line[: line.find(". ", match.end() - begins) + 1] or line
    return _shown(line)


def _whole(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    return " ".join(line for line in lines if re.search(r"[^@\W]", line))


def _shown(line: str) -> str:
    line = " ".join(line.split()).strip("@ ")
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."
