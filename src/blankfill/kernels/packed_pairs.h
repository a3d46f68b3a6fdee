/* The packed attention of packed.c in AVX-512's dot products of bfloat16, sums in float32.
 *
 * What is multiplied is bfloat16: inputs, softmax weights and the gradients of scores, the last two
 * rounded for it; all else is float32. Queries go through in strips, so that what belongs to a
 * strip stays in the cache, however long an example is. Included by packed.c.
 */
#ifdef WITH_DOT_PRODUCTS

#define QUERIES 96 /* of a strip; a multiple of 6 rows of a block and of 32 for pairs that turn */

/* A strip of an example's queries: the keys that the last of them sees; where its weights begin
 * among all, and how far apart rows of them lie. */
typedef struct { int64_t first, end, keys, place, pitch, causal; } strip_t;
typedef struct { int64_t number, query, start; } walk_t;

static int next_strip(const int64_t *e, int64_t heads, int64_t head, walk_t *walk, strip_t *s) {
    for (; walk->number <= strips(e); walk->query = first_query(e, ++walk->number)) {
        int64_t first = first_query(e, walk->number), end = end_of(e, walk->number);
        int64_t keys = end - e[0], queries = end - first;
        if (walk->query >= end) {
            walk->start += queries > 0 ? heads * queries * keys : 0;
            continue;
        }
        s->first = walk->query;
        s->end = walk->query = end - s->first < QUERIES ? end : s->first + QUERIES;
        s->causal = walk->number > 0;
        s->keys = s->causal ? s->end - e[0] : keys;
        s->place = walk->start + (head * queries + s->first - first) * keys;
        s->pitch = keys;
        return 1;
    }
    return 0;
}

/* A thread's memory; rows of `longest` and of `size` lie `wide` and `deep` apart. */
typedef struct {
    int64_t wide, deep;
    uint32_t *keys_turned, *values_turned; /* [size / 2, longest]: right factors Q K^T, G V^T */
    uint32_t *keys, *values;               /* [longest / 2, size]: of dS K and P V */
    uint32_t *left;                        /* [QUERIES, size / 2]: Q or G */
    uint32_t *between;                     /* [QUERIES / 2, size] */
    uint32_t *queries_turned, *grads_turned; /* [size, QUERIES / 2]: Q^T, G^T */
    uint32_t *weight_pairs, *score_pairs;  /* [QUERIES / 2, longest]: P, dS */
    uint16_t *kept;                        /* [QUERIES, longest]: P, then dS */
    uint16_t *row;                         /* [longest] */
    float *scores, *wide_row;              /* [QUERIES, longest], [longest] */
    float *made;                           /* [QUERIES, size] */
    float *grad_keys, *grad_values;        /* [size, longest] */
    float *turned;                         /* [longest, size] */
} pair_rooms_t;

static void *take(char **at, int64_t bytes) {
    void *here = *at;
    if (here) *at += (bytes + 63) / 64 * 64;
    return here;
}

static void *take_pair_rooms(pair_rooms_t *room, int64_t longest, int64_t size) {
    int64_t wide = padded(longest), deep = padded(size), half = QUERIES / 2;
    int64_t numbers = 64 * 16 + wide * (3 * size + 4 * deep + 3 * QUERIES + 4) +
                      QUERIES * (3 * deep + size) + deep * QUERIES;
    char *all = aligned_alloc(64, (4 * numbers + 63) / 64 * 64), *at = all;
    room->wide = wide, room->deep = deep;
    room->keys_turned = take(&at, 2 * size * wide);
    room->values_turned = take(&at, 2 * size * wide);
    room->keys = take(&at, 2 * wide * deep);
    room->values = take(&at, 2 * wide * deep);
    room->left = take(&at, 2 * QUERIES * size);
    room->between = take(&at, 4 * half * deep);
    room->queries_turned = take(&at, 4 * deep * half);
    room->grads_turned = take(&at, 4 * deep * half);
    room->weight_pairs = take(&at, 4 * half * wide);
    room->score_pairs = take(&at, 4 * half * wide);
    room->kept = take(&at, 2 * QUERIES * wide);
    room->row = take(&at, 2 * wide);
    room->scores = take(&at, 4 * QUERIES * wide);
    room->wide_row = take(&at, 4 * wide);
    room->made = take(&at, 4 * QUERIES * deep);
    room->grad_keys = take(&at, 4 * size * wide);
    room->grad_values = take(&at, 4 * size * wide);
    room->turned = take(&at, 4 * wide * deep);
    return all;
}

/* An example's rows as a right factor: summed over size, and summed over positions. */
static void lay_turned(view_t x, const int64_t *e, int64_t head, int64_t size, uint32_t *to,
                       int64_t to_row) {
    turn(at(x, e[0], head), 2 * x.row, e[2] - e[0], size / 2, to, to_row);
}

static void lay_pairs(view_t x, int64_t first, int64_t end, int64_t head, int64_t size,
                      uint32_t *to, int64_t to_row) {
    for (int64_t i = first; i < end; i += 2, to += to_row)
        interleave(at(x, i, head), i + 1 < end ? at(x, i + 1, head) : NULL, size, to);
}

static void lay_rows(view_t x, int64_t first, int64_t end, int64_t head, int64_t size,
                     uint32_t *to) {
    for (int64_t i = first; i < end; i++, to += size / 2)
        memcpy(to, at(x, i, head), 2 * size);
}

/* Queries' rows as a left factor that is summed over queries. */
static void lay_columns(view_t x, strip_t s, int64_t head, int64_t size, pair_rooms_t *room,
                        uint32_t *to) {
    lay_pairs(x, s.first, s.end, head, size, room->between, room->deep);
    turn(room->between, 4 * room->deep, (s.end - s.first + 1) / 2, size, to, QUERIES / 2);
}

static void store_rows(view_t x, int64_t first, int64_t end, int64_t head, int64_t size,
                       const float *from, int64_t from_row, float scale) {
    __m512 by = _mm512_set1_ps(scale);
    for (int64_t i = first; i < end; i++, from += from_row) {
        uint16_t *to = at(x, i, head);
        for (int64_t j = 0; j < size; j += 16)
            _mm256_mask_storeu_epi16(to + j, first_of(size - j),
                                     narrow16(_mm512_mul_ps(_mm512_loadu_ps(from + j), by)));
    }
}

/* Softmax of scale times the first `seen` scores of a row that has room for a multiple of 16; zero
 * after them, up to `size`. */
static void softmax_pairs(float *row, int64_t seen, int64_t size, float scale) {
    __m512 by = _mm512_set1_ps(scale), largest = _mm512_set1_ps(-INFINITY);
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < seen; i += 16) {
        __mmask16 some = first_of(seen - i);
        __m512 x = _mm512_mul_ps(_mm512_loadu_ps(row + i), by);
        largest = _mm512_mask_max_ps(largest, some, largest, x);
        _mm512_storeu_ps(row + i, x);
    }
    largest = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
    for (int64_t i = 0; i < padded(seen); i += 16) {
        __m512 x = exp16(_mm512_sub_ps(_mm512_loadu_ps(row + i), largest));
        x = _mm512_maskz_mov_ps(first_of(seen - i), x);
        sum = _mm512_add_ps(sum, x);
        _mm512_storeu_ps(row + i, x);
    }
    __m512 share = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(sum));
    for (int64_t i = 0; i < padded(seen); i += 16)
        _mm512_storeu_ps(row + i, _mm512_mul_ps(_mm512_loadu_ps(row + i), share));
    for (int64_t i = padded(seen); i < padded(size); i += 16)
        _mm512_storeu_ps(row + i, _mm512_setzero_ps());
}

/* A row of weights: rounded into `to`, `pitch` long, and what dropout leaves of it into `kept`. */
static void keep_weights(float *own, strip_t s, int64_t draw, dropout_t dropout, float *scratch,
                         uint16_t *to, uint16_t *kept) {
    const float *remaining = own;
    if (dropout.below) {
        drop(own, s.keys, (uint32_t)draw, dropout.seed, dropout.below);
        remaining = after_dropout(own, s.keys, dropout.grow, scratch);
    }
    for (int64_t i = 0; i < s.keys; i += 16) {
        __mmask16 some = first_of(s.keys - i);
        _mm256_mask_storeu_epi16(to + i, some, narrow16(_mm512_loadu_ps(own + i)));
        __m512 x = _mm512_maskz_loadu_ps(some, remaining + i);
        _mm256_storeu_si256((void *)(kept + i), narrow16(x));
    }
    memset(to + s.keys, 0, 2 * (s.pitch - s.keys));
}

static void attend_pairs(const int64_t *e, int64_t heads, int64_t head, int64_t size, float scale,
                         dropout_t dropout, view_t q, view_t k, view_t v, view_t out,
                         uint16_t *weights, pair_rooms_t *room) {
    walk_t walk = { 0, e[0], e[3] * heads };
    strip_t s;
    lay_turned(k, e, head, size, room->keys_turned, room->wide);
    lay_pairs(v, e[0], e[2], head, size, room->values, room->deep);
    while (next_strip(e, heads, head, &walk, &s)) {
        int64_t queries = s.end - s.first;
        int64_t pairs = (end_of(e, walk.number) - first_query(e, walk.number)) * s.pitch;
        int64_t beyond = draws_beyond(dropout, heads, walk.start, pairs);
        lay_rows(q, s.first, s.end, head, size, room->left);
        multiply_pairs(queries, s.keys, size / 2, room->left, size / 2, room->keys_turned,
                       room->wide, room->scores, room->wide, 0);
        for (int64_t i = 0; i < queries; i++) {
            float *own = room->scores + i * room->wide;
            int64_t place = s.place + i * s.pitch;
            softmax_pairs(own, s.causal ? s.keys - queries + i + 1 : s.keys, s.keys, scale);
            keep_weights(own, s, place + beyond, dropout, room->wide_row, weights + place,
                         room->kept + i * room->wide);
        }
        multiply_pairs(queries, size, (s.keys + 1) / 2, (uint32_t *)room->kept, room->wide / 2,
                       room->values, room->deep, room->made, room->deep, 0);
        store_rows(out, s.first, s.end, head, size, room->made, room->deep, 1.0f);
    }
}

/* The gradient of a row of scores, rounded, from that of the weights: `own` as they were kept,
 * `part` what dropout leaves of them. */
static void softmax_pairs_backward(const float *grad, const uint16_t *own, const uint16_t *part,
                                   int64_t keys, uint16_t *to) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < keys; i += 16) {
        __m512 l = widen16(_mm256_maskz_loadu_epi16(first_of(keys - i), part + i));
        __m512 g = _mm512_maskz_loadu_ps(first_of(keys - i), grad + i);
        sum = _mm512_fmadd_ps(g, l, sum);
    }
    __m512 dot = _mm512_set1_ps(_mm512_reduce_add_ps(sum));
    for (int64_t i = 0; i < keys; i += 16) {
        __mmask16 some = first_of(keys - i);
        __m512 l = widen16(_mm256_maskz_loadu_epi16(some, part + i));
        __m512 p = _mm512_abs_ps(widen16(_mm256_maskz_loadu_epi16(some, own + i)));
        __m512 g = _mm512_maskz_loadu_ps(some, grad + i);
        __m512 made = _mm512_fnmadd_ps(dot, p, _mm512_mul_ps(g, l));
        _mm256_storeu_si256((void *)(to + i), narrow16(_mm512_maskz_mov_ps(some, made)));
    }
}

/* What dropout leaves of a row of kept weights, rounded. */
static const uint16_t *after_dropout_pairs(const uint16_t *own, int64_t keys, float grow,
                                           uint16_t *to) {
    for (int64_t i = 0; i < keys; i += 16) {
        __mmask16 some = first_of(keys - i);
        __m512 p = widen16(_mm256_maskz_loadu_epi16(some, own + i));
        __mmask16 stays = _mm512_cmp_ps_mask(p, _mm512_setzero_ps(), _CMP_GT_OQ);
        p = _mm512_maskz_mul_ps(stays, p, _mm512_set1_ps(grow));
        _mm256_mask_storeu_epi16(to + i, some, narrow16(p));
    }
    return to;
}

/* The rows of weights and of scores' gradients of a strip, as left and as right factors. */
static void scores_backward(strip_t s, dropout_t dropout, const uint16_t *weights,
                            pair_rooms_t *room) {
    const int64_t wide = room->wide, queries = s.end - s.first;
    for (int64_t i = 0; i < queries; i++) {
        const uint16_t *own = weights + s.place + i * s.pitch, *part = own;
        if (dropout.below) part = after_dropout_pairs(own, s.keys, dropout.grow, room->row);
        uint16_t *made = room->kept + i * wide;
        softmax_pairs_backward(room->scores + i * wide, own, part, s.keys, made);
        uint32_t *to = room->weight_pairs + i / 2 * wide;
        if (i % 2 == 0) {
            interleave(part, NULL, s.keys, to);
            interleave(made, NULL, s.keys, room->score_pairs + i / 2 * wide);
            continue;
        }
        for (int64_t j = 0; j < s.keys; j += 16) { /* the second of a pair, beside the first */
            __m512i x = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first_of(s.keys - j), part + j));
            x = _mm512_or_si512(_mm512_loadu_si512(to + j), _mm512_slli_epi32(x, 16));
            _mm512_storeu_si512(to + j, x);
        }
        interleave(made - wide, made, s.keys, room->score_pairs + i / 2 * wide);
    }
}

static void attend_pairs_backward(const int64_t *e, int64_t heads, int64_t head, int64_t size,
                                  float scale, dropout_t dropout, view_t grad, view_t q, view_t k,
                                  view_t v, const uint16_t *weights, view_t dq, view_t dk,
                                  view_t dv, pair_rooms_t *room) {
    const int64_t wide = room->wide, deep = room->deep, length = e[2] - e[0];
    walk_t walk = { 0, e[0], e[3] * heads };
    strip_t s;
    lay_turned(v, e, head, size, room->values_turned, wide);
    lay_pairs(k, e[0], e[2], head, size, room->keys, deep);
    memset(room->grad_keys, 0, 4 * size * wide);
    memset(room->grad_values, 0, 4 * size * wide);
    while (next_strip(e, heads, head, &walk, &s)) {
        int64_t queries = s.end - s.first, pairs = (queries + 1) / 2;
        lay_rows(grad, s.first, s.end, head, size, room->left);
        multiply_pairs(queries, s.keys, size / 2, room->left, size / 2, room->values_turned, wide,
                       room->scores, wide, 0);
        scores_backward(s, dropout, weights, room);
        multiply_pairs(queries, size, (s.keys + 1) / 2, (uint32_t *)room->kept, wide / 2,
                       room->keys, deep, room->made, deep, 0);
        store_rows(dq, s.first, s.end, head, size, room->made, deep, scale);
        lay_columns(grad, s, head, size, room, room->grads_turned);
        multiply_pairs(size, s.keys, pairs, room->grads_turned, QUERIES / 2, room->weight_pairs,
                       wide, room->grad_values, wide, 1);
        lay_columns(q, s, head, size, room, room->queries_turned);
        multiply_pairs(size, s.keys, pairs, room->queries_turned, QUERIES / 2, room->score_pairs,
                       wide, room->grad_keys, wide, 1);
    }
    turn(room->grad_keys, 4 * wide, size, length, (uint32_t *)room->turned, deep);
    store_rows(dk, e[0], e[2], head, size, room->turned, deep, scale);
    turn(room->grad_values, 4 * wide, size, length, (uint32_t *)room->turned, deep);
    store_rows(dv, e[0], e[2], head, size, room->turned, deep, 1.0f);
}

#endif
