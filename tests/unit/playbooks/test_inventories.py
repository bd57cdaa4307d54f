# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventories through the real ``ansible-playbook``: what stands in files, what templates come to, what -e gives."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import ansible
import pytest

ROOT = Path(__file__).parents[3]
CORE = tuple(map(int, ansible.__version__.split(".")[:2]))
KEEPS_PLACES = CORE >= (2, 19)  # of every value; before, of mappings alone
KEY = "a-key-that-nobody-may-read"
Run = subprocess.CompletedProcess[str]


def play(inventory: Path | str, playbook: str, *words: str, root: Path = ROOT, **environment: str) -> Run:
    """One run of a playbook of the checkout; stdout and stderr are one text."""
    given = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    return subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            *(["-i", str(inventory)] if inventory else []),
            playbook,
            *words,
        ],
        cwd=root,
        env={**given, "ANSIBLE_NOCOLOR": "1", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )


def faults(run: Run) -> list[str]:
    """The numbered faults of the task's result."""
    assert run.returncode == 2, run.stdout
    __, __, message = run.stdout.partition("fatal: [localhost]")
    assert "Traceback" not in message
    return re.findall(r"^ +\d+\. (.*)$", message, re.MULTILINE)


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    return tmp_path / "hosts.yml"


def test_each_value_that_cannot_be_read_is_one_fault_with_all_others(inventory: Path) -> None:
    inventory.write_text(
        r"""
all:
  children:
    lmdeploy_nodes:
      vars:
        plan_environment: {A: "{{ nowhere }}", B: true}
        plan_tp: "{{ sizes.tp }}"
        plan_gpuz: 8
      hosts:
        node0: {ansible_host: 10.0.0.10, plan_interface: "{{ ansible_ib0.device }}"}
        node1: {plan_cluster_address: "{{ ansible_facts.ib0.ipv4.address }}"}
        node2: {plan_cluster_address: "{{ rail }}", rail: "{{ hostvars['node0'].ansible_facts['ib1']['ipv4']['address'] }}"}
        node3: {ansible_host: "{{ lookup('ansible.builtin.file', '/nowhere') }}"}
        node4: {ansible_host: 10.0.0.14, plan_gpus: "{{ plan_gpus }}", plan_hf_home: "{{ 'x' | no_such_filter }}"}
        node5: {ansible_host: 10.0.0.15, plan_gpus: "{{ 1 / 0 }}", plan_hf_home: "{{ broken"}
        node6:
          ansible_host: 10.0.0.16
          plan_gpus: "{{ 'x' | ansible.builtin.from_json }}"
          plan_interface: "{{ missing | default(omit) }}"
          plan_state_dir: !vault |
            $ANSIBLE_VAULT;1.1;AES256
            31643836386234613330343065383366383938356435303763316431343433373434333461616238
            3732393838616535386336336538663139353166613435640a653037616464353465343439326231
            63306465613562363434626130333064393037323262376539653865356432646232326232613934
            3265643739613735390a393535346331303763363136623438386262613931393133656539666535
            6330
""",
        encoding="utf-8",
    )
    found = faults(play(inventory, "playbooks/plan.yml"))
    facts = "The plan touches no host, so it has no facts"
    everywhere = "node0, node1, node2, node3, node4, node5, node6: "
    for start, word in [
        (f"{everywhere}plan_environment.A cannot be read: ", "'nowhere' is undefined"),
        (f"{everywhere}plan_environment.B would", "quote it"),
        (f"{everywhere}plan_tp cannot be read: ", "'sizes' is undefined"),
        ("plan_gpuz is not a variable", "plan_gpus"),
        ("node0: plan_interface cannot be read: ", facts),
        ("node1: plan_cluster_address cannot be read: ", facts),
        ("node2: plan_cluster_address cannot be read: ", facts),
        ("node3: ansible_host cannot be read: ", "/nowhere"),
        ("node4: plan_gpus cannot be read: ", "refers to itself"),
        ("node4: plan_hf_home cannot be read: ", "no_such_filter"),
        ("node5: plan_gpus cannot be read: ", "division by zero"),
        ("node5: plan_hf_home cannot be read: ", "unexpected end of template"),
        ("node6: plan_gpus cannot be read: ", "Expecting value"),
        ("node6: plan_state_dir cannot be read: ", "--ask-vault-pass"),
    ]:
        matching = [fault for fault in found if fault.startswith(start)]
        assert len(matching) == 1, (start, found)
        assert word in matching[0]
        found.remove(matching[0])
    assert found == []


def test_templates_that_can_be_read_are(inventory: Path) -> None:
    inventory.write_text(
        """
all:
  vars: {rail: "10.0.0", common: {NCCL_DEBUG: INFO, NCCL_IB_TC: 106}}
  children:
    lmdeploy_nodes:
      vars:
        plan_head: "{{ groups['lmdeploy_nodes'] | last }}"
        plan_environment: "{{ common }}"
        plan_gpus: "{{ counted | default(4) }}"
        plan_tp: "{{ missing | default(omit) }}"
      hosts:
        node0: {plan_cluster_address: "{{ rail }}.10", ansible_host: 192.0.2.1}
        node1: {plan_cluster_address: "{{ hostvars['node0'].rail }}.11"}
""",
        encoding="utf-8",
    )
    run = play(inventory, "playbooks/plan.yml", "-e", "plan_show=shell")
    assert run.returncode == 0, run.stdout
    for word in (
        "--num-gpus 4",
        "--node-ip-address 10.0.0.10",
        "--node-ip-address 10.0.0.11",
        "NCCL_IB_TC=106",
        "--tp 8 ",
    ):
        assert word in run.stdout
    assert run.stdout.index("# node1: lmdeploy-ray") < run.stdout.index("# node0: lmdeploy-ray")


def test_numbers_that_yaml_reads_as_others_are_refused(inventory: Path) -> None:
    inventory.write_text(
        """
all:
  vars: {common: {UMASK: 022}}
  children:
    lmdeploy_nodes:
      vars:
        plan_model_revision: 0712
        plan_ports: {api: 010000}
        plan_api_server_options: {max_batch_size: 0x40, session_len: 4096}
      hosts:
        node0:
          ansible_host: 10.0.0.10
          plan_environment: {UMASK: 022, SINCE: 1:30, "MASK": 0x1F, QUOTED: "022", PLAIN: 22, NEGATIVE: -1}
        node1: {ansible_host: 10.0.0.11, plan_environment: "{{ common }}", plan_gpus: 010}
""",
        encoding="utf-8",
    )
    found = faults(play(inventory, "playbooks/plan.yml"))
    written = {
        "plan_environment.UMASK": ("node0, node1" if KEEPS_PLACES else "node0", "022", 18),
        "plan_environment.SINCE": ("node0", "1:30", 90),
        "plan_environment.MASK": ("node0", "0x1F", 31),
        "plan_ports.api": ("node0, node1", "010000", 4096),
        "plan_api_server_options.max_batch_size": ("node0, node1", "0x40", 64),
        **(
            {"plan_model_revision": ("node0, node1", "0712", 458), "plan_gpus": ("node1", "010", 8)}
            if KEEPS_PLACES
            else {}
        ),
    }
    assert sorted(found) == sorted(
        f"{who}: {name} is written {text}, which YAML reads as the number {number}: quote it ('{text}'), or write {number}."
        for name, (who, text, number) in written.items()
    )


def test_what_is_given_with_e_is_text_and_is_taken_as_everywhere(inventory: Path) -> None:
    inventory.write_text(
        "[lmdeploy_nodes]\nnode0 ansible_host=10.0.0.10 plan_gpus=8\nnode1 ansible_host=10.0.0.11\n", "utf-8"
    )
    options = '{"enable_prefix_caching": "true", "disable_metrics": "no"}'
    given = [
        "plan_proxy=yes",
        "plan_privileged=0",
        "plan_gpus=4",
        f"plan_api_server_options='{options}'",
        "plan_show=shell",
    ]
    run = play(inventory, "playbooks/plan.yml", *(word for each in given for word in ("-e", each)))
    assert run.returncode == 0, run.stdout
    for word in ("lmdeploy serve proxy", "--device /dev/infiniband", "--num-gpus 4", "--enable-prefix-caching"):
        assert word in run.stdout
    assert "--disable-metrics" not in run.stdout
    assert "--privileged" not in run.stdout


def test_a_token_that_is_too_short_is_refused_with_the_plan_and_not_shown() -> None:
    run = play("inventory/two_nodes", "playbooks/plan.yml", "-e", "ray_token_value=Zq7")
    assert faults(run) == ["ray_token_value has 3 characters: give it 32 or more."]
    assert "Zq7" not in run.stdout


@pytest.mark.parametrize("playbook", ["deploy", "teardown", "warmup"])
def test_a_group_that_is_named_in_the_inventory_has_its_nodes_in_every_playbook(inventory: Path, playbook: str) -> None:
    # The interpreter is missing, so nothing is done on this host.
    inventory.write_text(
        """
all:
  vars: {plan_group: gpu}
  children:
    gpu:
      hosts:
        node0: {ansible_host: 10.0.0.10, ansible_connection: local, ansible_python_interpreter: /nowhere/python}
""",
        encoding="utf-8",
    )
    run = play(inventory, f"playbooks/{playbook}.yml", "--check")
    assert "no hosts matched" not in run.stdout
    assert re.search(r"^node0 .*(failed=1|ok=[1-9])", run.stdout, re.MULTILINE), run.stdout


def test_a_group_that_names_itself_is_told_where_to_be_named(inventory: Path) -> None:
    inventory.write_text(
        "all: {children: {gpu: {vars: {plan_group: gpu}, hosts: {node0: {ansible_host: 10.0.0.10}}}}}", encoding="utf-8"
    )
    [fault] = faults(play(inventory, "playbooks/plan.yml"))
    assert "the inventory has no group lmdeploy_nodes" in fault
    assert "plan_group in group_vars/all" in fault
    assert "node0" in fault


@pytest.mark.parametrize("strategy", ["free", "host_pinned"])
def test_another_strategy_plans_as_well(strategy: str) -> None:
    run = play("inventory/two_nodes", "playbooks/plan.yml", ANSIBLE_STRATEGY=strategy)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("playbook", ["deploy_tp16.yml", "playbooks/plan.yml"])
def test_a_checkout_that_everyone_may_write_to_says_what_to_do(tmp_path: Path, playbook: str) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("ansible.cfg", "deploy_tp16.yml", "galaxy.yml"):
        shutil.copy(ROOT / name, checkout)
    for name in ("inventory", "playbooks", "plugins", "programs", "roles", "collections", "meta"):
        shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    checkout.chmod(0o777)
    [config, group] = faults(play("", playbook, root=checkout, ANSIBLE_CALLBACK_RESULT_FORMAT="yaml"))
    assert config.startswith(
        f"Ansible has not read {checkout}/ansible.cfg, because everyone may write to that directory"
    )
    assert f"chmod o-w {checkout}" in config
    assert f"export ANSIBLE_CONFIG={checkout}/ansible.cfg" in config
    assert "has no group lmdeploy_nodes" in group


def test_keys_are_not_printed_with_the_arguments_of_tasks(tmp_path: Path, inventory: Path) -> None:
    inventory.write_text(
        "all: {hosts: {node0: {ansible_connection: local, ansible_python_interpreter: /nowhere/python}}}",
        encoding="utf-8",
    )
    playbook = tmp_path / "play.yml"
    playbook.write_text(
        """
- hosts: node0
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: lmfleet.lmdeploy.warmup}
      ignore_errors: true
      vars:
        warmup_endpoints: [{rank: 0, node: node0, url: "http://127.0.0.1:9"}]
        warmup_model: m
        warmup_image: example.com/m:1
    - ansible.builtin.import_role: {name: lmfleet.lmdeploy.preflight}
""",
        encoding="utf-8",
    )
    keys = ["-e", f"warmup_api_key={KEY}", "-e", f"ray_token_value={KEY * 2}"]
    run = play(inventory, str(playbook), *keys, ANSIBLE_DISPLAY_ARGS_TO_STDOUT="1")
    assert "endpoints=[" in run.stdout
    assert "preflight_ray_token" in run.stdout
    assert KEY not in run.stdout
