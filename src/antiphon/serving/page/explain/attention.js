// Attention: how much of each source piece went into each step of the output, as a table of weights and in the texts.

import { h, percent, visible } from "../dom.js"
import { chipOf, rove, tellPointed } from "./pointing.js"

/** @import {Chapter, Focus, Trace} from "../types.js" */
/** @typedef {number | "mean"} Choice */

const ROOM = 14 // columns up to which the numbers are written into the cells
const STRONG = 0.65 // weight from which on a cell is so dark that its text is light; the style sheet has it too
const WORTH = 0.05 // weight from which on a piece is worth a word

/** @returns {Chapter} */
export function create() {
  const lead = h("p", { class: "lead" })
  const layer = createChoice("layer", "Layer", "mean of all")
  const head = createChoice("head", "Head", "mean")
  const texts = createTexts()
  const map = h("div", { class: "att-map" })
  const element = h(
    "div",
    { class: "stack" },
    lead,
    h(
      "div",
      { class: "card att-card" },
      h("div", { class: "att-choices" }, layer.element, head.element),
      texts.element,
      map,
    ),
  )
  const card = /** @type {HTMLElement} */ (element.lastChild)
  /** @type {Trace | null} */
  let trace = null
  /** @type {Focus} */
  let focussed = { step: 0, source: null }

  function draw() {
    if (!trace) return
    const chosen = { layer: layer.value, head: head.value }
    const table = heatTable(trace, chosen)
    makeGrid(table)
    map.replaceChildren(table)
    card.classList.toggle("att-beside", trace.source.pieces.length <= ROOM)
    texts.update(trace, weights(trace, chosen.layer, chosen.head))
    show()
  }

  function show() {
    texts.focus(focussed)
    mark(map, focussed)
  }

  layer.element.addEventListener("change", draw)
  head.element.addEventListener("change", draw)
  tellPointed(element)

  return {
    element,
    update(found) {
      trace = found
      lead.textContent = explain(found)
      const layers = found.path[0]?.attention ?? []
      card.hidden = !layers.length
      if (!layers.length) return
      layer.update(layers.length, layers.length - 1)
      head.update(layers[0]?.length ?? 0, "mean")
      draw()
    },
    focus(focus) {
      focussed = focus
      show()
    },
  }
}

/** @param {Trace} trace */
function explain({ architecture, path }) {
  const { attention, d_model: width, encoder } = architecture
  const attended = path[0]?.attention ?? []
  if (!attended.length)
    return `This decoder has no attention. It never looks back at the pieces of the source: all that it knows of them is the one vector of ${width} numbers with which it begins. That is hard for it, and the harder the longer the text, as each further piece has to share the same numbers. Choose a model with attention to see the difference.`
  const table = "A row of the table is one step, and its weights add up to 1."
  if (attention === "monotone")
    return `Each next piece is made at one place of the source, and places only move forward; which they are is never told. The decoder keeps how probable each of them is. ${table}`
  const way =
    attention === "multi-head"
      ? `It does so in each of its layers, with several heads: each looks in its own way. Here there ${count(attended.length, "layer")} with ${attended[0]?.length === 1 ? "one head" : `${attended[0]?.length} heads`}.`
      : `What it looks at depends on its state: ${attention === "dot" ? "a dot product" : "a small network"} compares that with each vector${encoder === "transformer" ? "" : " that the encoder made"}.`
  return `At each step the decoder looks back at the source, and takes a mean of its vectors in which some weigh more than others. ${table} ${way}`
}

/**
 * @param {number} number
 * @param {string} noun
 */
function count(number, noun) {
  return number === 1 ? `is one ${noun}` : `are ${number} ${noun}s`
}

/**
 * The weights [step][source token] of one layer and head, or their mean; [] for a decoder without attention.
 * @param {Trace} trace
 * @param {Choice} layer
 * @param {Choice} head
 * @returns {number[][]}
 */
export function weights(trace, layer, head) {
  if (!trace.path[0]?.attention.length) return []
  return trace.path.map(({ attention }) => meanOf(chosen(attention, layer).map((heads) => meanOf(chosen(heads, head)))))
}

/**
 * @template Item
 * @param {Item[]} items
 * @param {Choice} choice
 */
function chosen(items, choice) {
  return choice === "mean" ? items : items.slice(choice, choice + 1)
}

/** @param {number[][]} rows */
function meanOf(rows) {
  const [first = [], ...others] = rows
  if (!others.length) return first
  return first.map((value, column) => others.reduce((sum, row) => sum + (row[column] ?? 0), value) / rows.length)
}

/**
 * The weights as a table, target pieces down and source pieces across, which scrolls where it finds no room.
 * @param {Trace} trace
 * @param {{ layer: Choice, head: Choice }} which
 * @returns {HTMLElement}
 */
export function heatTable(trace, { layer, head }) {
  const { pieces } = trace.source
  const rows = weights(trace, layer, head)
  if (!rows.length) return h("p", { class: "muted" }, "This decoder has no attention.")
  const roomy = pieces.length <= ROOM
  const columns = pieces.map((piece, source) =>
    h("th", { scope: "col", "data-source": source }, h("bdi", {}, visible(piece))),
  )
  const table = h(
    "table",
    { class: roomy ? "att-table" : "att-table att-tight" },
    h(
      "caption",
      { class: "unseen" },
      "Attention weights: a row for each piece of the output, a column for each of the source",
    ),
    h("thead", {}, h("tr", {}, h("td", {}), ...columns)),
    h("tbody", {}, ...rows.map((row, step) => makeRow(trace, row, step, roomy))),
  )
  const label = `Attention weights of ${trace.model}`
  return h("div", { class: "scroll att-scroll", tabindex: 0, role: "region", "aria-label": label }, table)
}

/**
 * @param {Trace} trace
 * @param {number[]} row
 * @param {number} step
 * @param {boolean} roomy
 */
function makeRow(trace, row, step, roomy) {
  const piece = visible(trace.path[step]?.piece ?? "")
  const cells = row.map((weight, source) => {
    const number = weight.toFixed(2)
    const said = `${piece} looks at ${visible(trace.source.pieces[source] ?? "")}: ${number}`
    const attributes = {
      "data-weight": weight,
      "data-step": step,
      "data-source": source,
      title: said,
      "aria-label": said,
    }
    const written = roomy && number !== "0.00" ? number.replace(/^0/, "") : ""
    return h("td", { class: shade(weight), style: { "--weight": weight }, ...attributes }, written)
  })
  return h("tr", { "data-row": step }, h("th", { scope: "row", "data-step": step }, h("bdi", {}, piece)), ...cells)
}

/** @param {number} weight */
function shade(weight) {
  return weight >= STRONG ? "att-heat att-strong" : "att-heat"
}

/**
 * Makes the cells one tab stop, in which the arrow keys move.
 * @param {HTMLElement} scroll  around the table
 */
function makeGrid(scroll) {
  scroll.removeAttribute("tabindex") // its cells take the focus
  const table = /** @type {HTMLTableElement} */ (scroll.firstElementChild)
  table.setAttribute("role", "grid")
  const cells = /** @type {HTMLElement[]} */ ([...table.querySelectorAll("[data-weight]")])
  rove(table, cells, (table.rows[0]?.cells.length ?? 1) - 1)
}

/**
 * Marks the row and the column that are looked at.
 * @param {HTMLElement} map
 * @param {Focus} focus
 */
function mark(map, { step, source }) {
  for (const one of map.querySelectorAll(".att-row, .att-column")) one.classList.remove("att-row", "att-column")
  map.querySelector(`[data-row="${step}"]`)?.classList.add("att-row")
  if (source === null) return
  for (const one of map.querySelectorAll(`[data-source="${source}"]`)) one.classList.add("att-column")
}

// The two texts above the table: what the step looked at is shaded in the source.

function createTexts() {
  const source = h("div", { class: "att-line", role: "group", dir: "auto" })
  const target = h("div", { class: "att-line", role: "group", dir: "auto" })
  const told = h("p", { class: "small att-told" })
  const element = h(
    "div",
    { class: "att-texts" },
    h("span", { class: "small muted" }, "Source"),
    source,
    h("span", { class: "small muted" }, "Output"),
    target,
    told,
  )
  /** @type {Trace | null} */
  let trace = null
  /** @type {number[][]} */
  let rows = []

  return {
    element,
    /**
     * @param {Trace} found
     * @param {number[][]} found_rows
     */
    update(found, found_rows) {
      rows = found_rows
      if (found === trace) return
      trace = found
      fill(source, "Pieces of the source", found.source.pieces, "source")
      fill(
        target,
        "Pieces of the output",
        found.path.map(({ piece }) => piece),
        "step",
      )
    },
    /** @param {Focus} focus */
    focus(focus) {
      const row = rows[focus.step] ?? []
      for (const [index, chip] of [...source.querySelectorAll("button")].entries()) {
        const weight = row[index] ?? 0
        chip.className = `piece ${shade(weight)}`
        chip.style.setProperty("--weight", String(weight))
        chip.dataset.share = weight >= WORTH ? percent(weight) : ""
        chip.setAttribute("aria-pressed", String(index === focus.source))
      }
      for (const [index, chip] of [...target.querySelectorAll("button")].entries())
        chip.setAttribute("aria-pressed", String(index === focus.step))
      told.replaceChildren(...(trace ? describe(trace, row, focus.step) : []))
    },
  }
}

/**
 * @param {HTMLElement} line
 * @param {string} label
 * @param {string[]} pieces
 * @param {"source" | "step"} kind
 */
function fill(line, label, pieces, kind) {
  const items = pieces.map((piece, index) =>
    h("button", { class: "piece of-target", [`data-${kind}`]: index }, visible(piece)),
  )
  const inner = h("div", { class: "att-pieces", role: "group", "aria-label": label }, ...items)
  rove(inner, items)
  line.replaceChildren(inner)
}

/**
 * In words, what a step looked at.
 * @param {Trace} trace
 * @param {number[]} row
 * @param {number} step
 */
function describe({ source, path }, row, step) {
  const seen = row.map((weight, index) => ({ weight, piece: source.pieces[index] ?? "" }))
  const most = seen
    .sort((a, b) => b.weight - a.weight)
    .filter(({ weight }, place) => !place || weight >= WORTH)
    .slice(0, 3)
  const named = most.flatMap(({ weight, piece }, place) => [place ? ", " : "", chipOf(piece), ` ${percent(weight)}`])
  return ["To write ", chipOf(path[step]?.piece, "target"), " the decoder looked at ", ...named, "."]
}

/**
 * A choice of one of a number of layers or heads, or of the mean of all; not shown where there is but one.
 * @param {string} name
 * @param {string} title
 * @param {string} mean
 */
function createChoice(name, title, mean) {
  const options = h("div", { class: "segments att-options" })
  const element = h("fieldset", { class: "att-choice" }, h("legend", {}, title), options)
  let number = 0
  /** @type {Choice} */
  let value = "mean"
  element.addEventListener("change", (event) => {
    const chosen = /** @type {HTMLInputElement} */ (event.target).value
    value = chosen === "mean" ? chosen : Number(chosen)
  })

  /** @param {Choice} one */
  function option(one) {
    const input = h("input", { type: "radio", name: `att-${name}`, value: one, checked: one === value })
    return h("label", {}, input, one === "mean" ? mean : one + 1)
  }

  return {
    element,
    get value() {
      return value
    },
    /**
     * @param {number} now  how many there are
     * @param {Choice} preset
     */
    update(now, preset) {
      if (now === number) return
      number = now
      value = now === 1 ? 0 : preset
      element.hidden = now < 2
      options.replaceChildren(...[...Array(now).keys(), /** @type {const} */ ("mean")].map(option))
    },
  }
}
