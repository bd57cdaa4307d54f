# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets that can be recognized are planted wherever the collection takes one, and then looked for wherever one may have gone.

Through the whole of each run every host writes down its command lines and what Docker says of its containers, many times a second.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from sandbox.hosts import PRIVATE_REGISTRY, REGISTRY_PASSWORD, Run, Sandbox
from sandbox.test_logs import logs

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.gateway.certificate import self_signed

pytestmark = pytest.mark.slow
STATE = "/var/lib/lmfleet"
TOKEN_FILE = f"{STATE}/lmdeploy/secrets/ray_token"
LOGIN_FILE = f"{STATE}/docker/config.json"
# What may hold one, with its mode and owner, and that of its directory.
SECRET_FILES = {TOKEN_FILE: "600 root", LOGIN_FILE: "600 root"}
CERTIFICATE_FILE = f"{STATE}/lmdeploy/gateway/files/certificate.pem"  # on the head, and root's alone
CERTIFICATE = self_signed("test", "10.77.0.11")
GATEWAY_KEY = "planted-gateway-key-" + "0123456789abcdef" * 2
RAY_TOKEN = "planted-ray-token-" + "0123456789abcdef" * 2
NEW_RAY_TOKEN = "rotated-ray-token-" + "fedcba9876543210" * 2
PLANTED = {
    "ray": RAY_TOKEN,
    "registry": REGISTRY_PASSWORD,
    "hub": "hf_plantedHubToken0123456789",
    "proxy": "planted-proxy-password",
    "gateway": GATEWAY_KEY,
    "certificate": CERTIFICATE.partition("PRIVATE KEY-----\n")[2].splitlines()[0],
    "benchmark": "planted-benchmark-key",
    "warmup": "planted-warmup-key",
    "host proxy": "planted-password-of-the-hosts-proxy",
    "host login": "planted-password-of-the-hosts-own-login",
}
WATCHED, MARK = "/run/lmfleet-secrets-seen", "/run/lmfleet-secrets-began"
WATCH = f"""
import os, pathlib, subprocess, time
pathlib.Path({WATCHED + ".pid"!r}).write_text(str(os.getpid()))
seen = set()
def note(text):
    if text not in seen:
        seen.add(text)
        out.write(text + "\\n")
with open({WATCHED!r}, "w", buffering=1, errors="replace") as out:
    for turn in range(10**9):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                note(open(f"/proc/{{pid}}/cmdline", errors="replace").read().replace("\\0", " "))
            except OSError:
                pass
        if turn % 10 == 0:
            ids = subprocess.run(["docker", "ps", "--all", "--quiet"], capture_output=True, text=True).stdout.split()
            shown = subprocess.run(["docker", "inspect", *ids], capture_output=True, text=True).stdout if ids else ""
            for line in shown.splitlines():
                note(line)
        time.sleep(0.2)
"""
# Which files that are newer than the beginning hold any of the arguments. The planted ones are exempt, and so are devices.
SEARCH = f"""
import os, stat, sys
needles = [each.encode() for each in sys.argv[1:]]
began = os.stat({MARK!r}).st_mtime
roots = ["/etc", "/home", "/opt", "/root", "/run", "/srv", "/tmp", "/usr/local", "/var"]
for folder, folders, files in (each for root in roots for each in os.walk(root)):
    if folder.startswith(("/var/lib/docker/overlay2", "/srv/huggingface")) and folder.endswith(("/merged", "/blobs")):
        folders[:] = []
        continue
    for name in files:
        path = os.path.join(folder, name)
        try:
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode) and max(found.st_mtime, found.st_ctime) >= began and found.st_size < 1 << 28:
                data = open(path, "rb").read()
                if any(needle in data for needle in needles):
                    print(path)
        except OSError:
            pass
"""
HOST_PROXY = f"https_proxy=http://anna:{PLANTED['host proxy']}@proxy.example.com:3128"
HOST_FILES = ("/etc/environment", "/root/.docker/config.json")


def forms(secret: str) -> list[str]:
    """A secret as it may stand somewhere: as it is, in a URL, in base64, as a part of a login in base64."""
    logins = [base64.b64encode(f"{user}:{secret}".encode()).decode() for user in ("operator", "anna")]
    return [secret, urllib.parse.quote(secret), base64.b64encode(secret.encode()).decode().rstrip("="), *logins]


def assert_none(text: str, where: str, *more: str) -> None:
    """No secret, old or new, is in a text."""
    for name, secret in {**PLANTED, "new ray": NEW_RAY_TOKEN, **dict.fromkeys(more)}.items():
        for form in forms(secret or name):
            at = text.find(form)
            assert at < 0, f"the secret {name} is in {where}: ...{text[max(0, at - 300) : at]}<HERE>"


@dataclasses.dataclass
class Planted:
    """A sandbox whose hosts and runs have secrets; ``file`` has the variables, which no command line then has."""

    sandbox: Sandbox
    file: Path
    image: str

    def write(self, **changed: object) -> None:
        variables = {
            "plan_image": self.image,
            "image_pull": "always",
            "image_registry": PRIVATE_REGISTRY,
            "image_registry_username": "operator",
            "image_registry_password": PLANTED["registry"],
            "ray_token_value": PLANTED["ray"],
            "plan_gateway": True,
            "plan_gateway_keys": {"chat": GATEWAY_KEY},
            "plan_gateway_certificate": CERTIFICATE,
            "model_hub_token": PLANTED["hub"],
            # The registry is no hub and no proxy, and says so at once.
            "model_hub_endpoint": "http://hub.example.com",
            "model_hub_environment": {"http_proxy": f"http://anna:{PLANTED['proxy']}@10.77.0.2:5000"},
            "benchmark_api_key": PLANTED["benchmark"],
            "warmup_api_key": PLANTED["warmup"],
            **changed,
        }
        self.file.touch(mode=0o600)
        self.file.write_text(yaml.safe_dump(variables), encoding="utf-8")

    def run(self, playbook: str, *arguments: str) -> Run:
        done = self.sandbox.playbook(playbook, "-vvv", "--diff", "-e", f"@{self.file}", *arguments)
        assert_none(done.output, f"what {playbook} printed")
        return done


@contextlib.contextmanager
def watched(sandbox: Sandbox) -> Iterator[None]:
    """Have the hosts write down what is seen on them; afterwards nothing of it is a secret."""
    for node in sandbox.nodes:
        sandbox.on(node, "sh", "-c", f"rm -f {WATCHED}; touch {MARK}")
        sandbox.outer("exec", "--detach", f"lmfleet-sandbox-node{node}", "python3", "-c", WATCH)
    try:
        yield
    finally:
        for node in sandbox.nodes:
            sandbox.on(node, "sh", "-c", f"kill $(cat {WATCHED}.pid)")
    for node in sandbox.nodes:
        seen = sandbox.on(node, "cat", WATCHED)
        assert "lmdeploy" in seen
        assert_none(seen, f"the command lines or docker inspect of node{node}")


@pytest.fixture
def planted(sandbox: Sandbox, private_registry: str, tmp_path: Path) -> Iterator[Planted]:
    found = Planted(sandbox, tmp_path / "secrets.yml", private_registry)
    found.write()
    login = base64.b64encode(f"anna:{PLANTED['host login']}".encode()).decode()
    auths = json.dumps({"auths": {"other.example.com": {"auth": login}}})
    for node in sandbox.nodes:
        sandbox.on(
            node,
            "sh",
            "-c",
            f"cp -p /etc/environment /etc/environment.kept 2>/dev/null; echo '{HOST_PROXY}' >> /etc/environment",
        )
        sandbox.on(node, "sh", "-c", f"mkdir -p /root/.docker && echo '{auths}' > /root/.docker/config.json")
    try:
        yield found
    finally:
        for node in sandbox.nodes:
            sandbox.on(
                node,
                "sh",
                "-c",
                "rm -rf /root/.docker /etc/environment; mv /etc/environment.kept /etc/environment 2>/dev/null || true",
            )


def assert_kept_well(sandbox: Sandbox, node: int, token: str) -> None:
    """The secret files are as they should be, and no other file of the host has any of it."""
    for path, wanted in SECRET_FILES.items():
        assert sandbox.on(node, "stat", "--format", "%a %U", path).strip() == wanted, path
        assert sandbox.on(node, "stat", "--format", "%a %U", str(Path(path).parent)).strip() == "700 root", path
    assert sandbox.on(node, "cat", TOKEN_FILE).strip() == token
    needles = [form for secret in (*PLANTED.values(), NEW_RAY_TOKEN) for form in forms(secret)]
    found = sandbox.on(node, "python3", "-c", SEARCH, *needles, limit_s=600).split()
    assert [path for path in found if path not in (*SECRET_FILES, CERTIFICATE_FILE, *HOST_FILES)] == []
    assert node == 0 or CERTIFICATE_FILE not in found
    if node == 0:
        assert sandbox.on(node, "stat", "--format", "%a %U", CERTIFICATE_FILE).strip() == "600 root"
    left = sandbox.on(
        node,
        "sh",
        "-c",
        "find /root/.ansible/tmp /tmp /var/tmp -name 'ansible*' -newer " + MARK + " 2>/dev/null || true",
    )
    assert left.split() == []


def assert_containers_say_nothing(sandbox: Sandbox, node: int) -> None:
    for name in sandbox.on(node, "docker", "ps", "--all", "--format", "{{.Names}}").split():
        assert_none(sandbox.on(node, "sh", "-c", f"docker logs {name} 2>&1"), f"the log of {name} on node{node}")
        assert_none(sandbox.on(node, "docker", "inspect", name), f"docker inspect of {name} on node{node}")


def test_no_secret_is_in_any_output_or_on_any_host_but_in_its_own_file(planted: Planted, tmp_path: Path) -> None:
    sandbox = planted.sandbox
    with watched(sandbox):
        planted.run("deploy_tp16.yml", "--check")
        planted.run("deploy_tp16.yml").succeeded()
        assert set(planted.run("deploy_tp16.yml").succeeded().changed.values()) == {0}
        # Its containers have token and proxy; there is no hub, so what it fails with is part of the test.
        failed = planted.run("playbooks/model.yml", "-e", '{"model_source": "hub", "model_verify": true}')
        failed.failed_with("hub.example.com")
    for node in sandbox.nodes:
        assert_kept_well(sandbox, node, RAY_TOKEN)
        assert_containers_say_nothing(sandbox, node)

    status, report = tmp_path / "status.json", tmp_path / "preflight"
    planted.run("playbooks/status.yml", "-e", f"status_file={status}").succeeded()
    planted.run("playbooks/preflight.yml", "-e", f"preflight_report={report}")
    planted.run("playbooks/plan.yml", "-e", "plan_show=json", "-e", f"plan_file={tmp_path / 'plan.json'}").succeeded()
    planted.run("playbooks/closure.yml", "-e", f"closure_file={tmp_path / 'closure.json'}")
    for file in (
        status,
        report / "preflight.json",
        report / "preflight.html",
        tmp_path / "plan.json",
        tmp_path / "closure.json",
    ):
        assert_none(file.read_text(encoding="utf-8"), file.name)
    variables = yaml.safe_load(planted.file.read_text(encoding="utf-8"))
    __, files, raw = logs(sandbox, tmp_path / "logs", **variables)
    assert_none(raw.decode("utf-8", "replace"), "the archive of logs")
    assert any("environment" in name or "inspect" in name for name in files)
    for file in (Path.home() / ".ansible" / "tmp").rglob("*"):
        with contextlib.suppress(OSError):  # a directory, or another run's that has ended meanwhile
            assert_none(file.read_text(encoding="utf-8", errors="replace"), str(file))


def test_keys_on_command_lines_are_refused_without_being_shown(planted: Planted) -> None:
    key = "planted-key-of-the-api-server"
    for variable in ("plan_api_server_options", "plan_proxy_options"):
        planted.write(plan_proxy=True, **{variable: {"api_keys": [key]}})
        done = planted.run("deploy_tp16.yml")
        done.failed_with("api_keys", "command line")
        assert_none(done.output, "the refusal", key)
    planted.write(plan_environment={"HF_TOKEN": key})
    done = planted.run("deploy_tp16.yml")
    done.failed_with("HF_TOKEN", "looks like a secret")
    assert_none(done.output, "the refusal", key)


def test_a_rotated_secret_reaches_the_engine_by_a_run_and_the_old_one_is_gone(planted: Planted) -> None:
    sandbox = planted.sandbox
    planted.run("deploy_tp16.yml").succeeded()
    before = sandbox.containers()
    planted.write(ray_token_value=NEW_RAY_TOKEN)
    with watched(sandbox):
        run = planted.run("deploy_tp16.yml").succeeded()
    assert "ray_token changed" in run.text
    after = sandbox.containers()
    assert {name for name in before if after[name] == before[name]} == {"node0/lmdeploy-gateway"}
    for node in sandbox.nodes:
        assert (
            sandbox.on(node, "docker", "exec", "lmdeploy-ray", "cat", "/run/lmfleet/secrets/ray_token").strip()
            == NEW_RAY_TOKEN
        )
        assert_kept_well(sandbox, node, NEW_RAY_TOKEN)
        assert_containers_say_nothing(sandbox, node)
    assert sandbox.chat()["usage"]["completion_tokens"] > 0
    assert set(planted.run("deploy_tp16.yml").succeeded().changed.values()) == {0}
    assert sandbox.containers() == after
