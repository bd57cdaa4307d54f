# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: benchmark_job
short_description: Certify a load generator, or measure one row with it
version_added: 0.1.0
description:
  - Runs the load generator in a container on the target host (the head), which reaches every cluster address. The container is
    removed in any case, and progress is shown while it works.
  - V(dataset) makes a row's prompts with the model's own tokenizer, in C(dataset.jsonl) in O(folder). It needs the engine's image,
    for only the tokenizer's own release counts as the server does.
  - V(certify) has the client drive a server without an engine as fast as asked, and compares what it says with what that server
    did.
  - V(row) sends the prompts, and leaves one record for each request in C(records.jsonl.gz) in O(folder).
options:
  stage:
    description: What to do.
    type: str
    choices: [dataset, certify, row]
    required: true
  image:
    description: The image that the client runs in. It must be on the host and hold Python 3.9 or later and the client.
    type: str
    required: true
  client:
    description: V(aiperf) is NVIDIA's AIPerf, V(lmdeploy) is LMDeploy's own C(benchmark/profile_restful_api.py).
    type: str
    choices: [aiperf, lmdeploy]
    default: aiperf
  client_script:
    description: That script, on the control node. Left out, the image's own.
    type: path
  cpus:
    description: How many cores the client may use; 0 does not limit.
    type: float
    default: 0
  folder:
    description: A directory on the host, for the client alone.
    type: str
    required: true
  hf_home:
    description: The host's Hugging Face cache, which is not written to.
    type: str
    required: true
  model:
    description: The model in that cache whose tokenizer counts the prompts' tokens.
    type: str
    required: true
  asked_tok_s:
    description: Tokens per second to certify for. Needed for V(certify).
    type: float
  row:
    description: The row, as M(lmfleet.lmdeploy.benchmark_matrix) returns it. Needed for V(dataset) and V(row).
    type: dict
  key:
    description: The row's key. Needed for V(row).
    type: str
  nodes:
    description: How many nodes the deployment has. Needed for V(row).
    type: int
  max_batch_size:
    description: The engine's, where it is known.
    type: int
  time_to_ready:
    description: Seconds from the start of the engines' containers until their last server was up, where their log still says it.
    type: float
  certificate:
    description: What V(certify) returned. Needed for V(row).
    type: dict
  dataset:
    description: What V(dataset) returned. Needed for V(row).
    type: dict
  urls:
    description: Where to ask, without C(/v1). Needed for V(row).
    type: list
    elements: str
  served_model_name:
    description: The name that the engines serve their model under. Needed for V(row).
    type: str
  seed:
    description: Which lengths and texts are drawn.
    type: int
    default: 1
  sharegpt:
    description: A ShareGPT file on the host to take prompts and answers' lengths from, in place of random ones.
    type: str
  api_key:
    description:
      - The engines' API key, where they have one. A callback may print it (C(display_args_to_stdout)).
      - The role leaves it out, and the variable C(benchmark_api_key) is taken.
    type: str
  request_timeout:
    description: Seconds that one request may take.
    type: float
    default: 21600
  timeout:
    description: Seconds that the stage may take.
    type: float
    default: 172800
  owner:
    description: Whose run it is. A client of the same owner that still runs is an interrupted run's, and is removed.
    type: str
    required: true
  container_name:
    description: The container's name, to which a random suffix is added.
    type: str
    default: lmfleet-benchmark
extends_documentation_fragment:
  - lmfleet.lmdeploy.runs_client
author:
  - lmfleet contributors (@lmfleet)
"""

EXAMPLES = r"""
- name: See whether the client can drive 8000 tokens per second
  lmfleet.lmdeploy.benchmark_job:
    stage: certify
    asked_tok_s: 8000
    image: openmmlab/lmdeploy:v0.18.0-cu12.8
    client: lmdeploy
    folder: /var/lib/lmfleet/lmdeploy/benchmark
    hf_home: /root/.cache/huggingface
    model: deepseek-ai/DeepSeek-V3
    owner: me
"""

RETURN = r"""
dataset:
  description: The prompts' C(kind), C(seed) and C(digest), and the lengths drawn as C(input) and C(output).
  type: dict
  returned: O(stage=dataset)
certificate:
  description:
    - Whether the client C(ok), its C(faults), the C(asked_tok_s) and C(reached_tok_s), the figures of C(client) and C(server), and
      C(cpu_s_per_1000_events).
  type: dict
  returned: O(stage=certify)
row_result:
  description: Row, figures, data set, client and certificate; what M(lmfleet.lmdeploy.benchmark_report) reads.
  type: dict
  returned: O(stage=row)
halted:
  description: Why the row is not measured, where its engine did not live to the end of it; empty where it did.
  type: str
  returned: O(stage=row)
"""
