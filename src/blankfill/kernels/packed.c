/* Attention inside each example, float32: what packed.py does, without its overhead.
 *
 * One task is one example and one head; tasks share nothing, so there is one parallel region and
 * the result does not depend on the number of threads. The products are the BLAS's that torch
 * brings, whose sgemm is handed in. packed.py says the rule and holds this to it in tests.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

/* Fortran's sgemm: everything by address, columns first. */
typedef void (*gemm_t)(const char *, const char *, const int *, const int *, const int *,
                       const float *, const float *, const int *, const float *, const int *,
                       const float *, float *, const int *);

/* [positions, heads, head size], the last one dense. */
typedef struct { float *data; int64_t row, head; } view_t;

static float *at(view_t x, int64_t position, int64_t head) {
    return x.data + position * x.row + head * x.head;
}

/* c = alpha * a b + beta * c by rows, [m, k] and [k, n]; a factor is stored turned where its flag
 * is 'T'. Columns of the transposed product are rows of this one. */
static void multiply(gemm_t gemm, char turn_a, char turn_b, int m, int n, int k, float alpha,
                     const float *a, int a_row, const float *b, int b_row, float beta, float *c,
                     int c_row) {
    gemm(&turn_b, &turn_a, &n, &m, &k, &alpha, b, &b_row, a, &a_row, &beta, c, &c_row);
}

/* Cephes' expf for arguments of at most 0: relative error below 2e-7; below -87 it is 0. */
static inline float exp_(float x) {
    float clipped = x < -87.0f ? -87.0f : x;
    float n = floorf(clipped * 1.44269504088896341f + 0.5f);
    float r = clipped - n * 0.693359375f + n * 2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    union { int32_t i; float f; } power = { ((int32_t)n + 127) << 23 };
    return x < -87.0f ? 0.0f : y * power.f;
}

/* Softmax of the first `seen` scores of a row of `size`; zero behind them. */
static void softmax(float *row, int64_t seen, int64_t size) {
    float largest = row[0], sum = 0.0f;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < seen; i++) largest = row[i] > largest ? row[i] : largest;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < seen; i++) sum += row[i] = exp_(row[i] - largest);
    float scale = 1.0f / sum;
#pragma omp simd
    for (int64_t i = 0; i < seen; i++) row[i] *= scale;
    for (int64_t i = seen; i < size; i++) row[i] = 0.0f;
}

/* A random number of its own for every index: MurmurHash3's finalizer, twice, keyed between. */
static inline uint32_t mix(uint32_t h) {
    h = (h ^ h >> 16) * 0x85ebca6bu;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    return h ^ h >> 16;
}

static inline uint32_t random_at(uint32_t index, uint64_t seed) {
    return mix(mix(index ^ (uint32_t)seed) + (uint32_t)(seed >> 32));
}

/* Dropout of the weights that start at an index of the whole buffer: a number below `below` takes
 * one, which is kept as its negative. */
static void drop(float *weights, int64_t count, uint32_t index, uint64_t seed, uint32_t below) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        uint32_t gone = random_at(index + (uint32_t)i, seed) < below;
        weights[i] = gone ? -weights[i] : weights[i];
    }
}

/* What dropout leaves of weights: `grow` times those that it does not take. */
static const float *left(const float *weights, int64_t count, float grow, float *kept) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) kept[i] = weights[i] > 0.0f ? weights[i] * grow : 0.0f;
    return kept;
}

/* Dropout: all zero where there is none. */
typedef struct { uint64_t seed; uint32_t below; float grow; } dropout_t;

/* The rectangles of an example are numbered: 0 is Part A, the others are strips of Part B. */
static int64_t strips(const int64_t *e) { return (e[2] - e[1] + STRIP - 1) / STRIP; }

static int64_t first_query(const int64_t *e, int64_t number) {
    return number ? e[1] + (number - 1) * STRIP : e[0];
}

static int64_t end_of(const int64_t *e, int64_t number) {
    int64_t end = e[1] + number * STRIP;
    return end < e[2] ? end : e[2];
}

/* examples: [count, 4] start, start of Part B, end, pairs of earlier rectangles. */
void attend(gemm_t gemm, const int64_t *examples, int64_t count, int64_t heads, int64_t size,
            float scale, dropout_t dropout, int64_t largest, view_t q, view_t k, view_t v,
            view_t out, float *weights) {
#pragma omp parallel
    {
        float *scratch = dropout.below ? malloc(sizeof(float) * largest) : NULL;
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < count * heads; task++) {
            const int64_t *e = examples + task / heads * 4, head = task % heads;
            float *w = weights + e[3] * heads;
            for (int64_t number = 0; number <= strips(e); number++) {
                int64_t first = first_query(e, number), end = end_of(e, number);
                int64_t queries = end - first, keys = end - e[0], pairs = queries * keys;
                if (queries <= 0) continue;
                float *own = w + head * pairs;
                const float *kept = own;
                multiply(gemm, 'N', 'T', queries, keys, size, scale, at(q, first, head), q.row,
                     at(k, e[0], head), k.row, 0.0f, own, keys);
                for (int64_t i = 0; i < queries; i++)
                    softmax(own + i * keys, number ? keys - queries + i + 1 : keys, keys);
                if (dropout.below) {
                    drop(own, pairs, (uint32_t)(own - weights), dropout.seed, dropout.below);
                    kept = left(own, pairs, dropout.grow, scratch);
                }
                multiply(gemm, 'N', 'N', queries, size, keys, 1.0f, kept, keys, at(v, e[0], head),
                     v.row, 0.0f, at(out, first, head), out.row);
                w += heads * pairs;
            }
        }
        free(scratch);
    }
}

/* Gradients are zero on entry; every rectangle adds to its keys' share. */
void attend_backward(gemm_t gemm, const int64_t *examples, int64_t count, int64_t heads,
                     int64_t size, float scale, dropout_t dropout, int64_t largest, view_t grad,
                     view_t q, view_t k, view_t v, const float *weights, view_t dq, view_t dk,
                     view_t dv) {
#pragma omp parallel
    {
        float *scores = malloc(sizeof(float) * largest * (dropout.below ? 2 : 1));
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < count * heads; task++) {
            const int64_t *e = examples + task / heads * 4, head = task % heads;
            const float *w = weights + e[3] * heads;
            for (int64_t number = 0; number <= strips(e); number++) {
                int64_t first = first_query(e, number), end = end_of(e, number);
                int64_t queries = end - first, keys = end - e[0], pairs = queries * keys;
                if (queries <= 0) continue;
                const float *own = w + head * pairs, *kept = own;
                if (dropout.below) kept = left(own, pairs, dropout.grow, scores + largest);
                multiply(gemm, 'T', 'N', keys, size, queries, 1.0f, kept, keys,
                     at(grad, first, head), grad.row, 1.0f, at(dv, e[0], head), dv.row);
                multiply(gemm, 'N', 'T', queries, keys, size, 1.0f, at(grad, first, head),
                     grad.row, at(v, e[0], head), v.row, 0.0f, scores, keys);
                for (int64_t i = 0; i < queries; i++) {
                    float *row = scores + i * keys, dot = 0.0f;
                    const float *p = own + i * keys, *part = kept + i * keys;
#pragma omp simd reduction(+ : dot)
                    for (int64_t j = 0; j < keys; j++) dot += row[j] * part[j];
#pragma omp simd
                    for (int64_t j = 0; j < keys; j++)
                        row[j] = row[j] * part[j] - dot * fabsf(p[j]);
                }
                multiply(gemm, 'N', 'N', queries, size, keys, scale, scores, keys,
                     at(k, e[0], head), k.row, 0.0f, at(dq, first, head), dq.row);
                multiply(gemm, 'T', 'N', keys, size, queries, scale, scores, keys,
                     at(q, first, head), q.row, 1.0f, at(dk, e[0], head), dk.row);
                w += heads * pairs;
            }
        }
        free(scores);
    }
}
