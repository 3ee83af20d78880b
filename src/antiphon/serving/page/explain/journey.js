// The journey picture: the whole model in one strip, from the source through the memory to the piece that comes out and
// is fed back, at the step that is looked at. Source pieces, cells and vectors share their rows.

import { h, percent, svg, visible } from "../dom.js"
import { chipOf } from "./pointing.js"
import { arrow, bar, candidates, gaze, network } from "./step.js"

/** @import {Focus, Trace, TraceStep} from "../types.js" */

const ROWS = 8 // of a longer source or output, so many are drawn
const VALUES = 10 // of a vector's numbers
const BARS = 5
const SAID = 3 // pieces fed in before that are shown

/**
 * A row of a column: which piece, or a note about those left out.
 * @typedef {number | string} Row
 */

/** @param {(chapterId: string) => void} goTo */
export function create(goTo) {
  const strip = h("div", { class: "journey-strip" })
  const caption = h("figcaption", { class: "muted" })
  const element = h("figure", { class: "card journey" }, strip, caption)
  const columns = columnsOf(goTo)
  /** @type {Trace} */
  let trace

  return {
    element,
    /** @param {Trace} found */
    update(found) {
      trace = found
      const looks = trace.architecture.attention !== "none"
      const { source, encoder, memory, attention, state, decoder, distribution, output, fed, loop } = columns
      strip.replaceChildren(
        source,
        encoder,
        memory,
        looks ? attention : state,
        decoder,
        distribution,
        output,
        fed,
        loop,
      )
      nameParts(columns, trace)
    },
    /** @param {Focus} focus */
    focus(focus) {
      const now = trace.path[focus.step]
      if (!now) return
      element.dataset.step = String(focus.step)
      drawSource(columns, trace, gaze(trace, focus.step), focus.source)
      drawStep(columns, trace, now, focus.step)
      caption.replaceChildren(...captionOf(trace, now, focus.step))
    },
  }
}

/**
 * The parts of the picture, those that a chapter tells more of as buttons.
 * @param {(chapterId: string) => void} goTo
 */
function columnsOf(goTo) {
  /** @param {string} kind @param {string} title @param {string | null} chapter */
  const column = (kind, title, chapter = null) =>
    h(
      chapter ? "button" : "div",
      { class: `journey-column journey-${kind}`, type: chapter && "button", onclick: () => chapter && goTo(chapter) },
      h("span", { class: "journey-head" }, title),
      h("span", { class: "journey-body" }),
      h("span", { class: "journey-foot" }),
    )
  return {
    source: column("source", "Source"),
    encoder: column("encoder", "Encoder", "encoder"),
    memory: column("memory", "Memory"),
    attention: column("attention", "Attention", "attention"),
    state: column("attention", ""),
    decoder: column("decoder", "Decoder", "decoder"),
    distribution: column("distribution", "Distribution", "search"),
    output: column("output", "Output"),
    fed: h("div", { class: "journey-fed" }),
    loop: h("div", { class: "journey-loop" }, h("span", {}, "fed back")),
  }
}

/** @typedef {ReturnType<typeof columnsOf>} Columns */

/**
 * @param {HTMLElement} column
 * @param {...(string | Node)} content
 */
function fill(column, ...content) {
  column.children[1]?.replaceChildren(...content)
}

/** @param {Columns} columns @param {Trace} trace */
function nameParts(columns, { architecture, source }) {
  const { encoder, encoder_layers, decoder, decoder_layers, attention, d_model } = architecture
  const pieces = source.pieces.length
  const vectors = attention === "none" || pieces === 1 ? "one vector" : `${pieces} vectors`
  const feet = {
    source: pieces === 1 ? "1 piece" : `${pieces} pieces`,
    encoder: `${network(encoder, encoder_layers)}, width ${d_model}`,
    memory: `${vectors} of ${d_model}`,
    attention: attention === "dot" ? "dot product" : attention,
    state: "its first state",
    decoder: network(decoder, decoder_layers),
    distribution: "over the vocabulary",
  }
  for (const [name, text] of Object.entries(feet)) {
    const foot = columns[/** @type {keyof feet} */ (name)].children[2]
    if (foot) foot.textContent = text
  }
}

/**
 * Which of many are drawn: all, or a window around one of them and how many are left out at either end.
 * @param {number} count
 * @param {number} centre
 * @returns {Row[]}
 */
function rowsOf(count, centre) {
  if (count <= ROWS + 2) return Array.from({ length: count }, (_, index) => index)
  const from = Math.max(0, Math.min(count - ROWS, centre - ROWS / 2))
  const after = count - from - ROWS
  const shown = Array.from({ length: ROWS }, (_, index) => from + index)
  return [from ? `${from} before` : "", ...shown, after ? `${after} more` : ""]
}

/** @param {Columns} columns @param {Trace} trace @param {number[]} weights @param {number | null} pointed */
function drawSource(columns, { architecture, source }, weights, pointed) {
  const rows = rowsOf(source.pieces.length, pointed ?? weights.indexOf(Math.max(0, ...weights)))
  fill(columns.source, h("ol", { class: "journey-rows", "aria-label": "Source" }, ...rows.map((row) => sourceRow(row))))
  fill(columns.encoder, architecture.encoder === "transformer" ? mesh(rows) : chain(rows))
  fill(columns.memory, ...memoryOf())
  fill(columns.attention, arrow("journey-arrow"), fan(rows, weights))
  fill(columns.state, arrow("journey-arrow"), fan([0], [1]))

  /** @param {Row} row */
  function sourceRow(row) {
    if (typeof row === "string") return h("li", { class: "journey-note" }, row)
    const weight = weights[row] ?? 0
    const attributes = { "data-source": row, "data-weight": weight, style: { "--weight": weight } }
    return h(
      "li",
      { class: row === pointed && "journey-pointed", ...attributes },
      chipOf(source.pieces[row] ?? "", "source"),
    )
  }

  function memoryOf() {
    if (architecture.attention === "none" && source.summary) return [vector(source.summary, 1)]
    return [h("span", { class: "journey-rows" }, ...rows.map((row) => memoryRow(row)))]
  }

  /** @param {Row} row */
  function memoryRow(row) {
    if (typeof row === "string") return h("span", { class: "journey-note" })
    return vector(source.vectors[row] ?? [], weights[row] ?? 0)
  }
}

/**
 * Some of a vector's numbers, the stronger the farther from zero.
 * @param {number[]} values
 * @param {number} weight  how much of it the decoder takes
 */
function vector(values, weight) {
  const some = Array.from({ length: VALUES }, (_, place) =>
    Math.abs(values[Math.floor((place * values.length) / VALUES)] ?? 0),
  )
  const most = Math.max(...some) || 1
  const cells = some.map((value, x) =>
    svg("rect", { x, width: 0.86, height: 1, "fill-opacity": 0.15 + (0.85 * value) / most }),
  )
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${VALUES} 1`, preserveAspectRatio: "none", "aria-hidden": "true" },
    ...cells,
  )
  return h("span", { class: "journey-vector", style: { "--weight": weight } }, picture)
}

/**
 * Cells that pass a state on.
 * @param {Row[]} rows
 * @param {number} [now]  the one at work; those after it are still to come
 */
function chain(rows, now = Infinity) {
  const state = (/** @type {number} */ row) => (row === now ? "journey-now" : row > now ? "journey-coming" : "")
  const cells = rows.map((row) =>
    h("span", { class: typeof row === "number" ? `journey-cell ${state(row)}` : row && "journey-gap" }),
  )
  return h("span", { class: "journey-rows journey-chain", "aria-hidden": "true" }, ...cells)
}

/**
 * A block in which every place sees all places or, given `now`, itself and those before it.
 * @param {Row[]} rows
 * @param {number} [now]  which place is at work
 */
function mesh(rows, now) {
  const places = rows.map((_, place) => place).filter((place) => rows[place] !== "")
  const sees = places.flatMap((to) =>
    places.filter((from) => now === undefined || from <= to).map((from) => [from, to]),
  )
  const state = (/** @type {number} */ to) =>
    now === undefined || to < now ? null : to === now ? "journey-now" : "journey-coming"
  const lines = sees.map(([from = 0, to = 0]) =>
    svg("line", { class: state(to), x1: 0, y1: from + 0.5, x2: 1, y2: to + 0.5 }),
  )
  return lined("journey-mesh", rows.length, lines)
}

/** Lines from the rows of the memory to the decoder, as wide as their weights. @param {Row[]} rows @param {number[]} weights */
function fan(rows, weights) {
  const lines = rows.flatMap((row, place) => {
    const weight = typeof row === "string" ? 0 : (weights[row] ?? 0)
    const ends = { x1: 0, y1: place + 0.5, x2: 1, y2: rows.length / 2 }
    return typeof row === "string"
      ? []
      : svg("line", { ...ends, style: { "stroke-width": `${0.75 + 5 * weight}px`, "--weight": weight } })
  })
  return lined("journey-fan", rows.length, lines)
}

/** @param {string} kind @param {number} height  in rows @param {SVGElement[]} lines */
function lined(kind, height, lines) {
  const attributes = {
    viewBox: `0 0 1 ${height}`,
    preserveAspectRatio: "none",
    "aria-hidden": "true",
    style: { "--rows": height },
  }
  return svg("svg", { class: `journey-lines ${kind}`, ...attributes }, ...lines)
}

/** @param {Columns} columns @param {Trace} trace @param {TraceStep} now @param {number} step */
function drawStep(columns, { architecture, path }, now, step) {
  const rows = rowsOf(path.length, step)
  fill(columns.decoder, architecture.decoder === "transformer" ? mesh(rows, rows.indexOf(step)) : chain(rows, step))
  fill(
    columns.distribution,
    arrow("journey-into"),
    h("span", { class: "journey-bars" }, ...candidates(now, BARS).map(barOf)),
  )
  fill(
    columns.output,
    arrow("journey-into"),
    chipOf(now.piece, "target"),
    h("span", { class: "small muted" }, percent(now.probability)),
  )
  const foot = columns.output.children[2]
  if (foot) foot.textContent = `step ${step + 1} of ${path.length}`
  const before = path.slice(Math.max(1, step + 1 - SAID), step).map(({ input }) => chipOf(input, "target"))
  const beginning = step > 0 ? [chipOf("GO", "target")] : []
  const leftOut = step > SAID ? [h("span", {}, "…")] : []
  columns.fed.replaceChildren(
    arrow("journey-up"),
    h("span", {}, ...beginning, ...leftOut, ...before, chipOf(now.input, "target")),
  )
}

/** @param {{ piece: string, probability: number, picked: boolean }} candidate */
function barOf({ piece, probability, picked }) {
  return h("span", { class: picked && "journey-picked" }, chipOf(piece, "target"), bar(probability))
}

/**
 * What the picture says, at this step.
 * @param {Trace} trace
 * @param {TraceStep} now
 * @param {number} step
 */
function captionOf(trace, now, step) {
  const { architecture, source, path } = trace
  const weights = gaze(trace, step)
  const most = visible(source.pieces[weights.indexOf(Math.max(...weights))] ?? "")
  const blind = architecture.attention === "none"
  const whole = blind
    ? "The encoder packs the source into one vector, and from that the decoder writes the output, piece by piece. "
    : "The encoder turns the source into a memory; the decoder looks into it and writes the output, piece by piece. "
  const looks = blind ? "" : `, looks most at ${most}`
  const here = `Here, at step ${step + 1} of ${path.length}, it is fed with ${visible(now.input)}${looks} and says ${visible(now.piece)}.`
  return [whole, h("bdi", {}, here)]
}
