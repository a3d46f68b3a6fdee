/* Softmax, loss and gradient of a chunk of logits of float32 or bfloat16, a row at a time.
 *
 * model/loss.py says the rule and is the twin that tests hold this to. A row of logits is read from
 * memory once: its passes meet it in the cache.
 */
#include <math.h>
#include <stdint.h>

#include "bfloat16.h"
#include "exponential.h"

#define LOGIT float
#define READ(x) (x)
#define WRITE(x) (x)
#define OF(name) name##_float32
#include "chunk_rows.h"

#define LOGIT uint16_t
#define READ(x) widened(x)
#define WRITE(x) narrowed(x)
#define OF(name) name##_bfloat16
#include "chunk_rows.h"

/* Add bfloat16 to a float32 total. */
void add_part(float *total, const uint16_t *part, int64_t count) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) total[i] += widened(part[i]);
}
