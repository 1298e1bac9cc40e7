"""A run folder belongs to one run: claimed by the `mkdir` that makes it, and locked while a process works on it."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from rnnzoo.cli.output import check_writable
from rnnzoo.documents import parse_json
from rnnzoo.errors import InputError
from rnnzoo.files import named_folder, remove_leftovers

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
ALLOW_CHANGED_DATA = "allow_changed_data"  # the option of `fit --resume`
RUN_FOLDER_VARIABLE = "RNNZOO_RUN_FOLDER"  # hands the folder of the first process to those that it launches
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")  # above 0 in all processes but the first


def is_first_process() -> bool:
    """Return whether this process is the one that writes, of those that a launcher or Lightning started."""
    return all(os.environ.get(name, "0") in ("", "0") for name in RANK_VARIABLES)


@contextmanager
def claim_run_folder(wanted: str | None, recipe: str) -> Iterator[Path]:
    """Make the folder of a new run and hold its lock; the processes that the run launches get the same folder.

    If the run fails before its first checkpoint, or writes nothing, the folder is removed.

    Args:
        wanted: the folder; None takes a new one, ``runs/RECIPE/TIME``.
        recipe: name or file of the recipe.

    Raises:
        InputError: if the wanted folder exists or cannot be made.
    """
    if not is_first_process():
        yield Path(os.environ.get(RUN_FOLDER_VARIABLE) or wanted or Path("runs") / run_name(recipe))
        return
    folder, missing = make_folder(wanted, recipe)
    os.environ[RUN_FOLDER_VARIABLE] = str(folder)
    try:
        with lock_folder(folder, f"run folder {folder}"):
            try:
                yield folder
            except BaseException:
                if not any(folder.glob("checkpoints/*.ckpt")):
                    shutil.rmtree(folder, ignore_errors=True)
                raise
    finally:
        for each in missing:  # only those that are empty can be removed
            with suppress(OSError):
                each.rmdir()


def make_folder(wanted: str | None, recipe: str) -> tuple[Path, list[Path]]:
    """Make a new folder; return it, and it and the folders above that were missing, the innermost first."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    number = 1
    while True:
        name = stamp if number == 1 else f"{stamp}_{number}"
        folder = Path(wanted) if wanted is not None else Path("runs") / run_name(recipe) / name
        if wanted is not None and folder.exists():
            raise InputError(
                f"--run_dir {wanted}", expected="a new folder", got="one that exists", fix="name another or remove it"
            )
        check_writable("--run_dir", folder)
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        try:
            with named_folder(folder):
                folder.parent.mkdir(parents=True, exist_ok=True)
                folder.mkdir()
        except FileExistsError:  # another run began in the same second
            number += 1
        except FileNotFoundError:  # another run removed the folder above, which was empty
            continue
        else:
            return folder, missing


def run_name(recipe: str) -> str:
    """Return what the runs of a recipe are filed under: its name, or for a file the file's.

    >>> run_name("many_to_one/imdb"), run_name("my/own recipe.yaml"), run_name("runs/a/b/2026-01-01/config.yaml")
    ('many_to_one/imdb', 'own_recipe', 'b')
    """
    path = Path(recipe)
    if path.suffix not in (".yaml", ".yml"):
        return recipe
    if path.name == "config.yaml" and len(path.parts) > 2:  # of an earlier run
        return path.parts[-3]
    return path.stem.replace(" ", "_")


@contextmanager
def lock_folder(folder: Path, where: str) -> Iterator[None]:
    """Hold the lock of a folder, and remove what killed processes left in it; a lock of a dead process is taken over.

    Of several processes of one run the first holds the lock. The system frees it when the process ends, however it
    does; where the file system knows no locks, the process that is named in the lock file is looked up.

    Args:
        folder: a folder that exists.
        where: what messages call it.

    Raises:
        InputError: naming the process that holds it.
    """
    if not is_first_process():
        yield
        return
    path = folder / LOCK
    with named_folder(path):
        number = open_lock(path, where)
    try:
        remove_leftovers(folder)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(number)


def open_lock(path: Path, where: str) -> int:
    """Return the open, locked lock file, which names this process."""
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if is_held(number):
                raise held_by(read_owner(number), path, where)
            if not os.path.exists(path) or not os.path.samestat(os.fstat(number), os.stat(path)):
                os.close(number)  # its owner released it between our two steps: the file is no longer the folder's
                continue
            owner = {"pid": os.getpid(), "host": socket.gethostname(), "started": start_of(os.getpid())}
            os.ftruncate(number, 0)
            os.pwrite(number, json.dumps(owner).encode(), 0)
        except InputError:
            os.close(number)
            raise
        return number


def is_held(number: int) -> bool:
    """Take the lock on an open file, unless another process holds it: return whether one does."""
    if fcntl is not None:
        try:
            fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return True
        except OSError:  # this file system knows no locks
            pass
        else:
            return False
    owner = read_owner(number)
    here = owner.get("host") == socket.gethostname()
    dead = here and (owner.get("started") is None or start_of(owner.get("pid")) != owner["started"])
    return bool(owner) and not dead


def read_owner(number: int) -> dict[str, Any]:
    """Return the process that a lock file names; an empty dict if it names none."""
    try:
        owner = parse_json(os.pread(number, 4096, 0), "lock")
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def start_of(pid: Any) -> str | None:
    """Return when a process of this machine started, in ticks since the machine did; None if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, ValueError, IndexError):
        return None


def held_by(owner: dict[str, Any], path: Path, where: str) -> InputError:
    """Return the error for a folder that another process works on."""
    process = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
    return InputError(
        where,
        expected="a folder that no process works on",
        got=f"one that {process} works on",
        fix=f"wait until it ends; if there is no such process, remove {path}",
    )
