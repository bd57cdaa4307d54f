# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role monitoring as it is run, on the control node in the place of hosts, and the real node_exporter over what it lays."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lmfleet.lmdeploy.programs.starts import Starts
from ansible_collections.lmfleet.lmdeploy.tests.unit.docker_daemon import Dockerd, container
from ansible_collections.lmfleet.lmdeploy.tests.unit.packages import program

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[3]
NODES = {"node0": "10.0.0.10", "node1": "10.0.0.11"}


def run(folder: Path, *arguments: str, playbook: str = "monitoring", **variables: Any) -> tuple[str, dict[str, int]]:
    """What ansible-playbook prints, and how many tasks changed something on each host."""
    argv = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "-i",
        "inventory",
        playbook if playbook.endswith(".yml") else str(ROOT / f"playbooks/{playbook}.yml"),
    ]
    environment = {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "PATH": f"{folder}/bin:/usr/bin:/bin",
        "HOME": str(folder),
        # Not this machine's Docker; a test may have one there.
        "DOCKER_HOST": f"unix://{folder}/docker.sock",
    }
    given = ["-e", json.dumps(variables)] if variables else []
    done = subprocess.run(
        [*argv, *given, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    printed = done.stdout + done.stderr
    assert (done.returncode == 0) is not ("refused" in printed), printed
    return printed, {
        host: int(count) for host, count in re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", printed, re.MULTILINE)
    }


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    """An inventory whose nodes are this machine, each with directories of its own."""
    (tmp_path / "inventory").write_text(
        "[lmdeploy_nodes]\n"
        + "".join(
            f"{name} plan_cluster_address={address} plan_state_dir={tmp_path}/{name}/state "
            f"monitoring_textfile_dir={tmp_path}/{name}/text\n"
            for name, address in NODES.items()
        )
        + f"[lmdeploy_nodes:vars]\nansible_connection=local\nansible_python_interpreter={sys.executable}\nplan_gpus=8\n"
    )
    for name in NODES:
        (tmp_path / name).mkdir()
    return tmp_path


def all_of(folder: Path) -> dict[str, bytes | str]:
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


@contextmanager
def node_exporter(directory: Path) -> Iterator[int]:
    """The distribution's, with its text files alone; its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [
        program("prometheus-node-exporter"),
        f"--web.listen-address=127.0.0.1:{port}",
        "--collector.disable-defaults",
        "--collector.textfile",
    ]
    process = subprocess.Popen([*argv, f"--collector.textfile.directory={directory}"], stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def scraped(port: int) -> str:
    deadline = time.monotonic() + 300  # a busy machine
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            assert answer.status == 200
            return answer.read().decode()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        finally:
            connection.close()


def test_the_role_links_what_engines_keep_once_and_a_check_does_nothing(hosts: Path) -> None:
    key = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        "/CN=x",
    ]
    subprocess.run(
        [*key, "-days", "30", "-keyout", "key", "-out", "cert.pem"], cwd=hosts, check=True, capture_output=True
    )
    given: dict[str, Any] = {"monitoring_certificates": [str(hosts / "cert.pem")]}
    before = all_of(hosts)
    # One that no alert would watch.
    printed, changed = run(hosts, monitoring_certificates=[*given["monitoring_certificates"], str(hosts / "none.pem")])
    told = " ".join(printed.split())
    assert "The monitoring was refused before any host was touched: 1 fault." in told
    assert f"node0, node1: openssl reads no certificate from {hosts}/none.pem (" in told
    assert set(changed.values()) == {0}
    assert all_of(hosts).keys() - before.keys() == set()

    printed, changed = run(hosts, "--check", "--diff", **given)
    # The nodes have no Docker here, and had no exporter.
    assert "node0: Docker does not answer (" in " ".join(printed.split())
    assert set(changed) >= {"node0", "node1"}
    assert all_of(hosts).keys() - before.keys() == set()

    run(hosts, **given)
    assert (hosts / "node0/text/lmfleet-api.prom").readlink() == hosts / "node0/state/lmdeploy/starts/api.prom"
    assert {path.name for path in hosts.glob("node1/text/*")} == {"lmfleet-certificates.prom"}
    assert (hosts / "monitoring/lmdeploy/prometheus.yml").exists()
    assert '"10.0.0.11:9100"' in (hosts / "monitoring/lmdeploy/targets/lmdeploy-node.json").read_text()
    done = all_of(hosts)
    __, changed = run(hosts, **given)
    assert changed == dict.fromkeys(("localhost", "node0", "node1"), 0)
    assert all_of(hosts) == done

    # As the supervisor in the engine's container writes it, at its first start after that.
    (hosts / "node0/state/lmdeploy/starts").mkdir(parents=True)
    Starts(hosts / "node0/state/lmdeploy/starts/api.jsonl").note("start", "the container was made", new=True)
    with node_exporter(hosts / "node0/text") as port:
        text = scraped(port)
    assert 'lmfleet_engine_formations_total{service="api"} 1\n' in text
    assert "node_textfile_scrape_error 0\n" in text
    [ends] = re.findall(
        r'^lmfleet_certificate_expiry_timestamp_seconds\{path="\S+/cert.pem"\} (\S+)$', text, re.MULTILINE
    )
    assert abs(float(ends) - time.time() - 30 * 86400) < 3600


def test_files_are_written_with_no_host_and_faults_are_told_before(hosts: Path) -> None:
    """None of the hosts exists."""
    off = {"ansible_connection": "ssh", "ansible_host": "192.0.2.1"}
    printed, __ = run(
        hosts, playbook="monitoring_files", **off, monitoring_interval="5m", monitoring_alertmanagers=["http://a"]
    )
    told = " ".join(printed.split())
    assert "The monitoring was refused before any host was touched: 2 faults." in told
    assert "monitoring_interval is '5m'" in told
    assert "monitoring_alertmanagers: 'http://a' is no HOST:PORT" in told
    assert not (hosts / "monitoring").exists()
    printed, changed = run(hosts, playbook="monitoring_files", **off, monitoring_dir="out")
    assert changed["node0"] == 1
    assert f"MONITORING {hosts}/out" in printed
    assert json.loads((hosts / "out/targets/lmdeploy-engine.json").read_text())[0]["targets"] == ["10.0.0.10:23333"]


def prometheus_below(root: Path) -> None:
    """The role's tasks for Prometheus as a play beside ``root``, with its paths below that, and without its service."""
    text = (ROOT / "roles/monitoring/tasks/prometheus.yml").read_text(encoding="utf-8")
    tasks = yaml.safe_load(text.replace("/etc/", f"{root}/etc/").replace("/usr/bin/", f"{root}/usr/bin/"))
    tasks[-1]["block"] = [task for task in tasks[-1]["block"] if "ansible.builtin.service" not in task]
    (root.parent / "tasks.yml").write_text(yaml.safe_dump(tasks, sort_keys=False), encoding="utf-8")
    files = {"ansible.builtin.import_role": {"name": "lmfleet.lmdeploy.monitoring", "tasks_from": "files"}}
    apply = {"delegate_to": "{{ monitoring_host }}", "run_once": True}
    play = {
        "hosts": "lmfleet_planned",
        "gather_facts": False,
        "tasks": [files, {"ansible.builtin.include_tasks": {"file": "tasks.yml", "apply": apply}}],
    }
    plays = [{"ansible.builtin.import_playbook": "lmfleet.lmdeploy.make_plan"}, play]
    (root.parent / "play.yml").write_text(yaml.safe_dump(plays, sort_keys=False), encoding="utf-8")


def test_prometheus_gets_what_the_run_made_byte_for_byte_and_a_check_compares_with_that(hosts: Path) -> None:
    root, promtool = hosts / "root", program("promtool")
    for name in ("usr/bin", "etc/default", "etc/prometheus"):
        (root / name).mkdir(parents=True)
    (root / "usr/bin/promtool").symlink_to(promtool)
    (hosts / "bin").mkdir()
    (hosts / "bin/promtool").symlink_to(promtool)
    (root / "etc/default/prometheus").write_text('ARGS="--mine"\n')
    (root / "etc/prometheus/prometheus.yml").write_text("global: {}\n")
    prometheus_below(root)
    job = {"job_name": "se\u00f1al \u200b", "static_configs": [{"targets": ["x:1"]}]}
    given = {"monitoring_prometheus_dir": f"{root}/etc/prometheus/lmfleet", "monitoring_scrape_configs": [job]}

    # A check before anything is written.
    before = all_of(root)
    printed, __ = run(hosts, "--check", "--diff", playbook="play.yml", **given)
    assert re.search(r"^\+ +summary: .*\{\{ \$labels\.engine \}\}", printed, re.MULTILINE), printed
    assert all_of(root) == before
    assert not (hosts / "monitoring").exists()

    run(hosts, playbook="play.yml", **given)
    written, brought = hosts / "monitoring/lmdeploy", root / "etc/prometheus"
    assert b"{{ $labels." in (brought / "lmfleet/rules/lmdeploy.yml").read_bytes()
    assert (brought / "prometheus.yml").read_bytes() == (written / "prometheus.yml").read_bytes()
    for name in ("rules", "targets"):
        assert all_of(brought / "lmfleet" / name) == all_of(written / name) != {}
    assert yaml.safe_load((brought / "prometheus.yml").read_text())["scrape_configs"][-1] == job
    [args] = (root / "etc/default").glob("prometheus.*")
    [config] = brought.glob("prometheus.yml.*")
    assert (args.read_bytes(), config.read_bytes()) == (
        before["etc/default/prometheus"],
        before["etc/prometheus/prometheus.yml"],
    )

    # A check after a variable was changed: what was written is of an earlier run.
    done = all_of(hosts / "root"), all_of(written)
    printed, changed = run(hosts, "--check", "--diff", playbook="play.yml", **given, monitoring_certificate_days=77)
    assert changed["node0"] == 2, printed
    assert len(re.findall(r"^\+.*77 \* 86400", printed, re.MULTILINE)) == 2
    assert (all_of(hosts / "root"), all_of(written)) == done


def test_without_an_image_the_roles_own_exporter_is_removed_and_no_other(hosts: Path) -> None:
    """Each node has a Docker of its own."""
    play = {
        "hosts": "lmfleet_planned",
        "gather_facts": False,
        "environment": {"DOCKER_HOST": "unix://{{ inventory_dir }}/{{ inventory_hostname }}.sock"},
        "roles": ["lmfleet.lmdeploy.monitoring"],
    }
    plays = [{"ansible.builtin.import_playbook": "lmfleet.lmdeploy.make_plan"}, play]
    (hosts / "play.yml").write_text(yaml.safe_dump(plays, sort_keys=False), encoding="utf-8")
    image, name = "nvcr.io/nvidia/k8s/dcgm-exporter:4", "lmdeploy-dcgm-exporter"
    there = {image: {"Id": "sha256:1", "RepoDigests": [], "Config": {}}}
    with Dockerd(hosts / "node0.sock", images=there) as first, Dockerd(hosts / "node1.sock", images=there) as second:
        run(hosts, playbook="play.yml", monitoring_dcgm_exporter_image=image)
        states = [daemon.containers[name]["State"]["Status"] for daemon in (first, second)]
        assert states == ["running", "running"]
        # Another deployment's, one that nobody labelled, and one that bears the name.
        first.containers["other-dcgm-exporter"] = container("other-dcgm-exporter")
        first.containers["other-dcgm-exporter"]["Config"]["Labels"] = {"lmfleet.lmdeploy.exporter": "other"}
        first.containers["dcgm-exporter"] = container("dcgm-exporter")
        second.containers = {name: container(name)}
        run(hosts, playbook="play.yml")
        assert set(first.containers) == {"other-dcgm-exporter", "dcgm-exporter"}
        assert set(second.containers) == {name}
