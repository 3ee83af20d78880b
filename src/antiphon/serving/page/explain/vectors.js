// The encoder's vectors as a heat map, a row for each piece: drawn one pixel a number, and stretched. A recurrent
// encoder can be watched as it reads.

import { h, visible } from "../dom.js"
import { chipOf, isAt, point, signed } from "./pointing.js"

/** @import {Trace} from "../types.js" */

const MANY = 24 // pieces, from which on the rows are lower
const READING = 6000 // milliseconds for reading a long source; a short one takes SLOWEST for each piece
const SLOWEST = 600

/** @typedef {{ values: number[], row: HTMLElement, canvas: HTMLCanvasElement, from: number, back: number }} Strip */

export function createHeat() {
  const table = h("table", { class: "enc-heat" })
  const [least, most] = [h("span"), h("span")]
  const told = h("p", { class: "small enc-told" })
  const after = h("p", { class: "small muted" })
  const reader = createReader((read) => draw(read))
  const key = h(
    "div",
    { class: "enc-key small muted", "aria-hidden": "true" },
    least,
    h("span", { class: "enc-scale" }),
    most,
  )
  const element = h(
    "div",
    { class: "card stack enc-vectors" },
    h("h3", {}, "A vector for each piece"),
    reader.element,
    table,
    h("div", { class: "enc-below" }, told, key),
    after,
  )
  /** @type {Strip[]} */
  let strips = []
  /** @type {Trace["source"] | null} */
  let source = null
  let limit = 1
  let read = 0

  /** @param {number} [upTo]  how many pieces are read */
  function draw(upTo = read) {
    read = upTo
    const first = strips[0]
    const colours = first && coloursOf(first.canvas)
    if (!first || !colours) return
    const smooth = first.values.length > first.canvas.clientWidth * devicePixelRatio
    for (const strip of strips) {
      strip.canvas.classList.toggle("enc-smooth", smooth)
      paint(strip, read, limit, colours)
    }
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw())

  return {
    element,
    /** @param {Trace} trace */
    update(trace) {
      source = trace.source
      strips = makeStrips(trace)
      limit = limitOf(source.vectors)
      least.textContent = `≤ −${limit.toPrecision(2)}`
      most.textContent = `≥ ${limit.toPrecision(2)}`
      table.replaceChildren(...rowsOf(trace, strips))
      table.classList.toggle("enc-many", strips.length > MANY)
      table.classList.toggle("enc-unseen", trace.architecture.attention === "none")
      after.textContent = explainSummary(trace)
      after.hidden = !after.textContent
      reader.update(trace)
    },
    /** @param {number | null} at */
    focus(at) {
      for (const { row } of strips) row.classList.toggle("enc-on", isAt(row, at))
      told.replaceChildren(...(source ? describeVector(source, at) : []))
    },
  }
}

/**
 * The rows that are drawn: the vectors, and the summary where there is one. A strip's two halves are known when so many
 * pieces are read forwards (from), and backwards (back).
 * @param {Trace} trace
 * @returns {Strip[]}
 */
function makeStrips({ architecture, source }) {
  const { pieces, norms, vectors, summary, summary_norm } = source
  const both = architecture.bidirectional
  const strips = vectors.map((values, index) => {
    const strip = makeStrip(pieces[index] ?? "", values, norms[index] ?? 0, { "data-source": index })
    return { ...strip, from: index + 1, back: both ? vectors.length - index : index + 1 }
  })
  if (!summary) return strips
  const strip = makeStrip("summary", summary, summary_norm ?? 0, { class: "enc-summary" })
  return [...strips, { ...strip, from: vectors.length, back: vectors.length }]
}

/**
 * @param {string} name
 * @param {number[]} values
 * @param {number} norm
 * @param {Record<string, unknown>} attributes
 */
function makeStrip(name, values, norm, attributes) {
  const canvas = h("canvas", { width: values.length, height: 1, "aria-hidden": "true" })
  const row = h(
    "tr",
    attributes,
    h("th", { scope: "row", dir: "auto" }, visible(name)),
    h("td", {}, canvas),
    h("td", { class: "enc-norm", "data-norm": norm }, norm.toPrecision(3)),
  )
  return { values, row, canvas }
}

/**
 * @param {Trace} trace
 * @param {Strip[]} strips
 */
function rowsOf({ architecture, source }, strips) {
  const rows = strips.map(({ row }) => row)
  const head = h(
    "tr",
    {},
    h("th", { scope: "col" }, "Piece"),
    h("th", { scope: "col" }, `Its ${architecture.d_model} numbers`),
    h("th", { scope: "col", class: "enc-norm" }, "Norm"),
  )
  return [
    h("caption", { class: "unseen" }, "The encoder's vector of each piece of the source, and its norm"),
    h("thead", {}, head),
    h("tbody", {}, ...rows.slice(0, source.pieces.length)),
    ...(source.summary ? [h("tbody", { class: "enc-last" }, ...rows.slice(source.pieces.length))] : []),
  ]
}

/** The size of number that is drawn in full colour: few are greater. @param {number[][]} vectors */
function limitOf(vectors) {
  const sizes = vectors.flat().map(Math.abs)
  sizes.sort((a, b) => a - b)
  return sizes[Math.floor(sizes.length * 0.98)] || 1
}

/**
 * The colours of numbers below, at and above zero, and of what is not read yet; null while nothing is shown. The style
 * sheet gives them to the canvas, as only there light and dark are told apart.
 * @param {HTMLCanvasElement} canvas
 */
function coloursOf(canvas) {
  const { caretColor, backgroundColor, color, outlineColor } = getComputedStyle(canvas)
  const colours = [caretColor, backgroundColor, color, outlineColor].map((one) => one.match(/\d+/g)?.map(Number) ?? [])
  return colours.every((channels) => channels.length >= 3) ? colours : null
}

/**
 * @param {Strip} strip
 * @param {number} read
 * @param {number} limit
 * @param {number[][]} colours
 */
function paint({ values, canvas, from, back }, read, limit, [below = [], zero = [], above = [], unread = []]) {
  const pen = canvas.getContext("2d")
  if (!pen) return
  const image = pen.createImageData(values.length, 1)
  for (const [index, value] of values.entries()) {
    const known = read >= (index < values.length / 2 ? from : back)
    const end = known ? (value < 0 ? below : above) : unread
    const share = known ? Math.min(1, Math.abs(value) / limit) : 1
    for (const channel of [0, 1, 2]) {
      const start = zero[channel] ?? 0
      image.data[4 * index + channel] = start + share * ((end[channel] ?? 0) - start)
    }
    image.data[4 * index + 3] = 255
  }
  pen.putImageData(image, 0, 0)
}

/**
 * @param {Trace["source"]} source
 * @param {number | null} at
 */
function describeVector({ pieces, vectors, norms }, at) {
  const values = at === null ? undefined : vectors[at]
  if (at === null || !values) return [h("span", { class: "muted" }, "Point at a piece to see what is in its vector.")]
  const largest = values.map((value, index) => ({ value, index })).sort((a, b) => Math.abs(b.value) - Math.abs(a.value))
  const named = largest.slice(0, 3).map(({ value, index }) => `${signed(value)} (no.\u00a0${index + 1})`)
  return [chipOf(pieces[at]), ` norm ${norms[at]?.toPrecision(3)}; its largest numbers are ${named.join(", ")}.`]
}

/** What the summary is, and what the decoder makes of it. @param {Trace} trace */
function explainSummary({ architecture, source }) {
  if (!source.summary) return ""
  const { encoder, attention, bidirectional, d_model: width } = architecture
  const made =
    encoder === "transformer"
      ? "The summary is the mean of all vectors."
      : bidirectional
        ? "The summary is the last state of reading, in both directions."
        : "The summary is the last state of reading."
  if (attention === "none")
    return `${made} It is all that the decoder is given: these ${width} numbers carry the whole text. The vectors above, which are faded, it never sees.`
  return `${made} The decoder begins with it, and then looks at the vectors above by attention.`
}

// Reading piece by piece, of a recurrent encoder.

/** @param {(read: number) => void} show  the rows up to a piece */
function createReader(show) {
  const slider = h("input", { type: "range", id: "enc-read", min: 0 })
  const output = h("output", { for: "enc-read", class: "small enc-read" })
  const play = h("button", { class: "enc-play" }, "Play")
  const back = h("button", { "aria-label": "One piece back" }, "‹")
  const onward = h("button", { "aria-label": "One piece on" }, "›")
  const element = h(
    "div",
    { class: "enc-reader" },
    h("div", { class: "enc-buttons" }, play, back, onward),
    h("div", { class: "enc-slide" }, h("label", { for: "enc-read" }, "Read up to"), slider, output),
  )
  /** @type {string[]} */
  let pieces = []
  let read = 0
  let timer = 0

  /** @param {number} count */
  function go(count) {
    read = Math.max(0, Math.min(pieces.length, count))
    slider.value = String(read)
    const piece = read ? visible(pieces[read - 1] ?? "") : "nothing yet"
    output.replaceChildren(h("bdi", { class: read ? "mono" : "" }, piece), ` · ${read} of ${pieces.length}`)
    slider.setAttribute("aria-valuetext", `${piece}, ${read} of ${pieces.length}`)
    if (read === pieces.length) pause()
    show(read)
  }

  /** @param {number} count */
  function step(count) {
    go(count)
    if (read) point(element, { source: read - 1 })
  }

  function pause() {
    clearInterval(timer)
    timer = 0
    play.textContent = "Play"
  }

  play.addEventListener("click", () => {
    if (timer) return pause()
    step(read === pieces.length ? 0 : read + 1)
    if (read === pieces.length) return
    play.textContent = "Pause"
    timer = setInterval(
      () => (element.isConnected ? step(read + 1) : pause()),
      Math.min(SLOWEST, READING / pieces.length),
    )
  })
  /** @param {number} count */
  function stop(count) {
    pause()
    step(count)
  }

  back.addEventListener("click", () => stop(read - 1))
  onward.addEventListener("click", () => stop(read + 1))
  slider.addEventListener("input", () => stop(Number(slider.value)))

  return {
    element,
    /** @param {Trace} trace */
    update({ architecture, source }) {
      element.hidden = architecture.encoder === "transformer"
      pieces = source.pieces
      slider.max = String(pieces.length)
      pause()
      go(pieces.length)
    },
  }
}
