"""The page of commands in ``recipes/README.md``: each is run, small in all tests and as it stands in the slow ones."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from rnnzoo.cli import compare
from rnnzoo.cli.main import main
from rnnzoo.recipes import recipe_folder

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning warns of small data
PAGE = Path(__file__).parent.parent / "recipes" / "README.md"
LONGEST = 300  # CPU seconds of the whole page, so that it takes at most five minutes
SIZES = ["--data.synthetic_options.sizes", "{train: 40, validation: 8, test: 8}"]
SMALL = {
    "fit": [*SIZES, "--trainer.max_epochs", "1"],
    "compare": [*SIZES, "--trainer.max_epochs", "1"],
    "gradients": SIZES,
    "generate": ["--max_tokens", "8"],
    "gates": [],
}
LONG = ("one_to_many/scenes", "one_to_many/scenes_hard")  # what takes minutes to its end, and says so
SHORTENED = {recipe: ["--data.synthetic_options.sizes", "{train: 500}", "--trainer.max_epochs", "1"] for recipe in LONG}
STATEMENTS = (
    "one to one",
    "one to many",
    "many to one",
    "many to many, aligned",
    "encoder and decoder",
    "language model",
    "same weights at every step",
    "truncated back-propagation",
    "stacked layers",
    "both directions",
    "explode",
    "vanish",
    "attention, soft and hard",
)


def sections():
    """Return heading → commands of the page."""
    found = {}
    for part in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        blocks = re.findall(r"```sh\n(.*?)```", part, flags=re.DOTALL)
        lines = "".join(blocks).replace("\\\n", " ").splitlines()
        found[part.splitlines()[0]] = [shlex.split(line)[1:] for line in lines if line.startswith("rnnzoo ")]
    return found


SECTIONS = sections()


def test_every_statement_has_a_section_with_commands():
    headings = " | ".join(SECTIONS).lower()
    assert [statement for statement in STATEMENTS if statement not in headings] == []
    assert all(SECTIONS.values())
    verbs = {command[0] for commands in SECTIONS.values() for command in commands}
    assert verbs <= set(SMALL)
    written = PAGE.read_text(encoding="utf-8")
    assert written.count("\nrnnzoo ") == sum(map(len, SECTIONS.values()))


def test_the_page_lies_beside_the_recipes_and_is_none():
    assert (recipe_folder() / "README.md").read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Run in an empty folder, and the runs of a comparison in this process."""

    def train(plan, variant, seed, folder):
        words = [plan.recipe, *plan.overrides, *variant.words, f"--seed_everything={seed}", f"--run_dir={folder}"]
        return "" if main(["fit", *words]) == 0 else "failed"

    monkeypatch.chdir(tmp_path)
    (tmp_path / "lecture").mkdir()
    monkeypatch.setattr(compare, "train", train)
    return tmp_path


def pictures(command, folder):
    """Return the pictures that a command was to draw."""
    for option in ("--output", "--probabilities"):
        if option in command:
            return [folder / command[command.index(option) + 1]]
    return sorted((folder / command[command.index("--run_dir") + 1]).glob("*.png"))


SLOW = [heading for heading in SECTIONS if heading.startswith("Attention")]  # fifteen seconds, for three recipes


@pytest.mark.parametrize(
    "heading", [pytest.param(heading, marks=pytest.mark.slow if heading in SLOW else ()) for heading in SECTIONS]
)
def test_a_section_runs_on_little_data(heading, here, capsys):
    for whole in SECTIONS[heading]:
        command = [re.sub(r"^([\w.]+=[^,]+,[^,]+),.*", r"\1", word) for word in whole]  # two values of what is varied
        own = ["--steps", "1"] if "--steps" in command else []
        assert main([*command, *SMALL[command[0]], *own]) == 0, capsys.readouterr().err
        assert pictures(command, here), f"no picture: {shlex.join(command)}"


@pytest.mark.slow
def test_the_page_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lecture").mkdir()
    begun = sum(os.times()[:4])  # of this process and those that it starts
    printed = {}
    for heading, commands in SECTIONS.items():
        for command in commands:
            assert main([*command, *SHORTENED.get(command[1], [])]) == 0, capsys.readouterr().err
            assert pictures(command, tmp_path), f"no picture: {shlex.join(command)}"
        printed[heading] = capsys.readouterr().out
    seconds = sum(os.times()[:4]) - begun
    vanishing = next(text for heading, text in printed.items() if "vanish" in heading)
    factors = re.findall(r"(\w+) after 300 steps, .*?, ([\d.]+) a step", vanishing)
    factors = {cell: float(factor) for cell, factor in factors}
    assert factors["rnn"] < 0.9 < 0.98 < min(factors["lstm"], factors["gru"])
    clipped = next(text for heading, text in printed.items() if "explode" in heading)
    free, bounded = re.search(r"validation rmse ([\d.]+) → ([\d.]+),", clipped).groups()
    assert float(bounded) < 0.6 * float(free)
    assert seconds < LONGEST
