// The decoder chapter: the loop that writes the output, one step at a time with a player, and teacher forcing beside it.

import { h, percent, visible } from "../dom.js"
import { createForcing } from "./forcing.js"
import { createPlayer } from "./player.js"
import { chipOf } from "./pointing.js"
import { arrow, bar, candidates, gaze, network } from "./step.js"

/** @import {Chapter, Trace, TraceStep} from "../types.js" */

const BARS = 6 // pieces of the distribution that have a bar of their own
const LOOKED_AT = 3 // source pieces named beside the decoder

/** @returns {Chapter} */
export function create() {
  const lead = h("p", { class: "lead" })
  const said = h("ol", { class: "decoder-said", "aria-label": "The output, piece by piece" })
  const loop = h("div", { class: "decoder-loop" })
  const told = h("p", { class: "unseen", role: "status" })
  const player = createPlayer((step) => tell("point", { step }))
  const forcing = createForcing((text) => tell("force", text))
  const element = h(
    "div",
    { class: "stack" },
    lead,
    h("div", { class: "card decoder" }, said, player.element, loop, told),
    forcing.element,
  )
  /** @type {Trace} */
  let trace

  /** @param {string} name @param {unknown} detail */
  function tell(name, detail) {
    element.dispatchEvent(new CustomEvent(name, { bubbles: true, detail }))
  }

  return {
    element,
    update(found) {
      trace = found
      player.update(trace.path)
      lead.textContent = introduction(trace)
      said.replaceChildren(...outputLine(trace, (step) => player.jump(step)))
      forcing.update(trace)
    },
    focus({ step }) {
      const now = trace.path[step]
      if (!now) return
      player.focus(step)
      markOutput(said, step)
      loop.replaceChildren(...loopOf(trace, step, now))
      // Only whoever presses a button here hears of it, and not at each beat while it plays; the slider tells by itself.
      if (element.querySelector("button:focus") && !player.playing) told.textContent = inWords(now, step)
    },
  }
}

/** @param {Trace} trace */
function introduction({ architecture, path }) {
  const loop = `The decoder writes the output one piece at a time, here in ${path.length} steps. It is fed with GO, which means "begin", and after that with the piece that it has just said. `
  return architecture.attention === "none"
    ? `${loop}All that it knows of the source is the one vector that it starts from.`
    : `${loop}At every step it looks into the memory again.`
}

/** @param {TraceStep} now @param {number} step */
function inWords(now, step) {
  return `Step ${step + 1}: fed with ${visible(now.input)}, picked ${visible(now.piece)}, ${percent(now.probability)}`
}

/**
 * The output as buttons, each of which jumps to its step.
 * @param {Trace} trace
 * @param {(step: number) => void} jump
 */
function outputLine({ path }, jump) {
  const pieces = path.map(({ piece }, step) =>
    h(
      "li",
      {},
      h("button", { class: "piece", dir: "auto", "data-step": step, onclick: () => jump(step) }, visible(piece)),
    ),
  )
  return [h("li", { class: "piece" }, "GO"), ...pieces]
}

/** @param {HTMLElement} said @param {number} step */
function markOutput(said, step) {
  said.querySelectorAll("button").forEach((button, index) => {
    button.classList.toggle("decoder-coming", index > step)
    if (index === step) button.setAttribute("aria-current", "step")
    else button.removeAttribute("aria-current")
  })
}

/**
 * What happens in a step, in the order in which it happens.
 * @param {Trace} trace
 * @param {number} step
 * @param {TraceStep} now
 */
function loopOf(trace, step, now) {
  return [
    part(
      "fed",
      "Fed with",
      chipOf(now.input, "target"),
      h("p", {}, step === 0 ? "Begin" : "What it said before"),
      arrow("decoder-up"),
    ),
    arrow("decoder-arrow"),
    part("network", "The decoder", ...networkOf(trace, step)),
    arrow("decoder-arrow"),
    part("distribution", "How probable each next piece is", bars(now, step), h("p", {}, certainty(now.entropy))),
    arrow("decoder-arrow"),
    part("picked", "Picked", chipOf(now.piece, "target"), h("p", {}, ...reason(trace, now))),
    feedback(trace, step, now),
  ]
}

/** @param {string} kind @param {string} title @param {...Node} content */
function part(kind, title, ...content) {
  return h("section", { class: `decoder-part decoder-${kind}` }, h("h3", {}, title), ...content)
}

/** @param {Trace} trace @param {number} step */
function networkOf(trace, step) {
  const { architecture, source } = trace
  const { decoder, decoder_layers, attention } = architecture
  const said = step === 0 ? "GO" : `GO and ${step === 1 ? "the piece" : `all ${step} pieces`} said so far`
  const remembers = decoder === "transformer" ? `It sees ${said}.` : "Its state carries on what was said so far."
  const head = h("p", {}, `${network(decoder, decoder_layers)}. ${remembers}`)
  if (attention === "none")
    return [head, h("p", {}, "It cannot look at the source: what it knows of it is in that state as well.")]
  const looked = gaze(trace, step)
    .map((weight, index) => ({ weight, piece: source.pieces[index] ?? "" }))
    .sort((a, b) => b.weight - a.weight)
    .slice(0, LOOKED_AT)
  return [
    head,
    h("p", {}, "In the memory, it looked most at"),
    h(
      "ul",
      { class: "decoder-bars decoder-memory" },
      ...looked.map(({ weight, piece }) =>
        h("li", {}, chipOf(piece, "source"), bar(weight), h("span", { class: "decoder-share" }, percent(weight))),
      ),
    ),
  ]
}

/** @param {TraceStep} now @param {number} step */
function bars(now, step) {
  const shown = candidates(now, BARS)
  const rest = Math.max(0, 1 - shown.reduce((sum, { probability }) => sum + probability, 0))
  return h(
    "ol",
    { class: "decoder-bars" },
    ...shown.map(({ piece, probability, picked }) =>
      h(
        "li",
        {
          class: picked && "decoder-chosen",
          "data-step": step,
          "data-piece": piece,
          "data-probability": probability,
        },
        chipOf(piece, "target"),
        bar(probability),
        h("span", { class: "decoder-share" }, percent(probability)),
        picked && h("span", { class: "decoder-mark" }, "picked"),
      ),
    ),
    h(
      "li",
      { class: "decoder-rest" },
      h("span", {}, "everything else"),
      bar(rest),
      h("span", { class: "decoder-share" }, percent(rest)),
    ),
  )
}

/** What an entropy means. @param {number} entropy  in nats */
function certainty(entropy) {
  const pieces = Math.exp(entropy)
  const meaning =
    pieces < 1.1
      ? "it is sure."
      : pieces < 1.5
        ? "it is nearly sure."
        : `it is torn as if between about ${Number(pieces.toPrecision(2))} equally likely pieces.`
  return `Entropy ${entropy < 0.01 ? "<0.01" : entropy.toPrecision(2)} nats: ${meaning}`
}

/**
 * Why this piece.
 * @param {Trace} trace
 * @param {TraceStep} now
 * @returns {(string | Node)[]}
 */
function reason({ settings }, now) {
  const best = now.alternatives[0]
  const isBest = !best || now.probability >= best.probability
  if (settings.sample) return [`Drawn by chance${isBest ? "; it is the most probable too" : ""}.`]
  if (isBest) return ["The most probable piece."]
  const other = chipOf(best.piece, "target")
  if (best.node === null) return [other, " is more probable, but not allowed here."]
  return [other, " is more probable here, but the search found the whole output better with this one."]
}

/** @param {Trace} trace @param {number} step @param {TraceStep} now */
function feedback({ path }, step, now) {
  if (step + 1 < path.length)
    return h("p", { class: "decoder-back" }, h("span", {}, "Next, ", chipOf(now.piece, "target"), " is fed in."))
  const ended =
    now.piece === "EOS" ? "EOS ends the output: nothing is fed in any more." : "The length limit ends the output here."
  return h("p", { class: "decoder-end" }, ended)
}
