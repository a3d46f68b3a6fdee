/* Attention inside each example, float32 and bfloat16: what packed.py does, without its overhead.
 *
 * One task is one example and one head; tasks share nothing, so there is one parallel region and
 * the result does not depend on the number of threads. The products are the BLAS's that torch
 * brings, whose sgemm is handed in. packed.py says the rule and holds this to it in tests.
 *
 * Where bfloat16 is read and written, AVX-512's dot products of it are taken if this is compiled
 * for them (forms.py, packed_pairs.h). Else all between is float32: a task's rows are widened once,
 * into memory that stays in the cache, and its gradients are rounded once, when they are complete.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bfloat16.h"
#include "exponential.h"

/* Fortran's sgemm: everything by address, columns first. */
typedef void (*gemm_t)(const char *, const char *, const int *, const int *, const int *,
                       const float *, const float *, const int *, const float *, const int *,
                       const float *, float *, const int *);

/* [positions, heads, head size], the last one dense; bfloat16 where `narrow`, else float32. */
typedef struct { void *data; int64_t row, head, narrow; } view_t;

/* Rows of one head as float32, `row` apart. */
typedef struct { float *data; int64_t row; } rows_t;

static void *at(view_t x, int64_t position, int64_t head) {
    int64_t offset = position * x.row + head * x.head;
    return x.narrow ? (void *)((uint16_t *)x.data + offset) : (float *)x.data + offset;
}

/* Rows to read: the memory itself, or widened into a room. */
static rows_t read_rows(view_t x, int64_t first, int64_t end, int64_t head, int64_t size,
                        float *room) {
    if (!x.narrow) return (rows_t){ at(x, first, head), x.row };
    for (int64_t i = first; i < end; i++) widen(at(x, i, head), size, room + (i - first) * size);
    return (rows_t){ room, size };
}

/* Rows to write: the memory itself, or a room whose rows are rounded when they are complete. */
static rows_t begin_rows(view_t x, int64_t first, int64_t head, int64_t size, float *room) {
    return x.narrow ? (rows_t){ room, size } : (rows_t){ at(x, first, head), x.row };
}

static void end_rows(view_t x, rows_t made, int64_t first, int64_t end, int64_t head,
                     int64_t size) {
    for (int64_t i = first; x.narrow && i < end; i++)
        narrow(made.data + (i - first) * made.row, size, at(x, i, head));
}

/* c = alpha * a b + beta * c by rows, [m, k] and [k, n]; a factor is stored turned where its flag
 * is 'T'. Columns of the transposed product are rows of this one. */
static void multiply(gemm_t gemm, char turn_a, char turn_b, int m, int n, int k, float alpha,
                     const float *a, int a_row, const float *b, int b_row, float beta, float *c,
                     int c_row) {
    gemm(&turn_b, &turn_a, &n, &m, &k, &alpha, b, &b_row, a, &a_row, &beta, c, &c_row);
}

/* Softmax of the first `seen` scores of a row of `size`; zero after them. */
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

/* Dropout of the weights that start at an index of those of all heads: a number below `below` takes
 * one, which is kept as its negative. */
static void drop(float *weights, int64_t count, uint32_t index, uint64_t seed, uint32_t below) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        uint32_t gone = random_at(index + (uint32_t)i, seed) < below;
        weights[i] = gone ? -weights[i] : weights[i];
    }
}

/* What dropout leaves of weights: `grow` times those that it does not take. */
static const float *after_dropout(const float *weights, int64_t count, float grow,
                                  float *kept) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) kept[i] = weights[i] > 0.0f ? weights[i] * grow : 0.0f;
    return kept;
}

/* Dropout: `below` is zero where there is none. Heads are one of equal parts of all heads. */
typedef struct { uint64_t seed; uint32_t below; float grow; int64_t part, parts; } dropout_t;

/* How much further the numbers of a rectangle's draws lie, which are counted over all heads, than
 * its weights, which lie behind `start` others of these heads. */
static int64_t draws_beyond(dropout_t dropout, int64_t heads, int64_t start, int64_t pairs) {
    return start * (dropout.parts - 1) + dropout.part * heads * pairs;
}

/* The rectangles of an example are numbered: 0 is Part A, the others are strips of Part B. */
static int64_t strips(const int64_t *e) { return (e[2] - e[1] + STRIP - 1) / STRIP; }

static int64_t first_query(const int64_t *e, int64_t number) {
    return number ? e[1] + (number - 1) * STRIP : e[0];
}

static int64_t end_of(const int64_t *e, int64_t number) {
    int64_t end = e[1] + number * STRIP;
    return end < e[2] ? end : e[2];
}

#include "packed_pairs.h"

/* Memory of a thread: `rooms` times the rows of the longest example, then the pairs of the largest
 * rectangle, `pairs` times. */
static float *take_rooms(int64_t rooms, int64_t longest, int64_t size, int64_t pairs,
                         int64_t largest) {
    return malloc(sizeof(float) * (rooms * longest * size + pairs * largest + 1));
}

/* examples: [count, 4] start, start of Part B, end, pairs of earlier rectangles. */
void attend(gemm_t gemm, const int64_t *examples, int64_t count, int64_t heads, int64_t size,
            float scale, dropout_t dropout, int64_t largest, int64_t longest, view_t q, view_t k,
            view_t v, view_t out, void *weights) {
#ifdef WITH_DOT_PRODUCTS
    if (q.narrow && size % 2 == 0) {
#pragma omp parallel
        {
            pair_rooms_t room;
            void *all = take_pair_rooms(&room, longest, size);
#pragma omp for schedule(dynamic, 1)
            for (int64_t task = 0; task < count * heads; task++)
                attend_pairs(examples + task / heads * 4, heads, task % heads, size, scale,
                             dropout, q, k, v, out, weights, &room);
            free(all);
        }
        return;
    }
#endif
    const int64_t is_narrow = q.narrow, room = is_narrow ? longest * size : 0;
#pragma omp parallel
    {
        float *rooms = take_rooms(is_narrow ? 4 : 0, longest, size, 2, largest);
        float *wide = rooms + 4 * room, *scratch = wide + largest;
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < count * heads; task++) {
            const int64_t *e = examples + task / heads * 4, head = task % heads;
            rows_t keys_of = read_rows(k, e[0], e[2], head, size, rooms);
            rows_t values_of = read_rows(v, e[0], e[2], head, size, rooms + room);
            int64_t start = e[3] * heads;
            for (int64_t number = 0; number <= strips(e); number++) {
                int64_t first = first_query(e, number), end = end_of(e, number);
                int64_t queries = end - first, keys = end - e[0], pairs = queries * keys;
                if (queries <= 0) continue;
                int64_t place = start + head * pairs;
                float *own = is_narrow ? wide : (float *)weights + place;
                const float *kept = own;
                rows_t queries_of = read_rows(q, first, end, head, size, rooms + 2 * room);
                rows_t made = begin_rows(out, first, head, size, rooms + 3 * room);
                multiply(gemm, 'N', 'T', queries, keys, size, scale, queries_of.data,
                         queries_of.row, keys_of.data, keys_of.row, 0.0f, own, keys);
                for (int64_t i = 0; i < queries; i++)
                    softmax(own + i * keys, number ? keys - queries + i + 1 : keys, keys);
                if (dropout.below) {
                    int64_t draw = place + draws_beyond(dropout, heads, start, pairs);
                    drop(own, pairs, (uint32_t)draw, dropout.seed, dropout.below);
                    kept = after_dropout(own, pairs, dropout.grow, scratch);
                }
                multiply(gemm, 'N', 'N', queries, size, keys, 1.0f, kept, keys, values_of.data,
                         values_of.row, 0.0f, made.data, made.row);
                end_rows(out, made, first, end, head, size);
                if (is_narrow) narrow(own, pairs, (uint16_t *)weights + place);
                start += heads * pairs;
            }
        }
        free(rooms);
    }
}

/* Gradients are zero on entry; every rectangle adds to its keys' share. */
void attend_backward(gemm_t gemm, const int64_t *examples, int64_t count, int64_t heads,
                     int64_t size, float scale, dropout_t dropout, int64_t largest,
                     int64_t longest, view_t grad, view_t q, view_t k, view_t v,
                     const void *weights, view_t dq, view_t dk, view_t dv) {
#ifdef WITH_DOT_PRODUCTS
    if (q.narrow && size % 2 == 0) {
#pragma omp parallel
        {
            pair_rooms_t room;
            void *all = take_pair_rooms(&room, longest, size);
#pragma omp for schedule(dynamic, 1)
            for (int64_t task = 0; task < count * heads; task++)
                attend_pairs_backward(examples + task / heads * 4, heads, task % heads, size,
                                      scale, dropout, grad, q, k, v, weights, dq, dk, dv, &room);
            free(all);
        }
        return;
    }
#endif
    const int64_t is_narrow = q.narrow, room = is_narrow ? longest * size : 0;
#pragma omp parallel
    {
        float *rooms = take_rooms(is_narrow ? 7 : 0, longest, size, 3, largest);
        float *scores = rooms + 7 * room, *wide = scores + largest, *scratch = wide + largest;
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < count * heads; task++) {
            const int64_t *e = examples + task / heads * 4, head = task % heads;
            rows_t keys_of = read_rows(k, e[0], e[2], head, size, rooms);
            rows_t values_of = read_rows(v, e[0], e[2], head, size, rooms + room);
            rows_t grad_keys = begin_rows(dk, e[0], head, size, rooms + 2 * room);
            rows_t grad_values = begin_rows(dv, e[0], head, size, rooms + 3 * room);
            if (is_narrow) memset(rooms + 2 * room, 0, sizeof(float) * 2 * room);
            int64_t start = e[3] * heads;
            for (int64_t number = 0; number <= strips(e); number++) {
                int64_t first = first_query(e, number), end = end_of(e, number);
                int64_t queries = end - first, keys = end - e[0], pairs = queries * keys;
                if (queries <= 0) continue;
                int64_t place = start + head * pairs;
                const float *own = (const float *)weights + place, *kept;
                if (is_narrow) {
                    widen((const uint16_t *)weights + place, pairs, wide);
                    own = wide;
                }
                kept = dropout.below ? after_dropout(own, pairs, dropout.grow, scratch) : own;
                rows_t queries_of = read_rows(q, first, end, head, size, rooms + 4 * room);
                rows_t grads_of = read_rows(grad, first, end, head, size, rooms + 5 * room);
                rows_t grad_queries = begin_rows(dq, first, head, size, rooms + 6 * room);
                multiply(gemm, 'T', 'N', keys, size, queries, 1.0f, kept, keys, grads_of.data,
                         grads_of.row, 1.0f, grad_values.data, grad_values.row);
                multiply(gemm, 'N', 'T', queries, keys, size, 1.0f, grads_of.data, grads_of.row,
                         values_of.data, values_of.row, 0.0f, scores, keys);
                for (int64_t i = 0; i < queries; i++) {
                    float *row = scores + i * keys, dot = 0.0f;
                    const float *p = own + i * keys, *part = kept + i * keys;
#pragma omp simd reduction(+ : dot)
                    for (int64_t j = 0; j < keys; j++) dot += row[j] * part[j];
#pragma omp simd
                    for (int64_t j = 0; j < keys; j++)
                        row[j] = row[j] * part[j] - dot * fabsf(p[j]);
                }
                multiply(gemm, 'N', 'N', queries, size, keys, scale, scores, keys, keys_of.data,
                         keys_of.row, 0.0f, grad_queries.data, grad_queries.row);
                multiply(gemm, 'T', 'N', keys, size, queries, scale, scores, keys, queries_of.data,
                         queries_of.row, 1.0f, grad_keys.data, grad_keys.row);
                end_rows(dq, grad_queries, first, end, head, size);
                start += heads * pairs;
            }
            end_rows(dk, grad_keys, e[0], e[2], head, size);
            end_rows(dv, grad_values, e[0], e[2], head, size);
        }
        free(rooms);
    }
}
