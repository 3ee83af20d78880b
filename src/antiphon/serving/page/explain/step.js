// What a step of the decoder tells, and how it is drawn, in the journey picture as in the decoder's chapter.

import { h, svg } from "../dom.js"
import { weights } from "./attention.js"

/** @import {Trace, TraceStep} from "../types.js" */

const NAMES = { transformer: "Transformer", gru: "GRU", lstm: "LSTM", ssru: "SSRU" }

/** A kind of network, as the field writes it. @param {string} kind @param {number} layers */
export function network(kind, layers) {
  const name = NAMES[/** @type {keyof NAMES} */ (kind)] ?? kind
  return `${name}, ${layers} ${layers === 1 ? "layer" : "layers"}`
}

/** How much a step looked at each source piece, by its last layer. @param {Trace} trace @param {number} step */
export function gaze(trace, step) {
  return weights(trace, (trace.path[0]?.attention.length ?? 0) - 1, "mean")[step] ?? []
}

/**
 * The pieces that a step could have picked, the most probable first, and the picked one among them.
 * @param {TraceStep} step
 * @param {number} count
 */
export function candidates(step, count) {
  const others = step.alternatives.slice(0, count - 1).map((other) => ({ ...other, picked: false }))
  const { piece, probability } = step
  return [{ piece, probability, picked: true }, ...others].sort((a, b) => b.probability - a.probability)
}

/** An arrow to the right, to be turned by CSS. @param {string} kind  its class */
export function arrow(kind) {
  return svg(
    "svg",
    { class: kind, viewBox: "0 0 24 12", "aria-hidden": "true" },
    svg("path", { d: "M1 6h21M17 1l5 5-5 5" }),
  )
}

/** @param {number} share  of the bar's width */
export function bar(share) {
  return h("span", { class: "bar", style: { "--share": share } })
}
