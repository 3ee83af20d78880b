// Two models side by side on one text: what each says, how sure it is of every piece, and where it looks.

import { trace as askForTrace, isAborted, sentenceOf } from "./api.js"
import { h, percent, visible } from "./dom.js"
import { heatTable } from "./explain/attention.js"
import { signed } from "./explain/tree.js"
import { describe, modelChoice } from "./models.js"
import { createQuestion } from "./question.js"

/** @import {Context, ServerInfo, Trace, View} from "./types.js" */
/** @typedef {{ start: number, end: number, text: string, isWord: boolean }} Word */
/** @typedef {ReturnType<typeof createSide>} Side */

/**
 * @param {Context} context
 * @returns {View}
 */
export function create(context) {
  const { server } = context
  const question = createQuestion("compared", compare)
  const told = h("p", { class: "compare-told", role: "status" })
  const sides =
    server.models.length < 2 ? [createSide(server, "only")] : ["left", "right"].map((name) => createSide(server, name))
  const [left, right] = sides
  if (right && server.models[1]) right.choice.value = server.models[1].name

  const grid = h("div", { class: "compare-sides" }, ...sides.map((side) => side.element))
  const lead = h("p", { class: "lead" }, right ? together() : alone())
  const element = h(
    "div",
    { class: "stack compare" },
    h("h1", {}, "Compare two models"),
    lead,
    question.element,
    told,
    legend(Boolean(right)),
    grid,
  )

  /** @param {string} text @param {AbortSignal} signal */
  async function compare(text, signal) {
    context.keep({ text: question.text, left: left?.choice.value ?? "", ...(right && { right: right.choice.value }) })
    if (!text) {
      told.textContent = "Give a text to decode."
      for (const side of sides) side.show(null)
      return
    }
    await Promise.all(sides.map((side) => side.ask(text, signal)))
    if (signal.aborted) return
    told.textContent = right ? sayDifference(sides) : ""
  }

  grid.addEventListener("change", question.ask)

  return {
    element,
    show(parameters) {
      if (left) left.choice.value = parameters.get("left") ?? left.choice.value
      if (right) right.choice.value = parameters.get("right") ?? right.choice.value
      question.show(parameters)
    },
    hide: question.stop,
  }
}

function together() {
  return "Both models decode the same text greedily: at each step the most probable piece. See where one is sure and the other is not."
}

function alone() {
  return h(
    "span",
    {},
    "This server has one model, so it is shown alone. Serve two to compare them: ",
    h("code", { class: "mono" }, "antiphon serve RUN1 RUN2"),
    ".",
  )
}

/** @param {boolean} two  models are shown */
function legend(two) {
  /** @param {number} doubt */
  const swatch = (doubt) => h("span", { class: "compare-swatch compare-piece", style: { "--doubt": doubt } })
  return h(
    "p",
    { class: "compare-legend small muted" },
    h("span", {}, "sure of a piece", ...[0, 0.33, 0.66, 1].map(swatch), "unsure"),
    two && h("span", {}, h("mark", {}, "underlined"), "differs from the other model"),
  )
}

// A side

/**
 * One model's card.
 * @param {ServerInfo} server
 * @param {string} name  left, right or only
 */
function createSide(server, name) {
  const choice = modelChoice(server, `compare-${name}`, name === "only" ? "Model" : `Model on the ${name}`)
  const where = name === "only" ? "" : `, ${name}`
  const kind = h("p", { class: "small muted" })
  const error = h("p", { class: "error", role: "status" })
  const body = h("div", { class: "compare-body" })
  const element = h(
    "section",
    { class: "card compare-side", "aria-label": name === "only" ? "Model" : `The model on the ${name}` },
    h("div", { class: "compare-head" }, choice.element, kind, error),
    body,
  )
  const side = {
    element,
    choice,
    /** @type {Trace | null} */
    trace: null,

    /** Asks the model; what it says, or why it does not, is shown. @param {string} text @param {AbortSignal} signal */
    async ask(text, signal) {
      kind.textContent = describe(choice.model)
      element.setAttribute("aria-busy", "true")
      try {
        const request = { text, model: choice.value, beam_size: 1, n_best: 1, sample: false, alternatives: 1 }
        side.show(await askForTrace(request, signal))
      } catch (failure) {
        if (!isAborted(failure)) side.show(null, sentenceOf(failure))
      }
    },

    /** @param {Trace | null} trace @param {string} [why]  there is none */
    show(trace, why = "") {
      side.trace = trace
      error.textContent = why
      element.removeAttribute("aria-busy")
      body.replaceChildren(...(trace ? partsOf(trace, where) : []))
    },

    /** Marks the words that the other model does not have. @param {Word[]} words */
    markWords(words) {
      if (side.trace) body.querySelector(".compare-output")?.replaceWith(outputOf(side.trace, words))
    },
  }
  return side
}

/**
 * @param {Trace} trace
 * @param {string} where  for the names of its parts: which side it is
 */
function partsOf(trace, where) {
  const score = trace.outputs[0]?.score ?? 0
  const steps = trace.path.length
  const facts = [
    ["log-probability", "score", score, signed(score)],
    ["perplexity per piece", "perplexity", Math.exp(-score / steps), Math.exp(-score / steps).toPrecision(3)],
    ["steps", "steps", steps, String(steps)],
  ]
  /** @param {(string | number)[]} fact */
  const fact = ([title, key, exact, shown]) =>
    h("div", {}, h("dt", {}, title), h("dd", { "data-fact": key, "data-value": exact }, shown))
  return [
    outputOf(trace, []),
    h("dl", { class: "compare-facts" }, ...facts.map(fact)),
    h("div", {}, h("h2", {}, "How probable each piece was"), stepsOf(trace, where)),
    h("div", {}, h("h2", {}, "Attention"), lookOf(trace, where)),
  ]
}

/** The output, each piece shaded by the doubt about it. @param {Trace} trace @param {Word[]} differing */
function outputOf(trace, differing) {
  const text = trace.outputs[0]?.text ?? ""
  /** @type {(string | Node)[]} */
  const parts = []
  let place = 0
  /** @param {number} end @param {number} probability */
  const put = (end, probability) => {
    const start = place + text.slice(place, end).search(/\S/)
    if (start < place) return
    const differs = differing.some((word) => word.start < end && word.end > start)
    parts.push(
      text.slice(place, start),
      h(
        differs ? "mark" : "span",
        { class: "compare-piece", style: { "--doubt": 1 - probability }, "data-probability": probability },
        text.slice(start, end),
      ),
    )
    place = end
  }
  let waiting = 1 // the probability of bytes that are a character only together
  for (const { piece, probability } of trace.path) {
    if (piece === "EOS") break
    const word = piece.trim()
    const start = word ? text.indexOf(word, place) : -1
    if (start < 0) waiting *= probability
    else {
      put(start, waiting)
      put(start + word.length, probability)
      waiting = 1
    }
  }
  put(text.length, waiting)
  return h("p", { class: "compare-output", dir: "auto" }, ...(text ? parts : ["∅"]))
}

/** A bar for each step. @param {Trace} trace @param {string} where */
function stepsOf(trace, where) {
  const bars = trace.path.map(({ piece, probability }, step) =>
    h(
      "li",
      { "data-step": step, "data-probability": probability },
      h("span", { class: "compare-share" }, percent(probability)),
      h("span", { class: "compare-bar", style: { "--share": probability } }),
      h("bdi", { class: "mono" }, visible(piece)),
    ),
  )
  const label = `Probability of each piece${where}`
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
    h("ol", { class: "compare-steps" }, ...bars),
  )
}

/** @param {Trace} trace @param {string} where */
function lookOf(trace, where) {
  const { attention, d_model } = trace.architecture
  if (attention === "none")
    return h(
      "p",
      { class: "compare-none" },
      `This decoder has no attention. One vector of ${trace.source.summary?.length ?? d_model} numbers had to carry the whole text, however long it is.`,
    )
  const several = (trace.path[0]?.attention.flat().length ?? 0) > 1
  const mean = several ? ", the mean of its layers and heads" : ""
  const table = heatTable(trace, { layer: "mean", head: "mean" })
  table.setAttribute("aria-label", `Attention weights${where}`)
  return h(
    "div",
    { class: "stack compare-look" },
    h("p", { class: "small muted" }, `The weight of each source piece (across) in each step (down)${mean}.`),
    table,
  )
}

// Differences

/** Marks where the two outputs differ, and says it. @param {Side[]} sides */
function sayDifference(sides) {
  const traces = sides.flatMap((side) => side.trace ?? [])
  if (traces.length < 2) return ""
  const words = traces.map((trace) => wordsOf(trace.outputs[0]?.text ?? ""))
  const [ours = [], theirs = []] = differences(words[0] ?? [], words[1] ?? [])
  sides[0]?.markWords(ours)
  sides[1]?.markWords(theirs)
  if (!ours.length && !theirs.length) return "Both models give the same output."
  const counts = [ours, theirs].map((list) => list.filter((word) => word.isWord).length)
  const [left = 0, right = 0] = counts
  if (!left && !right) return "The outputs differ only in punctuation."
  if (left === right) return `The outputs differ in ${count(left)}.`
  return `The outputs differ in ${count(left)} on the left and ${count(right)} on the right.`
}

/** @param {number} words */
function count(words) {
  return words === 1 ? "1 word" : `${words} words`
}

/** Words and signs, with their places. @param {string} text @returns {Word[]} */
function wordsOf(text) {
  return [...new Intl.Segmenter(undefined, { granularity: "word" }).segment(text)]
    .filter(({ segment }) => segment.trim())
    .map(({ segment, index, isWordLike }) => ({
      start: index,
      end: index + segment.length,
      text: segment,
      isWord: Boolean(isWordLike),
    }))
}

/**
 * The words of each list that are not in their longest common subsequence.
 * @param {Word[]} ours
 * @param {Word[]} theirs
 */
function differences(ours, theirs) {
  // lengths[i][j]: of the longest common subsequence of what follows from i and j on
  const lengths = Array.from({ length: ours.length + 1 }, () => new Uint16Array(theirs.length + 1))
  /** @param {number} i @param {number} j */
  const length = (i, j) => lengths[i]?.[j] ?? 0
  /** @param {number} i @param {number} j */
  const equal = (i, j) => ours[i]?.text === theirs[j]?.text
  for (let i = ours.length - 1; i >= 0; i--)
    for (let j = theirs.length - 1; j >= 0; j--)
      /** @type {Uint16Array} */ (lengths[i])[j] = equal(i, j)
        ? length(i + 1, j + 1) + 1
        : Math.max(length(i + 1, j), length(i, j + 1))
  const commonOurs = new Set()
  const commonTheirs = new Set()
  for (let i = 0, j = 0; i < ours.length && j < theirs.length; )
    if (equal(i, j)) {
      commonOurs.add(i++)
      commonTheirs.add(j++)
    } else if (length(i + 1, j) >= length(i, j + 1)) i++
    else j++
  return [ours.filter((_, index) => !commonOurs.has(index)), theirs.filter((_, index) => !commonTheirs.has(index))]
}
