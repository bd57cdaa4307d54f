# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker Engine on a host: what is installed, what daemon.json says, what is restarted; the user's own stays."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._container_engine import arguments_of, system
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.container_engine import (
    Wanted,
    decide,
    given,
    merged,
    standard_settings,
)

STANDARD = standard_settings(log_driver="json-file", log_max_size="100m", log_max_file=5, memlock=True, more={})
PATH = "/etc/docker/daemon.json"
DEBIAN_12 = """PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
VERSION_ID="12"
VERSION_CODENAME=bookworm
ID=debian
"""
DEBIAN_13 = 'VERSION_ID="13"\nVERSION_CODENAME=trixie\nID=debian\n'
MINT = 'ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_ID="22"\nVERSION_CODENAME=wilma\nUBUNTU_CODENAME=noble\n'
UBUNTU = 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\nUBUNTU_CODENAME=noble\n'
ROCKY = 'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.5"\n'
FEDORA = "ID=fedora\nVERSION_ID=42\n"
SUSE = 'ID="opensuse-leap"\nID_LIKE="suse opensuse"\nVERSION_ID="15.6"\n'
DOCKERD = ["/usr/bin/dockerd", "-H", "fd://", "--containerd=/run/containerd/containerd.sock"]
# As nvidia-ctk 1.17 and nvidia-docker2 wrote it.
CTK = """{
    "runtimes": {
        "nvidia": {
            "args": [],
            "path": "nvidia-container-runtime"
        }
    }
}"""
OLD_CTK = '{"runtimes": {"nvidia": {"path": "/usr/bin/nvidia-container-runtime", "runtimeArgs": []}}}'


def seen(**differs: Any) -> dict[str, Any]:
    """A Debian 12 that has everything, whose Docker runs nothing."""
    programs = {
        "dockerd": "/usr/bin/dockerd",
        "nvidia-container-runtime": "/usr/bin/nvidia-container-runtime",
        "nvidia-container-runtime-hook": "/usr/bin/nvidia-container-runtime-hook",
        "ip": "/usr/sbin/ip",
    }
    whole = {
        "os": system(DEBIAN_12),
        "systemd": True,
        "programs": programs,
        "snap": False,
        "sdk": True,
        "repositories": {"docker": "", "nvidia": ""},
        "config": None,
        "config_directory": True,
        "pending": None,
        "validates": False,
        "dockerd": {"pid": 700, "process": "boot 700 1", "arguments": DOCKERD, "executable": "/usr/bin/dockerd"},
        "arguments": DOCKERD,
        "containers": [],
        "live_restore": False,
        "unanswered": "",
    }
    return {**whole, **differs}


def bare(release: str, **differs: Any) -> dict[str, Any]:
    """A host with nothing of Docker."""
    nothing = dict.fromkeys(seen()["programs"], "")
    found = seen(os=system(release), programs=nothing, sdk=False, dockerd=None, arguments=[], config_directory=False)
    return {**found, **differs}


def running(*names: str, deployment: str = "") -> list[dict[str, str]]:
    return [{"name": name, "deployment": deployment} for name in names]


# ---- packages


@pytest.mark.parametrize(
    ("release", "source", "packages", "repositories"),
    [
        (DEBIAN_12, "distribution", ["docker.io", "python3-docker", "iproute2"], ["nvidia"]),
        (DEBIAN_13, "distribution", ["docker.io", "docker-cli", "python3-docker", "iproute2"], ["nvidia"]),
        (UBUNTU, "distribution", ["docker.io", "python3-docker", "iproute2"], ["nvidia"]),
        (FEDORA, "distribution", ["moby-engine", "python3-docker", "iproute"], ["nvidia"]),
        (
            ROCKY,
            "docker",
            ["docker-ce", "docker-ce-cli", "containerd.io", "python3-docker", "iproute"],
            ["docker", "nvidia"],
        ),
    ],
)
def test_a_bare_host_gets_what_its_system_has(
    release: str, source: str, packages: list[str], repositories: list[str]
) -> None:
    install = decide(bare(release), Wanted(STANDARD, source=source)).install
    assert (list(install.packages), list(install.repositories)) == (packages, repositories)
    assert install.toolkit == ("nvidia-container-toolkit",)
    assert install.faults == ()


def test_a_repository_that_the_host_has_is_not_named_twice() -> None:
    had = bare(ROCKY, repositories={"docker": "/etc/yum.repos.d/docker-ce.repo", "nvidia": "/etc/yum.repos.d/n.repo"})
    assert decide(had, Wanted(STANDARD, source="docker")).install.repositories == ()


@pytest.mark.parametrize(
    ("release", "words"),
    [(ROCKY, ["rocky 9.5", "container_engine_source: docker"]), (SUSE, ["opensuse-leap 15.6", "by hand"])],
)
def test_a_system_without_docker_among_its_packages_is_told(release: str, words: list[str]) -> None:
    faults = decide(bare(release), Wanted(STANDARD)).faults
    assert len(faults) == 1
    assert all(word in faults[0] for word in words)


def test_packages_of_ones_own_need_no_distribution_that_has_them() -> None:
    decision = decide(bare(ROCKY), Wanted(STANDARD, packages=("docker-ee",)))
    assert decision.faults == []
    assert decision.install.packages[0] == "docker-ee"


def test_a_docker_of_any_source_stays() -> None:
    install = decide(seen(os=system(SUSE)), Wanted(STANDARD, source="docker")).install
    assert (install.packages, install.toolkit, install.repositories, install.faults) == ((), (), (), ())


def test_the_snap_is_told() -> None:
    snap = seen(dockerd={**seen()["dockerd"], "executable": "/snap/docker/2932/bin/dockerd"})
    assert "snap remove docker" in decide(snap, Wanted(STANDARD)).faults[0]
    assert "snap remove docker" in decide(bare(UBUNTU, snap=True), Wanted(STANDARD)).faults[0]


def test_systems_are_read() -> None:
    assert system(MINT)["codename"] == "noble"
    assert system(DEBIAN_12)["codename"] == "bookworm"
    assert system(ROCKY)["like"] == ["rhel", "centos", "fedora"]
    assert system("") == {**system(""), "id": "", "like": [], "version": "", "codename": ""}


# ---- daemon.json


def test_a_new_file_has_what_is_wanted() -> None:
    decision = decide(bare(DEBIAN_12), Wanted(STANDARD))
    assert json.loads(decision.settings.content) == {
        "log-driver": "json-file",
        "log-opts": {"max-size": "100m", "max-file": "5"},
        "default-ulimits": {"memlock": {"Name": "memlock", "Hard": -1, "Soft": -1}},
        "runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}},
    }
    assert decision.settings.changed == (
        "log-driver",
        "log-opts.max-size",
        "log-opts.max-file",
        "default-ulimits.memlock",
        "runtimes.nvidia",
    )


@pytest.mark.parametrize("text", [None, "", "  \n", "{}", CTK, OLD_CTK, '\ufeff{"debug": false}', '{"log-opts": null}'])
def test_what_was_written_is_not_written_again(text: str | None) -> None:
    first = decide(seen(config=text), Wanted(STANDARD)).settings
    assert first.faults == ()
    assert first.changed
    again = decide(seen(config=first.content), Wanted(STANDARD)).settings
    assert (again.changed, again.content) == ((), first.content)


def test_what_is_the_users_stays_as_it_is_written() -> None:
    lines = [
        '"data-root": "/raid"',
        '"live-restore": true',
        '"runtimes": {"kata": {"path": "/usr/bin/kata"}}',
        '"name": "ü"',
    ]
    text = "{\n\t" + ",\n\t".join(lines) + "\n}"
    there = merged(text, STANDARD, (), DOCKERD, PATH)
    result = json.loads(there.content)
    assert list(result)[:4] == ["data-root", "live-restore", "runtimes", "name"]
    assert result["runtimes"] == {"kata": {"path": "/usr/bin/kata"}}
    assert '\n\t"data-root"' in there.content
    assert '"ü"' in there.content


@pytest.mark.parametrize(
    "text",
    [
        CTK,
        OLD_CTK,
        '{"default-ulimits": {"memlock": {"hard": -1, "soft": -1}}}',
        '{"default-ulimits": {"memlock": {"Name": "memlock", "Hard": -1, "Soft": -1}, "nofile": {"Hard": 65536, "Soft": 65536}}}',
        '{"log-driver": "json-file", "log-opts": {"max-size": "100m", "labels": "team"}}',
    ],
)
def test_the_same_in_other_words_contradicts_nothing(text: str) -> None:
    decision = decide(seen(config=text), Wanted(STANDARD))
    assert decision.faults == []
    there = json.loads(text)
    after = json.loads(decision.settings.content)
    for key in ("runtimes", "default-ulimits"):
        for name, value in there.get(key, {}).items():
            assert after[key][name] == value


CONTRADICTIONS = [
    ('{"log-driver": "journald"}', "log-driver", "container_engine_log_driver"),
    ('{"log-opts": {"max-size": "10m"}}', "log-opts.max-size", "container_engine_log_max_size"),
    ('{"log-opts": {"max-file": 5}}', "log-opts.max-file", "container_engine_log_max_file"),
    (
        '{"default-ulimits": {"memlock": {"Hard": 65536, "Soft": 65536}}}',
        "default-ulimits.memlock",
        "container_engine_memlock",
    ),
    (
        '{"runtimes": {"nvidia": {"path": "/opt/mine/runtime"}}}',
        "runtimes.nvidia",
        "container_engine_toolkit",
    ),
]


@pytest.mark.parametrize(("text", "key", "variable"), CONTRADICTIONS)
def test_a_setting_that_says_otherwise_is_told_and_left(text: str, key: str, variable: str) -> None:
    decision = decide(seen(config=text), Wanted(STANDARD))
    (fault,) = decision.faults
    assert f"{PATH} has {key}:" in fault
    assert variable in fault
    assert f"container_engine_overwrite: [{key}]" in fault
    assert decision.settings.content == text
    assert decision.settings.changed == ()


@pytest.mark.parametrize(("text", "key"), [each[:2] for each in CONTRADICTIONS])
@pytest.mark.parametrize("above", [True, False])
def test_it_is_overwritten_where_the_user_says_so(text: str, key: str, above: bool) -> None:
    named = key.partition(".")[0] if above else key
    decision = decide(seen(config=text), Wanted(STANDARD, overwrite=(named,)))
    assert decision.faults == []
    assert any(each.startswith(key) for each in decision.settings.changed)
    again = decide(seen(config=decision.settings.content), Wanted(STANDARD, overwrite=(named,)))
    assert again.settings.changed == ()


def test_options_of_another_log_driver_are_told() -> None:
    text = '{"log-driver": "fluentd", "log-opts": {"fluentd-address": "10.0.0.9:24224", "tag": "x"}}'
    (fault,) = decide(seen(config=text), Wanted(STANDARD, overwrite=("log-driver",))).faults
    assert "log-opts.fluentd-address" in fault
    both = decide(seen(config=text), Wanted(STANDARD, overwrite=("log-driver", "log-opts")))
    assert both.faults == []
    assert json.loads(both.settings.content)["log-opts"] == {"max-size": "100m", "max-file": "5"}


@pytest.mark.parametrize("text", ["{", "[]", '{"debug": true,}', "# none\n", '"x"'])
def test_a_file_that_docker_could_not_read_is_told(text: str) -> None:
    decision = decide(seen(config=text), Wanted(STANDARD))
    assert len(decision.faults) == 1
    assert PATH in decision.faults[0]
    assert decision.settings.content == text


def test_lists_get_what_they_lack() -> None:
    more = {"registry-mirrors": ["https://mirror.example.com"], "debug": True}
    wanted = standard_settings(log_driver="", log_max_size="1m", log_max_file=1, memlock=False, more=more)
    assert wanted == more
    there = merged('{"registry-mirrors": ["https://a.example.com"]}', wanted, (), [], PATH)
    assert json.loads(there.content)["registry-mirrors"] == ["https://a.example.com", "https://mirror.example.com"]
    assert merged(there.content, wanted, (), [], PATH).changed == ()


# ---- dockerd's command line


def test_flags_are_read_as_keys() -> None:
    words = (
        "dockerd -H fd:// --log-opt max-size=1g --log-opt=max-file=3 -D --add-runtime a=/b --live-restore --mtu 1400"
    )
    assert given(words.split()) == {
        "hosts": ["fd://"],
        "log-opts": ["max-size=1g", "max-file=3"],
        "debug": ["true"],
        "runtimes": ["a=/b"],
        "live-restore": ["true"],
        "mtu": ["1400"],
    }
    assert given([]) == {}


def test_a_setting_on_the_command_line_is_not_written_too() -> None:
    # Docker would not start: "the following directives are specified both as a flag and in the configuration file".
    told = [*DOCKERD, "--log-driver=json-file", "--log-opt", "max-size=100m", "--log-opt", "max-file=5"]
    more = [*told, "--default-ulimit", "memlock=-1:-1", "--add-runtime", "nvidia=/usr/bin/nvidia-container-runtime"]
    decision = decide(seen(arguments=more), Wanted(STANDARD))
    assert decision.faults == []
    assert decision.settings.changed == ()
    (fault,) = decide(seen(arguments=[*DOCKERD, "--log-driver=journald"]), Wanted(STANDARD)).faults
    assert "dockerd is started with log-driver on its command line (journald)" in fault
    assert "container_engine_log_driver" in fault


def test_another_configuration_file_is_told() -> None:
    (fault,) = decide(seen(arguments=[*DOCKERD, "--config-file", "/etc/docker/other.json"]), Wanted(STANDARD)).faults
    assert "container_engine_config" in fault


def test_systemds_command_line_is_read() -> None:
    shown = (
        "ExecStart={ path=/usr/bin/dockerd ; argv[]=/usr/bin/dockerd -H fd:// --log-driver=journald $DOCKER_OPTS ; "
        "ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }\n"
    )
    assert given(arguments_of(shown))["log-driver"] == ["journald"]
    assert arguments_of("ExecStart=\n") == []


# ---- how it takes effect


def test_an_idle_docker_is_restarted_for_what_it_reads_at_its_start_only() -> None:
    apply = decide(seen(), Wanted(STANDARD)).apply
    assert apply.restart
    assert apply.later == ()


def test_what_can_be_reloaded_is() -> None:
    whole = decide(seen(), Wanted(STANDARD)).settings.content
    more = {**STANDARD, "insecure-registries": ["10.0.0.0/24"], "max-concurrent-downloads": 6}
    apply = decide(seen(config=whole, containers=running("web")), Wanted(more)).apply
    assert (apply.reload, apply.restart, apply.later) == (True, False, ())


def test_containers_of_others_are_never_stopped_unasked() -> None:
    apply = decide(seen(containers=running("web", "db")), Wanted(STANDARD)).apply
    assert not apply.restart
    assert apply.reload  # the runtime takes effect
    assert set(apply.later) == {
        "log-driver",
        "log-opts.max-size",
        "log-opts.max-file",
        "default-ulimits.memlock",
    }
    assert "db, web (not of this collection), which it would stop" in apply.told
    assert "systemctl restart docker, or run again with -e container_engine_restart=true" in apply.told


def test_a_deployment_is_not_stopped_unasked_either() -> None:
    mixed = [*running("lmdeploy-api", "lmdeploy-ray", deployment="lmdeploy"), *running("web")]
    apply = decide(seen(containers=mixed, live_restore=True), Wanted(STANDARD)).apply
    assert not apply.restart
    assert "web (not of this collection); lmdeploy-api, lmdeploy-ray (deployment lmdeploy)" in apply.told
    assert "live-restore is on" in apply.told


def test_the_user_may_have_it_restarted() -> None:
    apply = decide(seen(containers=running("web")), Wanted(STANDARD, restart=True)).apply
    assert apply.restart
    assert apply.told.startswith("Docker is restarted for ")
    assert "It stops what runs: web (not of this collection)." in apply.told
    checked = decide(seen(containers=running("web")), Wanted(STANDARD, restart=True), check=True).apply
    assert checked.restart
    assert checked.told.startswith("Docker would be restarted for ")
    assert checked.told.endswith("It would stop what runs: web (not of this collection).")


def test_a_docker_that_does_not_answer_is_not_restarted() -> None:
    apply = decide(seen(containers=None, unanswered="timed out"), Wanted(STANDARD)).apply
    assert not apply.restart
    assert "timed out" in apply.told


def test_a_stopped_docker_reads_all_when_it_is_started() -> None:
    stopped = decide(seen(dockerd=None), Wanted(STANDARD)).apply
    assert (stopped.reload, stopped.restart, stopped.later) == (False, False, ())


def test_a_hook_that_came_under_a_running_docker_takes_a_restart() -> None:
    whole = decide(seen(), Wanted(STANDARD)).settings.content
    done = seen(config=whole, containers=running("web"))
    assert decide(done, Wanted(STANDARD)).apply.later == ()
    (reason,) = decide(done, Wanted(STANDARD), toolkit_came=True).apply.later
    assert "nvidia-container-runtime-hook" in reason


def test_what_waits_is_said_again_until_docker_was_restarted() -> None:
    whole = decide(seen(), Wanted(STANDARD)).settings.content
    pending = {"process": "boot 700 1", "reasons": ["log-driver"]}
    again = decide(seen(config=whole, containers=running("web"), pending=pending), Wanted(STANDARD))
    assert again.settings.changed == ()
    assert again.apply.later == ("log-driver",)
    assert decide(seen(config=whole, pending=pending), Wanted(STANDARD)).apply.restart  # nothing runs any more
    other = {"pid": 900, "process": "boot 900 7", "arguments": DOCKERD, "executable": "/usr/bin/dockerd"}
    after = decide(seen(config=whole, containers=running("web"), pending=pending, dockerd=other), Wanted(STANDARD))
    assert (after.apply.later, after.apply.restart) == ((), False)
