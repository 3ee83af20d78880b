// What the server does at this moment, and did in the last minutes; and the models that it serves.

import { readLoad } from "./api.js"
import { Chart, short } from "./chart.js"
import { h } from "./dom.js"
import { describe } from "./models.js"
import { Poll } from "./poll.js"

/** @import {Axes, Series} from "./chart.js" */
/** @import {Context, Load, ServedModel, View} from "./types.js" */

const EVERY = 1000 // milliseconds
const KEPT = 180 // seconds that are looked back on

/** @type {Axes} */
const AXES = {
  span: [-KEPT, 0],
  places: [
    [-180, "3 min ago"],
    [-120, "2 min"],
    [-60, "1 min"],
    [0, "now"],
  ],
  where: (x) => (x > -0.5 ? "now" : `${Math.round(-x)} s ago`),
}

/**
 * @param {Context} context
 * @returns {View}
 */
export function create(context) {
  return new Server(context.server.models)
}

/** @implements {View} */
class Server {
  /** @param {ServedModel[]} models */
  constructor(models) {
    this.poll = new Poll(() => this.look())
    /** @type {Load[]} */
    this.history = []
    this.figures = h("dl", { class: "watch-figures" })
    const point = (/** @type {number | null} */ at) => {
      for (const chart of this.charts) chart.point(at)
    }
    this.charts = ["Requests", "Rows in the running batch", "Tokens a second", "Milliseconds a request takes"].map(
      (title) => new Chart(title, point),
    )
    this.element = h(
      "div",
      { class: "stack watch" },
      h("h1", {}, "Server"),
      h(
        "p",
        { class: "lead" },
        "Requests join one running batch and leave it when their outputs end. A row is a hypothesis in it: a request has one, or as many as its beam is wide. Requests wait only when the batch is full.",
      ),
      this.figures,
      h("div", { class: "watch-charts" }, ...this.charts.map((chart) => chart.element)),
      modelTable(models),
    )
  }

  show() {
    this.poll.start()
  }

  hide() {
    this.poll.stop()
  }

  /** Looks at the load. */
  async look() {
    try {
      const load = await readLoad()
      this.history = [...this.history.filter((one) => one.time > load.time - KEPT - 2), load]
      this.present(load)
    } catch {
      // The page's notice tells that the server is gone, and that a key is wanted.
    }
    return EVERY
  }

  /** @param {Load} load */
  present(load) {
    this.figures.replaceChildren(...figuresOf(load))
    const [requests, rows, tokens, times] = this.charts
    const running = this.now("running", 0, (one) => one.running)
    const waiting = this.now("waiting", 1, (one) => one.waiting)
    requests?.draw([running, waiting], { ...AXES, whole: true })
    rows?.draw([this.change("rows a step", "row_steps", "steps")], AXES)
    tokens?.draw([this.change("generated", "generated", "time")], AXES)
    const half = this.now("half within", 0, (one) => one.p50 && one.p50 * 1000)
    const most = this.now("95% within", 1, (one) => one.p95 && one.p95 * 1000)
    times?.draw([half, most], AXES)
  }

  /**
   * A figure at each look.
   * @param {string} name
   * @param {number} slot
   * @param {(load: Load) => number | null} figure
   * @returns {Series}
   */
  now(name, slot, figure) {
    const now = this.history.at(-1)?.time ?? 0
    const values = this.history.map((one) => ({ x: one.time - now, y: figure(one) }))
    return { name, slot, points: values.flatMap(({ x, y }) => (y === null ? [] : [[x, y]])) }
  }

  /**
   * How much a count has grown from look to look, for each one by which another has: tokens by seconds.
   * @param {string} name
   * @param {"row_steps" | "generated"} count
   * @param {"steps" | "time"} other
   * @returns {Series}
   */
  change(name, count, other) {
    const now = this.history.at(-1)?.time ?? 0
    const points = this.history.slice(1).map((one, index) => {
      const before = /** @type {Load} */ (this.history[index])
      const [made, by] = [one[count] - before[count], one[other] - before[other]]
      return /** @type {[number, number]} */ ([one.time - now, made > 0 && by > 0 ? made / by : 0])
    })
    return { name, slot: 0, points }
  }
}

/** What stands above the charts. @param {Load} load */
function figuresOf(load) {
  const figures = [
    ["Engines ready", load.engines, load.engines],
    ["Requests running", load.running, load.running],
    ["Requests waiting", load.waiting, load.waiting],
    ["Answered in the last minute", load.answered.toLocaleString("en"), load.answered],
    ["Half are answered within", duration(load.p50), load.p50],
    ["95% are answered within", duration(load.p95), load.p95],
  ]
  return figures.map(([label, text, value]) => h("div", {}, h("dt", {}, label), h("dd", { "data-value": value }, text)))
}

/** @param {number | null} seconds */
function duration(seconds) {
  if (seconds === null) return "–"
  return seconds < 1 ? `${short(seconds * 1000)} ms` : `${short(seconds)} s`
}

/** @param {ServedModel[]} models */
function modelTable(models) {
  if (models.length === 0) return h("p", { class: "muted" }, "No model is served here.")
  const heads = ["Model", "Languages", "Network", "Vocabulary", "Trained on"]
  const table = h(
    "table",
    { class: "watch-table watch-models" },
    h("thead", {}, h("tr", {}, ...heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, ...models.map(modelRow)),
  )
  const scroll = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Models" }, table)
  return h("section", { class: "card stack" }, h("h2", {}, "Models"), scroll)
}

/** @param {ServedModel} model */
function modelRow(model) {
  const { source, target, source_vocabulary: sources, target_vocabulary: targets } = model
  const kinds =
    model.source_tokens === model.target_tokens ? [model.source_tokens] : [model.source_tokens, model.target_tokens]
  const sizes =
    sources === targets
      ? sources.toLocaleString("en")
      : `${sources.toLocaleString("en")} to ${targets.toLocaleString("en")}`
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, model.name),
    h("td", {}, source && target ? `${source.name} to ${target.name}` : "–"),
    h("td", {}, describe(model)),
    h("td", {}, `${sizes} (${kinds.join(" to ")})`),
    h("td", {}, `${model.train_pairs.toLocaleString("en")} pairs`),
  )
}
