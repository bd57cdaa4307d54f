# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The link test's program. Where this Python has torch it runs for real, over Gloo on loopback; the sandbox's test always does."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.programs.link_test import Config, main, network_of, run, slowest

PROGRAM = Path(__file__).parents[3] / "programs" / "link_test.py"
CONFIG = {"world": 4, "first_rank": 0, "gpus": 2, "address": "10.0.0.10", "port": 29500}
# Lines as releases of NCCL write them with NCCL_DEBUG=INFO.
OVER_IB = """
gpu-a:770:842 [0] NCCL INFO NET/IB : Using [0]mlx5_10:1/RoCE [1]mlx5_11:1/RoCE [RO]; OOB enp220s0np0:10.0.0.10<0>
gpu-a:770:842 [0] NCCL INFO Using non-device net plugin version 0
gpu-a:770:842 [0] NCCL INFO Using network IB
NCCL version 2.19.3+cuda12.3
gpu-a:770:842 [0] NCCL INFO Channel 00/0 : 0[0] -> 7[7] via P2P/CUMEM
gpu-a:770:842 [0] NCCL INFO Channel 01/0 : 0[0] -> 7[7] via P2P/IPC/read
gpu-a:770:842 [0] NCCL INFO Channel 00/0 : 0[0] -> 8[0] [send] via NET/IB/0/GDRDMA
gpu-a:770:842 [0] NCCL INFO Channel 02/0 : 0[0] -> 8[0] [send] via NET/IB/5(6)/GDRDMA/Shared
gpu-a:770:842 [0] NCCL INFO Channel 01 : 2[c7000] -> 0[87000] [receive] via NET/IB/3/GDRDMA
"""
OVER_SOCKETS = """
gpu-a:1:2 [0] NCCL INFO NCCL version 2.28.9+cuda13.0
gpu-a:1:2 [0] NCCL INFO NET/IB : No device found.
gpu-a:1:2 [0] NCCL INFO NET/Socket : Using [0]ens3:10.0.0.10<0>
gpu-a:1:2 [0] NCCL INFO Using network Socket
gpu-a:1:2 [7] NCCL INFO Channel 03/0 : 15[7] -> 6[6] [send] via NET/Socket/3
gpu-a:1:2 [1] NCCL INFO Channel 00/0 : 1[1] -> 0[0] via SHM/direct/direct
"""
# 2.4 has the bootstrap's sockets before the network, and does not say which it uses.
OLD = """
gpu-a:20:289 [0] NCCL INFO NET/Socket : Using [0]ib0:10.0.0.10<0>
gpu-a:20:289 [0] NCCL INFO NET/IB : Using [0]mlx5_0:1/IB ; OOB ib0:10.0.0.10<0>
NCCL version 2.4.7+cuda10.0
gpu-a:20:289 [0] NCCL INFO Ring 00 : 3 -> 4 [send] via NET/IB/0
gpu-a:20:289 [0] NCCL INFO Channel 00 : 3 -> 4 [send] via NET/IB/0
"""


def test_what_nccl_went_over_is_read_from_its_log() -> None:
    found = network_of(OVER_IB)
    assert (found["version"], found["network"]) == ("2.19.3+cuda12.3", "IB")
    assert found["devices"]["IB"].startswith("[0]mlx5_10:1/RoCE [1]mlx5_11:1/RoCE")
    assert found["transports"] == {
        "P2P/CUMEM": 1,
        "P2P/IPC/read": 1,
        "NET/IB/GDRDMA": 2,
        "NET/IB/GDRDMA/Shared": 1,
    }
    found = network_of(OVER_SOCKETS)
    assert (found["version"], found["network"]) == ("2.28.9+cuda13.0", "Socket")
    assert found["transports"] == {"NET/Socket": 1, "SHM/direct/direct": 1}
    found = network_of(OLD)
    assert (found["network"], found["transports"]) == ("IB", {"NET/IB": 1})
    assert network_of("") == {"version": "", "network": "", "devices": {}, "transports": {}}


def test_sizes_are_whole_floats_and_end_with_the_largest() -> None:
    config = Config.from_mapping({**CONFIG, "min_bytes": 8, "max_bytes": 1000, "factor": 4, "api_key": None})
    assert config.sizes("gloo") == [8, 32, 128, 512, 1000]
    assert Config.from_mapping(CONFIG).sizes("nccl")[-1] == 256 << 20
    assert Config.from_mapping(CONFIG).sizes("gloo")[-1] == 4 << 20
    assert Config.from_mapping({**CONFIG, "max_bytes": 4}).sizes("gloo") == [8]


def test_a_wrong_configuration_ends_with_2_and_says_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.json"
    for wrong in ({**CONFIG, "gpus": 0}, {"world": 4}, {**CONFIG, "factor": 1}):
        file.write_text(json.dumps(wrong), encoding="utf-8")
        assert main([str(file)]) == 2
        assert "wrong configuration" in capsys.readouterr().err


def test_the_stage_of_a_host_is_that_of_its_slowest_rank() -> None:
    assert slowest(["done", "8 B", "first"]) == "first"
    assert slowest(["done", "128 B", "32 B"]) == "32 B"
    assert slowest(["done", "done"]) == "done"


def test_a_rank_that_cannot_begin_is_told_with_its_own_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image whose torch cannot be loaded."""
    (tmp_path / "torch.py").write_text('raise ImportError("libcudart.so.12: cannot open shared object file")\n')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    config = {**CONFIG, "limit_s": 600}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    result = run(Config.from_mapping(config), str(file))
    assert not result["ok"]
    assert [rank["rank"] for rank in result["ranks"]] == [0, 1]
    failed = next(rank for rank in result["ranks"] if rank["ended"] == "exit")
    assert failed["stage"] == "start"
    assert failed["error"].endswith("ImportError: libcudart.so.12: cannot open shared object file")
    assert json.loads(capsys.readouterr().out.splitlines()[0])["event"] == "progress"


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed; tests/sandbox runs it")
def test_two_hosts_of_two_ranks_are_measured(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    shared = {**CONFIG, "address": "127.0.0.1", "port": port, "max_bytes": 4096, "iterations": 2}
    hosts = []
    for number in (0, 1):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps({**shared, "first_rank": 2 * number}), encoding="utf-8")
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
        argv = [sys.executable, str(PROGRAM), str(file)]
        hosts.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment))
    results: list[dict[str, Any]] = [json.loads(host.communicate()[0].splitlines()[-1]) for host in hosts]
    for result in results:
        assert result["ok"], result
        for rank in result["ranks"]:
            assert [row["bytes"] for row in rank["rows"]] == [8, 32, 128, 512, 2048, 4096]
            assert all(row["seconds"] > 0 and row["wrong"] == 0 for row in rank["rows"])
