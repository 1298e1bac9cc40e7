"""What kernels in C++ compute number by number: the code of each operation, and the functions that it calls.

Nothing branches, and nothing is called that a compiler cannot put into a loop, so that all of it runs in vectors.
"""

from __future__ import annotations

# Of a file whose loops are to run in vectors: torch's options for its own code, which is written in vectors, forbid it.
VECTORS = """
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("tree-loop-vectorize", "no-math-errno")
#ifdef __AVX512F__
#pragma GCC target("prefer-vector-width=512")
#endif
#endif
"""
FUNCTIONS = """
#include <cstdint>
#include <cstring>

#define INLINE inline __attribute__((always_inline))

namespace {

INLINE float as_float(int32_t x) { float y; std::memcpy(&y, &x, 4); return y; }
INLINE int32_t as_bits(float x) { int32_t y; std::memcpy(&y, &x, 4); return y; }

// a or b. A conditional expression may become a branch around what only one of them needs, without vectors.
INLINE float chosen(bool first, float a, float b) {
    const int32_t mask = -static_cast<int32_t>(first);
    return as_float((as_bits(a) & mask) | (as_bits(b) & ~mask));
}
INLINE bool chosen(bool first, bool a, bool b) { return (first & a) | (!first & b); }

// exp(x) for -88 < x < 89.5, by a polynomial of the part of x that no power of two stands for; 0 below 2e-38.
INLINE float power(float x) {
    const float n = __builtin_nearbyintf(x * 1.44269504f);
    const float r = __builtin_fmaf(n, 2.12194440e-4f, __builtin_fmaf(n, -0.693359375f, x));
    float p = 1.9875691500e-4f;
    p = __builtin_fmaf(p, r, 1.3981999507e-3f);
    p = __builtin_fmaf(p, r, 8.3334519073e-3f);
    p = __builtin_fmaf(p, r, 4.1665795894e-2f);
    p = __builtin_fmaf(p, r, 1.6666665459e-1f);
    p = __builtin_fmaf(p, r, 5.0000001201e-1f);
    p = __builtin_fmaf(p, r * r, r + 1.0f);
    return p * as_float((static_cast<int32_t>(n) + 126) * (1 << 23)) * 2.0f;
}

INLINE float exponential(float x) {
    x = x < -87.3f ? -87.3f : x;
    x = x > 89.4f ? 89.4f : x;
    return power(x);
}

INLINE float logistic(float x) {
    x = x < -89.4f ? -89.4f : x;
    x = x > 87.0f ? 87.0f : x;
    return 1.0f / (1.0f + power(-x));
}

INLINE float tangent(float x) {  // tanh(x): 1 - 2 / (1 + exp(2 x)) has no digits left where x is small
    const float square = x * x;
    float p = -5.70498872745e-3f;
    p = __builtin_fmaf(p, square, 2.06390887954e-2f);
    p = __builtin_fmaf(p, square, -5.37397155531e-2f);
    p = __builtin_fmaf(p, square, 1.33314422036e-1f);
    p = __builtin_fmaf(p, square, -3.33332819422e-1f);
    p = __builtin_fmaf(p * square, x, x);
    return chosen(square < 0.39f, p, 2.0f * logistic(2.0f * x) - 1.0f);
}

INLINE float exponential_less_one(float x) {  // exp(x) - 1, also of small x
    const float half = tangent(0.5f * x);
    return chosen(__builtin_fabsf(x) < 0.5f, 2.0f * half / (1.0f - half), exponential(x) - 1.0f);
}

// log(x) for x that are not subnormal.
INLINE float logarithm(float x) {
    const int32_t high = static_cast<int32_t>(static_cast<uint32_t>(as_bits(x)) - 0x3f3504f3u) >> 23;
    const float m = as_float(as_bits(x) - high * (1 << 23)) - 1.0f, n = static_cast<float>(high), square = m * m;
    float p = 7.0376836292e-2f;
    p = __builtin_fmaf(p, m, -1.1514610310e-1f);
    p = __builtin_fmaf(p, m, 1.1676998740e-1f);
    p = __builtin_fmaf(p, m, -1.2420140846e-1f);
    p = __builtin_fmaf(p, m, 1.4249322787e-1f);
    p = __builtin_fmaf(p, m, -1.6668057665e-1f);
    p = __builtin_fmaf(p, m, 2.0000714765e-1f);
    p = __builtin_fmaf(p, m, -2.4999993993e-1f);
    p = __builtin_fmaf(p, m, 3.3333331174e-1f);
    const float tail = __builtin_fmaf(n, -2.12194440e-4f, __builtin_fmaf(-0.5f, square, p * m * square));
    float y = __builtin_fmaf(n, 0.693359375f, m + tail);
    y = chosen((x == __builtin_inff()) | (x != x), x, y);
    y = chosen(x == 0.0f, -__builtin_inff(), y);
    return chosen(x < 0.0f, __builtin_nanf(""), y);
}

INLINE float logarithm_of_more(float x) {  // log(1 + x), also of small x
    const float u = 1.0f + x;
    const float y = chosen(u == __builtin_inff(), u, logarithm(u) * (x / (u - 1.0f)));
    return chosen(u == 1.0f, x, y);
}

}  // namespace
"""


# Of what computes number by number. Not-a-numbers stay what they are; nothing branches, for then there are no vectors.
CODE = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "rsub": "{1} - {0}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "reciprocal": "1.0f / {0}",
    "sqrt": "__builtin_sqrtf({0})",
    "rsqrt": "1.0f / __builtin_sqrtf({0})",
    "abs": "__builtin_fabsf({0})",
    "exp": "exponential({0})",
    "expm1": "exponential_less_one({0})",
    "log": "logarithm({0})",
    "log1p": "logarithm_of_more({0})",
    "sigmoid": "logistic({0})",
    "tanh": "tangent({0})",
    "relu": "chosen({0} < 0.0f, 0.0f, {0})",
    "maximum": "chosen(({0} > {1}) | ({0} != {0}), {0}, {1})",
    "minimum": "chosen(({0} < {1}) | ({0} != {0}), {0}, {1})",
    "where": "chosen({0}, {1}, {2})",
    "sign": "static_cast<float>({0} > 0.0f) - static_cast<float>({0} < 0.0f)",
    "number": "static_cast<float>({0})",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "isnan": "{0} != {0}",
    "logical_and": "{0} & {1}",
    "logical_or": "{0} | {1}",
    "logical_xor": "{0} != {1}",
    "logical_not": "!{0}",
}
BOOLEAN_FUNCTIONS = {
    "logical_and",
    "logical_or",
    "logical_xor",
    "logical_not",
    "number",
}  # what is computed from booleans
BOOLEAN_RESULTS = {  # what gives some
    "gt", "ge", "lt", "le", "eq", "ne", "isnan", "logical_and", "logical_or", "logical_xor", "logical_not",
}  # fmt: skip
# What is another operation for the types that there are, or one that writes to its own operand.
ALIKE = {
    "bitwise_and": "logical_and", "bitwise_or": "logical_or", "bitwise_xor": "logical_xor",
    "bitwise_not": "logical_not", "logical_and_": "logical_and", "logical_or_": "logical_or",
}  # fmt: skip
