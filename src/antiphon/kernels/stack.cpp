// Whole stacks of packed layers in one call: a step of a decoder, an encoder, the memory as a decoder keeps it.
//
// Nothing is computed here that the kernels do not compute for a layer alone, in the same order, so that rows come out
// the same to the last bit on either way. Tokens lie one after the other, without padding. Structures: as in stack.py.

#include "kernels.h"

#include <cstring>
#include <vector>

struct Norm {
    const float *weight, *bias;
    double eps;
};

struct Linear {
    const int8_t* weights;
    const float* scales;
    const int32_t* zeros;
    const float* bias;
    int64_t outputs;
};

struct Layer {
    Norm attention_norm;
    Linear project, output;  // no output weights: a recurrence stands in the place of self-attention
    Norm cross_norm;
    Linear query, memory, cross_output;  // of a decoder
    Norm feed_forward_norm;
    Linear inner, outer;
    int64_t gated;
};

struct Stack {
    int64_t width, heads, count;
    const Layer* layers;
    Norm norm;
    const float* embedding;
    double factor;
    Linear head;  // of a decoder
};

// What is known of positions 0, 1, ...: what is added to their tokens, cosines and sines of their angles, and the bias
// of keys that are length - 1, ..., 0 tokens back, for each head.
struct Positions {
    const float *waves, *cos, *sin, *bias;
    int64_t length;
};

// Keys and values of all layers in turn, in `slots` slots of `capacity` tokens.
struct Cache {
    uint16_t* numbers;
    int64_t slots, capacity;
    uint16_t* part(int64_t index, int64_t width) const { return numbers + index * slots * capacity * width; }
};

namespace {

// What lies between the kernels, for `rows` rows; a thread keeps it.
struct Room {
    std::vector<float> x, normed, wide, found, cos, sin, bias, scores;
    std::vector<int64_t> places, tokens;
};
thread_local Room kept;

template <typename Number>
Number* room(std::vector<Number>& place, int64_t count) {
    if (static_cast<int64_t>(place.size()) < count) place.resize(count);
    return place.data();
}

void apply(const Linear& layer, const float* x, int64_t rows, int64_t inputs, float* out) {
    linear(x, rows, inputs, layer.outputs, layer.weights, layer.scales, layer.zeros, layer.bias, out);
}

const float* normalized(const Norm& norm, const float* x, int64_t rows, int64_t width) {
    float* out = room(kept.normed, rows * width);
    normalize_rows(x, norm.weight, norm.bias, norm.eps, rows, width, out);
    return out;
}

void add(float* x, const float* y, int64_t count) {
    for (int64_t i = 0; i < count; ++i) x[i] += y[i];
}

void add_feed_forward(const Layer& layer, float* x, int64_t rows, int64_t width) {
    const float* normed = normalized(layer.feed_forward_norm, x, rows, width);
    float* out = room(kept.found, rows * width);
    if (layer.gated) {
        const int64_t inner = layer.inner.outputs / 2;
        float* both = room(kept.wide, rows * layer.inner.outputs);
        apply(layer.inner, normed, rows, width, both);
        gate_rows(both, rows, inner, both);
        apply(layer.outer, both, rows, inner, out);
    } else {
        const Linear &in = layer.inner, &last = layer.outer;
        feed_forward(normed, rows, width, in.outputs, in.weights, in.scales, in.zeros, in.bias, last.weights,
                     last.scales, last.zeros, last.bias, out);
    }
    add(x, out, rows * width);
}

// The rows' tokens, embedded, (N, D).
float* embedded(const Stack& stack, const Positions& positions, const int64_t* tokens, const int64_t* ages,
                int64_t rows) {
    float* x = room(kept.x, rows * stack.width);
    embed_rows(stack.embedding, stack.factor, positions.waves, tokens, ages, rows, stack.width, x);
    return x;
}

// Angles and bias of each row of a step, as attend_past wants them.
void gather(const Positions& positions, const int64_t* ages, int64_t rows, int64_t heads, int64_t half,
            int64_t longest) {
    if (positions.cos) {
        float *cos = room(kept.cos, rows * half), *sin = room(kept.sin, rows * half);
        for (int64_t r = 0; r < rows; ++r) {
            std::memcpy(cos + r * half, positions.cos + ages[r] * half, half * sizeof(float));
            std::memcpy(sin + r * half, positions.sin + ages[r] * half, half * sizeof(float));
        }
    }
    if (positions.bias) {
        float* bias = room(kept.bias, rows * heads * longest);
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t h = 0; h < heads; ++h)
                std::memcpy(bias + (r * heads + h) * longest,
                            positions.bias + (h + 1) * positions.length - 1 - ages[r], (ages[r] + 1) * sizeof(float));
    }
}

}  // namespace

extern "C" {

// tokens, ages, held, memory_slots, memory_lengths (N,); paths (N, path_length) -> logits (N, V). cells: of each layer
// (N, D), where it is a recurrence.
void step_decoder(const Stack* stack, const Positions* positions, int64_t rows, const int64_t* tokens,
                  const int64_t* ages, const int64_t* held, int64_t* paths, int64_t path_length, const Cache* past,
                  const Cache* memory, const int64_t* memory_slots, const int64_t* memory_lengths, float* const* cells,
                  float* logits) {
    const int64_t width = stack->width, heads = stack->heads, head = width / heads;
    int64_t longest = 0;
    for (int64_t r = 0; r < rows; ++r) {
        paths[r * path_length + ages[r]] = held[r];
        longest = ages[r] + 1 > longest ? ages[r] + 1 : longest;
    }
    const bool turned = positions->cos, biased = positions->bias;
    if (!cells) gather(*positions, ages, rows, heads, head / 2, longest);
    float* x = embedded(*stack, *positions, tokens, ages, rows);
    float* wide = room(kept.wide, rows * 3 * width);
    float *attended = room(kept.normed, rows * width), *found = room(kept.found, rows * width);
    float* scores = room(kept.scores, (past->capacity > memory->capacity ? past : memory)->capacity + 16);
    int64_t* places = room(kept.places, past->capacity + 1);
    for (int64_t i = 0; i < stack->count; ++i) {
        const Layer& layer = stack->layers[i];
        wide = room(kept.wide, rows * layer.project.outputs);
        apply(layer.project, normalized(layer.attention_norm, x, rows, width), rows, width, wide);
        if (cells) {
            recur_rows(wide, rows, width, cells[i], found);
        } else {
            attend_past(wide, rows, heads, head, ages, paths, path_length, past->part(2 * i, width),
                        past->part(2 * i + 1, width), past->capacity, turned ? kept.cos.data() : nullptr,
                        turned ? kept.sin.data() : nullptr, biased ? kept.bias.data() : nullptr, longest, places,
                        scores, attended);
            apply(layer.output, attended, rows, width, found);
        }
        add(x, found, rows * width);
        apply(layer.query, normalized(layer.cross_norm, x, rows, width), rows, width, found);
        attend_memory(found, rows, heads, head, memory_slots, memory_lengths, memory->part(2 * i, width),
                      memory->part(2 * i + 1, width), memory->capacity, scores, attended);
        apply(layer.cross_output, attended, rows, width, found);
        add(x, found, rows * width);
        add_feed_forward(layer, x, rows, width);
    }
    apply(stack->head, normalized(stack->norm, x, rows, width), rows, width, logits);
}

// source (B, S) -> values (B, S, D), of each source's real tokens only. bias (H, S, S), or none.
void encode(const Stack* stack, const Positions* positions, int64_t sources, int64_t longest, const int64_t* source,
            const int64_t* lengths, const float* bias, float* values) {
    const int64_t width = stack->width, heads = stack->heads;
    int64_t *tokens = room(kept.tokens, sources * longest), *places = room(kept.places, sources * longest), rows = 0;
    for (int64_t b = 0; b < sources; ++b)
        for (int64_t t = 0; t < lengths[b]; ++t, ++rows) {
            tokens[rows] = source[b * longest + t];
            places[rows] = t;
        }
    float* x = embedded(*stack, *positions, tokens, places, rows);
    float *attended = room(kept.normed, rows * width), *found = room(kept.found, rows * width);
    float* scores = room(kept.scores, longest + 16);
    for (int64_t i = 0; i < stack->count; ++i) {
        const Layer& layer = stack->layers[i];
        float* wide = room(kept.wide, rows * layer.project.outputs);
        apply(layer.project, normalized(layer.attention_norm, x, rows, width), rows, width, wide);
        for (int64_t b = 0, first = 0; b < sources; first += lengths[b++])
            attend_among(wide + first * 3 * width, 1, lengths[b], heads, width / heads, lengths + b, positions->cos,
                         positions->sin, bias, longest, scores, attended + first * width);
        apply(layer.output, attended, rows, width, found);
        add(x, found, rows * width);
        add_feed_forward(layer, x, rows, width);
    }
    for (int64_t b = 0; b < sources; x += lengths[b++] * width)
        normalize_rows(x, stack->norm.weight, stack->norm.bias, stack->norm.eps, lengths[b], width,
                       values + b * longest * width);
}

// Keys and values of a memory (B, S, D), for all layers, into a slot for each source.
void keep_memory(const Stack* stack, int64_t sources, int64_t longest, const float* values, const int64_t* lengths,
                 const int64_t* slots, const Cache* memory) {
    const int64_t width = stack->width;
    int64_t rows = 0;
    for (int64_t b = 0; b < sources; ++b) rows += lengths[b];
    float *x = room(kept.x, rows * width), *wide = room(kept.wide, rows * 2 * width);
    for (int64_t b = 0, first = 0; b < sources; first += lengths[b++])
        std::memcpy(x + first * width, values + b * longest * width, lengths[b] * width * sizeof(float));
    for (int64_t i = 0; i < stack->count; ++i) {
        apply(stack->layers[i].memory, x, rows, width, wide);
        for (int64_t b = 0, first = 0; b < sources; first += lengths[b++])
            for (int64_t part = 0; part < 2; ++part)
                round_rows(wide + (2 * first + part) * width, lengths[b], 2 * width, width,
                           memory->part(2 * i + part, width) + slots[b] * memory->capacity * width);
    }
}

}  // extern "C"
