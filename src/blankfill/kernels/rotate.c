/* Rotation of queries and keys: what model/rope.py does, in one pass over memory, float32 inside.
 *
 * For float32 the bits are those of its tensor operations, so products and sums may not be fused.
 */
#pragma STDC FP_CONTRACT OFF
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=off")
#endif
#include <stdint.h>

#include "bfloat16.h"

/* x: [rows, heads, parts, 2, half], rows `x_row` apart; cos and sin: [rows, parts, half], float32;
 * out: as x, dense. Rotates by the angle times `sign`. */
void rotate_float32(const float *x, int64_t x_row, const float *cos, const float *sin,
                    int64_t rows, int64_t heads, int64_t parts, int64_t half, float sign,
                    float *out) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < heads * parts; i++) {
            const float *a = x + row * x_row + i * 2 * half, *b = a + half;
            const float *c = cos + (row * parts + i % parts) * half;
            const float *s = sin + (row * parts + i % parts) * half;
            float *to = out + (row * heads * parts + i) * 2 * half;
#pragma omp simd
            for (int64_t j = 0; j < half; j++) {
                float first = a[j], second = b[j], turn = sign * s[j];
                to[j] = first * c[j] - second * turn;
                to[half + j] = second * c[j] + first * turn;
            }
        }
}

void rotate_bfloat16(const uint16_t *x, int64_t x_row, const float *cos, const float *sin,
                     int64_t rows, int64_t heads, int64_t parts, int64_t half, float sign,
                     uint16_t *out) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < heads * parts; i++) {
            const uint16_t *a = x + row * x_row + i * 2 * half, *b = a + half;
            const float *c = cos + (row * parts + i % parts) * half;
            const float *s = sin + (row * parts + i % parts) * half;
            uint16_t *to = out + (row * heads * parts + i) * 2 * half;
#pragma omp simd
            for (int64_t j = 0; j < half; j++) {
                float first = widened(a[j]), second = widened(b[j]), turn = sign * s[j];
                to[j] = narrowed(first * c[j] - second * turn);
                to[half + j] = narrowed(second * c[j] + first * turn);
            }
        }
}
