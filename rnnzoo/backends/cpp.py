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
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#ifdef _OPENMP
#include <omp.h>
#else
inline int omp_get_thread_num() { return 0; }
inline int omp_get_num_threads() { return 1; }
#endif

namespace c10 {
struct BFloat16 { uint16_t bits; };
}
namespace at::native::cpublas {
void brgemm(int64_t M, int64_t N, int64_t K, int64_t ld_a, int64_t ld_b, int64_t ld_c, const bool add_C,
            const float* A, const float* B, float* C, bool is_vnni);
void brgemm(int64_t M, int64_t N, int64_t K, int64_t ld_a, int64_t ld_b, int64_t ld_c, const bool add_C,
            const c10::BFloat16* A, const c10::BFloat16* B, float* C, bool is_vnni);
void brgemm_release(bool is_vnni);
}

namespace {

constexpr int64_t PANEL = @PANEL@, DEPTH = 1024, HEIGHT = 64, GROUP = 4;
constexpr int64_t LITTLE = 1 << 14, MANY = 1 << 17;  // numbers, and products of two, up to which one thread is as fast
using Kernel = void (*)(void* const* at, int64_t rows, int64_t thread, int64_t threads);
using c10::BFloat16;
enum Function : int64_t { PRODUCT, ROUND, BF16_PRODUCT };

// What one thread does of C [M, N] = A [M, K] B, or C += A B; the rows of A and C have gaps of their own. In bfloat16
// the rows of B come in pairs, K is even, and all panels are as wide.
template <typename Number>
void multiply_part(const Number* a, const Number* panels, float* c, int64_t M, int64_t N, int64_t K, int64_t ld_a,
                   int64_t ld_c, int64_t add, int64_t thread, int64_t threads) {
    constexpr bool narrow = std::is_same_v<Number, BFloat16>;
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
        const int64_t width = std::min(PANEL, N - n), count = std::min(height, M - m), ld_b = narrow ? PANEL : width;
        for (int64_t k = 0; k < K; k += DEPTH)
            at::native::cpublas::brgemm(count, width, std::min(DEPTH, K - k), ld_a, ld_b, ld_c, add || k,
                                        a + m * ld_a + k, panels + n * K + k * ld_b, c + m * ld_c + n, narrow);
    }
}

// What one thread rounds of rows [M, K] to bfloat16, in rows of an even size.
void round_part(const float* from, BFloat16* to, int64_t M, int64_t K, int64_t ld_from, int64_t thread,
                int64_t threads) {
    const int64_t ld_to = (K + 1) / 2 * 2, last = M * (thread + 1) / threads;
    for (int64_t m = M * thread / threads; m < last; m++) {
        const float* row = from + m * ld_from;
        BFloat16* rounded = to + m * ld_to;
        for (int64_t k = 0; k < K; k++) {
            uint32_t bits;
            std::memcpy(&bits, row + k, 4);
            const uint32_t nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
            rounded[k].bits = (bits & 0x7FFFFFFF) > 0x7F800000 ? 0x7FC0 : nearest;
        }
        if (K % 2) rounded[K].bits = 0;
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

// The same of bfloat16: in pairs of rows, [K / 2, PANEL, 2], with zeros where there is nothing.
extern "C" void lay_out_bf16(BFloat16* to, const BFloat16* from, int64_t K, int64_t N, int64_t row, int64_t column,
                             int64_t threads) {
    const int64_t panels = (N + PANEL - 1) / PANEL, even = (K + 1) / 2 * 2;
    #pragma omp parallel for num_threads(threads) if (K * N > LITTLE)
    for (int64_t place = 0; place < panels; place++)
        for (int64_t k = 0; k < even; k++)
            for (int64_t n = 0; n < PANEL; n++) {
                const int64_t at = place * PANEL + n;
                to[place * PANEL * even + (k / 2 * PANEL + n) * 2 + k % 2] =
                    k < K && at < N ? from[k * row + at * column] : BFloat16{0};
            }
}

// Returns whether it could be done: oneDNN may have been told not to use what the processor has.
extern "C" bool multiply_bf16(const float* a, const BFloat16* panels, float* c, int64_t M, int64_t N, int64_t K,
                              int64_t ld_a, int64_t ld_c, int64_t add, int64_t threads) {
    std::atomic<bool> done{true};
    const int64_t even = (K + 1) / 2 * 2;
    const std::unique_ptr<BFloat16[]> rounded(new BFloat16[M * even]);
    #pragma omp parallel num_threads(threads) if (M * N * K > MANY)
    {
        const int64_t thread = omp_get_thread_num(), team = omp_get_num_threads();
        round_part(a, rounded.get(), M, K, ld_a, thread, team);
        #pragma omp barrier
        try {
            multiply_part(rounded.get(), panels, c, M, N, even, even, ld_c, add, thread, team);
            at::native::cpublas::brgemm_release(true);
        } catch (...) {
            done = false;
        }
    }
    return done;
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

// A program is a list of calls: function (0 to 2: PRODUCT and the others), how many arguments, whether all threads have
// to be done with it before the next one, five sizes of a product besides its rows; then of each argument: address,
// bytes of a row, and at which rows it begins (0: always at one).
extern "C" void run(const int64_t* program, const int64_t* counts, int64_t size, int64_t steps, int64_t threads) {
    #pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const int64_t thread = omp_get_thread_num(), team = omp_get_num_threads();
        void* places[@MOST@];
        bool narrow = false;
        for (int64_t step = 0; step < steps; step++) {
            for (const int64_t* at = program; at < program + size;) {
                const int64_t* head = at;
                const int64_t rows = counts[step];
                at += 8;
                for (int64_t i = 0; i < head[1]; i++, at += 3)
                    places[i] = reinterpret_cast<void*>(
                        at[0] + (at[2] ? at[1] * reinterpret_cast<const int64_t*>(at[2])[step] : 0));
                if (head[0] == PRODUCT) {
                    multiply_part(static_cast<float*>(places[0]), static_cast<float*>(places[1]),
                                  static_cast<float*>(places[2]), rows, head[3], head[4], head[5], head[6], head[7],
                                  thread, team);
                } else if (head[0] == ROUND) {
                    round_part(static_cast<float*>(places[0]), static_cast<BFloat16*>(places[1]), rows, head[4],
                               head[5], thread, team);
                } else if (head[0] == BF16_PRODUCT) {
                    multiply_part(static_cast<BFloat16*>(places[0]), static_cast<BFloat16*>(places[1]),
                                  static_cast<float*>(places[2]), rows, head[3], head[4], head[5], head[6], head[7],
                                  thread, team);
                    narrow = true;
                } else {
                    reinterpret_cast<Kernel>(head[0])(places, rows, thread, team);
                }
                if (head[2]) {
                    #pragma omp barrier
                }
            }
        }
        if (narrow) at::native::cpublas::brgemm_release(true);
    }
}
""".replace("@PANEL@", str(PANEL)).replace("@MOST@", str(MOST_PLACES))

# Of the library: name, how many places in memory, how many sizes.
FUNCTIONS = (
    ("lay_out", 2, 5), ("lay_out_bf16", 2, 5), ("multiply", 3, 7), ("multiply_bf16", 3, 7), ("call", 2, 2),
    ("run", 2, 3),
)  # fmt: skip
PRODUCT, ROUND, BF16_PRODUCT = range(3)  # functions of a program that are not kernels

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


def offers_products(dtype: torch.dtype) -> bool:
    """Return whether there are small products: the processor has them, and the library was not tried in vain."""
    if _libraries == [None] or not torch.backends.cpu.get_cpu_capability().startswith(PROCESSORS):
        return False
    if dtype != torch.bfloat16:
        return dtype == torch.float32
    tried = not _libraries or _libraries[0].has_bf16
    # AVX-512's instructions for bfloat16 alone took 1.5 times the time of float32 (64 × 512 × 1536, one thread).
    return tried and has_amx() and bool(torch.backends.mkldnn.enabled)


def has_amx() -> bool:
    """Return whether the processor multiplies matrices of bfloat16 as a whole."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())


def has_fast_bf16() -> bool:
    """Return whether the processor multiplies bfloat16 by instructions of its own."""
    return has_amx() or bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


def compiled() -> Any:
    """Return the compiled library, after it gave the numbers of plain torch; None if it cannot be had."""
    try:
        found = compile_code(SOURCE)
        for name, places, sizes in FUNCTIONS:
            function = getattr(found, name)
            function.argtypes = [ctypes.c_void_p] * places + [ctypes.c_int64] * sizes
            function.restype = ctypes.c_bool if name == "multiply_bf16" else None
        if offers_products(torch.float32):
            try_products(found, torch.float32)
    except Exception:  # a compiler may fail in any way, and none is needed
        return None
    try:
        found.has_bf16 = offers_products(torch.bfloat16)
        if found.has_bf16:
            try_products(found, torch.bfloat16)
    except Exception:  # the processor has what oneDNN was told not to use
        found.has_bf16 = False
    return found


def try_products(library: Any, dtype: torch.dtype) -> None:
    """Multiply, and compare with plain torch.

    Raises:
        AssertionError: if the numbers are wrong.
        RuntimeError: if there are none.
    """
    left, right = (torch.linspace(-2, 2, 7 * count, device="cpu").sin() for count in (5, 70))
    one, other = left.reshape(5, 7).to(dtype).float(), right.reshape(7, 70).to(dtype)
    torch.testing.assert_close(Panels(other, library).multiply(one), one @ other.float())


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
    """A matrix B [K, N] in panels, for A ↦ A B; A is rounded to the type of B, and sums are in float32.

    Args:
        matrix: B, in float32 or bfloat16, in memory of any layout.
        made_by: the library; None takes the one that is loaded.
    """

    def __init__(self, matrix: Tensor, made_by: Any = None) -> None:
        self.library = library() if made_by is None else made_by
        self.shape = matrix.shape
        self.narrow = matrix.dtype == torch.bfloat16
        self.depth = matrix.shape[0] + (self.narrow and matrix.shape[0] % 2)  # numbers of a row that is multiplied
        if 1 not in matrix.stride():
            matrix = matrix.contiguous()
        columns = -(-matrix.shape[1] // PANEL) * PANEL if self.narrow else matrix.shape[1]
        self.numbers = matrix.new_empty(self.depth * columns)
        sizes = (*matrix.shape, *matrix.stride(), torch.get_num_threads())
        lay_out = self.library.lay_out_bf16 if self.narrow else self.library.lay_out
        lay_out(self.numbers.data_ptr(), matrix.data_ptr(), *sizes)

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
        sizes = (len(left), *self.sizes(left, out, add=add), torch.get_num_threads())
        if not self.narrow:
            self.library.multiply(*places, *sizes)
        elif not self.library.multiply_bf16(*places, *sizes):
            raise RuntimeError("oneDNN does not multiply bfloat16 here")
        return out

    def sizes(self, left: Tensor, out: Tensor, *, add: bool) -> tuple[int, ...]:
        """Return the sizes of a product, besides its rows, as the library wants them."""
        depth, columns = self.shape
        gaps = (max(left.stride(0), depth), max(out.stride(0), columns))  # of a single row, strides mean nothing
        return (columns, depth, *gaps, int(add))


def in_rows(matrix: Tensor) -> bool:
    """Return whether each row of a matrix lies in one piece, and no two share memory (as with `expand`)."""
    return matrix.stride(1) == 1 and (len(matrix) == 1 or matrix.stride(0) >= matrix.shape[1])
