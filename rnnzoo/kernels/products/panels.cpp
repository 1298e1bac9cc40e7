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
