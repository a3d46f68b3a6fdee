/* GeGLU of bfloat16, `up * gelu(gate)`, and its backward pass, each in one pass over
 * memory, float32 inside.
 *
 * model/mlp.py says the rule and is the twin that tests hold this to. GeLU in its erf form: x times
 * the normal distribution's integral up to x, by Abramowitz and Stegun 7.1.26, whose error of less
 * than 1e-7 is far below bfloat16's.
 */
#include <stdint.h>

#include "bfloat16.h"
#include "exponential.h"

/* The normal distribution's integral up to x, and its density at x. */
static inline float integral(float x, float *density) {
    float size = x < 0.0f ? -x : x, falls = exp_(-0.5f * x * x);
    float t = 1.0f / (1.0f + 0.23164190f * size);
    float y = 1.061405429f;
    y = y * t - 1.453152027f;
    y = y * t + 1.421413741f;
    y = y * t - 0.284496736f;
    y = y * t + 0.254829592f;
    float tail = 0.5f * y * t * falls;
    *density = 0.39894228f * falls;
    return x < 0.0f ? tail : 1.0f - tail;
}

void gate(const uint16_t *up, const uint16_t *gates, int64_t count, uint16_t *out) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float x = widened(gates[i]), density;
        out[i] = narrowed(widened(up[i]) * x * integral(x, &density));
    }
}

void gate_backward(const uint16_t *grad, const uint16_t *up, const uint16_t *gates, int64_t count,
                   uint16_t *to_up, uint16_t *to_gates) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float x = widened(gates[i]), g = widened(grad[i]), density;
        float below = integral(x, &density);
        to_up[i] = narrowed(g * x * below);
        to_gates[i] = narrowed(g * widened(up[i]) * (below + x * density));
    }
}
