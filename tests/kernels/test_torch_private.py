"""Private names of torch: all in one file, and none of them is needed."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path

import pytest
import torch

import rnnzoo
from rnnzoo.backends import reference
from rnnzoo.backends.fused import run as fused
from rnnzoo.cells import make_cell
from rnnzoo.kernels import settings, torch_private
from rnnzoo.kernels.compile import cache
from rnnzoo.kernels.products import panels

ROOT = Path(rnnzoo.__file__).parent
# Base classes of our own classes: nothing can be done without them, and torch documents that they are subclassed.
BASE_CLASSES = {"torch.utils._python_dispatch.TorchDispatchMode", "torch.nn.modules.batchnorm._BatchNorm"}
COMPILES_SLOWLY = ("CppCodeCache", "core_aten_decompositions", "get_decompositions")  # torch's compiler runs instead


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def private_names(source: str) -> set[str]:
    """Return the private names of torch in a file: attributes of torch or of what is imported from it, and imports."""
    names, aliases = set(), {"torch": "torch"}
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname: alias.name for alias in node.names if alias.asname}
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            own = {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            aliases |= own
            names |= set(own.values())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = dotted(node).partition(".")
            names.add(f"{aliases.get(first, '?')}.{rest}")
    parts = {name: name.split(".") for name in names}
    return {
        name
        for name, words in parts.items()
        if words[0] == "torch" and any(word.startswith("_") and not word.startswith("__") for word in words)
    }


def test_no_other_file_takes_a_private_name():
    taken = {
        str(path.relative_to(ROOT)): private_names(path.read_text(encoding="utf-8")) - BASE_CLASSES
        for path in ROOT.rglob("*.py")
        if path != Path(torch_private.__file__)
    }
    assert {path: names for path, names in taken.items() if names} == {}


def test_private_names_are_seen():
    source = "import torch._dynamo\nfrom torch import _C, nn\nfrom torch._inductor import compile\n"
    source += "torch._foreach_copy_([], [])\nnn.modules._x\ntorch.nn.Module.__init__\nself._own\n"
    names = {"torch._dynamo", "torch._C", "torch._inductor.compile", "torch._foreach_copy_", "torch.nn.modules._x"}
    assert private_names(source) == names


def test_this_torch_has_all_names():
    assert [path for path in torch_private.NAMES if torch_private.lookup(path) is None] == []


def gradients(run, cell, inputs, lengths):
    outputs, _ = run(cell, inputs, lengths, None)
    return [outputs, *torch.autograd.grad(outputs.square().sum(), [inputs, *cell.parameters()])]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=pytest.mark.slow if path.endswith(COMPILES_SLOWLY) else [])
        for path in torch_private.NAMES
    ],
)
def test_without_a_name_the_numbers_stay_and_one_warning_says_so(monkeypatch, path):
    owner_of = torch_private.owner_of
    monkeypatch.setattr(torch_private, "owner_of", lambda name: None if name == path else owner_of(name))
    monkeypatch.setattr(settings, "_steps_down", {})
    monkeypatch.setattr(panels, "_libraries", [])
    for name in ("_seen", "_compiled", "_layouts", "_failures"):
        monkeypatch.setattr(cache, name, type(getattr(cache, name))())
    monkeypatch.setenv("RNNZOO_COMPILE", "1")
    torch_private.lookup.cache_clear()
    torch.manual_seed(0)
    cell = make_cell("peephole", input_size=3, hidden_size=4)
    inputs, lengths = torch.randn(5, 4, 3, requires_grad=True), torch.tensor([4, 0, 1, 3, 4])
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results = gradients(fused.run, cell, inputs, lengths)
            assert torch_private.lookup(path) is None
            torch_private.lookup(path)
    finally:
        monkeypatch.undo()
        torch_private.lookup.cache_clear()
    torch.testing.assert_close(results, gradients(reference.run, cell, inputs, lengths), rtol=1e-4, atol=1e-5)
    said = [str(warning.message) for warning in caught if str(warning.message).startswith("rnnzoo")]
    assert len(said) == 1
    assert path in said[0]
