# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``plan_environment`` and ``plan_proxy_environment`` may hold: no secrets, and nothing that says otherwise than the plan."""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Collection, Mapping
from typing import Any

from .types import HF_CACHE, some
from .values import WrongValue, as_text, shown

VARIABLE = "plan_environment"
PROXY_VARIABLE = "plan_proxy_environment"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# The plan's own variables ----------------------------------------------------------------------------------------------

GPUS = "the plan counts GPUs from 0, and gives its services the first plan_gpus of each node: take it out, and set plan_gpus"
SIZES = "the plan counts ranks and gives each its place: take it out, and set plan_tp, plan_dp, plan_ep or plan_gpus"
MEETING = "the ranks meet at the head: take it out, and set plan_head or its plan_cluster_address"
CACHE = (
    "no directory of the host is mounted there, and plan_hf_home is at /root/.cache/huggingface: take it out, and set "
    "plan_hf_home to the cache on the host, or mount the directory with plan_extra_mounts"
)
OFFLINE = "every host is proven to have the model, and nothing is downloaded while serving: take it out"
OWN_AUTH = "Ray's token is planned: take it out, and give one with ray_token_value in a vault where you want your own"
OWN_RAY = "every engine has a Ray of its own: take it out; the port is plan_ports.ray"
RAY_GPUS = "Ray counts the GPUs of plan_gpus, and gives each of its workers one of them: take it out, and set plan_gpus"
RAY_SETS = "Ray sets it itself, for each of its own processes: take it out"
RAY_JOBS = "it would change what Ray starts, and the plan would not show it: take it out, and set plan_environment"
FAMILY = "the nodes reach each other by IPv4, at their plan_cluster_address: take it out"
LAUNCHER = "the launcher is given its arguments by the plan: take it out, and set plan_launcher, plan_dp or plan_ports"

REASONS = {
    **dict.fromkeys(
        (
            *("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
            *("GPU_DEVICE_ORDINAL", "ASCEND_RT_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"),
        ),
        GPUS,
    ),
    **dict.fromkeys(
        (
            *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "NODE_RANK"),
            *("ROLE_RANK", "ROLE_WORLD_SIZE", "NNODES", "NPROC_PER_NODE"),
        ),
        SIZES,
    ),
    **dict.fromkeys(
        ("MASTER_ADDR", "LMDEPLOY_DIST_MASTER_ADDR", "LMDEPLOY_DIST_INIT_ADDR", "LMDEPLOY_DP_MASTER_ADDR"), MEETING
    ),
    **dict.fromkeys(
        ("MASTER_PORT", "LMDEPLOY_DIST_MASTER_PORT", "LMDEPLOY_DIST_INIT_PORT"),
        "the port is planned: take it out, and set plan_ports.torch",
    ),
    "LMDEPLOY_DP_MASTER_PORT": "the port is planned: take it out, and set plan_ports.dp_master",
    "LMDEPLOY_EXECUTOR_BACKEND": "the topology says what runs the ranks: take it out, and set plan_topology",
    **dict.fromkeys(
        ("LMDEPLOY_USE_MODELSCOPE", "LMDEPLOY_USE_OPENMIND_HUB"),
        "the model is read from the Hugging Face cache of the host: take it out",
    ),
    # Read in Ray 2.46 and 2.60. Its time-outs, its memory monitor and its logs are the user's own.
    "RAY_ADDRESS": OWN_RAY,
    "RAY_REDIS_ADDRESS": "Ray would keep its state in that Redis, and find there what another start has left: take it out",
    "RAY_CLIENT_MODE": "the engine is a part of its Ray, and no client from outside: take it out",
    "RAY_TMPDIR": "Ray's directory is planned, under plan_state_dir: take it out",
    # Without ports for workers of their own, and those are planned.
    "RAY_USE_RANDOM_PORTS": "Ray's ports are planned: take it out, and set plan_ports",
    **dict.fromkeys(("RAY_OVERRIDE_RESOURCES", "LMDEPLOY_RAY_EXTERNAL_PG_BUNDLES"), RAY_GPUS),
    **dict.fromkeys(("RAY_FAKE_CLUSTER", "RAY_OVERRIDE_NODE_ID_FOR_TESTING", "RAY_JOB_ID", "RAY_RAYLET_PID"), RAY_SETS),
    **dict.fromkeys(
        ("RAY_RUNTIME_ENV", "RAY_RUNTIME_ENV_HOOK", "RAY_START_HOOK", "RAY_JOB_CONFIG_JSON_ENV_VAR"), RAY_JOBS
    ),
    # Ray 2.46 takes any text for yes, "0" too. Then all workers of a host would be on its first GPU.
    "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": RAY_GPUS,
    "RAY_ENABLE_K8S_TOKEN_AUTH": OWN_AUTH,
    "NCCL_COMM_ID": MEETING,
}
# The launcher's: torchrun takes each of its arguments from PET_<argument> as well.
PREFIXES = {"PET_": LAUNCHER, "TORCHELASTIC_": LAUNCHER, "RAY_AUTH_": OWN_AUTH}
# What these may say: the same as the plan.
SAME = {
    "HF_HUB_OFFLINE": ({"1", "ON", "YES", "TRUE"}, OFFLINE),
    "NVIDIA_VISIBLE_DEVICES": ({"ALL"}, GPUS),
    "HOME": ({"/root"}, "the caches are mounted under /root: take it out"),
    **dict.fromkeys(("NCCL_SOCKET_FAMILY", "NVSHMEM_BOOTSTRAP_UID_SOCK_FAMILY"), ({"AF_INET"}, FAMILY)),
}

# What they may name: NCCL and NVSHMEM take lists and beginnings of names, with "=" and "^"; Gloo and TensorPipe know neither sign.
INTERFACES = frozenset(
    {"GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "NVSHMEM_BOOTSTRAP_UID_SOCK_IFNAME"}
)
WHOLE_NAMES = frozenset({"GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME"})
CAPABILITIES = {"compute", "utility"}  # CUDA, and NVML, which NCCL reads
LONGEST = 131_000  # bytes of NAME=value: Linux starts no program with a longer one

# Directories that have to be mounted, or the engine would find, and would keep, nothing there.
CACHES = frozenset(
    {
        *("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "PYTORCH_TRANSFORMERS_CACHE"),
        *("PYTORCH_PRETRAINED_BERT_CACHE", "XDG_CACHE_HOME"),
    }
)

# Files that no image has: certificates of Ray, what Mooncake is to do.
FILES = frozenset({"RAY_TLS_CA_CERT", "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "MOONCAKE_CONFIG_PATH"})

# Web proxies -----------------------------------------------------------------------------------------------------------

# Those that stand before http://; requests, with which LMDeploy registers its ranks and asks for their health, reads them.
WEB_PROXIES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
DIRECT = ("NO_PROXY", "no_proxy")

# Secrets ---------------------------------------------------------------------------------------------------------------

REFUSED = (
    "{variable} has {name}, which looks like a secret and would be readable in plans, diffs and docker inspect: "
    "take it out, put it into a file on the host, mount that with plan_extra_mounts, and name the file in the "
    "variable that the program has for it, such as {name}_PATH or {name}_FILE."
)
SECRET_NAME = re.compile(
    r"(PASSWORD|PASSWD|PASSPHRASE|SECRET|CREDENTIALS?|APIKEY)S?(_?\d+)?$"
    r"|(^|_)(TOKEN|PASS|PAT|AUTH|(API|ACCESS|SECRET|PRIVATE|AUTH|ENCRYPTION|SIGNING|MASTER|ACCOUNT|STORAGE|ADMIN|LICENSE)_?KEYS?)"
    r"(_?\d+)?$"
    r"|_PWD$|^DOCKER_AUTH_CONFIG$",
    re.IGNORECASE,
)
# A key of some kind, where its value looks like one.
KEY_NAME = re.compile(r"(?<!GPG)_KEY$", re.IGNORECASE)
KEY_VALUE = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[\w+/=-]{16,}")
# What a secret looks like, whatever holds it: the prefixes that their issuers gave them, keys, and addresses with a password.
SECRET_VALUE = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|sk-[\w-]{16,}|gh[oprsu]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|nvapi-[\w-]{20,}"
    r"|xox[abeprs]-[\w-]{10,}|A[KS]IA[A-Z0-9]{16}|eyJ[\w-]{8,2000}\.eyJ[\w-]{8,}\.)"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\bBearer [\w.~+/-]{16,}"
    r"|(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,30}://[^\s:/@]*:[^\s/@]+@"
    r"|\b(password|passwd|pwd|accountkey|sharedaccesskey)\s*=\s*[^\s;]+",
    re.IGNORECASE,
)
LOGIN = re.compile(r"://[^\s/]*@")  # in an address
# Settings of which the name alone looks like a secret's: switches, numbers, marks such as </s>, names of files.
NO_SECRET = re.compile(
    r"|true|false|yes|no|on|off|none|null|\d{1,6}|<.*>|\[.*\]|\.{0,2}(/[\w.@-]+){2,}/?", re.IGNORECASE
)
# Of these a number is one.
PASSWORD_NAME = re.compile(r"(PASSWORD|PASSWD|PASSPHRASE|PASS|PWD|SECRET)\w{0,3}$", re.IGNORECASE)


def environment_of(
    given: Mapping[str, Any], variable: str = VARIABLE, mounted: Collection[str] = (), *, alone: bool = False
) -> tuple[dict[str, str], list[str]]:
    """The variables of an environment as text, and the faults of those that are left out of it.

    ``mounted`` are the directories of the containers that are the host's, beside the cache; ``alone``: there is one node.
    """
    accepted, faults = {}, []
    for name, value in given.items():
        fault = _fault_of(name, value, variable, {HF_CACHE, *mounted}, alone=alone)
        if fault:
            faults.append(fault)
        else:
            accepted[name] = as_text(value, name)
    return accepted, faults


def _fault_of(name: str, value: Any, variable: str, mounted: Collection[str], *, alone: bool) -> str | None:
    if not NAME.fullmatch(name):
        return f"{variable} has {shown(name)}, which is no name of an environment variable."
    try:
        text = as_text(value, f"{variable}.{name}")
    except WrongValue as wrong:
        # The message shows the value.
        return (
            REFUSED.format(variable=variable, name=name)
            if SECRET_NAME.search(name) and not isinstance(value, bool)
            else str(wrong)
        )
    if any(not character.isprintable() and character not in "\n\t" for character in text):
        return f"{variable}.{name} has a character in it that nobody can see: write it again."
    if len(name) + len(text.encode("utf-8", "surrogateescape")) > LONGEST:
        return f"{variable}.{name} has {len(text)} characters, and no program can be started with so much: put it into a file."
    if is_secret(name, text):
        if LOGIN.search(text):
            return (
                f"{variable} has {name}, which looks like a secret, an address with a password or a key in it, and would be "
                "readable in plans, diffs and docker inspect: take that out of the address."
            )
        return REFUSED.format(variable=variable, name=name)
    if re.search(rf"\$(?:{name}\b|{{{name}}})", text):
        return (
            f"{variable} sets {name} to {shown(text)}, and Docker does not expand ${name}: write the whole value "
            f"(docker run --rm IMAGE printenv {name} shows the image's)."
        )
    if name in INTERFACES:
        return _interface_fault(name, text, variable, alone=alone)
    if name == "NVIDIA_DRIVER_CAPABILITIES" and "all" not in text and not set(text.split(",")) >= CAPABILITIES:
        return f"{variable} sets {name} to {shown(text)}, and an engine needs compute and utility: add them, or take it out."
    if name in CACHES:
        place = f"{text}/huggingface" if name == "XDG_CACHE_HOME" else text
        return None if _is_mounted(place, mounted) else f"{variable} sets {name} to {shown(text)}, but {CACHE}."
    if name in FILES and not _is_mounted(text, mounted):
        return (
            f"{variable} sets {name} to {shown(text)}, and no mount brings that file into the containers: add its directory to "
            "plan_extra_mounts."
        )
    same, reason = SAME.get(name, (None, None))
    if same is not None:
        value_of = text.rstrip("/") if text.startswith("/") else text.upper()
        return None if value_of in same else f"{variable} sets {name} to {shown(text)}, but {reason}."
    reason = REASONS.get(name) or next((why for prefix, why in PREFIXES.items() if name.startswith(prefix)), None)
    return f"{variable} sets {name}, but {reason}." if reason else None


def _interface_fault(name: str, text: str, variable: str, *, alone: bool) -> str | None:
    if name in WHOLE_NAMES and re.search(r"[=^*\s]", text):
        return (
            f"{variable} sets {name} to {shown(text)}, and it takes the plain name of an interface, without '=' or '^', which are "
            "NCCL's: take it out, and set plan_interface."
        )
    if not alone and text.lstrip("=") in ("lo", "lo:0"):
        return f"{variable} sets {name} to {shown(text)}, which reaches no other node: take it out, and set plan_interface."
    return None


def direct_faults(
    given: Mapping[str, str], reached: Collection[str], variable: str = VARIABLE
) -> tuple[list[str], list[str]]:
    """What is wrong with a user's own ``NO_PROXY`` and ``no_proxy``, as faults and as warnings.

    ``reached`` are the IPv4 addresses that a container talks to over HTTP. Where ``given`` has no web proxy, the image may still
    bring one, which is worth a warning; so is ``NO_PROXY`` alone, for the plan's own no_proxy is read first.
    """
    texts = {name: given[name] for name in DIRECT if name in given}
    missing = {name: [each for each in reached if not is_direct(each, text)] for name, text in texts.items()}
    left_out = sorted({each for addresses in missing.values() for each in addresses}, key=ipaddress.ip_address)
    through = next((name for name in WEB_PROXIES if given.get(name)), None)
    if not left_out:
        if through and list(texts) == ["NO_PROXY"] and texts["NO_PROXY"].strip() != "*":
            alone = (
                f"{variable} sets NO_PROXY alone, but programs read no_proxy first, and the plan sets that to its own addresses "
                "only: set no_proxy to the same text."
            )
            return [], [alone]
        return [], []
    names = " and ".join(name for name in texts if missing[name])
    parts = [part for name in texts for part in re.split(r"[\s,;]+", texts[name]) if part]
    whole = ",".join(dict.fromkeys([*parts, *left_out]))
    by = through or "a web proxy, where the image has one set"
    found = (
        f"{variable} sets {names} without {some(left_out)}: requests of the containers to these addresses would go to {by}. Set "
        f"NO_PROXY and no_proxy to {shown(whole, len(whole) + 2)}, or take both out: then the plan sets them."
    )
    return ([found], []) if through and missing.get("no_proxy") else ([], [found])


def is_direct(address: str, text: str) -> bool:
    """Whether ``no_proxy: text`` keeps an IPv4 address from the web proxy, as requests and urllib read it.

    A whole ``*``, the address itself or its network; beginnings, wildcards and ports are for other programs.
    """
    if text.strip() == "*":
        return True
    for part in text.replace(" ", "").split(","):
        try:
            if (
                "/" in part
                and not part.endswith("/0")
                and ipaddress.ip_address(address) in ipaddress.ip_network(part, strict=False)
            ):
                return True
        except ValueError:
            continue
        if part == address:
            return True
    return False


def has_secret(value: Any) -> bool:
    """Whether a text in it, whatever its depth, looks like a secret."""
    if isinstance(value, Mapping):
        return any(has_secret(each) for pair in value.items() for each in pair)
    if isinstance(value, (list, tuple)):
        return any(map(has_secret, value))
    return isinstance(value, str) and SECRET_VALUE.search(value[:LONGEST]) is not None


def _is_mounted(path: str, mounted: Collection[str]) -> bool:
    path = posixpath.normpath(path)
    return any(path == place or path.startswith(f"{place}/") for place in map(posixpath.normpath, mounted))


def is_secret(name: str, text: str) -> bool:
    """Whether a variable's name or value looks like a secret's."""
    if SECRET_VALUE.search(text) or (KEY_NAME.search(name) and KEY_VALUE.fullmatch(text)):
        return True
    if name.upper().endswith("DSN") and "@" in text:
        return True
    if not SECRET_NAME.search(name):
        return False
    if PASSWORD_NAME.search(name) and text.isdigit():
        return True
    return not NO_SECRET.fullmatch(text)
