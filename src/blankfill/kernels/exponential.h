#include <math.h>
#include <stdint.h>

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
