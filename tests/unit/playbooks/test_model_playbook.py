# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/model.yml as it is typed, up to where containers would be started, on two hosts that are this machine."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[3]
COMMIT = "e815299b0bcbac849fa540c768ef21845365c9eb"
CONFIG = {"architectures": ["DeepseekV3ForCausalLM"], "num_attention_heads": 128}


def whole(home: Path) -> None:
    """A whole model of one small file of weights, in the hub's cache."""
    root = home / "hub" / "models--deepseek-ai--DeepSeek-V3"
    snapshot = root / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    header = json.dumps({"t": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (snapshot / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"1234")
    (snapshot / "config.json").write_text(json.dumps(CONFIG))
    (snapshot / "tokenizer.json").write_text("{}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    hosts = [f"node{place} plan_cluster_address=192.0.2.1{place} plan_hf_home={tmp_path}/hf{place}" for place in (0, 1)]
    common = f"ansible_connection=local ansible_python_interpreter={sys.executable} plan_state_dir={tmp_path}/state"
    (tmp_path / "inventory").write_text("\n".join(["[lmdeploy_nodes]", *(f"{host} {common}" for host in hosts), ""]))
    for place in (0, 1):
        (tmp_path / f"hf{place}").mkdir()
    whole(tmp_path / "hf0")
    return tmp_path


def play(folder: Path, *arguments: str) -> tuple[int, str]:
    argv = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(folder / "inventory")]
    environment = {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(folder),
        "DOCKER_HOST": f"unix://{folder}/no-docker.sock",
    }
    done = subprocess.run(
        [*argv, "playbooks/model.yml", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_where_every_host_has_the_model_nothing_is_done(folder: Path) -> None:
    whole(folder / "hf1")
    code, printed = play(folder, "-e", "model_strategy=fanout")
    assert code == 0, printed
    assert printed.count("changed=0") >= 2
    assert "Start it" not in printed


def test_by_default_a_host_without_it_is_a_fault_and_with_fanout_it_would_be_given_it(folder: Path) -> None:
    code, printed = play(folder)
    assert code != 0
    assert "The model was not brought. To mend first:" in printed
    assert "model_source is present: set it to hub" in printed
    assert "node1: " in printed
    code, printed = play(folder, "--check", "-e", "model_strategy=fanout")
    assert "node0: give deepseek-ai/DeepSeek-V3" in printed, printed
    assert "node1: take deepseek-ai/DeepSeek-V3 from node0" in printed
