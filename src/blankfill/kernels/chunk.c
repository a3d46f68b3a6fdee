/* Softmax, loss and gradient of a chunk of bfloat16 logits, float32 inside, a row at a time.
 *
 * model/loss.py says the rule and is the twin that tests hold this to. A row of logits is read from
 * memory once: its passes meet it in the cache.
 */
#include <math.h>
#include <stdint.h>

#include "bfloat16.h"
#include "exponential.h"

static float largest_of(const uint16_t *row, int64_t size) {
    float largest = widened(row[0]);
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < size; i++) {
        float x = widened(row[i]);
        largest = x > largest ? x : largest;
    }
    return largest;
}

static float sum_of(const uint16_t *row, int64_t size, float largest) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < size; i++) sum += exp_(widened(row[i]) - largest);
    return sum;
}

static void to_shares(uint16_t *row, int64_t size, float largest, float share) {
#pragma omp simd
    for (int64_t i = 0; i < size; i++)
        row[i] = narrowed(exp_(widened(row[i]) - largest) * share);
}

/* scores: [rows, size], read; with `gradient`, overwritten by softmax, less 1 / factor at the
 * target, where factor is 1 + 2 z_loss normalizer. Writes each row's log of the softmax's
 * denominator, and its nats. */
void score_chunk(uint16_t *scores, int64_t rows, int64_t size, const int64_t *targets,
                 float *normalizer, float *nats, int64_t gradient, float z_loss) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        uint16_t *row = scores + i * size;
        float own = widened(row[targets[i]]), largest = largest_of(row, size);
        float sum = sum_of(row, size, largest);
        normalizer[i] = largest + logf(sum);
        nats[i] = normalizer[i] - own;
        if (!gradient) continue;
        to_shares(row, size, largest, 1.0f / sum);
        float factor = 1.0f + 2.0f * z_loss * normalizer[i];
        row[targets[i]] = narrowed(exp_(own - largest) / sum - 1.0f / factor);
    }
}

/* Add bfloat16 to a float32 total. */
void add_part(float *total, const uint16_t *part, int64_t count) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) total[i] += widened(part[i]);
}
