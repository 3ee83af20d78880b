// The search: the hypotheses of a decode as a tree, step by step, what became of each, and how wide the beam was.

import { find, h, percent } from "../dom.js"
import { arrange, grow, hadPlace, neighbour, planted, rankOf, settle, signed, textOf } from "./tree.js"
import { pictureOf } from "./treepicture.js"

/** @import {Chapter, Trace, TraceNode, TraceOutput} from "../types.js" */
/** @import {Item, Tree} from "./tree.js" */

const PAUSE = 250 // milliseconds that the slider rests before the search is run again
const FEW = 2 // dropped candidates that are drawn of one hypothesis, unless all are wanted
const WIDEST = 8

/** @returns {Chapter} */
export function create() {
  const lead = h("p", { class: "lead" })
  const slider = createSlider()
  const drawing = h("div", {
    class: "scroll search-tree",
    tabindex: 0,
    role: "region",
    "aria-label": "The search tree",
  })
  const details = h("div", { class: "search-details" })
  const hidden = h("p", { class: "small muted" })
  const ended = h("div", { class: "card stack" })
  const amount = choiceOfAmount(() => draw())
  const controls = h("div", { class: "row spread" }, slider.element, amount.element)
  const picture = h("div", { class: "card stack" }, controls, legend(), drawing, details, hidden)
  const element = h("div", { class: "stack search" }, lead, picture, ended)

  /** @type {Tree | null} */
  let tree = null
  /** @type {Item[]} */
  let items = []
  let selected = 0 // the node that the keyboard is at
  let step = 0

  function draw() {
    if (!tree) return
    const root = grow(tree, 0, amount.all ? Number.POSITIVE_INFINITY : FEW)
    arrange(root)
    items = settle(root)
    drawing.replaceChildren(pictureOf(tree, root, items))
    const drawn = items.filter((item) => item.node).length
    hidden.textContent = countOf(tree.trace.nodes.length - drawn)
    if (!items.some((item) => item.node?.id === selected)) selected = 0
    mark()
  }

  /** Shows which node is selected, and which step the other chapters look at. */
  function mark() {
    for (const one of drawing.querySelectorAll(".search-node")) {
      const chosen = Number(one.getAttribute("data-node")) === selected
      one.setAttribute("tabindex", chosen ? "0" : "-1")
      one.setAttribute("aria-selected", String(chosen))
    }
    for (const one of drawing.querySelectorAll(".search-column"))
      one.classList.toggle("search-now", Number(one.getAttribute("data-column")) === step + 1)
    tell(selected)
  }

  /** Scrolls sideways to the step that the other chapters look at, unless it is in sight. */
  function reveal() {
    const column = drawing.querySelector(".search-now")?.getBoundingClientRect()
    const frame = drawing.getBoundingClientRect()
    if (!column || (column.left >= frame.left && column.right <= frame.right)) return
    drawing.scrollBy({ left: (column.left + column.right - frame.left - frame.right) / 2 })
  }

  /** @param {number} id */
  function tell(id) {
    const node = tree?.trace.nodes[id]
    if (tree && node) details.replaceChildren(...detailsOf(tree, node))
  }

  /** Selects a node; where it is a step of the best output, the other chapters go there. @param {number} id */
  function select(id) {
    selected = id
    mark()
    const node = tree?.trace.nodes[id]
    if (!node || !tree?.best.has(id) || node.step === 0) return
    element.dispatchEvent(new CustomEvent("point", { bubbles: true, detail: { step: node.step - 1 } }))
  }

  drawing.addEventListener("focusin", (event) => {
    const id = nodeAt(event)
    if (id !== null && id !== selected) select(id)
  })
  drawing.addEventListener("click", (event) => {
    const id = nodeAt(event)
    if (id !== null) find(`[data-node="${id}"]`, drawing).focus()
  })
  drawing.addEventListener("pointerover", (event) => tell(nodeAt(event) ?? selected))
  drawing.addEventListener("pointerleave", () => tell(selected))
  drawing.addEventListener("keydown", (event) => {
    if (nodeAt(event) === null) return
    const next = neighbour(items, selected, event.key)
    if (!next) return
    event.preventDefault()
    find(`[data-node="${next.id}"]`, drawing).focus()
  })

  return {
    element,
    update(trace) {
      tree = planted(trace)
      slider.follow(trace.settings.beam_size)
      lead.textContent = explained(trace)
      selected = trace.path[step]?.node ?? 0
      draw()
      drawing.scrollTo(0, 0)
      reveal()
      ended.replaceChildren(...endedOf(tree))
    },
    focus(focus) {
      if (!tree) return
      const node = tree.trace.path[focus.step]?.node
      const moved = focus.step !== step
      if (moved && node !== undefined) selected = node
      step = focus.step
      mark()
      if (moved) reveal()
    },
  }
}

/** The beam's width. It asks for another by a "widen" event, when it has rested. */
function createSlider() {
  const input = h("input", { type: "range", id: "search-width", min: 1, max: WIDEST, step: 1 })
  const value = h("output", { for: "search-width", class: "search-width" })
  const element = h("div", { class: "row" }, h("label", { for: "search-width" }, "Beam width"), input, value)
  let held = false // by a pointer
  let timer = 0

  function widen() {
    timer = 0
    element.dispatchEvent(new CustomEvent("widen", { bubbles: true, detail: input.valueAsNumber }))
  }

  input.addEventListener("input", () => {
    value.textContent = input.value
    clearTimeout(timer)
    timer = setTimeout(widen, PAUSE)
  })
  input.addEventListener("pointerdown", () => {
    held = true
  })
  for (const name of ["pointerup", "pointercancel", "change"])
    input.addEventListener(name, () => {
      held = false
    })

  return {
    element,
    /** Shows the width that a trace has, unless somebody is choosing another. @param {number} width */
    follow(width) {
      if (held || timer) return
      input.max = String(Math.max(WIDEST, width))
      input.value = value.textContent = String(width)
    },
  }
}

/** The node that an event happened at. @param {Event} event */
function nodeAt(event) {
  const node = event.target instanceof Element && event.target.closest(".search-node")
  return node ? Number(node.getAttribute("data-node")) : null
}

// Texts

/** @param {Trace} trace */
function explained(trace) {
  const { sample, beam_size } = trace.settings
  const score = "A score is a sum of log-probabilities: 0 is certain, and the lower the less probable."
  if (sample)
    return `Each piece was drawn at random, by the probabilities that the decoder gave. Dashed pieces could have been drawn, and were not. ${score}`
  if (beam_size === 1)
    return `Greedy search: the decoder says the most probable piece at every step and never looks back. The dashed pieces are what it could have said and never tried. ${score}`
  return `Beam search: at each step all hypotheses are continued, and only the ${beam_size} with the best scores go on; one that ends keeps its place. Dashed ones were dropped. ${score}`
}

/** @param {number} count  of nodes that are not drawn */
function countOf(count) {
  if (count === 0) return "All candidates that the trace knows are drawn."
  const few = count === 1 ? "1 dropped candidate is" : `${count} dropped candidates are`
  return `${few} not drawn; “+” says where. Choose “All” to see them.`
}

/** What became of a hypothesis, and why. @param {Tree} tree @param {TraceNode} node */
function story({ trace }, node) {
  if (node.parent === null) return "Here every hypothesis begins."
  if (node.fate === "kept") return "Kept: it went on."
  if (node.fate === "finished") {
    const cut = trace.outputs.some((output) => output.node === node.id && !output.ended)
    return `${cut ? "Cut at the longest length allowed" : "Ended"}; rank ${rankOf(trace, node)} of ${trace.outputs.length}.`
  }
  if (trace.settings.sample) return "It was not drawn."
  return whyDropped(trace, node, node.pruned_at ?? node.step)
}

/**
 * @param {Trace} trace
 * @param {TraceNode} node
 * @param {number} at
 */
function whyDropped({ nodes, settings }, node, at) {
  const dropped = `Dropped at step ${at}:`
  const places = settings.beam_size - nodes.filter((other) => other.fate === "finished" && other.step < at).length
  const taken = nodes.filter((other) => other.step === at && hadPlace(other)).length
  // Free places mean that the search gave up early what could not win any more.
  if (taken < places) return `${dropped} it could no longer beat an output that had ended.`
  if (settings.beam_size === 1) return `${dropped} another piece was more probable, and greedy search keeps only one.`
  if (at > node.step)
    return `${dropped} ${places === 1 ? "the one place went to a continuation of another." : `none of its continuations was among the ${places} best.`}`
  return `${dropped} ${taken === 1 ? "a better hypothesis was kept." : `${taken} better hypotheses were kept.`}`
}

/** Whether the beam found what greedy search would not have. @param {Tree} tree */
function comparedWithGreedy(tree) {
  const { settings, outputs, nodes } = tree.trace
  if (settings.sample) return "These were drawn. A search would look for the most probable output instead."
  if (settings.beam_size === 1)
    return "Greedy search follows a single hypothesis. A wider beam may find a better output that begins with a less probable piece."
  let end = nodes[0]
  for (let next = end; next; next = tree.children.get(next.id)?.reduce(moreProbable)) end = next
  const found = outputs.find((output) => output.node === end?.id)
  if (!end || found === outputs[0])
    return `Greedy search would have found the same output: here a beam of ${settings.beam_size} makes no difference.`
  const better = `The beam found another output than greedy search.`
  if (found)
    return `${better} Greedy search would have written “${found.text}”, whose normalised score is ${signed(found.normalized)} and not ${signed(outputs[0]?.normalized ?? 0)}.`
  return `${better} Greedy search would have gone on with “${textOf(tree, end)}”, which the beam dropped at step ${end.pruned_at}.`
}

/** @param {TraceNode} one @param {TraceNode} other */
function moreProbable(one, other) {
  return other.log_prob > one.log_prob ? other : one
}

// What stands around it

function legend() {
  const kinds = [
    ["best", "on the way to the best output"],
    ["kept", "kept"],
    ["pruned", "dropped"],
    ["finished", "ended, with its rank"],
  ]
  /** @param {string} kind */
  const sample = (kind) => h("span", { class: `search-sample search-${kind}`, "aria-hidden": "true" }, SIGNS[kind])
  return h("ul", { class: "search-legend small" }, ...kinds.map(([kind = "", text]) => h("li", {}, sample(kind), text)))
}

/** @type {Record<string, string | undefined>} */
const SIGNS = { pruned: "×", finished: "1" }

/** How many dropped candidates are drawn. @param {() => void} changed */
function choiceOfAmount(changed) {
  /** @param {string} text @param {boolean} checked */
  const radio = (text, checked) =>
    h("label", {}, h("input", { type: "radio", name: "search-amount", value: text, checked, onchange: changed }), text)
  const all = radio("All", false)
  const group = h("div", { class: "segments" }, radio("Best two of each", true), all)
  return {
    element: h("fieldset", { class: "row" }, h("legend", { class: "search-asked" }, "Dropped candidates"), group),
    get all() {
      return find("input", all).matches(":checked")
    },
  }
}

/** @param {Tree} tree @param {TraceNode} node */
function detailsOf(tree, node) {
  const text = textOf(tree, node)
  const facts = [
    ["this piece", `${signed(node.log_prob)} (${percent(Math.exp(node.log_prob))})`],
    ["sum", signed(node.score)],
    ["normalised", signed(node.normalized)],
  ]
  return [
    h("p", {}, text ? h("bdi", { class: "search-said" }, text) : h("span", { class: "muted" }, "Nothing said yet")),
    node.parent !== null &&
      h("dl", {}, ...facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    h("p", {}, story(tree, node)),
  ].filter((part) => part !== false)
}

/** The hypotheses that finished, and what greedy search would have found. @param {Tree} tree */
function endedOf(tree) {
  const { outputs, settings } = tree.trace
  const title = settings.sample ? "Drawn outputs" : "Hypotheses that ended"
  return [
    h("div", {}, h("h3", {}, title), h("p", { class: "small muted" }, orderOf(settings))),
    h("ol", { class: "search-ended" }, ...outputs.map(outputOf)),
    h("p", { class: "search-greedy" }, comparedWithGreedy(tree)),
  ]
}

/** @param {Trace["settings"]} settings */
function orderOf({ sample, length_penalty }) {
  if (sample) return "Best first, by their probability."
  if (length_penalty === 0) return "Best first, by the sum of the log-probabilities."
  const length = length_penalty === 1 ? "the length" : `the length to the power of ${length_penalty}`
  return `Best first, by the normalised score: the sum divided by ${length}, so that long outputs have a fair chance.`
}

/** @param {TraceOutput} output @param {number} index */
function outputOf(output, index) {
  const fact = output.returned ? "returned" : "not returned"
  return h(
    "li",
    { class: output.returned ? "search-returned" : "", "data-node": output.node, "data-score": output.score },
    h("span", { class: "search-place" }, index + 1),
    h("p", { dir: "auto" }, output.text || "∅"),
    h(
      "p",
      { class: "small muted" },
      h("span", {}, `sum ${signed(output.score)}`),
      h("span", {}, `normalised ${signed(output.normalized)}`),
      h("span", { class: "chip" }, output.ended ? fact : `${fact}, cut`),
    ),
  )
}
