"""The recipes of drawn scenes, as they are: each learns to write what is in the image and attends to what it names."""

from __future__ import annotations

import json

import pytest

from rnnzoo.cli.main import main

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # one to two minutes each


# One draw of hard attention shows colour and shape: after the word for the colour it may attend to anything.
@pytest.mark.parametrize(("recipe", "pointing"), [("scenes", 80), ("scenes_hard", 60), ("scenes_top_down", 90)])
def test_a_recipe_writes_the_right_captions_and_attends_to_what_they_name(recipe, pointing, tmp_path):
    folder = tmp_path / "run"
    main(["fit", f"one_to_many/{recipe}", "--run_dir", str(folder), "--trainer.enable_progress_bar", "false"])
    metrics = json.loads((folder / "report.json").read_text())["metrics"]["test"]
    assert metrics["exact_match"]["best_possible"] == 100
    assert metrics["exact_match"]["value"] >= 95
    assert metrics["pointing"]["value"] >= pointing
    assert (folder / "attention_1.png").is_file()
