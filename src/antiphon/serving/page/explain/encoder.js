// The encoder: the pieces of the source, the vector it makes of each, and how these lie to each other.

import { h, visible } from "../dom.js"
import { createMap } from "./map.js"
import { isAt, rove, tellPointed } from "./pointing.js"
import { createHeat } from "./vectors.js"

/** @import {Chapter, Trace} from "../types.js" */

/** @returns {Chapter} */
export function create() {
  const lead = h("p", { class: "lead" })
  const chips = h("div", { class: "enc-pieces" })
  const heat = createHeat()
  const map = createMap()
  const element = h("div", { class: "stack" }, lead, chips, h("div", { class: "enc-parts" }, heat.element, map.element))
  tellPointed(element)

  return {
    element,
    update(trace) {
      lead.textContent = explain(trace)
      chips.replaceChildren(makeChips(trace.source.pieces))
      heat.update(trace)
      map.update(trace)
    },
    focus({ source }) {
      for (const chip of chips.querySelectorAll("[data-source]"))
        chip.setAttribute("aria-pressed", String(isAt(chip, source)))
      heat.focus(source)
      map.focus(source)
    },
  }
}

/** @param {string[]} pieces */
function makeChips(pieces) {
  const items = pieces.map((piece, index) => {
    const end = index === pieces.length - 1 ? "enc-end" : ""
    return h("button", { class: `piece of-source enc-chip ${end}`, "data-source": index }, visible(piece))
  })
  const list = h(
    "div",
    { class: "enc-chips", role: "group", "aria-label": "Pieces of the source", dir: "auto" },
    ...items,
  )
  rove(list, items)
  return list
}

/** @param {Trace} trace */
function explain({ architecture }) {
  const { encoder, encoder_layers: layers, d_model: width } = architecture
  const cut = "The source is cut into pieces, and EOS marks its end."
  const depth = layers === 1 ? "one layer" : `${layers} layers`
  if (encoder === "transformer")
    return `${cut} In ${depth}, all pieces look at each other at once. What comes out is one vector of ${width} numbers for each piece: what it means in this sentence.`
  const reads = `${cut} The ${encoder.toUpperCase()} reads them one after the other, in ${depth}, and keeps what it has read in a state of ${width} numbers. Its state at a piece is that piece's vector.`
  if (architecture.bidirectional)
    return `${reads} It reads forwards for the left half of the numbers, and backwards for the right half.`
  return reads
}
