"""What the README shows is run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_models import batch_of, build

from rnnzoo.cells import CELLS
from rnnzoo.imports import import_code
from rnnzoo.testing import check_cell

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
FOLDERS = (
    *("", "rnnzoo", "rnnzoo/kernels", "rnnzoo/backends", "rnnzoo/cells", "rnnzoo/cli", "rnnzoo/data"),
    *("rnnzoo/decoding", "rnnzoo/models", "recipes", "recipes/results", "tests"),
)
PAGES = [f"{folder}/README.md".lstrip("/") for folder in FOLDERS]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    missing = [link for link in links if not ((ROOT / page).parent / link).exists()]
    assert not missing


def test_the_page_for_readers_names_every_folder():
    page = (ROOT / "rnnzoo" / "README.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (ROOT / "rnnzoo").glob("*/__init__.py")} - {"_recipes"}
    assert {name for name in folders if f"({name}/)" not in page} == set()


@pytest.fixture
def own_cell(tmp_path, monkeypatch):
    """Write the cell of the README into a file, import it, and forget it afterwards."""
    section = README.read_text(encoding="utf-8").partition("## Your own cell")[2]
    code = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)[0]
    path = tmp_path / "my_cells.py"
    path.write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    import_code(str(path))
    yield path
    CELLS.remove("leaky")
    sys.modules.pop("my_cells", None)


def test_the_own_cell_keeps_the_laws_and_trains(own_cell):
    check_cell("leaky")
    model = build("LanguageModel", cell="leaky")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(3):
        objective = model.objective(model(batch_of(model)), batch_of(model))
        losses.append(float(objective.total.detach() / objective.items))
        optimizer.zero_grad()
        objective.total.backward()
        optimizer.step()
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_the_own_cell_on_the_command_line(own_cell):
    small = ["--data.limit", "60", "--trainer.max_epochs", "1", "--model.hidden_size", "4"]
    words = ["fit", "many_to_many/hidden_markov", "--import", own_cell.name, "--model.cell", "leaky", *small]
    run = [sys.executable, "-m", "rnnzoo", *words, "--run_dir", "run"]
    done = subprocess.run(run, cwd=own_cell.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cell leaky" in done.stdout
