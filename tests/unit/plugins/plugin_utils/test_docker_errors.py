# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do about a container that Docker did not start. The texts are Docker's and its runtimes' own."""

from __future__ import annotations

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.docker_errors import remedy

START = 'Error starting container 0a1b: 500 Server Error for http+docker://localhost/v1.45/containers/0a1b/start: ("'
RUNC = f"{START}failed to create task for container: failed to create shim task: OCI runtime create failed: "
HOOK = f"{RUNC}error running prestart hook #0: stderr: Auto-detected mode as 'legacy'\nnvidia-container-cli: "


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (f'{START}could not select device driver "" with capabilities: [[gpu]]")', "nvidia-container-toolkit"),
        (
            f'{START}exec: "nvidia-container-runtime-hook": executable file not found in $PATH")',
            "nvidia-container-toolkit",
        ),
        (f"{HOOK}requirement error: unsatisfied condition: cuda>=12.8, please update your driver", "update the driver"),
        (f"{HOOK}initialization error: nvml error: driver/library version mismatch", "reboot the host"),
        (f"{HOOK}initialization error: nvml error: driver not loaded", "nvidia-smi on this host"),
        (f'{START}privileged mode is incompatible with user namespaces.")', "userns-remap"),
        (f"{START}cannot share the host's network namespace when user namespaces are enabled\")", "userns-remap"),
        (
            f'{START}failed to initialize logging driver: dial tcp 10.0.0.9:24224: connect: connection refused")',
            "log-driver",
        ),
        (f"{START}logger: no log driver named 'gelff' is registered\")", "log-driver"),
        (f'{START}mkdir /var/lib/docker/overlay2/x: no space left on device")', "DockerRootDir"),
        (f'{START}invalid mount config for type "bind": bind source path does not exist: /data")', "plan_extra_mounts"),
        (
            f'{START}adding custom device "/dev/infiniband": no such file or directory")',
            "ib_uverbs",
        ),
        ('Conflict. The container name "/lmdeploy-api" is already in use by container "0a1b".', "docker inspect"),
        (
            f'{RUNC}runc create failed: exec: "ray": executable file not found in $PATH: unknown")',
            "plan_image",
        ),
        (f'{START}unknown or invalid runtime name: nvidia")', "runtimes"),
        (
            "UnixHTTPConnectionPool(host='localhost', port=None): Read timed out. (read timeout=60)",
            "systemctl restart docker",
        ),
        ("something new", "journalctl -u docker"),
    ],
)
def test_dockers_own_words_lead_to_a_remedy(text: str, word: str) -> None:
    assert word in remedy(text)
