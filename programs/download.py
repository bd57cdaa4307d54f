# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Download a revision of a model from the Hugging Face hub, or a mirror of it, into a cache, and verify what came.

Run in the engine's image as ``python3 -m PACKAGE.download CONFIG.json``. The download is huggingface_hub's own, with hf-xet
where the image has it; a file that was cut off goes on where it was. Events are on stdout, as ``events`` has it.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .events import emit
from .model_files import Trouble, put_aside, refuse_without_room, unsound

if TYPE_CHECKING:
    from collections.abc import Callable

TRIES = 5
FIRST_BACKOFF_S = 2.0
WORKERS = 8
SHORTEST_SECRET = 6  # characters; a shorter value is in other words too
LOGIN = re.compile(r"://[^\s/@]+@")  # in an address


@dataclasses.dataclass(frozen=True)
class Config:
    """What to download. ``api_key`` is the hub's token; empty asks without one.

    ``environment`` is for this process: a proxy may want a password, which Docker would show of the container's own.
    """

    repo: str
    revision: str
    cache_dir: str
    endpoint: str = ""
    api_key: str = ""
    verify: bool = False  # read everything that is there too, not only what came
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


def _failed(ask: Callable[[], Any]) -> Exception | tuple[Any]:
    """What asking the hub raised, or its answer in a tuple. Releases of huggingface_hub raise what their HTTP client does."""
    try:
        return (ask(),)
    except Exception as error:  # noqa: BLE001
        return error


class Download:
    """One download, and how far it is."""

    def __init__(self, config: Config, hub: Any) -> None:
        self.config = config
        self.hub = hub
        self.root = Path(config.cache_dir, "models--" + config.repo.replace("/", "--"))
        self.files: dict[str, int] = {}
        self.stage = "list"
        self.aside: list[str] = []
        self.needed = self.resumed = self.read = 0
        self.began = time.monotonic()
        self.marks: list[tuple[float, int]] = []

    def run(self) -> None:
        """Have the revision, whole and verified. Raises ``Trouble``."""
        self.files = self._listed()
        self.stage = "verify" if self.config.verify else "look"
        self._put_aside(unsound(self.root, self.files, whole=self.config.verify, told=self._told))
        missing = self._missing()
        self.needed = sum(missing.values())
        self.resumed = sum(self._part(path) for path in missing)
        Path(self.config.cache_dir).mkdir(parents=True, exist_ok=True)
        refuse_without_room(Path(self.config.cache_dir), self.needed - self.resumed)
        for last in (False, True):
            self.stage = "download"
            self._download()
            self.stage = "verify"
            came = {path: size for path, size in missing.items() if (self.root / path).is_file()}
            self.read = 0
            wrong = unsound(self.root, came, whole=True, told=self._told)
            self._put_aside(wrong)
            if not wrong:
                break
            if last:
                raise Trouble(
                    f"{len(wrong)} files came twice with another content than the hub says, as {next(iter(wrong))}: "
                    "see what is between this host and the hub (a proxy, a mirror), or choose another model_hub_endpoint."
                )

    def _listed(self) -> dict[str, int]:
        """The revision's files as the cache has them: by digest, with their bytes."""
        api = self.hub.HfApi(endpoint=self.config.endpoint or None, token=self.config.api_key or False)
        info = self._try(lambda: api.model_info(self.config.repo, revision=self.config.revision, files_metadata=True))
        return {f"blobs/{each.lfs.sha256 if each.lfs else each.blob_id}": each.size for each in info.siblings}

    def _download(self) -> None:
        self._try(
            lambda: self.hub.snapshot_download(
                self.config.repo,
                revision=self.config.revision,
                cache_dir=self.config.cache_dir,
                endpoint=self.config.endpoint or None,
                token=self.config.api_key or False,
                max_workers=WORKERS,
            )
        )

    def _try(self, ask: Callable[[], Any]) -> Any:
        """Ask the hub, again where the network was the fault. Raises ``Trouble`` in words for a person."""
        for attempt in range(TRIES):
            error = _failed(ask)
            if not isinstance(error, Exception):
                return error[0]
            status = getattr(getattr(error, "response", None), "status_code", None)
            if attempt == TRIES - 1 or (status is not None and 400 <= status < 500 and status != 429):
                raise Trouble(self._remedy(error, status)) from None
            time.sleep(FIRST_BACKOFF_S * 2**attempt)
        raise RuntimeError("the last attempt has raised")

    def _remedy(self, error: Exception, status: int | None) -> str:
        repo, where, name = self.config.repo, self.config.endpoint or "the hub", type(error).__name__
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return f"the disk is full: make room below {self.root} (du -xh), and run again."
        if name == "RevisionNotFoundError":
            return f"{where} has no revision {self.config.revision} of {repo}: correct plan_model_revision."
        if name in ("GatedRepoError", "RepositoryNotFoundError") or status in (401, 403):
            return (
                f"{where} does not give {repo} ({status or name}): correct plan_model, or set model_hub_token to a token that "
                "may read it."
            )
        said = self._without_secrets((str(error).strip().splitlines() or [""])[0])
        return (
            f"{where} could not be asked for {repo} ({name}: {said}): see that this host reaches it, by a mirror "
            "(model_hub_endpoint) or a proxy (model_hub_environment), or bring the model from another host "
            "(model_strategy: fanout)."
        )

    def _without_secrets(self, text: str) -> str:
        """An error may quote the proxy's address."""
        for value in (self.config.api_key, *self.config.environment.values()):
            text = text.replace(value, "***") if len(value) >= SHORTEST_SECRET else text
        return LOGIN.sub("://***@", text)

    def _missing(self) -> dict[str, int]:
        return {path: size for path, size in self.files.items() if not (self.root / path).is_file()}

    def _part(self, path: str) -> int:
        try:
            return (self.root / f"{path}.incomplete").stat().st_size
        except OSError:
            return 0

    def _put_aside(self, wrong: dict[str, str]) -> None:
        self.aside += [f"{path}: {why}" for path, why in wrong.items()]
        put_aside(self.root, wrong)

    def _told(self, size: int) -> None:
        self.read += size

    # ---- what it tells

    def progress(self) -> dict[str, Any]:
        """The progress event; the rate is that of the last ten seconds."""
        total = sum(self.files.values())
        if self.stage == "verify":
            done = self.read
        else:
            missing = self._missing()
            done = total - sum(missing.values()) + sum(self._part(path) for path in missing)
        now = time.monotonic()
        if self.marks and done < self.marks[-1][1]:
            self.marks = []  # another stage
        self.marks = [*[mark for mark in self.marks if now - mark[0] < 10], (now, done)]
        then, had = self.marks[0]
        rate = (done - had) / (now - then) if now - then > 0.5 else 0.0
        return {
            "event": "progress",
            "stage": self.stage,
            "bytes": done,
            "total": total,
            "rate": round(rate),
            "left_s": round((total - done) / rate) if rate else None,
            "seconds": round(now - self.began, 1),
        }

    def result(self, fault: str) -> dict[str, Any]:
        """The result event."""
        return {
            "event": "result",
            "ok": not fault,
            "fault": fault,
            "total": sum(self.files.values()),
            "needed": self.needed,
            "resumed": self.resumed,
            "aside": self.aside,
            "seconds": round(time.monotonic() - self.began, 1),
        }


def main() -> int:
    """Read the configuration, and do it."""
    config = Config(**json.loads(Path(sys.argv[1]).read_text("utf-8")))
    os.environ.update(config.environment)
    if config.endpoint:  # before the import, which reads it; in this process alone
        os.environ["HF_ENDPOINT"] = config.endpoint
    os.environ.update(HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_TELEMETRY="1")
    os.environ.pop("HF_HUB_OFFLINE", None)
    import huggingface_hub

    download = Download(config, huggingface_hub)
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(1):
            emit(download.progress())

    telling = threading.Thread(target=tell, daemon=True)
    telling.start()
    fault = ""
    try:
        download.run()
    except Trouble as trouble:
        fault = str(trouble)
    except OSError as error:
        fault = f"{error.filename or download.root}: {error.strerror or error}."
    ended.set()
    telling.join()
    emit(download.result(fault))
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
