#!/usr/bin/env python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/reliability.md from what was measured, docs/reliability.jsonl.

    LMFLEET_RELIABILITY=/tmp/faults.jsonl python -m pytest tests/sandbox/test_healing.py ...
    tools/reliability.py --add /tmp/faults.jsonl
    tools/reliability.py --gpu /tmp/lmf/out/results.json --machine "two H200"

``--add`` and ``--gpu`` keep the results first. With --check nothing is written, and the exit status is 1 if the page is not
what would be written.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.healing import healing  # noqa: E402  (its path first)
from ansible_collections.lmfleet.lmdeploy.tools.doc_pages import command_line, written  # noqa: E402

KEPT = ROOT / "docs" / "reliability.jsonl"
SANDBOX, GPU = "sandbox", "gpu"
TITLES = {
    "tp": "TP over two hosts",
    "replicas": "Two TP replicas, one on each host, behind the proxy",
    "dpep": "DP+EP over four hosts behind the proxy",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """What one fault did in one run. None: it was not kept, or there was none.

    ``on`` is what it was measured on. ``away_s``: from the fault to the last request that failed, on the endpoints themselves;
    ``start_s``: the engine's own start within it, to the first token on every host, and of GPUs the first start of that engine in
    the run. ``failed``: requests past the proxy by what the client saw; ``proxy_away_s`` and ``proxy_failed``: the same as seen
    through it; ``unreached``: those of all of them that no engine can have got, for nothing took the connection, or the proxy knew
    of no engine. ``restarts``: how often the engine was started again. ``person``: what somebody had to do; empty: nothing.
    ``left``: what of the dead formation was left.
    """

    kind: str
    topology: str
    fault: str
    on: Mapping[str, Any]
    away_s: float | None = None
    start_s: float | None = None
    failed: Mapping[str, int] | None = None
    unreached: int | None = None
    proxy_away_s: float | None = None
    proxy_failed: Mapping[str, int] | None = None
    restarts: int | None = None
    person: str | None = ""
    left: str | None = None

    def line(self) -> str:
        """As it is kept; what is None is left out."""
        return json.dumps({name: value for name, value in dataclasses.asdict(self).items() if value is not None})


def rows_in(path: Path) -> list[Row]:
    """The rows of a file, one on each line."""
    return [Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def gpu_rows(results: Mapping[str, Any], machine: str) -> list[Row]:
    """Out of the results.json of ``tests/gpu/run heals``: a row for each fault after which tokens came again or did not."""
    found = []
    for name, engine in (results.get("heals") or {}).items():
        if not isinstance(engine, dict) or "starts" not in engine:
            continue
        first = [start.ready_s for events in engine["starts"].values() for start in healing(events).starts[:1]]
        for fault, told in engine.items():
            if isinstance(told, dict) and "requests" in told:
                found.append(
                    _gpu_row(name, fault, told, max((s for s in first if s is not None), default=None), machine)
                )
    return found


def _gpu_row(name: str, fault: str, told: Mapping[str, Any], first_s: float | None, machine: str) -> Row:
    seen = list(_endpoints(told["requests"]))
    backs = [each["back_s"] for each in seen]
    engine = {"tp": "TP", "ranks": "DP"}.get(name, name)
    return Row(
        kind=GPU,
        topology=name,
        fault=f"{engine}: {fault.replace('_', ' ')}",
        on={"machine": machine},
        away_s=None if None in backs or not backs else max(backs),
        start_s=first_s,
        failed={"requests": sum(each["failed"] for each in seen)},
        left="; ".join(told.get("left_of_the_old") or []) or "nothing",
    )


def _endpoints(requests: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """What each endpoint gave; the dots of its URL were levels of the file at first."""
    for each in requests.values():
        if "back_s" in each:
            yield each
        else:
            yield from _endpoints(each)


# ---- the page

HEAD = """\
# What was measured of engines that come back

How it works is in [healing.md](healing.md). Each row is a fault in one run of a test or of `tests/gpu/run heals`, or in
several: then it has the least and the most. "away" is from the fault to the last failed request, on every endpoint, under one
request after another on each of them. `tools/reliability.py` writes this page from `docs/reliability.jsonl`;
`tools/reliability.py --add FILE` adds what tests have left in the file that `LMFLEET_RELIABILITY` names.

## Real GPUs

`tests/gpu/run heals` on two H200: LMDeploy 0.18.0, the random 2.4 B model of [gpu.md](gpu.md), TP 2 over two raylets and two DP
ranks under torchrun at the same time on the same GPUs. Seconds; "first start" is that of the same engine in the same run, cold.
No person did anything.

"""
AFTER_GPU = """
In the earlier run the request in flight at the killed Ray worker hung with the other worker's GPU at 100 %, and nothing came of
it in 300 s. Since then Ray is asked whether the engine's workers live when a token does not come within 5 s; that way was not
seen on GPUs again, for in the later run the server said 503.

## Sandbox

`tests/sandbox/test_healing.py`, `test_replicas.py` and `test_told.py`: the real LMDeploy, Ray, torchrun and Docker, the forward
pass simulated; few cores for all hosts, so seconds are to be compared with the engine's own start there. Failed requests are
counted by what the client saw. "starts" is how often the engine was started again; 0: it lived through it. No person did anything
but where a column says what.
"""
NOTES = {
    "tp": "Where the table does not say it, the engine's own start was 22 to 40 s from the api_server's start to its first token.",
    "replicas": '"away" is of the replica that was struck; the other one, asked at its own URL all the time, gave every token.',
    "dpep": "Failed requests are those of all endpoints. The agents that are left wait 20 s for the one that is gone\n"
    "(`read_timeout`). Where the table does not say it, the ranks' own start took 78 s and more.",
}
FOOT = """
An engine that crashes at every start (the model's directory moved away) stays down after `plan_restarts` starts, says `GAVE UP`
in its log and in status.yml, and is started by the next deploy.

What these tests inject and no row shows was not measured.
"""


def page(rows: Sequence[Row]) -> str:
    """The whole page."""
    tables: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for each in rows:
        if each.kind == SANDBOX:
            tables.setdefault((each.topology, _told(each.on)), {}).setdefault(each.fault, []).append(each)
    text = HEAD + _table([_gpu_cells(each) for each in rows if each.kind == GPU]) + AFTER_GPU
    for (topology, told), faults in tables.items():
        text += f"\n### {TITLES[topology]}\n\n{told}\n{NOTES[topology]}\n\n"
        text += _table([_sandbox_cells(fault, runs) for fault, runs in faults.items()])
    return text + FOOT


def _told(on: Mapping[str, Any]) -> str:
    return (
        f"LMDeploy {on.get('lmdeploy', '?')}, {on.get('hosts', '?')} hosts with {on.get('gpus', '?')} declared GPUs each, "
        f"{on.get('cores', '?')} cores for all of them."
    )


def _table(rows: Sequence[Sequence[tuple[str, str]]]) -> str:
    """Cells by their columns; a column in which no row has anything is left out."""
    names = [name for name, __ in rows[0]] if rows else []
    names = [name for name in names if any(dict(row)[name] for row in rows)]
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [f"| {' | '.join(dict(row)[name].replace('|', chr(92) + '|') or '-' for name in names)} |" for row in rows]
    return "\n".join(lines) + "\n" if names else "Nothing was measured yet.\n"


def _gpu_cells(row: Row) -> list[tuple[str, str]]:
    return [
        ("fault, kill -9", row.fault),
        ("on", str(row.on.get("machine") or "")),
        ("away", _range([row.away_s])),
        ("first start", _range([row.start_s])),
        ("left of the dead formation on the GPUs", row.left or ""),
    ]


def _sandbox_cells(fault: str, runs: Sequence[Row]) -> list[tuple[str, str]]:
    people = list(dict.fromkeys(each.person for each in runs if each.person))
    return [
        ("fault", fault),
        ("away, s", _range([each.away_s for each in runs])),
        ("the engine's own start within it, s", _range([each.start_s for each in runs])),
        ("starts", _range([each.restarts for each in runs])),
        ("failed requests", _counts([each.failed for each in runs])),
        ("requests that no engine can have got", _range([each.unreached for each in runs])),
        ("away as seen through the proxy, s", _range([each.proxy_away_s for each in runs])),
        ("failed through the proxy", _counts([each.proxy_failed for each in runs])),
        ("what a person had to do", "; ".join(people)),
    ]


def _range(values: Iterable[float | None]) -> str:
    known = [round(value) for value in values if value is not None]
    if not known:
        return ""
    return f"{min(known)}" if min(known) == max(known) else f"{min(known)} to {max(known)}"


def _counts(runs: Sequence[Mapping[str, int] | None]) -> str:
    """By what the client saw: how often, in the run with the fewest and in that with the most."""
    known = [each for each in runs if each is not None]
    if not known:
        return ""
    words = dict.fromkeys(word for each in known for word in each)
    return ", ".join(f"{word}: {_range([each.get(word, 0) for each in known])}" for word in words) or "none"


def main() -> int:
    """Keep results, and write or check the page."""
    parser = command_line(__doc__, "reliability.md")
    parser.add_argument("--kept", type=Path, default=KEPT, help="the results that the page is made from")
    parser.add_argument("--add", type=Path, action="append", default=[], help="a file of results to keep")
    parser.add_argument("--gpu", type=Path, action="append", default=[], help="a results.json of tests/gpu/run to keep")
    parser.add_argument("--machine", default="", help="the machine of --gpu, in words")
    args = parser.parse_args()
    if args.check and (args.add or args.gpu):
        parser.error("--check keeps nothing: leave out --add and --gpu")
    if args.gpu and not args.machine:
        parser.error("say with --machine which GPUs the results of --gpu are of")
    more = [row for path in args.add for row in rows_in(path)]
    for path in args.gpu:
        more += gpu_rows(json.loads(path.read_text(encoding="utf-8")), args.machine)
    if more:
        with args.kept.open("a", encoding="utf-8") as file:
            file.writelines(f"{row.line()}\n" for row in more)
    return written(args, page(rows_in(args.kept)))


if __name__ == "__main__":
    sys.exit(main())
