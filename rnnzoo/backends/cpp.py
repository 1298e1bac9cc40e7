"""C++ that is compiled at run time, with the compiler of `torch.compile`: small products, and programs of many steps.

A step of a cell is a small product and a row-wise kernel. The product is made by oneDNN's small products (`brgemm`),
which torch carries along, each of a panel of columns that stays in the cache of one thread: on two threads it takes
two thirds of the time of a plain product. A program is the calls of a step with the places of what they read and
write; to run it for many steps here saves what Python takes to call them, which is as long as the kernels, and the
threads go through all of it without being called anew.
"""

from __future__ import annotations

import ctypes
import os
import warnings
from threading import Lock
from typing import Any

import torch
from torch import Tensor

PROCESSORS = ("AVX2", "AVX512")  # that have small products, as torch names them
PANEL = 64 if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else 32  # columns, by measurement
MOST_PLACES = 64  # that a kernel takes
# Of a file whose loops are to run in vectors: torch's options for its own code, which is written in vectors, forbid it.
VECTORS = """
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("tree-loop-vectorize", "no-math-errno")
#ifdef __AVX512F__
#pragma GCC target("prefer-vector-width=512")
#endif
#endif
"""
SOURCE = """
#include <algorithm>
#include <cstdint>
#ifdef _OPENMP
#include <omp.h>
#else
inline int omp_get_thread_num() { return 0; }
inline int omp_get_num_threads() { return 1; }
#endif

namespace at::native::cpublas {
void brgemm(int64_t M, int64_t N, int64_t K, int64_t ld_a, int64_t ld_b, int64_t ld_c, const bool add_C,
            const float* A, const float* B, float* C, bool is_vnni);
}

namespace {

constexpr int64_t PANEL = @PANEL@, DEPTH = 1024, HEIGHT = 64, GROUP = 4;
constexpr int64_t LITTLE = 1 << 14, MANY = 1 << 17;  // numbers, and products of two, up to which one thread is as fast
using Kernel = void (*)(void* const* at, int64_t rows, int64_t thread, int64_t threads);

// What one thread does of C [M, N] = A [M, K] B, or C += A B; the rows of A and C have gaps of their own.
void multiply_part(const float* a, const float* panels, float* c, int64_t M, int64_t N, int64_t K, int64_t ld_a,
                   int64_t ld_c, int64_t add, int64_t thread, int64_t threads) {
    if (!M) return;
    if (M * N * K <= MANY) {
        if (thread) return;
        threads = 1;
    }
    const int64_t columns = (N + PANEL - 1) / PANEL;
    int64_t height = std::min(M, HEIGHT);
    const auto tasks = [&] { return columns * ((M + height - 1) / height); };
    while (height > 8 && tasks() < 4 * threads && tasks() % threads) height = (height + 1) / 2;
    const int64_t rows = (M + height - 1) / height, last = tasks() * (thread + 1) / threads;
    for (int64_t place = tasks() * thread / threads; place < last; place++) {
        const int64_t group = place / (columns * GROUP), first = group * GROUP, some = std::min(GROUP, rows - first);
        const int64_t rest = place - columns * first, n = rest / some * PANEL, m = (first + rest % some) * height;
        const int64_t width = std::min(PANEL, N - n), count = std::min(height, M - m);
        for (int64_t k = 0; k < K; k += DEPTH)
            at::native::cpublas::brgemm(count, width, std::min(DEPTH, K - k), ld_a, width, ld_c, add || k,
                                        a + m * ld_a + k, panels + n * K + k * width, c + m * ld_c + n, false);
    }
}

}  // namespace

// B [K, N] in panels of PANEL columns, each in one piece [K, columns].
extern "C" void lay_out(float* to, const float* from, int64_t K, int64_t N, int64_t row, int64_t column,
                        int64_t threads) {
    constexpr int64_t PART = 16;
    const int64_t panels = (N + PANEL - 1) / PANEL, parts = (K + PART - 1) / PART;
    #pragma omp parallel for num_threads(threads) if (K * N > LITTLE)
    for (int64_t place = 0; place < panels * parts; place++) {
        const int64_t first = place / parts * PANEL, width = std::min(PANEL, N - first);
        const int64_t begin = place % parts * PART, end = std::min(begin + PART, K);
        float* panel = to + first * K;
        if (row == 1) {
            for (int64_t n = 0; n < width; n++)
                for (int64_t k = begin; k < end; k++) panel[k * width + n] = from[k + (first + n) * column];
        } else {
            for (int64_t k = begin; k < end; k++)
                for (int64_t n = 0; n < width; n++) panel[k * width + n] = from[k * row + (first + n) * column];
        }
    }
}

extern "C" void multiply(const float* a, const float* panels, float* c, int64_t M, int64_t N, int64_t K, int64_t ld_a,
                         int64_t ld_c, int64_t add, int64_t threads) {
    #pragma omp parallel num_threads(threads) if (M * N * K > MANY)
    multiply_part(a, panels, c, M, N, K, ld_a, ld_c, add, omp_get_thread_num(), omp_get_num_threads());
}

extern "C" void call(void* kernel, void* const* at, int64_t rows, int64_t threads) {
    #pragma omp parallel num_threads(threads) if (rows > 1)
    reinterpret_cast<Kernel>(kernel)(at, rows, omp_get_thread_num(), omp_get_num_threads());
}

// A program is a list of calls: function (0: the product above), how many arguments, whether all threads have to be
// done with it before the next one, five sizes of a product besides its rows; then of each argument: address, bytes of
// a row, and at which rows it begins (0: always at one).
extern "C" void run(const int64_t* program, const int64_t* counts, int64_t size, int64_t steps, int64_t threads) {
    #pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const int64_t thread = omp_get_thread_num(), team = omp_get_num_threads();
        void* places[@MOST@];
        for (int64_t step = 0; step < steps; step++) {
            for (const int64_t* at = program; at < program + size;) {
                const int64_t* head = at;
                at += 8;
                for (int64_t i = 0; i < head[1]; i++, at += 3)
                    places[i] = reinterpret_cast<void*>(
                        at[0] + (at[2] ? at[1] * reinterpret_cast<const int64_t*>(at[2])[step] : 0));
                if (head[0])
                    reinterpret_cast<Kernel>(head[0])(places, counts[step], thread, team);
                else
                    multiply_part(static_cast<float*>(places[0]), static_cast<float*>(places[1]),
                                  static_cast<float*>(places[2]), counts[step], head[3], head[4], head[5], head[6],
                                  head[7], thread, team);
                if (head[2]) {
                    #pragma omp barrier
                }
            }
        }
    }
}
""".replace("@PANEL@", str(PANEL)).replace("@MOST@", str(MOST_PLACES))

_libraries: list[Any] = []  # one, or None where it cannot be had; empty before it was asked for
_lock = Lock()


def load() -> None:
    """Compile the library, or read it from the disk, where that can be done; it takes some seconds the first time."""
    with _lock:
        if not _libraries:
            _libraries.append(compiled())


def library() -> Any:
    """Return the library, or None if it was not loaded, cannot be had, or is not wanted."""
    return _libraries[0] if _libraries and os.environ.get("RNNZOO_COMPILE") != "0" else None


def offers_products() -> bool:
    """Return whether there are small products: the processor has them, and the library was not tried in vain."""
    return _libraries != [None] and torch.backends.cpu.get_cpu_capability().startswith(PROCESSORS)


def compiled() -> Any:
    """Return the compiled library, after it gave the numbers of plain torch; None if it cannot be had."""
    try:
        found = compile_code(SOURCE)
        for name, places, sizes in (("lay_out", 2, 5), ("multiply", 3, 7), ("call", 2, 2), ("run", 2, 3)):
            function = getattr(found, name)
            function.argtypes = [ctypes.c_void_p] * places + [ctypes.c_int64] * sizes
            function.restype = None
        if offers_products():
            left, right = (torch.linspace(-2, 2, 7 * count, device="cpu").sin() for count in (5, 70))
            left, right = left.reshape(5, 7), right.reshape(7, 70)
            torch.testing.assert_close(Panels(right, found).multiply(left), left @ right)
    except Exception:  # a compiler may fail in any way, and none is needed
        return None
    return found


def compile_code(code: str) -> Any:
    """Compile code in C++, or find it on the disk; return the library."""
    from torch._inductor.codecache import CppCodeCache

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return CppCodeCache.load(code, needs_vec_isa=False)  # torch's own vectors are not tried out: it takes 8 s
        except TypeError:  # an older torch
            return CppCodeCache.load(code)


class Panels:
    """A matrix B [K, N] in panels, for A ↦ A B.

    Args:
        matrix: B, in float32, in memory of any layout.
        made_by: the library; None takes the one that is loaded.
    """

    def __init__(self, matrix: Tensor, made_by: Any = None) -> None:
        self.library = library() if made_by is None else made_by
        self.shape = matrix.shape
        if 1 not in matrix.stride():
            matrix = matrix.contiguous()
        self.numbers = matrix.new_empty(matrix.numel())
        sizes = (*matrix.shape, *matrix.stride(), torch.get_num_threads())
        self.library.lay_out(self.numbers.data_ptr(), matrix.data_ptr(), *sizes)

    def multiply(self, left: Tensor, out: Tensor | None = None, *, add: bool = False) -> Tensor:
        """Return A B [M, N] of A [M, K]; written, or added, to `out` if it is given.

        Args:
            left: A, in float32.
            out: [M, N] in float32; a new tensor if it is None.
            add: whether to add to what is there.
        """
        left = left if in_rows(left) else left.contiguous()
        if out is None:
            out = left.new_empty(len(left), self.shape[1])
        elif not in_rows(out):
            return out.copy_(self.multiply(left, out.contiguous() if add else None, add=add))
        places = (left.data_ptr(), self.numbers.data_ptr(), out.data_ptr())
        self.library.multiply(*places, len(left), *self.sizes(left, out, add=add), torch.get_num_threads())
        return out

    def sizes(self, left: Tensor, out: Tensor, *, add: bool) -> tuple[int, ...]:
        """Return the sizes of a product, besides its rows, as the library wants them."""
        depth, columns = self.shape
        gaps = (max(left.stride(0), depth), max(out.stride(0), columns))  # of a single row, strides mean nothing
        return (columns, depth, *gaps, int(add))


def in_rows(matrix: Tensor) -> bool:
    """Return whether each row of a matrix lies in one piece, and no two share memory (as with `expand`)."""
    return matrix.stride(1) == 1 and (len(matrix) == 1 or matrix.stride(0) >= matrix.shape[1])
