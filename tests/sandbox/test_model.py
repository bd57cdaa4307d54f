# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The model as the hosts' containers see it."""

from __future__ import annotations

import pytest
from sandbox.hosts import Sandbox

HUB = "/srv/huggingface/hub"
DISK = "/srv/disk2/hub"


@pytest.mark.slow
def test_a_model_behind_a_link_that_leaves_the_mount_is_told_and_served_once_that_is_mounted(sandbox: Sandbox) -> None:
    sandbox.playbook("playbooks/teardown.yml").succeeded()
    sandbox.on(0, "mkdir", "-p", "/srv/disk2")
    sandbox.on(1, "mkdir", "-p", DISK)  # the mount is every host's
    sandbox.on(0, "mv", HUB, DISK)
    sandbox.on(0, "ln", "-s", DISK, HUB)
    try:
        run = sandbox.deploy()
        run.failed_with(
            "is not whole on 1 of 2 hosts",
            f"node0: {HUB} is a link, and no container finds what it leads to: no mount has {DISK}.",
            f"add to plan_extra_mounts - {{source: {DISK}, target: {DISK}}}",
        )
        assert "hf download" not in run.text
        assert sandbox.containers() == {}
        # Ray's workers on node1 would be given node0's path.
        run = sandbox.deploy(plan_extra_mounts=[{"source": DISK, "target": DISK}])
        run.failed_with(
            f"is at {DISK} in the containers of node0", "make the links in plan_hf_home the same on all hosts"
        )
        assert sandbox.containers() == {}
        sandbox.on(1, "rmdir", DISK)
        sandbox.on(1, "mv", HUB, DISK)
        sandbox.on(1, "ln", "-s", DISK, HUB)
        # What the messages say is what mends it, in real containers with the real LMDeploy.
        sandbox.deploy(plan_extra_mounts=[{"source": DISK, "target": DISK}]).succeeded()
        assert sandbox.chat()["usage"]["completion_tokens"] == 8
    finally:
        sandbox.playbook("playbooks/teardown.yml").succeeded()
        for node in (0, 1):
            sandbox.on(node, "sh", "-c", f"if test -L {HUB}; then rm {HUB} && mv {DISK} {HUB}; fi; rm -rf /srv/disk2")
