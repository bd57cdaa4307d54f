# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: warmup
short_description: Get tokens from every rank, at every shape, all ranks at once
version_added: 0.1.0
description:
  - Sends every endpoint a short prompt, a long one and a small burst (O(shapes)), each shape to all endpoints at the
    same moment, and fails if one of them gave no token. This compiles the kernels that the first users would wait for,
    and it is the proof that every engine lives.
  - The client runs in the engine's image on the target host (the head), which has openai and reaches every cluster
    address, in a container that is removed in any case. Its progress is shown while it works.
  - The first shape with a failure is the last one that is sent.
options:
  endpoints:
    description: The engines' own URLs, one for each rank (not the proxy's).
    type: list
    elements: dict
    required: true
    suboptions:
      rank:
        description: The rank, for messages and results.
        type: int
        required: true
      node:
        description: The node that runs it, for messages and results.
        type: str
        required: true
      url:
        description: The api_server's URL, without C(/v1), such as V(http://10.0.0.11:23333).
        type: str
        required: true
  model:
    description: The name that the engines serve their model under.
    type: str
    required: true
  api_key:
    description:
      - The endpoints' API key, where they have one. A callback may print it (C(display_args_to_stdout)).
      - The role leaves it out, and the variable C(warmup_api_key) is taken.
    type: str
  image:
    description: The image to run the client in. It must be on the host and hold Python 3.10 and openai 1.40, or later.
    type: str
    required: true
  shapes:
    description:
      - What every endpoint is sent, one shape after the other.
      - By default 28 prompts of 10 to 8192 tokens, and 11 bursts, after which no first token was slow on H100 GPUs.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The shape's name.
        type: str
        required: true
      prompt_tokens:
        description:
          - The prompt's length.
          - The first prompt has a word for each token. Later ones are exact by what the server counted, as far as its tokenizer
            has a token for every word.
        type: int
        required: true
      max_tokens:
        description: Tokens to generate.
        type: int
        required: true
      requests:
        description: Requests to each endpoint, all at once.
        type: int
        default: 1
  session_len:
    description: The engines' longest session in tokens; longer shapes of the default are left out. 0 is as long as they are.
    type: int
    default: 0
  timeout:
    description: Seconds that one request may take, its retries included.
    type: float
    default: 600
  retries:
    description: How often a request is sent again after a broken connection, an engine error (5xx) or a 429.
    type: int
    default: 3
  seed:
    description: Which random texts are sent. The same seed sends the same texts, which a prefix cache may know by then.
    type: int
    default: 0
  container_name:
    description: The container's name, to which a random suffix is added.
    type: str
    default: lmfleet-warmup
extends_documentation_fragment:
  - lmfleet.lmdeploy.runs_client
author:
  - lmfleet contributors (@lmfleet)
"""

EXAMPLES = r"""
- name: Warm up both ranks
  lmfleet.lmdeploy.warmup:
    endpoints:
      - {rank: 0, node: node0, url: "http://10.0.0.11:23333"}
      - {rank: 1, node: node1, url: "http://10.0.0.12:23333"}
    model: deepseek-ai/DeepSeek-V3
    image: openmmlab/lmdeploy:v0.15.0-cu12
"""

RETURN = r"""
seconds:
  description: The seconds from the first request to the last answer.
  type: float
  returned: when the client ran to its end
  sample: 14.2
endpoints:
  description: What each endpoint gave.
  type: list
  elements: dict
  returned: when the client ran to its end
  contains:
    rank:
      description: As given.
      type: int
    node:
      description: As given.
      type: str
    url:
      description: As given.
      type: str
    ok:
      description: Whether it gave tokens at every shape that was sent.
      type: bool
    error:
      description: The first failure, with its shape; null if there is none.
      type: str
    shapes:
      description: One entry for each shape that was sent.
      type: list
      elements: dict
      contains:
        name:
          description: The shape's name.
          type: str
        ok:
          description: Whether every request gave tokens.
          type: bool
        requests:
          description: How many requests were sent.
          type: int
        ttft_s:
          description: Seconds to the first text, for each answered request.
          type: list
          elements: float
        total_s:
          description: Seconds to the end of the answer, for each answered request.
          type: list
          elements: float
        prompt_tokens:
          description: The prompts' lengths, each that occurred, by the server's own count.
          type: list
          elements: int
        completion_tokens:
          description: Tokens generated, of all its requests, by the server's own count.
          type: int
        error:
          description: What went wrong; null if nothing did.
          type: str
        kind:
          description: V(engine), V(connection), V(request) or V(timeout); null if nothing went wrong.
          type: str
"""
