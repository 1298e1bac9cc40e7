"""Every private name of torch that the package uses; any of them may go in a release of torch.

Each is optional: where one is missing, something slower runs instead, with the same numbers, after one warning.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

from rnnzoo.kernels.settings import step_down


class PrivateName(NamedTuple):
    """A private name of torch.

    Args:
        path: its dotted name.
        purpose: what it is used for.
        fallback: what happens where it is missing.
        versions: of torch, in which it was seen.
    """

    path: str
    purpose: str
    fallback: str
    versions: str = "2.13"


NAMES = {
    name.path: name
    for name in (
        PrivateName(
            "torch._inductor.codecache.CppCodeCache", "compiles and loads C++", "torch's compiler or plain torch runs"
        ),
        PrivateName("torch._inductor.compile", "compiles kernels that C++ code cannot express", "they stay plain"),
        PrivateName(
            "torch._subclasses.fake_tensor.FakeTensorMode", "traces kernels for any batch size", "plain torch runs"
        ),
        PrivateName("torch._dynamo.source.ConstantSource", "traces kernels for any batch size", "plain torch runs"),
        PrivateName(
            "torch._decomp.core_aten_decompositions", "traces operations as simpler ones", "torch's compiler runs"
        ),
        PrivateName("torch._decomp.get_decompositions", "traces operations as simpler ones", "torch's compiler runs"),
        PrivateName("torch.ops.mkldnn._linear_pointwise", "multiplies through oneDNN", "products are MKL's"),
        PrivateName("torch.ops.mkldnn._is_mkldnn_bf16_supported", "asks for bfloat16 in oneDNN", "float32 is taken"),
        PrivateName("torch.ops.mkldnn._is_mkldnn_fp16_supported", "asks for float16 in oneDNN", "float32 is taken"),
        PrivateName("torch._C._functorch.peek_interpreter_stack", "notices torch.func", "products are plain ones"),
        PrivateName("torch.autograd.forward_ad._current_level", "notices forward-mode AD", "products are plain ones"),
        PrivateName("torch._C._functorch.is_legacy_batchedtensor", "notices vmap", "gradients are plain products"),
        PrivateName("torch._C._len_torch_dispatch_stack", "notices dispatch modes", "rows are gathered by an index"),
        PrivateName("torch._foreach_copy_", "copies many tensors at once", "they are copied one by one"),
        PrivateName("torch.cpu._is_amx_tile_supported", "asks for AMX", "bfloat16 products are torch's own"),
        PrivateName("torch.cpu._is_avx512_bf16_supported", "asks for AVX-512 BF16", "AMX alone counts as fast"),
    )
}


class MissingNameError(RuntimeError):
    """A private name of torch is missing, and something that needs it cannot be done."""


@cache
def lookup(path: str) -> Any:
    """Return the object of a name in `NAMES`, or None after one warning where this torch has none.

    What a name of a number holds may change: such a name is looked up in its owner (`owner_of`).
    """
    owner = owner_of(path)
    found = getattr(owner, path.rpartition(".")[2], None)
    if owner is None or found is None:
        name = NAMES[path]
        step_down(
            path,
            f"this torch has no {path}, which {name.purpose}; {name.fallback}",
            f"install a torch in which it was seen ({name.versions}), or report this",
        )
    return found


def require(path: str) -> Any:
    """Return the object of a name in `NAMES`.

    Raises:
        MissingNameError: if this torch has none.
    """
    found = lookup(path)
    if found is None:
        raise MissingNameError(f"no {path}")
    return found


def owner_of(path: str) -> Any:
    """Return the module or object in which the last part of a dotted name is, or None."""
    owner = path.rpartition(".")[0]
    try:
        return import_module(owner)
    except ImportError:  # an object, not a module
        outer, _, last = owner.rpartition(".")
        return getattr(owner_of(owner), last, None) if outer else None


def in_forward_ad() -> bool:
    """Return whether forward-mode differentiation is going on; True where it cannot be told."""
    level = lookup("torch.autograd.forward_ad._current_level")
    return level is None or owner_of("torch.autograd.forward_ad._current_level")._current_level >= 0


def has_dispatch_modes() -> bool:
    """Return whether a dispatch mode may replace tensors; True where it cannot be told."""
    size = lookup("torch._C._len_torch_dispatch_stack")
    return size is None or bool(size())


def in_functorch() -> bool:
    """Return whether a transform of `torch.func` is going on; True where it cannot be told."""
    peek = lookup("torch._C._functorch.peek_interpreter_stack")
    return peek is None or peek() is not None


def is_legacy_batched(value: Any) -> bool:
    """Return whether a tensor is a batch of the older vmap; True where it cannot be told."""
    asked = lookup("torch._C._functorch.is_legacy_batchedtensor")
    return asked is None or bool(asked(value))


def supports(path: str) -> bool:
    """Return what a name that asks about the processor answers; False where it is missing."""
    asked = lookup(path)
    return asked is not None and bool(asked())


def compile_code(code: str) -> Any:
    """Compile code in C++, or find it on the disk; return the library.

    Raises:
        MissingNameError: if this torch cannot.
    """
    code_cache = require("torch._inductor.codecache.CppCodeCache")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return code_cache.load(code, needs_vec_isa=False)  # torch's own vectors are not tried out: it takes 8 s
        except TypeError:  # an older torch
            return code_cache.load(code)
