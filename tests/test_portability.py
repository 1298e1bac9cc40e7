"""The package imports and trains where modules of Unix are missing, as on Windows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from pathlib import Path

sys.modules["resource"] = sys.modules["fcntl"] = None  # an import of them fails
from rnnzoo import memory
from rnnzoo.cli.main import main

exists = Path.exists
Path.exists = lambda path: path != Path("/proc/self/status") and exists(path)
assert memory.peak_resident() == memory.peak_working_set()
sys.exit(main(["fit", "gaussians", "--trainer.max_epochs", "1", "--run_dir", "run", "--trainer.accelerator", "cpu",
               "--trainer.enable_progress_bar", "false",
               "--data.synthetic_options.sizes", "{train: 200, validation: 40, test: 40}"]))
"""


def test_a_model_is_trained_where_resource_and_fcntl_are_missing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(Path(tmp_path, "run", "report.json").read_text(encoding="utf-8"))
    assert report["training"]["epochs"] == 1
