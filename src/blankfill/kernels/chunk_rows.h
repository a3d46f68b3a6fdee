/* What chunk.c does with rows of logits of one type; included once for each.
 *
 * LOGIT is the type in memory, READ and WRITE turn it into float32 and back, OF names a function.
 */

/* Terms of a softmax's denominator that are added in float32; their sums are added in double. */
enum { OF(block_of) = 2048 };

static float OF(largest_of)(const LOGIT *row, int64_t size) {
    float largest = READ(row[0]);
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < size; i++) {
        float x = READ(row[i]);
        largest = x > largest ? x : largest;
    }
    return largest;
}

static float OF(sum_of)(const LOGIT *row, int64_t size, float largest) {
    double total = 0.0;
    for (int64_t first = 0; first < size; first += OF(block_of)) {
        int64_t end = first + OF(block_of) < size ? first + OF(block_of) : size;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = first; i < end; i++) sum += exp_(READ(row[i]) - largest);
        total += sum;
    }
    return (float)total;
}

static void OF(to_shares)(LOGIT *row, int64_t size, float largest, float share) {
#pragma omp simd
    for (int64_t i = 0; i < size; i++) row[i] = WRITE(exp_(READ(row[i]) - largest) * share);
}

/* scores: [rows, size], read; with `gradient`, overwritten by softmax, less 1 / factor at the
 * target, where factor is 1 + 2 z_loss normalizer. Writes each row's log of the softmax's
 * denominator, and its nats. */
void OF(score_chunk)(LOGIT *scores, int64_t rows, int64_t size, const int64_t *targets,
                     float *normalizer, float *nats, int64_t gradient, float z_loss) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        LOGIT *row = scores + i * size;
        float own = READ(row[targets[i]]), largest = OF(largest_of)(row, size);
        float sum = OF(sum_of)(row, size, largest);
        normalizer[i] = largest + logf(sum);
        nats[i] = normalizer[i] - own;
        if (!gradient) continue;
        OF(to_shares)(row, size, largest, 1.0f / sum);
        float factor = 1.0f + 2.0f * z_loss * normalizer[i];
        row[targets[i]] = WRITE(exp_(own - largest) / sum - 1.0f / factor);
    }
}

#undef LOGIT
#undef READ
#undef WRITE
#undef OF
