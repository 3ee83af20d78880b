/** What the server answers, as JSON; the Python records of the same names tell more (serving/api, trace/records.py). */

export interface Language {
  code: string
  name: string
}

export interface ServedModel {
  name: string
  members: number
  source: Language | null
  target: Language | null
  tags: string[]
  encoder: string
  decoder: string
  attention: string
  encoder_layers: number
  decoder_layers: number
  d_model: number
  num_heads: number
  source_tokens: string
  target_tokens: string
  source_vocabulary: number
  target_vocabulary: number
  train_pairs: number
  max_tokens: number
  generation: { beam_size: number; length_penalty: number; temperature: number; top_p: number; sample: boolean }
}

export interface ServerInfo {
  status: "ready" | "loading" | "stopping"
  models: ServedModel[]
  max_texts: number
  watching: boolean
}

/** How to search: fields of a request; what is left out is the model's own. */
export interface Search {
  beam_size?: number
  n_best?: number
  length_penalty?: number
  sample?: boolean
  temperature?: number
  top_p?: number
  seed?: number
}

export interface Word {
  text: string
  probability: number
}

export interface GeneratedText {
  text: string
  score: number
  tokens: string[]
  token_scores: number[]
  finished: boolean
  words?: Word[]
}

export interface Sentence {
  source: string
  target: string
  words?: Word[]
}

export interface GenerateResponse {
  model: string
  outputs: GeneratedText[][]
  sentences?: Sentence[][]
}

export interface AlternativeWord {
  word: string
  probability: number
  output: GeneratedText
}

/** `GenerateRequest`: what POST /v1/generate takes. */
export interface GenerateRequest extends Search {
  text: string | string[]
  model?: string
  prefix?: string
  split?: "none" | "sentence"
  language?: string
  words?: boolean
}

export interface TraceRequest extends Search {
  text: string
  model?: string
  target?: string
  prefix?: string
  alternatives?: number
}

export interface TraceNode {
  id: number
  parent: number | null
  step: number
  token: number
  piece: string
  log_prob: number
  score: number
  normalized: number
  fate: "kept" | "finished" | "pruned"
  pruned_at: number | null
}

export interface TraceAlternative {
  token: number
  piece: string
  probability: number
  node: number | null
}

export interface TraceStep {
  node: number
  input: string
  token: number
  piece: string
  probability: number
  entropy: number
  alternatives: TraceAlternative[]
  /** [layer][head][source token]; empty without attention */
  attention: number[][][]
}

export interface TraceOutput {
  node: number
  text: string
  score: number
  normalized: number
  pieces: string[]
  token_scores: number[]
  ended: boolean
  returned: boolean
}

export interface ForcedToken {
  input: string
  token: number
  piece: string
  probability: number
  loss: number
  best_piece: string
  best_probability: number
}

export interface Forced {
  text: string
  tokens: ForcedToken[]
  loss: number
  perplexity: number
}

/** One decode of one text, and all about it: POST /v1/trace. */
export interface Trace {
  model: string
  text: string
  prefix: string
  architecture: {
    encoder: string
    /** a recurrent encoder reads forwards for the first half of a vector, and backwards for the second */
    bidirectional: boolean
    decoder: string
    attention: string
    encoder_layers: number
    decoder_layers: number
    d_model: number
  }
  settings: Search & { max_length: number; beam_size: number; n_best: number; length_penalty: number }
  source: {
    tokens: number[]
    pieces: string[]
    /** (S, D) */
    vectors: number[][]
    norms: number[]
    /** (S, 2) */
    projection: number[][]
    variance: number[]
    /** (D), for a recurrent decoder */
    summary: number[] | null
    summary_norm: number | null
  }
  nodes: TraceNode[]
  path: TraceStep[]
  outputs: TraceOutput[]
  target: Forced | null
  /** added by the page: spaces stand between the target's tokens */
  spaced?: boolean
}

export interface Load {
  time: number
  engines: number
  waiting: number
  running: number
  rows: number
  tokens: number
  steps: number
  row_steps: number
  encoded: number
  generated: number
  encode_seconds: number
  decode_seconds: number
  window: number
  answered: number
  p50: number | null
  p95: number | null
}

export interface RunSummary {
  name: string
  architecture: string
  step: number
  share: number
  seconds: number
  loss: number | null
  metric: string
  best: number | null
  best_step: number | null
  kept: string | null
  live: boolean
  changed: number
  unreadable: number
}

export interface DevCurve {
  steps: number[]
  seconds: number[]
  values: number[]
}

export interface RunSample {
  source: string
  reference: string
  outputs: { step: number; output: string }[]
}

/** How a run went: updates in at most 400 bins, and each validation. */
export interface RunCurves {
  name: string
  steps: number[]
  seconds: number[]
  loss: number[]
  learning_rate: number[]
  tokens_per_second: number[]
  dev: Record<string, DevCurve>
  samples: RunSample[]
}

/** What the views are given: the server as it was found, and a way to say something to all who look or listen. */
export interface Context {
  server: ServerInfo
  /** Goes to a view, with what it shall show. */
  go(view: string, parameters?: Record<string, string>): void
  /** Keeps the address up to date with what is shown, so that a link restores it. */
  keep(parameters: Record<string, string>): void
  /** Tells a screen reader. */
  announce(message: string): void
}

/** One of the page's views: made once, shown again and again. */
export interface View {
  element: HTMLElement
  /** With the parameters that the address has. */
  show(parameters: URLSearchParams): void
  /** Stops what goes on by itself. */
  hide(): void
}

/** What several parts of an explanation look at together. */
export interface Focus {
  /** which step of the output, from 0; the number of steps done is one more */
  step: number
  /** which source token, or null */
  source: number | null
}

/** A chapter of the explanation: made once, given each new trace, told when somebody points at something. */
export interface Chapter {
  element: HTMLElement
  update(trace: Trace): void
  focus(focus: Focus): void
}
