// Trainings as they go: the runs in the folder that the server watches, their curves laid over one another, and samples.

import { readCurves, readRuns, Unreachable } from "./api.js"
import { Chart, SLOTS, short } from "./chart.js"
import { find, h } from "./dom.js"
import { Poll } from "./poll.js"
import { nameOf, Row, unitOf } from "./runs.js"
import { Samples } from "./samples.js"

/** @import {Axes, Point, Series} from "./chart.js" */
/** @import {Context, RunCurves, RunSummary, View} from "./types.js" */

const AT_FIRST = 3 // runs that are looked at without being asked for
const LIVE = 2000 // milliseconds between two looks while something is trained
const QUIET = 10_000

/**
 * @param {Context} context
 * @returns {View}
 */
export function create(context) {
  return context.server.watching ? new Training(context) : unwatched()
}

/** @returns {View} */
function unwatched() {
  const element = h(
    "div",
    { class: "stack" },
    h("h1", {}, "Training"),
    h(
      "p",
      { class: "lead" },
      "This server watches no trainings. Start it with the folder that they are written to, and they are shown here while they run:",
    ),
    h("pre", {}, "antiphon serve --watch runs"),
  )
  return { element, show() {}, hide() {} }
}

/** @implements {View} */
class Training {
  /** @param {Context} context */
  constructor(context) {
    this.context = context
    this.poll = new Poll(() => this.look())
    /** the newest first, in the order in which they were found @type {Map<string, Row>} */
    this.rows = new Map()
    /** the runs that are looked at, and the line of each @type {Map<string, number>} */
    this.ticked = new Map()
    /** what was read of each run, and when it had changed @type {Map<string, { changed: number, curves: RunCurves }>} */
    this.read = new Map()
    /** @type {Map<string, Chart>} */
    this.charts = new Map()
    this.list = h("ul", { class: "card watch-runs" })
    this.told = h("p", { class: "empty", role: "status" }, "Looking for runs…")
    this.grid = h("div", { class: "watch-charts" })
    this.samples = new Samples()
    this.log = h("input", { type: "checkbox", id: "watch-log" })
    this.body = h("div", { class: "stack", hidden: true }, this.list, this.controls(), this.grid, this.samples.element)
    this.element = h(
      "div",
      { class: "stack watch" },
      h("h1", {}, "Training"),
      h(
        "p",
        { class: "lead" },
        "At each step a model answers a batch of training pairs, and its weights are corrected a little. The loss says how surprised it was by the true targets: lower is better. Now and then it is measured on dev pairs that it never learns from; these are the dots.",
      ),
      this.told,
      this.body,
    )
  }

  controls() {
    const ways = [
      ["steps", "Steps"],
      ["minutes", "Minutes"],
    ].map(([value, label], index) =>
      h("label", {}, h("input", { type: "radio", name: "watch-over", value, checked: index === 0 }), label),
    )
    const over = h(
      "fieldset",
      { class: "row watch-over" },
      h("legend", { class: "unseen" }, "Curves over"),
      h("span", { class: "muted small", "aria-hidden": "true" }, "Over"),
      h("div", { class: "segments" }, ...ways),
    )
    const log = h("label", { class: "watch-check", for: "watch-log" }, this.log, "Logarithmic loss")
    const element = h("div", { class: "row" }, over, log)
    element.addEventListener("change", () => this.draw())
    return element
  }

  /** @param {URLSearchParams} parameters */
  show(parameters) {
    const names = parameters.get("runs")?.split(",") ?? []
    if (names.length > 0) this.ticked = new Map(names.slice(0, SLOTS).map((name, index) => [name, index]))
    this.poll.start()
  }

  hide() {
    this.poll.stop()
  }

  /** Looks at the runs; the sooner again while one is trained. */
  async look() {
    let pause = QUIET
    try {
      const runs = await readRuns()
      if (runs.some((run) => run.live)) pause = LIVE
      this.present(runs)
      await this.readTicked(runs)
    } catch (error) {
      if (!(error instanceof Unreachable) && error instanceof Error) this.tell(error.message)
    }
    return pause
  }

  /** @param {...(string | Node)} parts */
  tell(...parts) {
    this.told.replaceChildren(...parts)
    this.told.hidden = parts.length === 0
  }

  /** @param {RunSummary[]} runs */
  present(runs) {
    if (runs.length === 0) this.tell("There is no run in the folder yet. One that is begun in it appears here.")
    else this.tell()
    this.body.hidden = runs.length === 0
    const names = new Set(runs.map((run) => run.name))
    const kept = [...this.ticked].filter(([name]) => names.has(name))
    const isFirst = kept.length === 0 && (this.ticked.size > 0 || this.rows.size === 0)
    this.ticked = new Map(isFirst ? runs.slice(0, AT_FIRST).map((run, index) => [run.name, index]) : kept)
    for (const [name, row] of this.rows) if (!names.has(name)) row.element.remove()
    this.rows = new Map([...this.rows].filter(([name]) => names.has(name)))
    for (const run of runs.toReversed()) {
      if (this.rows.has(run.name)) continue
      this.add(run)
      if (!isFirst && run.live) this.take(run.name) // somebody has just begun it
    }
    for (const run of runs) this.rows.get(run.name)?.update(run)
    this.mark()
  }

  /** @param {RunSummary} run */
  add(run) {
    const row = new Row(run.name, (wanted) => this.tick(run.name, wanted))
    this.rows.set(run.name, row)
    this.list.prepend(row.element)
  }

  /**
   * @param {string} name
   * @param {boolean} wanted
   */
  tick(name, wanted) {
    if (wanted) this.take(name)
    else this.ticked.delete(name)
    this.context.keep({ runs: [...this.ticked.keys()].join(",") })
    this.mark()
    this.draw()
    this.poll.look()
  }

  /** Gives a run the first line that is free, if there is one. @param {string} name */
  take(name) {
    const taken = new Set(this.ticked.values())
    const free = Array.from({ length: SLOTS }, (_, slot) => slot).find((slot) => !taken.has(slot))
    if (free !== undefined) this.ticked.set(name, free)
  }

  /** Shows which runs are looked at. There are so many lines to tell apart, and no more. */
  mark() {
    for (const [name, row] of this.rows) row.mark(this.ticked.get(name), this.ticked.size >= SLOTS)
  }

  /** Reads the curves of those that have changed. @param {RunSummary[]} runs */
  async readTicked(runs) {
    const stale = runs.filter((run) => this.ticked.has(run.name) && this.read.get(run.name)?.changed !== run.changed)
    if (stale.length === 0 && this.charts.size > 0) return
    const curves = stale.length > 0 ? await readCurves(stale.map((run) => run.name)) : []
    curves.forEach((one, index) => {
      this.read.set(one.name, { changed: stale[index]?.changed ?? 0, curves: one })
    })
    this.draw()
  }

  draw() {
    const runs = [...this.ticked].flatMap(([name, slot]) => {
      const curves = this.read.get(name)?.curves
      return curves ? [{ name, slot, curves }] : []
    })
    const isByStep = find("[value=steps]", this.body).matches(":checked")
    const pictures = runs.map(({ name, slot, curves }) => new Picture(name, slot, curves, isByStep))
    /** @type {Axes} */
    const axes = {
      span: [0, Math.max(0, ...pictures.map((one) => one.end))],
      where: (x) => (isByStep ? `step ${Math.round(x).toLocaleString("en")}` : `minute ${short(x)}`),
    }
    const shown = chartsOf(pictures).map(({ title, series, canBeLog }) =>
      this.chart(title).draw(series, { ...axes, log: canBeLog && this.log.checked }),
    )
    const elements = shown.map((chart) => chart.element)
    if (
      elements.length !== this.grid.children.length ||
      elements.some((one, index) => one !== this.grid.children[index])
    )
      this.grid.replaceChildren(...elements)
    this.samples.update(runs.map((run) => run.curves))
  }

  /** The chart of that title; what is pointed at in one is pointed at in all. @param {string} title */
  chart(title) {
    const known = this.charts.get(title)
    if (known) return known
    const chart = new Chart(title, (at) => {
      for (const other of this.charts.values()) if (other !== chart) other.point(at)
    })
    this.charts.set(title, chart)
    return chart
  }
}

/**
 * What the charts show.
 * @param {Picture[]} pictures
 * @returns {{ title: string, series: Series[], canBeLog?: boolean }[]}
 */
function chartsOf(pictures) {
  const metrics = new Set(pictures.flatMap((one) => Object.keys(one.curves.dev)))
  metrics.delete("loss")
  return [
    { title: "Loss, nats a token", series: pictures.flatMap((one) => one.losses()), canBeLog: true },
    ...[...metrics].map((metric) => ({
      title: `Dev ${nameOf(metric)}${unitOf(metric) && ", %"}`,
      series: pictures.flatMap((one) => one.metric(metric)),
    })),
    { title: "Learning rate", series: pictures.map((one) => one.curve("learning_rate")) },
    {
      title: "Target tokens a second",
      series: pictures.map((one) => ({ ...one.curve("tokens_per_second"), faint: true })),
    },
  ]
}

/** The curves of a run as series of charts. */
class Picture {
  /**
   * @param {string} name
   * @param {number} slot
   * @param {RunCurves} curves
   * @param {boolean} isByStep
   */
  constructor(name, slot, curves, isByStep) {
    this.look = { name, slot }
    this.curves = curves
    this.isByStep = isByStep
  }

  /** Where its last step is. */
  get end() {
    return (this.isByStep ? this.curves.steps.at(-1) : (this.curves.seconds.at(-1) ?? 0) / 60) ?? 0
  }

  /**
   * @param {{ steps: number[], seconds: number[] }} along
   * @param {number[]} values
   * @returns {Point[]}
   */
  points({ steps, seconds }, values) {
    const places = this.isByStep ? steps : seconds.map((one) => one / 60)
    return values.map((value, index) => [places[index] ?? 0, value])
  }

  /** @param {"loss" | "learning_rate" | "tokens_per_second"} what @returns {Series} */
  curve(what) {
    return { ...this.look, points: this.points(this.curves, this.curves[what]) }
  }

  /** @returns {Series[]} */
  losses() {
    const training = { ...this.curve("loss"), kind: "training", faint: true }
    return [training, ...this.metric("loss").map((one) => ({ ...one, kind: "dev" }))]
  }

  /** @param {string} metric @returns {Series[]} */
  metric(metric) {
    const dev = this.curves.dev[metric]
    return dev ? [{ ...this.look, points: this.points(dev, dev.values), dots: true }] : []
  }
}
