// What surrounds the matrix products when a model decodes in int8, each in one pass over its rows.
//
// Rows are float32 and lie one after the other; a row's result depends on that row alone. Plain loops that a compiler
// turns into vector instructions: built for the processor at hand by kernels/__init__.py, which says what each does.

#include "kernels.h"

#include <cmath>
#include <cstring>
#include <vector>
#ifdef __AVX512VNNI__
#include <immintrin.h>
#endif

namespace {

constexpr float kLevels = 127.0f;
constexpr float kTiny = 1e-30f;
constexpr int64_t kMaxWidth = 512;  // of a head
constexpr int64_t kVector = 16;      // floats in a vector
constexpr int64_t kRows = 6;          // multiplied at once: their sums fill the registers
constexpr int64_t kPart = 96;         // rows of a feed-forward layer at once
constexpr int64_t kBlock = 64;       // logits that are looked at again if their largest is good enough
constexpr int64_t kLine = 32;        // bfloat16 in a line of the cache

// exp with a relative error of about 1e-7: 2^whole by its bits, 2^fraction by a polynomial (Taylor, |f| <= 1/2).
inline float fast_exp(float x) {
    x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
    const float t = x * 1.44269504088896f;
    const float whole = std::nearbyint(t);
    const float f = (t - whole) * 0.693147180559945f;
    float p = 1.0f / 5040.0f;
    p = p * f + 1.0f / 720.0f;
    p = p * f + 1.0f / 120.0f;
    p = p * f + 1.0f / 24.0f;
    p = p * f + 1.0f / 6.0f;
    p = p * f + 0.5f;
    p = p * f + 1.0f;
    p = p * f + 1.0f;
    const int32_t bits = (static_cast<int32_t>(whole) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return p * power;
}

// x * Phi(x) within 6e-5, a hundredth of a step of the int8 it becomes: Phi(x) - 1/2 as x times a polynomial in x^2
// (least squares, reweighted towards the largest error), held still beyond 4.5.
inline float gelu(float x) {
    const float c = x < -4.5f ? -4.5f : (x > 4.5f ? 4.5f : x);
    const float u = c * c;
    float p = 6.0010021e-14f;
    p = p * u - 7.9914903e-12f;
    p = p * u + 4.8171994e-10f;
    p = p * u - 1.7516886e-08f;
    p = p * u + 4.3328765e-07f;
    p = p * u - 7.8154499e-06f;
    p = p * u + 1.0763535e-04f;
    p = p * u - 1.1632385e-03f;
    p = p * u + 9.9297194e-03f;
    p = p * u - 6.6450469e-02f;
    p = p * u + 3.9892980e-01f;
    return x * (0.5f + c * p);
}

inline void quantize(const float* x, int64_t width, uint8_t* bits, float* scale) {
    float largest = 0.0f;
    for (int64_t i = 0; i < width; ++i) {
        const float a = std::fabs(x[i]);
        largest = a > largest ? a : largest;
    }
    *scale = largest * (1.0f / kLevels) + kTiny;
    const float inverse = 1.0f / *scale;
    for (int64_t i = 0; i < width; ++i)
        bits[i] = static_cast<uint8_t>(static_cast<int32_t>(std::nearbyint(x[i] * inverse)) + 128);
}

inline void scale_row(float* row, float scale, const float* bias, int64_t width) {
    if (bias)
        for (int64_t i = 0; i < width; ++i) row[i] = row[i] * scale + bias[i];
    else
        for (int64_t i = 0; i < width; ++i) row[i] *= scale;
}

inline void turn(float* x, const float* cos, const float* sin, int64_t half) {
    for (int64_t i = 0; i < half; ++i) {
        const float first = x[i], second = x[half + i];
        x[i] = first * cos[i] - second * sin[i];
        x[half + i] = second * cos[i] + first * sin[i];
    }
}

#ifdef __AVX512VNNI__
// Sums of products of `Rows` rows of bytes with 64 channels, exact. Weights: for each 4 inputs, 64 x 4 bytes, so that
// they are read in one stream. Meanwhile `pace` bytes an input of what comes next are fetched.
template <int Rows>
inline void multiply(const uint8_t* bits, int64_t inputs, const int8_t* weights, const int8_t* next, int64_t pace,
                     int32_t* sums) {
    __m512i sum[Rows][4];
    for (int r = 0; r < Rows; ++r)
        for (int c = 0; c < 4; ++c) sum[r][c] = _mm512_setzero_si512();
    for (int64_t i = 0; i < inputs; i += 4) {
        __m512i weight[4];
        for (int c = 0; c < 4; ++c) {
            weight[c] = _mm512_loadu_si512(weights + i * 64 + c * 64);
            __builtin_prefetch(next + (i + c) * pace, 0, 2);
        }
        for (int r = 0; r < Rows; ++r) {
            int32_t four;
            std::memcpy(&four, bits + r * inputs + i, 4);
            const __m512i input = _mm512_set1_epi32(four);
            for (int c = 0; c < 4; ++c) sum[r][c] = _mm512_dpbusd_epi32(sum[r][c], input, weight[c]);
        }
    }
    for (int r = 0; r < Rows; ++r)
        for (int c = 0; c < 4; ++c) _mm512_storeu_si512(sums + r * 64 + c * 16, sum[r][c]);
}

template <int Rows>
inline void multiply_any(int64_t rows, const uint8_t* bits, int64_t inputs, const int8_t* weights, const int8_t* next,
                         int64_t pace, int32_t* sums) {
    if (rows == Rows)
        multiply<Rows>(bits, inputs, weights, next, pace, sums);
    else if constexpr (Rows > 1)
        multiply_any<Rows - 1>(rows, bits, inputs, weights, next, pace, sums);
}
#endif

// bfloat16 is the upper half of a float.
inline float to_float(float x) { return x; }
inline float to_float(uint16_t x) {
    const uint32_t bits = static_cast<uint32_t>(x) << 16;
    float y;
    std::memcpy(&y, &bits, sizeof y);
    return y;
}
inline uint16_t to_bfloat16(float x) {  // to the nearest, and of two to the even one
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline void fetch(const uint16_t* x, int64_t count) {
    for (int64_t i = 0; i < count; i += kLine) __builtin_prefetch(x + i);
}

// Where keys and values lie: in equal steps, or each in a place of its own.
template <typename Number>
struct Line {
    const Number *keys, *values;
    int64_t step;
    const Number* key(int64_t l) const { return keys + l * step; }
    const Number* value(int64_t l) const { return values + l * step; }
};

struct Path {
    const uint16_t *keys, *values;
    const int64_t* places;
    const uint16_t* key(int64_t l) const { return keys + places[l]; }
    const uint16_t* value(int64_t l) const { return values + places[l]; }
};

// One query of one head over `length` keys and values. Width: that of a head where it is known beforehand, else 0.
// scores: room for `length`, rounded up to whole vectors.
template <int64_t Width, typename Past>
inline void attend(const float* query, Past past, int64_t length, int64_t any_width, const float* bias, float* scores,
                   float* out) {
    const int64_t width = Width ? Width : any_width;
    const int64_t whole = (length + kVector - 1) / kVector * kVector;
    const float factor = 1.0f / std::sqrt(static_cast<float>(width));
    for (int64_t l = 0; l < length; ++l) {
        const auto* key = past.key(l);
        float sum = 0.0f;
        for (int64_t i = 0; i < width; ++i) sum += query[i] * to_float(key[i]);
        scores[l] = sum * factor;
    }
    if (bias)
        for (int64_t l = 0; l < length; ++l) scores[l] += bias[l];
    for (int64_t l = length; l < whole; ++l) scores[l] = -1e30f;
    float largest = scores[0];
    for (int64_t l = 0; l < whole; ++l) largest = scores[l] > largest ? scores[l] : largest;
    float total = 0.0f;
    for (int64_t l = 0; l < whole; ++l) {
        scores[l] = fast_exp(scores[l] - largest);
        total += scores[l];
    }
    const float inverse = 1.0f / total;
    float sum[kMaxWidth];
    for (int64_t i = 0; i < width; ++i) sum[i] = 0.0f;
    for (int64_t l = 0; l < length; ++l) {
        const auto* value = past.value(l);
        for (int64_t i = 0; i < width; ++i) sum[i] += scores[l] * to_float(value[i]);
    }
    for (int64_t i = 0; i < width; ++i) out[i] = sum[i] * inverse;
}

template <typename Past>
inline void attend_any(const float* query, Past past, int64_t length, int64_t width, const float* bias, float* scores,
                       float* out) {
    if (width == 64)
        attend<64>(query, past, length, width, bias, scores, out);
    else if (width == 32)
        attend<32>(query, past, length, width, bias, scores, out);
    else
        attend<0>(query, past, length, width, bias, scores, out);
}

// The number that logits are above their log-probabilities.
__attribute__((noinline)) double normalizer(const float* x, int64_t width, float largest) {
    float total = 0.0f;
    for (int64_t i = 0; i < width; ++i) total += fast_exp(x[i] - largest);
    return static_cast<double>(largest) + std::log(static_cast<double>(total));
}

inline float largest_of(const float* x, int64_t width) {
    float largest = x[0];
    for (int64_t i = 0; i < width; ++i) largest = x[i] > largest ? x[i] : largest;
    return largest;
}

// The best continuations of one search, best first; the first found of equal ones.
struct Best {
    int64_t room, count;
    double* scores;
    int64_t *rows, *tokens;
    float* log_probs;

    double worst() const { return count < room ? -1.7e308 : scores[count - 1]; }
    void put(double score, int64_t row, int64_t token, float log_prob) {
        int64_t place = count < room ? count++ : count - 1;
        for (; place > 0 && scores[place - 1] < score; --place) {
            scores[place] = scores[place - 1];
            rows[place] = rows[place - 1];
            tokens[place] = tokens[place - 1];
            log_probs[place] = log_probs[place - 1];
        }
        scores[place] = score;
        rows[place] = row;
        tokens[place] = token;
        log_probs[place] = log_prob;
    }
};

// Puts in what is good enough of one row, x (V,), from token `first` on; maxima: of its blocks.
inline void put_row(const float* x, int64_t vocab, int64_t first, const float* maxima, double normal, double score,
                    int64_t row, Best& best) {
    for (int64_t start = first; start < vocab; start += kBlock) {
        const float highest = static_cast<float>(maxima[(start - first) / kBlock] - normal);
        if (score + highest <= best.worst()) continue;
        const int64_t end = start + kBlock < vocab ? start + kBlock : vocab;
        for (int64_t i = start; i < end; ++i) {
            const float log_prob = static_cast<float>(x[i] - normal);
            if (score + log_prob > best.worst()) best.put(score + log_prob, row, i, log_prob);
        }
    }
}

// Room that a thread keeps for what lies between two products.
template <typename Number>
inline Number* room(std::vector<Number>& kept, int64_t count) {
    if (static_cast<int64_t>(kept.size()) < count) kept.resize(count);
    return kept.data();
}

}  // namespace

extern "C" {

// Two passes, so that no product is fused with the sum after it: torch's operators do not.
void embed_rows(const float* table, double factor, const float* waves, const int64_t* tokens, const int64_t* positions,
                int64_t rows, int64_t width, float* out) {
    for (int64_t r = 0; r < rows; ++r) {
        float* row = out + r * width;
        const float* token = table + tokens[r] * width;
        for (int64_t i = 0; i < width; ++i) row[i] = token[i] * static_cast<float>(factor);
        if (waves)
            for (int64_t i = 0; i < width; ++i) row[i] += waves[positions[r] * width + i];
    }
}

void normalize_rows(const float* x, const float* weight, const float* bias, double eps, int64_t rows, int64_t width,
                    float* out) {
    for (int64_t r = 0; r < rows; ++r) {
        const float* row = x + r * width;
        float sum = 0.0f, squares = 0.0f;
        for (int64_t i = 0; i < width; ++i) sum += row[i];
        const float mean = sum / static_cast<float>(width);
        for (int64_t i = 0; i < width; ++i) squares += (row[i] - mean) * (row[i] - mean);
        const float factor = 1.0f / std::sqrt(squares / static_cast<float>(width) + static_cast<float>(eps));
        for (int64_t i = 0; i < width; ++i) out[r * width + i] = (row[i] - mean) * factor * weight[i] + bias[i];
    }
}

void quantize_rows(const float* x, int64_t rows, int64_t width, uint8_t* bits, float* scales) {
    for (int64_t r = 0; r < rows; ++r) quantize(x + r * width, width, bits + r * width, scales + r);
}

void scale_rows(float* sums, const float* scales, const float* bias, int64_t rows, int64_t width) {
    for (int64_t r = 0; r < rows; ++r) scale_row(sums + r * width, scales[r], bias, width);
}

void gelu_quantize_rows(float* sums, const float* scales, const float* bias, int64_t rows, int64_t width,
                        uint8_t* bits, float* new_scales) {
    for (int64_t r = 0; r < rows; ++r) {
        float* row = sums + r * width;
        const float scale = scales[r];
        for (int64_t i = 0; i < width; ++i) row[i] = gelu(row[i] * scale + bias[i]);
        quantize(row, width, bits + r * width, new_scales + r);
    }
}

void gate_rows(const float* both, int64_t rows, int64_t inner, float* out) {
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = 0; i < inner; ++i)
            out[r * inner + i] = gelu(both[2 * r * inner + i]) * both[(2 * r + 1) * inner + i];
}

void recur_rows(const float* gates, int64_t rows, int64_t width, float* cells, float* out) {
    for (int64_t r = 0; r < rows; ++r) {
        const float *now = gates + 2 * r * width, *forget = now + width;
        float *cell = cells + r * width, *row = out + r * width;
        for (int64_t i = 0; i < width; ++i) {
            const float kept = 1.0f / (1.0f + fast_exp(-forget[i]));
            const float next = now[i] + kept * (cell[i] - now[i]);
            cell[i] = next;
            row[i] = next > 0.0f ? next : 0.0f;
        }
    }
}

int64_t can_multiply() {
#ifdef __AVX512VNNI__
    return 1;
#else
    return 0;
#endif
}

void multiply_rows(const uint8_t* bits, const float* scales, int64_t rows, int64_t inputs, int64_t outputs,
                   const int8_t* weights, const float* weight_scales, const int32_t* zeros, const float* bias,
                   float* out) {
#ifdef __AVX512VNNI__
    int32_t sums[kRows * 64];
    const int64_t pace = 64 / ((rows + kRows - 1) / kRows);  // while all rows pass, the weights of the next channels
    for (int64_t o = 0; o < outputs; o += 64) {
        const int64_t width = outputs - o < 64 ? outputs - o : 64;
        for (int64_t first = 0; first < rows; first += kRows) {
            const int64_t count = rows - first < kRows ? rows - first : kRows;
            const int8_t* next = weights + (o + 64) * inputs + first / kRows * inputs * pace;
            multiply_any<kRows>(count, bits + first * inputs, inputs, weights + o * inputs, next, pace, sums);
            for (int64_t r = 0; r < count; ++r) {
                float* row = out + (first + r) * outputs + o;
                for (int64_t i = 0; i < width; ++i)
                    row[i] = static_cast<float>(sums[r * 64 + i] - zeros[o + i]) * weight_scales[o + i];
                if (scales) scale_row(row, scales[first + r], bias ? bias + o : nullptr, width);
            }
        }
    }
#endif
}

void linear(const float* x, int64_t rows, int64_t inputs, int64_t outputs, const int8_t* weights,
            const float* weight_scales, const int32_t* zeros, const float* bias, float* out) {
    thread_local std::vector<uint8_t> kept_bits;
    thread_local std::vector<float> kept_scales;
    uint8_t* bits = room(kept_bits, rows * inputs);
    float* scales = room(kept_scales, rows);
    quantize_rows(x, rows, inputs, bits, scales);
    multiply_rows(bits, scales, rows, inputs, outputs, weights, weight_scales, zeros, bias, out);
}

// kPart rows at a time: what lies between the two products stays in the cache.
void feed_forward(const float* x, int64_t rows, int64_t width, int64_t inner, const int8_t* weights_in,
                  const float* scales_in, const int32_t* zeros_in, const float* bias_in, const int8_t* weights_out,
                  const float* scales_out, const int32_t* zeros_out, const float* bias_out, float* out) {
    thread_local std::vector<uint8_t> kept_bits;
    thread_local std::vector<float> kept_sums;
    uint8_t* bits = room(kept_bits, kPart * (width + inner));
    float* sums = room(kept_sums, kPart * (inner + 2));
    float* scales = sums + kPart * inner;
    for (int64_t first = 0; first < rows; first += kPart) {
        const int64_t count = rows - first < kPart ? rows - first : kPart;
        uint8_t* between = bits + kPart * width;
        quantize_rows(x + first * width, count, width, bits, scales);
        multiply_rows(bits, nullptr, count, width, inner, weights_in, scales_in, zeros_in, nullptr, sums);
        gelu_quantize_rows(sums, scales, bias_in, count, inner, between, scales + kPart);
        multiply_rows(between, scales + kPart, count, inner, width, weights_out, scales_out, zeros_out, bias_out,
                      out + first * width);
    }
}

void attend_past(float* qkv, int64_t rows, int64_t heads, int64_t width, const int64_t* ages, const int64_t* paths,
                 int64_t path_length, uint16_t* keys, uint16_t* values, int64_t capacity, const float* cos,
                 const float* sin, const float* bias, int64_t bias_length, int64_t* places, float* scores,
                 float* out) {
    const int64_t model = heads * width, half = width / 2;
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t age = ages[r];
        const int64_t* path = paths + r * path_length;
        if (r + 1 < rows)
            for (int64_t l = 0; l < ages[r + 1]; ++l) {
                const int64_t place = (paths[(r + 1) * path_length + l] * capacity + l) * model;
                fetch(keys + place, model);
                fetch(values + place, model);
            }
        float* query = qkv + r * 3 * model;
        if (cos)
            for (int64_t h = 0; h < 2 * heads; ++h) turn(query + h * width, cos + r * half, sin + r * half, half);
        for (int64_t l = 0; l <= age; ++l) places[l] = (path[l] * capacity + l) * model;
        for (int64_t i = 0; i < model; ++i) keys[places[age] + i] = to_bfloat16(query[model + i]);
        for (int64_t i = 0; i < model; ++i) values[places[age] + i] = to_bfloat16(query[2 * model + i]);
        for (int64_t h = 0; h < heads; ++h)
            attend_any(query + h * width, Path{keys + h * width, values + h * width, places}, age + 1, width,
                       bias ? bias + (r * heads + h) * bias_length : nullptr, scores, out + r * model + h * width);
    }
}

void attend_memory(const float* queries, int64_t rows, int64_t heads, int64_t width, const int64_t* slots,
                   const int64_t* lengths, const uint16_t* keys, const uint16_t* values, int64_t capacity,
                   float* scores, float* out) {
    const int64_t model = heads * width;
    for (int64_t r = 0; r < rows; ++r) {
        if (r + 1 < rows && slots[r + 1] != slots[r]) {
            fetch(keys + slots[r + 1] * capacity * model, lengths[r + 1] * model);
            fetch(values + slots[r + 1] * capacity * model, lengths[r + 1] * model);
        }
        for (int64_t h = 0; h < heads; ++h) {
            const int64_t place = slots[r] * capacity * model + h * width;
            attend_any(queries + r * model + h * width, Line<uint16_t>{keys + place, values + place, model},
                       lengths[r], width, nullptr, scores, out + r * model + h * width);
        }
    }
}

void attend_among(float* qkv, int64_t sources, int64_t longest, int64_t heads, int64_t width, const int64_t* lengths,
                  const float* cos, const float* sin, const float* bias, int64_t bias_length, float* scores,
                  float* out) {
    const int64_t model = heads * width;
    for (int64_t b = 0; b < sources; ++b) {
        float* first = qkv + b * longest * 3 * model;
        for (int64_t h = 0; h < heads; ++h) {
            if (cos)
                for (int64_t t = 0; t < lengths[b]; ++t)
                    for (int64_t part = 0; part < 2; ++part)
                        turn(first + t * 3 * model + part * model + h * width, cos + t * (width / 2),
                             sin + t * (width / 2), width / 2);
            const float* keys = first + model + h * width;
            for (int64_t t = 0; t < longest; ++t) {
                float* place = out + (b * longest + t) * model + h * width;
                if (t < lengths[b])
                    attend_any(first + t * 3 * model + h * width, Line<float>{keys, keys + model, 3 * model}, lengths[b], width,
                               bias ? bias + (h * bias_length + t) * bias_length : nullptr, scores, place);
                else
                    std::memset(place, 0, width * sizeof(float));
            }
        }
    }
}

void round_rows(const float* x, int64_t rows, int64_t stride, int64_t width, uint16_t* out) {
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = 0; i < width; ++i) out[r * width + i] = to_bfloat16(x[r * stride + i]);
}

void log_softmax_rows(float* logits, int64_t rows, int64_t vocab) {
    for (int64_t r = 0; r < rows; ++r) {
        float* x = logits + r * vocab;
        const double normal = normalizer(x, vocab, largest_of(x, vocab));
        for (int64_t i = 0; i < vocab; ++i) x[i] = static_cast<float>(x[i] - normal);
    }
}

void best_tokens(const float* x, int64_t vocab, int64_t first, int64_t raw, int64_t searches, const int64_t* counts,
                 const int64_t* widths, int64_t widest, const double* scores, int64_t* found, int64_t* rows,
                 int64_t* tokens, float* log_probs) {
    thread_local std::vector<float> kept_maxima;
    thread_local std::vector<double> kept_scores;
    const int64_t blocks = (vocab - first + kBlock - 1) / kBlock;
    float* maxima = room(kept_maxima, blocks);
    for (int64_t s = 0; s < searches; ++s) {
        Best best{widths[s], 0, room(kept_scores, widest), rows + s * widest, tokens + s * widest, log_probs + s * widest};
        for (int64_t r = 0; r < counts[s]; ++r, x += vocab, ++scores) {
            float largest = first ? largest_of(x, first) : x[0];
            for (int64_t b = 0; b < blocks; ++b) {
                const int64_t start = first + b * kBlock;
                maxima[b] = largest_of(x + start, vocab - start < kBlock ? vocab - start : kBlock);
                largest = maxima[b] > largest ? maxima[b] : largest;
            }
            const double normal = raw ? normalizer(x, vocab, largest) : 0.0;
            put_row(x, vocab, first, maxima, normal, *scores, r, best);
            if (!best.count) best.put(*scores, r, first, static_cast<float>(x[first] - normal));  // numbers gone wrong
        }
        found[s] = best.count;
    }
}

}  // extern "C"
