/* bfloat16 as it is read and written, and products of it by AVX-512's dot products of pairs.
 *
 * _mm512_dpbf16_ps adds to each of 16 float32 sums the two products of a pair of bfloat16 with
 * another. So the left factor of a product lies in rows of pairs along what is summed over, and
 * the right one in rows of pairs too, one row for every two terms of the sum ("interleaved"). A
 * pair is a uint32_t, its first number in the low half.
 */
#include <stdint.h>
#include <string.h>
#ifdef __AVX512BF16__
#define WITH_DOT_PRODUCTS
#include <immintrin.h>
#endif

static inline float widened(uint16_t x) {
    union { uint32_t i; float f; } wide = { (uint32_t)x << 16 };
    return wide.f;
}

/* To the nearest, to even between two; a NaN stays one. */
static inline uint16_t narrowed(float x) {
    union { float f; uint32_t i; } wide = { x };
    uint32_t rounded = (wide.i + 0x7fffu + (wide.i >> 16 & 1)) >> 16;
    return x == x ? rounded : 0x7fc0u;
}

static inline void widen(const uint16_t *from, int64_t count, float *to) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) to[i] = widened(from[i]);
}

static inline void narrow(const float *from, int64_t count, uint16_t *to) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) to[i] = narrowed(from[i]);
}

#ifdef WITH_DOT_PRODUCTS

/* Up to a multiple of a vector's 16 numbers. */
static inline int64_t padded(int64_t count) { return (count + 15) / 16 * 16; }

static inline __mmask16 first_of(int64_t count) {
    return count >= 16 ? 0xffff : count <= 0 ? 0 : (1u << count) - 1;
}

static inline __m512 widen16(__m256i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

static inline __m256i narrow16(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

/* e^x for x of at most 0: relative error below 2e-7, 0 below -104; a NaN stays one. */
static inline __m512 exp16(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-104.0f), x);
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)), 8);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(2.12194440e-4f), r);
    __m512 y = _mm512_set1_ps(1.9875691500e-4f);
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.3981999507e-3f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(8.3334519073e-3f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(4.1665795894e-2f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.6666665459e-1f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(5.0000001201e-1f));
    y = _mm512_fmadd_ps(_mm512_mul_ps(y, r), r, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(y, n);
}

/* A block of a product: up to 6 rows and 4 vectors of columns, whose 24 sums fill the registers. */
static inline __attribute__((always_inline)) void block(
    const int rows, const int vectors, const uint32_t *a, int64_t a_row, const uint32_t *b,
    int64_t b_row, int64_t pairs, float *c, int64_t c_row, int add) {
    __m512 sum[6][4];
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            sum[i][j] = add ? _mm512_loadu_ps(c + i * c_row + 16 * j) : _mm512_setzero_ps();
    for (int64_t p = 0; p < pairs; p++) {
        __m512bh right[4];
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            right[j] = (__m512bh)_mm512_loadu_si512(b + p * b_row + 16 * j);
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            __m512bh left = (__m512bh)_mm512_set1_epi32(a[i * a_row + p]);
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++)
                sum[i][j] = _mm512_dpbf16_ps(sum[i][j], left, right[j]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) _mm512_storeu_ps(c + i * c_row + 16 * j, sum[i][j]);
}

/* c = a b, or c += a b: a is [rows, pairs], b is [pairs, columns], c float32 [rows, columns], with
 * columns up to a multiple of 16. */
static void multiply_pairs(int64_t rows, int64_t columns, int64_t pairs, const uint32_t *a,
                           int64_t a_row, const uint32_t *b, int64_t b_row, float *c,
                           int64_t c_row, int add) {
    for (int64_t j = 0; j < columns; j += 64) {
        int64_t vectors = (columns - j + 15) / 16 < 4 ? (columns - j + 15) / 16 : 4;
        for (int64_t i = 0; i < rows; i += 6) {
            int64_t height = rows - i < 6 ? rows - i : 6;
            const uint32_t *left = a + i * a_row, *right = b + j;
            float *to = c + i * c_row + j;
#define CASE(R, V)                                                             \
    case R * 8 + V:                                                            \
        block(R, V, left, a_row, right, b_row, pairs, to, c_row, add);         \
        break;
#define CASES(R) CASE(R, 1) CASE(R, 2) CASE(R, 3) CASE(R, 4)
            switch (height * 8 + vectors) { CASES(1) CASES(2) CASES(3) CASES(4) CASES(5) CASES(6) }
#undef CASES
#undef CASE
        }
    }
}

/* Two rows of bfloat16 as one of pairs; the second may be missing, which is zero. Writes up to a
 * multiple of 16. */
static inline void interleave(const uint16_t *first, const uint16_t *second, int64_t count,
                              uint32_t *to) {
    for (int64_t i = 0; i < count; i += 16) {
        __mmask16 some = first_of(count - i);
        __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, first + i));
        __m512i high = _mm512_setzero_si512();
        if (second)
            high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, second + i));
        _mm512_storeu_si512(to + i, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
}

/* Turn [rows, columns] of four bytes each into [columns, rows], whose rows have room for a
 * multiple of 16. Rows may begin at any even address. */
static void turn(const void *from, int64_t from_row_bytes, int64_t rows, int64_t columns,
                 uint32_t *to, int64_t to_row) {
    for (int64_t i = 0; i < rows; i += 16) {
        for (int64_t j = 0; j < columns; j += 16) {
            __m512i x[16], y[16];
            __mmask16 some = first_of(columns - j);
#pragma GCC unroll 16
            for (int r = 0; r < 16; r++)
                x[r] = i + r < rows ? _mm512_maskz_loadu_epi32(
                    some, (const char *)from + (i + r) * from_row_bytes + 4 * j)
                                    : _mm512_setzero_si512();
            /* Within 128 bits: pairs of rows, then fours. */
#pragma GCC unroll 8
            for (int r = 0; r < 8; r++) {
                y[2 * r] = _mm512_unpacklo_epi32(x[2 * r], x[2 * r + 1]);
                y[2 * r + 1] = _mm512_unpackhi_epi32(x[2 * r], x[2 * r + 1]);
            }
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) {
                x[4 * r] = _mm512_unpacklo_epi64(y[4 * r], y[4 * r + 2]);
                x[4 * r + 1] = _mm512_unpackhi_epi64(y[4 * r], y[4 * r + 2]);
                x[4 * r + 2] = _mm512_unpacklo_epi64(y[4 * r + 1], y[4 * r + 3]);
                x[4 * r + 3] = _mm512_unpackhi_epi64(y[4 * r + 1], y[4 * r + 3]);
            }
            /* Then whole parts of 128 bits. */
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) {
                y[r] = _mm512_shuffle_i32x4(x[r], x[r + 4], 0x88);
                y[r + 4] = _mm512_shuffle_i32x4(x[r], x[r + 4], 0xdd);
                y[r + 8] = _mm512_shuffle_i32x4(x[r + 8], x[r + 12], 0x88);
                y[r + 12] = _mm512_shuffle_i32x4(x[r + 8], x[r + 12], 0xdd);
            }
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) {
                x[r] = _mm512_shuffle_i32x4(y[r], y[r + 8], 0x88);
                x[r + 4] = _mm512_shuffle_i32x4(y[r + 4], y[r + 12], 0x88);
                x[r + 8] = _mm512_shuffle_i32x4(y[r], y[r + 8], 0xdd);
                x[r + 12] = _mm512_shuffle_i32x4(y[r + 4], y[r + 12], 0xdd);
            }
#pragma GCC unroll 16
            for (int r = 0; r < 16; r++)
                if (j + r < columns) _mm512_storeu_si512(to + (j + r) * to_row + i, x[r]);
        }
    }
}

#endif
