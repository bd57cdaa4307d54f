# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a host gave no answer. The texts are those of OpenSSH 9.2, Paramiko 3, sudo 1.9 and ansible-core 2.16 to 2.19."""

from __future__ import annotations

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.connection import failed, unreachable

SSH = "Failed to connect to the host via ssh: "
CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\r
Someone could be eavesdropping on you right now (man-in-the-middle attack)!\r
It is also possible that a host key has just been changed.\r
The fingerprint for the ED25519 key sent by the remote host is\nSHA256:FBC0AeSCoYNK7CmufqzdAwhhlvPEGwDmVhn1.\r
Please contact your system administrator.\r
Add correct host key in /root/.ssh/known_hosts to get rid of this message.\r
Offending ED25519 key in /root/.ssh/known_hosts:1\r
Host key for [10.0.0.11]:2222 has changed and you have requested strict checking.\r
Host key verification failed."""
KEX = "kex_exchange_identification: Connection closed by remote host\r\n"
OPEN = "WARNING: UNPROTECTED PRIVATE KEY FILE!\r\nPermissions 0644 for '/k/id' are too open.\r\nPermission denied (publickey)."
UNREACHABLE = [
    (
        f"{SSH}root@10.0.0.11: Permission denied (publickey,keyboard-interactive).",
        "denied",
        "ansible_ssh_private_key_file",
    ),
    (f"{SSH}ubuntu@10.0.0.11: Permission denied (publickey,password).", "denied", "ansible_user"),
    (
        f"{SSH}Received disconnect from 10.0.0.11 port 22:2: Too many authentication failures",
        "denied",
        "IdentitiesOnly=yes",
    ),
    (
        f"{SSH}no such identity: /k/id: No such file or directory\r\nroot@h: Permission denied (publickey).",
        "key file",
        "/k/id",
    ),
    (
        f"{SSH}{OPEN}",
        "key file",
        "chmod 600",
    ),
    (f"{SSH}{CHANGED}", "host key changed", "ssh-keygen -R '[10.0.0.11]:2222'"),
    (
        f"{SSH}No ED25519 host key is known for 10.0.0.11 and you have requested strict checking.\r\nHost key verification failed.",
        "host key unknown",
        "log in to 10.0.0.11 once by hand",
    ),
    (f"{SSH}Host key verification failed.", "host key unknown", "known_hosts"),
    (f"{SSH}{KEX}Connection closed by UNKNOWN port 65535", "jump host", "ProxyJump"),
    (
        f"{SSH}channel 0: open failed: connect failed: Connection refused\r\nstdio forwarding failed\r\n{KEX}",
        "jump host",
        "Jump",
    ),
    (
        f"{SSH}jump@bastion: Permission denied (publickey).\r\n{KEX}Connection closed by UNKNOWN port 65535",
        "jump host",
        "jump@bastion: Permission denied",
    ),
    (
        f"{SSH}ssh: Could not resolve hostname bastion: Name or service not known\r\n{KEX}Connection closed by UNKNOWN port 65535",
        "jump host",
        "hostname bastion",
    ),
    (f"{SSH}ssh: connect to host 10.0.0.11 port 22: No route to host", "no route", "inventory group"),
    (f"{SSH}ssh: connect to host 10.0.0.11 port 22: Network is unreachable", "no route", "ip route get"),
    (f"{SSH}ssh: connect to host 10.0.0.11 port 22: Connection refused", "refused", "sshd"),
    (f"{SSH}ssh: connect to host 10.0.0.11 port 22: Connection timed out", "time-out", "firewall"),
    (f"{SSH}ssh: connect to host 10.0.0.11 port 22: Operation timed out", "time-out", "host is up"),
    ("it gave no answer in the time that it was given", "time-out", "host is up"),
    (
        f"{SSH}Connection timed out during banner exchange\r\nConnection to 10.0.0.11 port 22 timed out",
        "banner",
        "console",
    ),
    (f"{SSH}{KEX}Connection closed by 10.0.0.11 port 22", "closed", "MaxStartups"),
    (f"{SSH}Connection reset by 10.0.0.11 port 22", "closed", "sshd's log"),
    (f"{SSH}ssh: Could not resolve hostname gpu-b: Name or service not known", "name", "ansible_host"),
    (f"{SSH}ssh: Could not resolve hostname gpu-b: Temporary failure in name resolution", "name", "DNS"),
    (
        f"{SSH}Unable to negotiate with 10.0.0.11 port 22: no matching host key type found. Their offer: ssh-rsa",
        "algorithm",
        "update",
    ),
    (f"{SSH}unknown option -- -\r\nusage: ssh [-46AaCfGgKkMNnqsTtVvXxYy]", "settings", "ansible_ssh_common_args"),
    (
        f'{SSH}unix_listener: path "/root/.ansible/cp/x" too long for Unix domain socket',
        "ControlPath",
        "CONTROL_PATH_DIR",
    ),
    (
        "to use the 'ssh' connection type with passwords, you must install the sshpass program",
        "sshpass",
        "apt-get install sshpass",
    ),
    ("Invalid/incorrect password: Permission denied, please try again.", "password", "ansible_password"),
    # Paramiko
    ("Authentication failed.", "denied", "authorized_keys"),
    ("Failed to authenticate: Authentication failed: transport shut down or saw EOF", "denied", "ansible_user"),
    ("host key mismatch for 10.0.0.11", "host key changed", "ssh-keygen -R '10.0.0.11'"),
    ("Server '10.0.0.11' not found in known_hosts", "host key unknown", "log in to 10.0.0.11"),
    ("[Errno None] Unable to connect to port 22 on 10.0.0.11", "refused", "ansible_port"),
    ("Error reading SSH protocol banner", "banner", "console"),
    # sudo, and the host's disk: the connection itself works
    ("Timeout (12s) waiting for privilege escalation prompt: ", "sudo password", "--ask-become-pass"),
    (
        "Failed to create temporary directory. In some cases, you may have been able to authenticate " + "x" * 400,
        "temporary directory",
        "df -h",
    ),
    ("mkdir: cannot create directory '/root/.ansible': No space left on device", "disk", "df -i"),
]


@pytest.mark.parametrize(("text", "kind", "word"), UNREACHABLE)
def test_each_way_of_not_being_reached_has_its_own_remedy(text: str, kind: str, word: str) -> None:
    trouble = unreachable(text)
    assert trouble.kind == kind
    if word != "inventory group":  # added where it is told
        assert word in trouble.told()
    assert trouble.said
    assert "\n" not in trouble.told()
    assert "@@" not in trouble.told()
    assert len(trouble.said) <= 300


def test_what_is_not_known_is_told_as_it_is() -> None:
    assert unreachable(f"{SSH}something\r\n  odd.").told() == "something odd."
    assert unreachable("").kind == ""
    sent = 'Data could not be sent to remote host "h". Make sure this host can be reached over ssh: '
    assert (
        unreachable(f"{sent}ssh: connect to host h port 22: No route to host").said
        == "ssh: connect to host h port 22: No route to host"
    )


@pytest.mark.parametrize(
    ("text", "kind", "word"),
    [
        (
            "The module interpreter '/opt/none/python3' was not found: /bin/sh: 1: /opt/none/python3: not found",
            "interpreter",
            "apt-get",
        ),
        (
            "MODULE FAILURE: /bin/sh: /usr/bin/python3: No such file or directory",
            "interpreter",
            "ansible_python_interpreter",
        ),
        (
            "MODULE FAILURE: SyntaxError: future feature annotations is not defined",
            "interpreter",
            "3.9 or newer",
        ),
        ("ansible-core requires a minimum of Python version 3.8. Current version: 3.6.8", "interpreter", "too old"),
        ("'ABCMeta' object is not subscriptable", "interpreter", "too old"),
        ("Missing sudo password", "sudo password", "--ask-become-pass"),
        ("Incorrect sudo password", "sudo password", "ansible_become_password"),
        (
            "Premature end of stream waiting for become success.\n>>> Standard Error\nsudo: a password is required",
            "sudo password",
            "sudo: a password is required",
        ),
        (
            "MODULE FAILURE: deploy is not in the sudoers file.  This incident will be reported.",
            "sudo right",
            "/etc/sudoers.d",
        ),
        ("MODULE FAILURE: /bin/sh: 1: sudo: not found", "sudo missing", "ansible_become: false"),
        ("MODULE FAILURE: OSError: [Errno 28] No space left on device", "disk", "df -h"),
        ("MODULE FAILURE: Killed", "killed", "dmesg"),
        ("nobody knows", "", "nobody knows."),
    ],
)
def test_each_way_of_giving_no_answer_has_its_own_remedy(text: str, kind: str, word: str) -> None:
    trouble = failed(text)
    assert (trouble.kind, word in trouble.told()) == (kind, True)
