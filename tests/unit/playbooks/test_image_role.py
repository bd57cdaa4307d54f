# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role image as it is run, on the control node, against a stand-in for dockerd."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lmfleet.lmdeploy.tests.unit.docker_daemon import Dockerd
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.module_utils.test_pull import CLASSIC, IMAGE, REFERENCE

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[3]
MIRROR = "mirror.example.com/hub"


def role(part: str, rescued: str = "", **variables: Any) -> list[dict[str, Any]]:
    """Tasks that include a part of the role; one that is ``rescued`` has to fail, and its message is shown after that word."""
    include = {
        "name": f"Part {part}",
        "ansible.builtin.include_role": {"name": "lmfleet.lmdeploy.image", "tasks_from": part},
        "vars": variables,
    }
    if not rescued:
        return [include]
    told = {"ansible.builtin.debug": {"msg": f"{rescued}: {{{{ ansible_failed_result.msg }}}}"}}
    went_well = {"ansible.builtin.fail": {"msg": "it has to fail"}}
    return [{"block": [include, {**went_well, "name": "Not so"}], "rescue": [told]}]


def run(folder: Path, daemon: Dockerd, tasks: list[dict[str, Any]]) -> str:
    """What ansible-playbook prints, in one line."""
    variables = {
        "image_needed_on": [],
        "image_asked_on": "",
        "image_state_dir": str(folder / "state"),
        "image_pull_retries": 0,
        "ansible_python_interpreter": sys.executable,
    }
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": variables, "tasks": tasks}
    (folder / "play.yml").write_text(yaml.safe_dump([play]), encoding="utf-8")
    argv = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "play.yml"]
    environment = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    environment["DOCKER_HOST"] = daemon.host
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    printed = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 0, done.stdout + done.stderr
    return printed


def test_an_image_is_pulled_by_its_mirror_and_keeps_its_name(tmp_path: Path) -> None:
    source = f"{MIRROR}/{REFERENCE}"
    with Dockerd(tmp_path / "d.sock", pulls={source: CLASSIC}, pulled={source: IMAGE}) as daemon:
        daemon.pulls["x.example.com/gone:1"] = [{"error": "manifest unknown: manifest unknown"}]
        printed = run(
            tmp_path,
            daemon,
            [
                *role("pull", image_reference=REFERENCE, image_mirror=MIRROR),
                *role("pull", image_reference=REFERENCE, image_mirror=MIRROR),  # it is there
                *role("pull", "GONE", image_reference="x.example.com/gone:1"),
                *role("pull", "DIGEST", image_reference=f"a/b@sha256:{'0' * 64}", image_mirror=MIRROR),
            ],
        )
        assert daemon.images[REFERENCE] == IMAGE
        assert len([each for each in daemon.asked if each.startswith("/images/create")]) == 2
    assert (
        "changed=1 " in printed
    )  # how far it is on its way is in test_image_pull.py: here it may be there at the first poll
    assert "GONE: Error pulling image x.example.com/gone:1: manifest unknown" in printed
    assert "correct plan_image" in printed
    assert "DIGEST: a/b@sha256:" in printed
    assert list((tmp_path / "state" / "pulls").iterdir()) == []


def archive(file: Path, name: str) -> str:
    """What docker save writes of an image, as far as docker load is asked here."""
    manifest = json.dumps([{"Config": "0" * 64, "RepoTags": [name], "Layers": []}]).encode()
    with tarfile.open(file, "w") as tar:
        info = tarfile.TarInfo("manifest.json")
        info.size = len(manifest)
        tar.addfile(info, io.BytesIO(manifest))
    return str(file)


def test_one_of_several_archives_has_to_hold_the_image(tmp_path: Path) -> None:
    first, second = archive(tmp_path / "a.tar", "team/other:1"), archive(tmp_path / "b.tar", REFERENCE)
    (tmp_path / "page.tar").write_text("<html>\n")
    with Dockerd(tmp_path / "d.sock") as daemon:
        printed = run(
            tmp_path,
            daemon,
            [
                *role("archive", "NONE", image_reference=REFERENCE, image_archive=first),
                *role(
                    "archive", "WRONG", image_reference=REFERENCE, image_archive=["no.tar", str(tmp_path / "page.tar")]
                ),
                *role("archive", image_reference=REFERENCE, image_archive=[first, second]),
            ],
        )
        assert set(daemon.images) == {"team/other:1", REFERENCE}
        # What fails leaves neither the copy of an archive nor a probe behind.
        daemon.images[REFERENCE]["Id"] = f"sha256:{'a' * 64}"
        daemon.fails["/images/load"] = "write /blobs: no space left on device"
        probe = {"image_reference": REFERENCE, "image_asked_on": "localhost"}
        lost = {"image_reference": "team/third:1", "image_archive": first}
        told = run(tmp_path, daemon, [*role("archive", "LOST", **lost), *role("probe", "UNASKED", **probe)])
        assert any(each.startswith("/containers/create") for each in daemon.asked)
        assert daemon.containers == {}
    lost_for = told[told.index("LOST: ") :]
    assert "no space left on device" in lost_for
    assert "free some space where Docker keeps its data" in lost_for
    assert f"UNASKED: localhost: {REFERENCE} did not tell which LMDeploy it has: " in told
    assert "for 900 s at most" in told
    assert f"NONE: No archive of image_archive ({first}) holds {REFERENCE}." in printed
    assert "WRONG: To mend first:" in printed
    assert "there is no no.tar on the control node" in printed
    assert "page.tar is no archive of docker save" in printed
    assert list((tmp_path / "state" / "archives").iterdir()) == []


def test_one_host_pulls_and_the_others_have_it_from_host_to_host(tmp_path: Path) -> None:
    """Three hosts, each with a Docker and an address of its own; the second one has the image already, by another name."""
    image = {"Id": f"sha256:{'0' * 64}", "RepoDigests": [], "Size": 10240}
    content = Path(archive(tmp_path / "saved.tar", REFERENCE)).read_bytes()
    with contextlib.ExitStack() as stack:
        daemons = [
            stack.enter_context(Dockerd(tmp_path / f"{n}.sock", info={"DockerRootDir": str(tmp_path)}))
            for n in range(3)
        ]
        daemons[0].pulls[REFERENCE], daemons[0].pulled[REFERENCE] = CLASSIC, image
        daemons[0].archives[REFERENCE] = content
        daemons[1].images["team/same:1"] = image
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        chain = [{"name": f"host{n}", "address": f"127.0.0.{n + 1}"} for n in range(3)]
        variables = {
            "image_reference": REFERENCE,
            "image_needed_on": [each["name"] for each in chain],
            "image_asked_on": "",
            "image_share": True,
            "image_share_port": port,
            "image_chain": chain,
            "image_state_dir": str(tmp_path / "state"),
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
        }
        hosts = {each["name"]: {"docker_host": daemon.host} for each, daemon in zip(chain, daemons)}
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"vars": variables, "hosts": hosts}}))
        include = {"ansible.builtin.include_role": {"name": "lmfleet.lmdeploy.image", "tasks_from": "bring"}}
        refused = [
            {
                **include,
                "vars": {"image_reference": f"a/b@sha256:{'1' * 64}", "image_needed_on": []},
                "name": "By digest",
            }
        ]
        told = [{"ansible.builtin.debug": {"msg": "DIGEST: {{ ansible_failed_result.msg }}"}}]
        play = {
            "hosts": "all",
            "gather_facts": False,
            "environment": {"DOCKER_HOST": "{{ docker_host }}"},
            "tasks": [{**include, "name": "Bring"}, {"block": refused, "rescue": told}],
        }
        (tmp_path / "play.yml").write_text(yaml.safe_dump([play]), encoding="utf-8")
        argv = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "hosts.yml", "play.yml"]
        environment = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        printed = " ".join((done.stdout + done.stderr).split())
        assert done.returncode == 0, done.stdout + done.stderr
        assert [each.images[REFERENCE]["Id"] for each in daemons] == [image["Id"]] * 3
        pulls = [sum(path.startswith("/images/create") for path in each.asked) for each in daemons]
        assert pulls == [1, 0, 0]
        assert [sum(path.startswith("/images/load") for path in each.asked) for each in daemons] == [0, 0, 1]
    assert "DIGEST: image_share: a/b@sha256:" in printed
    assert list((tmp_path / "state" / "pulls").iterdir()) == []
    with socket.socket() as probe:  # nobody listens any more
        assert probe.connect_ex(("127.0.0.1", port)) != 0
