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

from ansible_collections.lmfleet.lmdeploy.programs.starts import Starts

ROOT = Path(__file__).resolve().parents[3]
NODES = {"node0": "10.0.0.10", "node1": "10.0.0.11"}


def run(folder: Path, *arguments: str, playbook: str = "monitoring", **variables: Any) -> tuple[str, dict[str, int]]:
    """What ansible-playbook prints, and how many tasks changed something on each host."""
    argv = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "-i",
        "inventory",
        str(ROOT / f"playbooks/{playbook}.yml"),
    ]
    environment = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
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
    script = f"source {ROOT}/scripts/lib/prometheus.sh && ensure_prometheus && command -v prometheus-node-exporter"
    program = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True).stdout.strip()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [program, f"--web.listen-address=127.0.0.1:{port}", "--collector.disable-defaults", "--collector.textfile"]
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
    given: dict[str, Any] = {"monitoring_certificates": [str(hosts / "cert.pem"), "/etc/none.pem"]}
    before = all_of(hosts)
    __, changed = run(hosts, "--check", "--diff", **given)
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
