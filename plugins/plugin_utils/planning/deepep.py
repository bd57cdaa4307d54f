# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Expert parallelism (ep above 1): what DeepEP needs of an engine's sizes, options and environment.

Read in the sources of DeepEP 1.2.1, which LMDeploy's images have from 0.11.0 on; docs/deepep.md says what and where.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..releases import DeepEPRules, at_least, deepep_rules, option_name
from .inputs import Inputs
from .model import Model
from .types import DeepEP, Engine, Faults, Node, some
from .values import shown

NVLINK_RANKS = 8  # NUM_MAX_NVL_PEERS: so many consecutive ranks open each other's memory, which one host alone can do
# FINISHED_SUM_TAG: what a rank has sent to one expert is counted up to this.
MOST_TOKENS = 1024
QP_DEPTH = "NVSHMEM_QP_DEPTH"
NIC_MAPPING = "NVSHMEM_ENABLE_NIC_PE_MAPPING"
DEFAULT_QP_DEPTH = 1024
DEFAULT_BATCH = 512  # the guide's
MOST_BATCH = 1024  # the largest default of LMDeploy, get_max_batch_size: on H100 and its like
LARGE_BUFFER = 4 << 30  # bytes: 5 % of a GPU with 80 GB
DLBLAS = ("0.9.1", "0.15.0")  # from, before: ep needs dlblas beside DeepEP
HAS_ALL = "cu12.8 (pinned), or cu12-hopper for the guide's LMDeploy"
EPLB_SINCE_OWN = "0.15.0"  # before, dlblas had it, and read a variable of another name
REDUNDANT_EXPERTS = 32


def default_batch(release: str | None) -> int:
    """The max_batch_size of an engine with DeepEP where the user gives none."""
    rules = deepep_rules(release)
    return min(DEFAULT_BATCH, rules.cap) if rules.fixed and rules.cap else DEFAULT_BATCH


def with_deepep(inputs: Inputs, engine: Engine, model: Model, faults: Faults) -> Engine:
    """The engine with what it sets for DeepEP; what DeepEP cannot do of it goes to ``faults``."""
    if engine.ep < 2:
        return engine
    rules = deepep_rules(engine.image.release)
    experts = _experts(inputs, engine, model, faults)
    nodes = [node for node in inputs.nodes if node.engine == engine.name]
    _check_ranks(engine, rules, experts, faults)
    if engine.ep > NVLINK_RANKS:
        _check_hosts(engine, nodes, faults)
    tokens = _tokens(inputs, engine, rules, faults)
    if tokens is None:
        return engine
    environment = _environment(engine, rules, tokens)
    own = [inputs.environments[node.name] for node in nodes]
    for node, given in zip(nodes, own):
        faults.extend(_too_small(rules, given, tokens), node.name)
    held = max([tokens, *(0 if rules.cap is None else _held(rules, given) for given in own)])
    size = buffer_bytes(held, model.hidden, experts) if model.hidden and experts else None
    return dataclasses.replace(engine, deepep=DeepEP(held, size, environment))


def fits(inputs: Inputs, engine: Engine, model: Model) -> bool:
    """Whether DeepEP has kernels for the ranks of the engine, over these hosts."""
    wrong = Faults()
    _check_ranks(engine, deepep_rules(engine.image.release), _experts(inputs, engine, model, wrong), wrong)
    if engine.ep > NVLINK_RANKS:
        _check_hosts(engine, [node for node in inputs.nodes if node.engine == engine.name], wrong)
    return not wrong.listed()


def buffer_bytes(tokens: int, hidden: int, experts: int) -> int:
    """What Buffer.get_low_latency_rdma_size_hint says, in bytes a GPU; ``hidden`` in elements. The ranks do not matter.

    DeepEP 1.2.1, csrc/config.hpp; the versions before want up to 1.5 % less.
    """
    scales = hidden // 128
    dispatch = 16 + max(2 * hidden, hidden + 4 * scales)
    combine = 4 * scales + 2 * hidden
    send = max(tokens * dispatch, experts * tokens * combine)
    receive = experts * tokens * max(dispatch, combine)
    signals = -(-4 * experts // 128) * 128
    return (2 * (send + receive + signals) // 128 + 1) * 128


def _experts(inputs: Inputs, engine: Engine, model: Model, faults: Faults) -> int | None:
    """The experts of a layer as DeepEP counts them: with the copies that load balancing (EPLB) makes."""
    if model.experts is None or "--enable-eplb" not in engine.arguments:
        return model.experts
    name = "EPLB_NUM_REDUNDANT_EXPERTS"
    name = f"LMDEPLOY_{name}" if at_least(engine.image.release, EPLB_SINCE_OWN) else name
    given = inputs.environments[engine.head].get(name, str(REDUNDANT_EXPERTS))
    if not re.fullmatch(r"[0-9]{1,4}", given):
        faults.add(f"plan_environment sets {name} to {shown(given)}: give a whole number, 0 or more.", engine.head)
        return None
    if (model.experts + int(given)) % engine.ep and engine.ep in deepep_rules(engine.image.release).ranks:
        right = -model.experts % engine.ep
        faults.add(
            f"enable_eplb makes {model.experts} experts {model.experts + int(given)}, which plan_ep {engine.ep} does not divide: "
            f"set {name} in plan_environment to {' or '.join(str(right + engine.ep * n) for n in (0, 1))}."
        )
        return None
    return model.experts + int(given)


def _check_ranks(engine: Engine, rules: DeepEPRules, experts: int | None, faults: Faults) -> None:
    ep = engine.ep
    fitting = [ranks for ranks in rules.ranks if experts is None or experts % ranks == 0]
    if ep in fitting:
        return
    if ep in rules.ranks:
        why = f"the {experts} experts of a layer do not divide by it"
    else:
        why = f"DeepEP has kernels for {', '.join(map(str, rules.ranks))} ranks"
    near = [*[ranks for ranks in fitting if ranks < ep][-1:], *[ranks for ranks in fitting if ranks > ep][:1]]
    faults.add(
        f"plan_ep is {ep}{_of_gpus(engine)}, and {why}: set plan_ep to {' or '.join(map(str, near))}, and give the plan as "
        "many GPUs (plan_gpus, or fewer or more nodes); or plan_ep: 1 with plan_tp, without expert parallelism."
    )


def _of_gpus(engine: Engine) -> str:
    return " (all GPUs)" if engine.ep == engine.gpus else ""


def _check_hosts(engine: Engine, nodes: Sequence[Node], faults: Faults) -> None:
    for node in nodes:
        if node.gpus % NVLINK_RANKS:
            faults.add(
                f"plan_gpus is {node.gpus}: with plan_ep {engine.ep}, DeepEP joins each {NVLINK_RANKS} consecutive ranks over "
                f"NVLink, so they have to be on one host. Use nodes with {NVLINK_RANKS} GPUs (plan_gpus: {NVLINK_RANKS}), or "
                "plan_ep: 1 with plan_tp, without expert parallelism.",
                node.name,
            )


def _tokens(inputs: Inputs, engine: Engine, rules: DeepEPRules, faults: Faults) -> int | None:
    """How many tokens a rank may send in one decoding step; None where that is refused, or its option is."""
    given = {option_name(key): value for key, value in inputs.api_server_options.items()}
    batch, what = _whole(engine.option("max-batch-size")), ""
    if "--max-batch-size" not in given:
        what = " (the default)"
    elif not given["--max-batch-size"]:
        batch, what = MOST_BATCH, " (LMDeploy's own default, on the largest GPUs)"
    if batch is None:  # refused as an option already
        return None
    drafts = 0
    if engine.option("speculative-algorithm"):
        drafts = max(
            _whole(engine.option("speculative-num-draft-tokens") or "1") or 0, 0
        )  # below is refused as an option
    tokens = batch * (1 + drafts)
    sends = f" with {drafts} draft tokens is {tokens} tokens a rank" if drafts else ""
    most, why = MOST_TOKENS, f"DeepEP's low-latency kernels count to {MOST_TOKENS}"
    if rules.fixed and rules.cap:
        most = rules.cap
        why = f"LMDeploy {engine.image.release} gives DeepEP room for {most} tokens a rank, in its code"
    if not 0 < tokens <= most:
        faults.add(
            f"plan_api_server_options: max_batch_size {batch}{what}{sends}, and {why}: set max_batch_size to "
            f"{most // (1 + drafts)} or less" + (", or fewer speculative_num_draft_tokens." if drafts else ".")
        )
        return None
    return tokens


def _whole(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None


def _environment(engine: Engine, rules: DeepEPRules, tokens: int) -> dict[str, str]:
    """The variables that this many tokens need."""
    unknown = engine.image.release is None
    raised = rules.variables if unknown or (rules.cap is not None and tokens > rules.cap) else ()
    depth = _qp_depth(tokens)
    return {
        **{name: str(max(tokens, rules.cap or 0)) for name in raised},
        **({QP_DEPTH: str(depth)} if depth > DEFAULT_QP_DEPTH else {}),
    }


def _qp_depth(tokens: int) -> int:
    """Work requests that a queue pair has to hold: DeepEP skips its own check of it, and checks this from September 2025."""
    depth = DEFAULT_QP_DEPTH
    while depth < 2 * (tokens + 1):
        depth *= 2
    return depth


def _held(rules: DeepEPRules, given: Mapping[str, str]) -> int:
    """The tokens for which the buffer is made, by the user's own variables."""
    return max([rules.cap or 0, *(_whole(given.get(name)) or 0 for name in rules.variables)])


def _too_small(rules: DeepEPRules, given: Mapping[str, str], tokens: int) -> Iterator[str]:
    needed = {**dict.fromkeys(rules.variables, tokens), QP_DEPTH: 2 * (tokens + 1)}
    for name, least in needed.items():
        if name not in given:
            continue
        value = _whole(given[name])
        if value is None or value < least:
            yield (
                f"plan_environment sets {name} to {shown(given[name])}, and {tokens} tokens a rank need {least} or more: take it "
                "out (the plan sets it), or set max_batch_size lower."
            )


def warnings(inputs: Inputs, engine: Engine) -> Iterator[str]:
    """What a person should know of the engine's DeepEP."""
    if engine.deepep is None:
        return
    nodes = [node for node in inputs.nodes if node.engine == engine.name]
    given_batch = "--max-batch-size" in map(option_name, inputs.api_server_options)
    rules, batch = deepep_rules(engine.image.release), engine.option("max-batch-size")
    if rules.fixed and not given_batch:
        yield (
            f"LMDeploy {engine.image.release} gives DeepEP room for {rules.cap} tokens a rank, in its code: max_batch_size is "
            f"{batch}, and not {DEFAULT_BATCH}."
        )
    spread = [node.name for node in nodes if node.gpus % min(engine.ep, NVLINK_RANKS)]
    if spread:
        yield (
            f"plan_ep {engine.ep} reaches over {', '.join(spread)}: DeepEP joins up to {NVLINK_RANKS} ranks over NVLink alone, "
            "so this works only where NVLink reaches from host to host, and not with DeepEP 1.2.1 of LMDeploy's images."
        )
    mapped = [node.name for node in nodes if _is_on(inputs.environments[node.name].get(NIC_MAPPING, ""))]
    if mapped and len(nodes) > 1:
        yield (
            f"plan_environment sets {NIC_MAPPING} ({some(mapped)}): each of DeepEP's processes takes itself for the first of its "
            "host, so all GPUs of a host get the first device of the list. Take it out, with NVSHMEM_HCA_PE_MAPPING: by itself "
            "each GPU gets a nearest one, and the plan tells ranks theirs where that would be shared."
        )
    size = engine.deepep.buffer_bytes
    if size and size >= LARGE_BUFFER:
        yield (
            f"DeepEP's buffer for {engine.deepep.tokens_per_rank} tokens a rank takes {gib(size)} of every GPU ({size} bytes), "
            "beside weights and KV cache. If GPU memory runs out, lower max_batch_size or cache_max_entry_count."
        )


def _is_on(value: str) -> bool:
    """A switch as NVSHMEM reads it."""
    return value.strip().lower() not in ("", "0", "n", "no", "f", "false", "off")


def gib(size: int) -> str:
    """Bytes for people."""
    return f"{size / (1 << 30):.1f} GiB"


def check_image(engine: Engine, probe: Mapping[str, Any], faults: Faults) -> None:
    """What the image lacks for expert parallelism."""
    image, modules = engine.image, probe.get("modules") or {}
    missing = [name for name in _needed(image.release) if not modules.get(name)] if engine.ep > 1 else []
    if missing:
        faults.add(
            f"plan_ep is {engine.ep}, and expert parallelism in LMDeploy {image.release} needs {' and '.join(missing)}, "
            f"which {image.reference} does not have: set plan_image to an image with it, such as {HAS_ALL}; or "
            "plan_ep: 1 with plan_tp, without expert parallelism."
        )


def _needed(release: str | None) -> list[str]:
    since, before = DLBLAS
    if at_least(release, since) and not at_least(release, before):
        return ["deep_ep", "dlblas"]
    return ["deep_ep", "deep_gemm"]
