# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run one stage of a benchmark in a container on the target host and show its progress (see the module of this name)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.hidden import secret
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.job import PACKAGE, ClientAction, program
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.figures import halted

MODULES = ("certificate", "clients", "dataset", "figures", "null_server", "records", "runner", "script")
FOLDER = "/lmfleet"
SCRIPT = "profile_restful_api.py"
WORK = "/work"
HF_CACHE = "/root/.cache/huggingface"
SHAREGPT = "/sharegpt.json"
POLL_S = 5.0

ARGUMENT_SPEC: dict[str, Any] = {
    "stage": {"type": "str", "choices": ["dataset", "certify", "row"], "required": True},
    "image": {"type": "str", "required": True},
    "client": {"type": "str", "choices": ["aiperf", "lmdeploy"], "default": "aiperf"},
    "client_script": {"type": "path"},
    "cpus": {"type": "float", "default": 0},
    "folder": {"type": "str", "required": True},
    "hf_home": {"type": "str", "required": True},
    "model": {"type": "str", "required": True},
    "asked_tok_s": {"type": "float"},
    "row": {"type": "dict"},
    "key": {"type": "str"},
    "nodes": {"type": "int"},
    "max_batch_size": {"type": "int"},
    "time_to_ready": {"type": "float"},
    "certificate": {"type": "dict"},
    "dataset": {"type": "dict"},
    "urls": {"type": "list", "elements": "str"},
    "served_model_name": {"type": "str"},
    "seed": {"type": "int", "default": 1},
    "sharegpt": {"type": "str"},
    "api_key": {"type": "str", "no_log": True},
    "request_timeout": {"type": "float", "default": 21600},
    "timeout": {"type": "float", "default": 172800},
    "owner": {"type": "str", "required": True},
    "container_name": {"type": "str", "default": "lmfleet-benchmark"},
}


class ActionModule(ClientAction):
    """The action behind M(lmfleet.lmdeploy.benchmark_job)."""

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run it; the task's result."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        result["changed"] = False
        __, options = self.validate_argument_spec(
            argument_spec=ARGUMENT_SPEC,
            required_if=[
                ("stage", "dataset", ["row"]),
                ("stage", "certify", ["asked_tok_s"]),
                ("stage", "row", ["row", "key", "nodes", "certificate", "dataset", "urls", "served_model_name"]),
            ],
        )
        if self._task.check_mode:
            return {**result, "skipped": True, "msg": "check mode: no request is sent"}
        files = program("events", *(f"benchmark.{name}" for name in MODULES))
        if options["client_script"]:
            files[SCRIPT] = Path(options["client_script"]).read_text(encoding="utf-8")
        mounts = [f"{options['folder']}:{WORK}", f"{options['hf_home']}:{HF_CACHE}:ro"]
        if options["sharegpt"]:
            mounts.append(f"{options['sharegpt']}:{SHAREGPT}:ro")
        client = self.run_client(
            "benchmark",
            options["container_name"],
            options["timeout"],
            lambda progress: str(progress["line"]),
            task_vars,
            poll_s=POLL_S,
            image=options["image"],
            files=files,
            argv=["-m", f"{PACKAGE}.benchmark.runner"],
            config=configuration(options),
            api_key=secret(options["api_key"], "benchmark_api_key", task_vars, self),
            mounts=mounts,
            environment={"HF_HOME": HF_CACHE, "HF_HUB_OFFLINE": "1", "NO_PROXY": "*", "no_proxy": "*"},
            cpus=options["cpus"],
            owner=options["owner"],
        )
        if "failed" in client:
            return {**result, **client}
        event, stage = client["event"], options["stage"]
        if stage != "row":
            made = {"dataset": "dataset", "certify": "certificate"}[stage]
            return {**result, made: event[made]}
        return {
            **result,
            "row_result": row_result(options, event),
            "halted": halted(event["figures"]),
            "msg": in_short(event["figures"]),
        }


def in_short(figures: dict[str, Any]) -> str:
    """A row's figures on one line."""
    parts = [f"{figures['output_tok_s']:.0f} tokens/s out and {figures['input_tok_s']:.0f} in"]
    for name, key in (("TTFT", "ttft_s"), ("TPOT", "tpot_s")):
        if figures[key]:
            parts.append(f"{name} p50 {1000 * figures[key]['p50']:.0f} ms")
    parts += [f"{figures['failed']} of {figures['requests']} requests FAILED"] if figures["failed"] else []
    parts += [f"{figures['cut_short']} answers CUT SHORT"] if figures["cut_short"] else []
    return ", ".join(parts)


def row_result(options: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a row: what was asked, what came of it, and all that is needed to judge and to repeat it."""
    certificate, figures = options["certificate"], measured["figures"]
    client = {"name": options["client"], "image": options["image"], "cpus": options["cpus"]}
    return {
        "format": 1,
        "key": options["key"],
        "row": options["row"],
        "nodes": options["nodes"],
        **{key: measured[key] for key in ("started", "seconds", "figures")},
        "dataset": measured["dataset"] or options["dataset"],
        "client": {**client, **{key: measured[key] for key in ("version", "command", "cpu_s")}},
        "certificate": certificate,
        # It was certified for twice what was expected: more than expected is more than it was certified for.
        "limited_by_client": not certificate["ok"] or 2 * figures["output_tok_s"] > certificate["reached_tok_s"],
        "max_batch_size": {"asked": options["row"]["max_batch_size"], "effective": options["max_batch_size"]},
        "time_to_ready_s": options["time_to_ready"],
        "records": f"{options['row']['name']}-{options['key']}.records.jsonl.gz",
    }


def configuration(options: dict[str, Any]) -> dict[str, Any]:
    """What the runner is told, but for the key."""
    return {
        "stage": options["stage"],
        "client": {"name": options["client"], "script": f"{FOLDER}/{SCRIPT}" if options["client_script"] else None},
        "folder": WORK,
        "tokenizer": options["model"],
        "seed": options["seed"],
        "sharegpt": SHAREGPT if options["sharegpt"] else None,
        "request_timeout_s": options["request_timeout"],
        "asked_tok_s": options["asked_tok_s"],
        "row": options["row"],
        "urls": options["urls"],
        "model": options["served_model_name"],
    }
