// The tree of a search's hypotheses as a picture: a column for each step, a box for each hypothesis.

import { svg, visible } from "../dom.js"
import { hadPlace, rankOf, short, signed } from "./tree.js"

/** @import {Trace, TraceNode} from "../types.js" */
/** @import {Item, Tree} from "./tree.js" */
/** @typedef {{ left: number, width: number, middle: number }} Box */

const ROW = 31
const HEIGHT = 24 // of a node
const GAP = 26 // between two columns
const HEAD = 34 // above the first row
const MARK = 19 // what a mark takes of a node's width

/**
 * @param {Tree} tree
 * @param {Item} root
 * @param {Item[]} items
 */
export function pictureOf(tree, root, items) {
  const widths = widthsOf(items)
  const lefts = widths.map((_, column) => 2 + widths.slice(0, column).reduce((sum, one) => sum + one + GAP, 0))
  const whole = (lefts.at(-1) ?? 0) + (widths.at(-1) ?? 0) + 2
  const height = HEAD + (Math.max(...items.map((item) => item.row)) + 1) * ROW
  /** @param {Item} item @returns {Box} */
  const box = (item) => ({
    left: lefts[item.column] ?? 0,
    width: widths[item.column] ?? 0,
    middle: HEAD + item.row * ROW + ROW / 2,
  })
  const columns = widths.map((one, column) => columnOf(column, lefts[column] ?? 0, one, height))
  const edges = items.flatMap((item) => item.children.map((child) => edgeOf(tree, box(item), child, box(child))))
  const nodes = items.flatMap((item) => (item.node ? nodeOf(tree, item.node, box(item)) : []))
  const notes = items.flatMap((item) =>
    item.node ? numbersOf(tree.trace, item.node, box(item)) : noteOf(item, box(item)),
  )
  return svg(
    "svg",
    { width: whole, height, class: "search-picture" },
    svg("g", { "aria-hidden": "true" }, ...columns, ...edges),
    svg("g", { role: "tree", "aria-label": `Hypotheses from ${root.node?.piece ?? ""}` }, ...nodes),
    svg("g", { "aria-hidden": "true", class: "search-notes" }, ...notes),
  )
}

/** How wide each column is: as its longest label. @param {Item[]} items */
function widthsOf(items) {
  const pen = /** @type {CanvasRenderingContext2D} */ (document.createElement("canvas").getContext("2d"))
  pen.font = `13px ${getComputedStyle(document.documentElement).getPropertyValue("--mono")}`
  /** @type {number[]} */
  const widths = []
  for (const { node, column } of items) {
    const label = node ? `${visible(node.piece)}  ${node.parent === null ? "" : short(node.score)}` : ""
    const mark = node && node.fate !== "kept" ? MARK : 0
    widths[column] = Math.max(widths[column] ?? 0, Math.ceil(pen.measureText(label).width) + mark + 16)
  }
  return widths
}

/**
 * @param {number} column
 * @param {number} left
 * @param {number} width
 * @param {number} height
 */
function columnOf(column, left, width, height) {
  return svg(
    "g",
    { class: "search-column", "data-column": column },
    svg("rect", { x: left - 6, y: 0, width: width + 12, height, rx: 8 }),
    svg("text", { x: left + width / 2, y: 19 }, column === 0 ? "start" : `step ${column}`),
  )
}

/**
 * @param {Tree} tree
 * @param {Box} from
 * @param {Item} child
 * @param {Box} to
 */
function edgeOf(tree, from, child, to) {
  const start = from.left + from.width
  const half = (start + to.left) / 2
  const kind = !child.node || !hadPlace(child.node) ? "search-lost" : tree.best.has(child.node.id) ? "search-best" : ""
  const d = `M${start} ${from.middle}C${half} ${from.middle} ${half} ${to.middle} ${to.left} ${to.middle}`
  return svg("path", { d, class: `search-edge ${kind}` })
}

/**
 * @param {Tree} tree
 * @param {TraceNode} node
 * @param {Box} box
 */
function nodeOf(tree, node, { left, width, middle }) {
  const label = visible(node.piece)
  const round = node.fate === "finished"
  return svg(
    "g",
    {
      class: `search-node search-${tree.best.has(node.id) ? "best" : node.fate}`,
      role: "treeitem",
      tabindex: -1,
      "aria-level": node.step + 1,
      "aria-label": `${label}, score ${signed(node.score).replace("−", "-")}, ${fate(tree, node)}`,
      "data-node": node.id,
      "data-score": node.score,
      "data-fate": node.fate,
      "data-step": node.step,
    },
    svg("rect", { x: left, y: middle - HEIGHT / 2, width, height: HEIGHT, rx: round ? HEIGHT / 2 : 5 }),
    round && svg("circle", { cx: left + 13, cy: middle, r: 8 }),
    node.fate === "pruned" && svg("path", { d: `M${left + 9} ${middle - 3.5}l7 7m0 -7l-7 7`, class: "search-cross" }),
    svg("text", { x: left + (node.fate === "kept" ? 8 : MARK + 6), y: middle + 4.5 }, label),
  )
}

/**
 * What a node's label says in words, to be seen: its score and its rank.
 * @param {Trace} trace
 * @param {TraceNode} node
 * @param {Box} box
 */
function numbersOf(trace, node, { left, width, middle }) {
  const round = node.fate === "finished"
  return [
    node.step > 0 && svg("text", { x: left + width - 8, y: middle + 4, class: "search-score" }, short(node.score)),
    round && svg("text", { x: left + 13, y: middle + 4, class: "search-rank" }, rankOf(trace, node)),
  ]
}

/** @param {Item} item @param {Box} box */
function noteOf(item, { left, middle }) {
  return svg("text", { x: left + 8, y: middle + 4, class: "search-note" }, `+${item.more} more`)
}

/** What became of a hypothesis, for its label. @param {Tree} tree @param {TraceNode} node */
function fate({ trace }, node) {
  if (node.fate === "finished") return `finished, rank ${rankOf(trace, node)}`
  return node.fate === "kept" ? "kept" : `pruned at step ${node.pruned_at}`
}
