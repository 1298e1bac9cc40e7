"""A small saved model of each kind, ways to spoil it, and a watch for code that runs."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from small_models import ARGUMENTS, build

import rnnzoo
from rnnzoo.bundle import CONFIG, PROCESSOR, WEIGHTS, sha256
from rnnzoo.memory import peak_resident

MEMORY, SECONDS = 2**30, 5.0  # that a refusal may take at most
TOKENIZERS = ("tokenizer", "words", "characters", "source", "target")  # keys of a processor that hold JSON as a text
EVIL = "evil_canary.Evil"  # a class whose module leaves a file when it is imported
DEEP = "deep"  # written as a list inside a list, 100,000 times
VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "minus one": -1,
    "zero": 0,
    "a thousand million": 10**9,
    "2 to the 31": 2**31,
    "a very long integer": 10**30,
    "a half": 0.5,
    "a huge number": 1e308,
    "infinity": float("inf"),
    "nan": float("nan"),
    "a text": "x",
    "an empty text": "",
    "a function": "os.system",
    "a path": "../../../etc/passwd",
    "a class": EVIL,
    "a class path": {"class_path": EVIL, "init_args": {}},
    "an empty list": [],
    "a list of lists": [[1], ["x"]],
    "a long list": [8] * 100_000,
    "nothing by name": {},
    "a deep list": DEEP,
}
RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "pty.spawn", "subprocess.Popen", "socket.connect")
RUNS += ("socket.getaddrinfo", "os.remove", "os.rename", "shutil.rmtree")
_seen: list[str] | None = None  # what the watch saw


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is None:
        return
    if event in RUNS or (event == "import" and "evil" in str(arguments[0])):
        _seen.append(f"{event} {str(arguments)[:200]}")
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        _seen.append(f"{event} {str(arguments)[:200]}")


sys.addaudithook(_watch)


@contextmanager
def watched() -> Iterator[None]:
    """Fail if code runs, a file is written, or memory or time are taken beyond the limits."""
    global _seen
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")  # the peak is that of now
    before, start, _seen = peak_resident(), time.monotonic(), []
    try:
        yield
    finally:
        events, _seen = _seen, None
    assert not events, events
    assert peak_resident() - before < MEMORY
    assert time.monotonic() - start < SECONDS


class Folder:
    """The model folder of a small model, as values that can be spoilt, and written."""

    def __init__(self, name: str, template: Path) -> None:
        self.name = name
        self.config = json.loads((template / CONFIG).read_text())
        self.processor = json.loads((template / PROCESSOR).read_text())
        for key in TOKENIZERS:
            if isinstance(self.processor.get(key), str):
                self.processor[key] = json.loads(self.processor[key])
        self.weights = (template / WEIGHTS).read_bytes()

    def leaves(self) -> list[tuple[str, ...]]:
        """Return the path of each value that can be spoilt."""
        parts = {"arguments": self.config["arguments"], "processor": self.processor}
        top = [("config", key) for key in self.config]
        return top + [(part, *path) for part, tree in parts.items() for path in paths(tree)]

    def set(self, path: tuple[Any, ...], value: Any) -> None:
        """Put a value at a path."""
        tree = {"config": self.config, "arguments": self.config["arguments"], "processor": self.processor}[path[0]]
        for key in path[1:-1]:
            tree = tree[key]
        tree[path[-1]] = value

    def write(self, folder: Path) -> Path:
        """Write the folder, with checksums that are right."""
        folder.mkdir()
        stored = {
            key: dumps(value) if key in TOKENIZERS and isinstance(value, dict) else value
            for key, value in self.processor.items()
        }
        (folder / PROCESSOR).write_text(dumps(stored))
        (folder / WEIGHTS).write_bytes(self.weights)
        if isinstance(self.config.get("sha256"), dict):
            self.config["sha256"] = {name: sha256(folder / name) for name in (PROCESSOR, WEIGHTS)}
        (folder / CONFIG).write_text(dumps(self.config))
        return folder


def dumps(value: Any) -> str:
    """Return JSON; what is `DEEP` is nested."""
    return json.dumps(value).replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000)


def paths(tree: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a tree, inner ones too; of a long list the first alone."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree[:1]) if isinstance(tree, list) else ()
    for key, value in items:
        yield (key,)
        for path in paths(value):
            yield (key, *path)


def save_all(folder: Path) -> dict[str, Path]:
    """Save a small model of each kind."""
    return {name: rnnzoo.save(build(name), folder / name) for name in ARGUMENTS}


def some(cases: list[Any], count: int) -> list[Any]:
    """Return some of the cases, the same in every run."""
    return random.Random(0).sample(cases, min(count, len(cases)))
