// The tree of a search's hypotheses: who descends from whom, and in which column and row each is drawn.
// A parent stands beside its best child, so the best output is one straight line; its rivals branch off below.

/** @import {Trace, TraceNode} from "../types.js" */

/**
 * What is drawn: a hypothesis, or (without a node) a note that its parent has so many more candidates.
 * @typedef {object} Item
 * @property {TraceNode | null} node
 * @property {number} more
 * @property {Item[]} children
 * @property {number} column  the step
 * @property {number} row  below its parent's, until `settle` makes it absolute
 */

/**
 * A trace's nodes, with what is asked of them again and again.
 * @typedef {object} Tree
 * @property {Trace} trace
 * @property {Map<number, TraceNode[]>} children  by parent
 * @property {Set<number>} best  the nodes on the way to the best output
 */

/** @param {Trace} trace @returns {Tree} */
export function planted(trace) {
  /** @type {Tree["children"]} */
  const children = new Map()
  for (const node of trace.nodes) {
    if (node.parent === null) continue
    const siblings = children.get(node.parent)
    if (siblings) siblings.push(node)
    else children.set(node.parent, [node])
  }
  return { trace, children, best: new Set(wayTo(trace.nodes, trace.outputs[0]?.node ?? 0).map((node) => node.id)) }
}

/** The nodes from GO to a node. @param {TraceNode[]} nodes @param {number} id */
function wayTo(nodes, id) {
  const way = []
  for (let node = nodes[id]; node; node = node.parent === null ? undefined : nodes[node.parent]) way.unshift(node)
  return way
}

/** What a hypothesis says. @param {Tree} tree @param {TraceNode} node */
export function textOf({ trace }, node) {
  const said = wayTo(trace.nodes, node.id).slice(1)
  if (said.at(-1)?.piece === "EOS") said.pop()
  return said
    .map((one) => one.piece)
    .join(trace.spaced ? " " : "")
    .replace(/(\\x[89a-f][\da-f])+/g, readBytes)
    .trim()
}

/** @param {string} bytes  such as \xc3\xa9 */
function readBytes(bytes) {
  return new TextDecoder().decode(Uint8Array.from(bytes.slice(2).split("\\x"), (one) => Number(`0x${one}`)))
}

/** Whether it was among the best of its own step. @param {TraceNode} node */
export function hadPlace(node) {
  return node.pruned_at !== node.step
}

/** @param {Trace} trace @param {TraceNode} node */
export function rankOf(trace, node) {
  return trace.outputs.findIndex((output) => output.node === node.id) + 1
}

/**
 * What is to be drawn below a node: the best output's way first, then what had a place, then the best of what had none.
 * @param {Tree} tree
 * @param {number} id
 * @param {number} limit
 * @returns {Item}
 */
export function grow(tree, id, limit) {
  const node = /** @type {TraceNode} */ (tree.trace.nodes[id])
  const all = (tree.children.get(id) ?? []).toSorted((one, other) => other.score - one.score)
  const placed = all.filter(hadPlace).toSorted((one, other) => +tree.best.has(other.id) - +tree.best.has(one.id))
  const dropped = all.filter((one) => !hadPlace(one))
  const children = [...placed, ...dropped.slice(0, limit)].map((one) => grow(tree, one.id, limit))
  const more = Math.max(0, dropped.length - limit)
  if (more) children.push({ node: null, more, children: [], column: node.step + 1, row: 0 })
  return { node, more: 0, children, column: node.step, row: 0 }
}

/**
 * Gives each child its row below its parent: the first stands beside it, and each further subtree is moved up as far
 * as no column forbids. Returns the subtree's [first, last] row in each column.
 * @param {Item} item
 * @returns {Map<number, [number, number]>}
 */
export function arrange(item) {
  /** @type {Map<number, [number, number]>} */
  const taken = new Map([[item.column, [0, 0]]])
  for (const child of item.children) {
    const own = arrange(child)
    for (const [column, [first]] of own) child.row = Math.max(child.row, (taken.get(column)?.[1] ?? -1) + 1 - first)
    for (const [column, [first, last]] of own)
      taken.set(column, [taken.get(column)?.[0] ?? first + child.row, last + child.row])
  }
  return taken
}

/** All items, with absolute rows. @param {Item} item @returns {Item[]} */
export function settle(item) {
  const below = item.children.flatMap((child) => {
    child.row += item.row
    return settle(child)
  })
  return [item, ...below]
}

/**
 * Where a key leads to.
 * @param {Item[]} items
 * @param {number} id
 * @param {string} key
 * @returns {TraceNode | null | undefined}
 */
export function neighbour(items, id, key) {
  const here = items.find((item) => item.node?.id === id)
  if (!here) return undefined
  const column = items.filter((item) => item.node && item.column === here.column).sort((a, b) => a.row - b.row)
  const place = column.indexOf(here)
  /** @type {Record<string, Item | undefined>} */
  const ways = {
    ArrowLeft: items.find((item) => item.children.includes(here)),
    ArrowRight: here.children.find((child) => child.node),
    ArrowUp: column[place - 1],
    ArrowDown: column[place + 1],
    Home: items[0],
  }
  return ways[key]?.node
}

/** A logarithm with two or three digits that matter, and a real minus. @param {number} value */
export function signed(value) {
  const size = Math.abs(value)
  const digits = size >= 10 ? size.toFixed(1) : size >= 0.1 ? size.toFixed(2) : String(Number(size.toPrecision(2)))
  return value < 0 ? `−${digits}` : digits
}

/** The same in little room. @param {number} value */
export function short(value) {
  return Math.abs(value) < 0.1 ? value.toFixed(3).replace("-", "−") : signed(value)
}
