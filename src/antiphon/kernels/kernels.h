// The kernels that a stack of layers is made of; kernels/__init__.py says what each does.

#pragma once

#include <cstdint>

extern "C" {

void embed_rows(const float* table, double factor, const float* waves, const int64_t* tokens, const int64_t* positions,
                int64_t rows, int64_t width, float* out);
void normalize_rows(const float* x, const float* weight, const float* bias, double eps, int64_t rows, int64_t width,
                    float* out);
void linear(const float* x, int64_t rows, int64_t inputs, int64_t outputs, const int8_t* weights,
            const float* weight_scales, const int32_t* zeros, const float* bias, float* out);
void gate_rows(const float* both, int64_t rows, int64_t inner, float* out);
void feed_forward(const float* x, int64_t rows, int64_t width, int64_t inner, const int8_t* weights_in,
                  const float* scales_in, const int32_t* zeros_in, const float* bias_in, const int8_t* weights_out,
                  const float* scales_out, const int32_t* zeros_out, const float* bias_out, float* out);
void recur_rows(const float* gates, int64_t rows, int64_t width, float* cells, float* out);
void attend_past(float* qkv, int64_t rows, int64_t heads, int64_t width, const int64_t* ages, const int64_t* paths,
                 int64_t path_length, uint16_t* keys, uint16_t* values, int64_t capacity, const float* cos,
                 const float* sin, const float* bias, int64_t bias_length, int64_t* places, float* scores,
                 float* out);
void attend_memory(const float* queries, int64_t rows, int64_t heads, int64_t width, const int64_t* slots,
                   const int64_t* lengths, const uint16_t* keys, const uint16_t* values, int64_t capacity,
                   float* scores, float* out);
void attend_among(float* qkv, int64_t sources, int64_t longest, int64_t heads, int64_t width, const int64_t* lengths,
                  const float* cos, const float* sin, const float* bias, int64_t bias_length, float* scores,
                  float* out);
// x (N, stride): the first `width` of each row become bfloat16, (N, width).
void round_rows(const float* x, int64_t rows, int64_t stride, int64_t width, uint16_t* out);

}  // extern "C"
