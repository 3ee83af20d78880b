// A line chart: a few series over one axis, with a legend that tells the last values, or those at a place pointed at.
// It is drawn in the pixels it has, so that its text keeps its size; it knows nothing of what it shows.

import { h, svg } from "./dom.js"

/**
 * @typedef {[number, number]} Point
 * @typedef {object} Series
 * @property {string} name  what it is of; the legend has one entry for each
 * @property {string} [kind]  what it tells of that, where there are several
 * @property {number} slot  its colour and dashes, from 0
 * @property {Point[]} points  by rising x
 * @property {boolean} [faint]
 * @property {boolean} [dots]
 * @typedef {object} Axes
 * @property {boolean} [log]  the values' axis
 * @property {boolean} [whole]  only whole numbers are ticks of it
 * @property {Point} [span]  of the x axis; else that of the points
 * @property {[number, string][]} [places]  ticks of the x axis; else round numbers
 * @property {(x: number) => string} where  a place on the x axis, in words
 */

export const SLOTS = 6
const HEIGHT = 190
const TOP = 8
const RIGHT = 10
const BOTTOM = 24
const CHARACTER = 7 // its width, of a tick's label

/** A number in three digits, as people write it. @param {number} value */
export function short(value) {
  const size = Math.abs(value)
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`
  if (size >= 1e3) return Math.round(value).toLocaleString("en")
  if (size >= 1e-3 || size === 0) return String(Number(value.toPrecision(3)))
  return value.toExponential(1).replace(".0", "")
}

/** A sample of a series' line. @param {number} slot */
export function swatch(slot) {
  const line = svg("line", { x1: 1, x2: 27, y1: 5, y2: 5, class: "watch-line" })
  return svg("svg", { class: `watch-swatch watch-slot-${slot}`, width: 28, height: 10, "aria-hidden": "true" }, line)
}

export class Chart {
  /**
   * @param {string} title
   * @param {(x: number | null) => void} [pointed]  told where somebody points, or null
   */
  constructor(title, pointed = () => {}) {
    this.title = title
    this.pointed = pointed
    /** @type {Series[]} */
    this.series = []
    /** @type {Axes} */
    this.axes = { where: short }
    /** @type {number | null} */
    this.at = null
    this.where = h("span", { class: "muted small" })
    this.plot = svg("svg", { class: "watch-plot", role: "img", tabindex: 0, height: HEIGHT })
    this.legend = h("ul", { class: "watch-legend" })
    this.told = h("p", { class: "unseen", "aria-live": "polite" })
    const caption = h("figcaption", { class: "row spread" }, h("h2", {}, title), this.where)
    this.element = h("figure", { class: "card watch-chart" }, caption, this.plot, this.legend, this.told)
    this.plot.addEventListener("pointermove", (event) => this.follow(event))
    this.plot.addEventListener("pointerdown", (event) => this.follow(event))
    this.plot.addEventListener("pointerleave", () => this.move(null))
    this.plot.addEventListener("keydown", (event) => this.press(event))
    this.plot.addEventListener("blur", () => this.move(null))
    new ResizeObserver(() => this.paint()).observe(this.plot)
  }

  /**
   * @param {Series[]} series
   * @param {Axes} axes
   */
  draw(series, axes) {
    this.series = axes.log ? series.map((one) => ({ ...one, points: one.points.filter(([, y]) => y > 0) })) : series
    this.axes = axes
    this.paint()
    return this
  }

  /** Reads the values at a place; null: the last ones. @param {number | null} at */
  point(at) {
    this.at = at
    this.where.textContent = at === null ? "" : this.axes.where(at)
    this.read()
    this.mark()
  }

  paint() {
    const width = this.plot.clientWidth
    if (!width) return
    const points = this.series.flatMap((one) => one.points)
    if (points.length === 0) {
      const text = svg("text", { x: width / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "Nothing measured yet.")
      this.plot.replaceChildren(text)
    } else {
      this.scale(points, width)
      this.marks = svg("g")
      this.plot.replaceChildren(this.grid(), ...this.series.map((one) => this.line(one)), this.marks)
    }
    this.legend.replaceChildren(...this.entries())
    this.point(this.at)
    const values = [...this.legend.children].map((entry) => entry.textContent).join("; ")
    this.plot.setAttribute("aria-label", `${this.title}: ${values || "nothing yet"}. Arrow keys read other values.`)
  }

  /**
   * How values become places.
   * @param {Point[]} points
   * @param {number} width
   */
  scale(points, width) {
    const { log, whole, span, places } = this.axes
    const values = points.map(([, y]) => y)
    this.yTicks = log ? powers(Math.min(...values), Math.max(...values)) : rounds(0, Math.max(...values) || 1, 4, whole)
    const labels = this.yTicks.map(short)
    this.left = Math.ceil(Math.max(...labels.map((label) => label.length)) * CHARACTER) + 8
    this.right = width - RIGHT
    const [from, to] = span ?? [Math.min(...points.map(([x]) => x)), Math.max(...points.map(([x]) => x))]
    this.from = from
    this.to = Math.max(to, from + 1e-9)
    const few = Math.max(2, Math.floor((this.right - this.left) / 90))
    this.xTicks =
      places ??
      rounds(from, to, few)
        .filter((x) => x >= from && x <= to)
        .map((x) => /** @type {[number, string]} */ ([x, short(x)]))
    const amount = log ? Math.log : (/** @type {number} */ y) => y
    const low = amount(/** @type {number} */ (this.yTicks[0]))
    const high = amount(/** @type {number} */ (this.yTicks.at(-1)))
    this.y = (/** @type {number} */ y) => HEIGHT - BOTTOM - ((amount(y) - low) / (high - low)) * (HEIGHT - BOTTOM - TOP)
    this.x = (/** @type {number} */ x) =>
      this.left + ((x - this.from) / (this.to - this.from)) * (this.right - this.left)
  }

  left = 0
  right = 0
  from = 0
  to = 1
  /** @type {number[]} */
  yTicks = []
  /** @type {[number, string][]} */
  xTicks = []
  /** @type {(value: number) => number} */
  x = (value) => value
  /** @type {(value: number) => number} */
  y = (value) => value
  marks = svg("g")
  /** @type {{ series: Series, value: HTMLElement }[]} */
  values = []

  grid() {
    const lines = this.yTicks.map((tick) => {
      const y = Math.round(this.y(tick)) + 0.5
      const label = svg("text", { x: this.left - 6, y: y + 4, "text-anchor": "end" }, short(tick))
      return svg("g", {}, svg("line", { x1: this.left, x2: this.right, y1: y, y2: y, class: "watch-grid" }), label)
    })
    const labels = this.xTicks.map(([tick, label]) => {
      const x = this.x(tick)
      const half = (label.length * CHARACTER) / 2
      const anchor = x + half > this.right + RIGHT ? "end" : x - half < this.left ? "start" : "middle"
      return svg("text", { x, y: HEIGHT - 6, "text-anchor": anchor }, label)
    })
    return svg("g", { "aria-hidden": "true" }, ...lines, ...labels)
  }

  /** @param {Series} series */
  line({ slot, points, faint, dots }) {
    const places = points.map(([x, y]) => `${this.x(x).toFixed(1)},${this.y(y).toFixed(1)}`)
    const path = svg("polyline", { points: places.join(" "), class: "watch-line" })
    const shown = dots || points.length === 1 ? points : []
    const circles = shown.map(([x, y]) => svg("circle", { cx: this.x(x), cy: this.y(y), r: 3, class: "watch-dot" }))
    return svg("g", { class: `watch-slot-${slot} ${faint ? "watch-faint" : ""}` }, path, ...circles)
  }

  entries() {
    this.values = []
    const names = new Set(this.series.map((one) => one.name))
    return [...names].map((name) => {
      const own = this.series.filter((one) => one.name === name)
      const parts = own.map((series) => {
        const value = h("b", { "data-kind": series.kind ?? "" })
        this.values.push({ series, value })
        return h("span", {}, series.kind ? `${series.kind} ` : "", value, " ")
      })
      return h("li", {}, swatch(own[0]?.slot ?? 0), h("span", { class: "watch-name" }, name, " "), ...parts)
    })
  }

  /** Tells the values in the legend. */
  read() {
    for (const { series, value } of this.values) {
      const found = this.at === null ? series.points.at(-1) : nearest(series.points, this.at)
      value.textContent = found ? short(found[1]) : "–"
    }
  }

  /** Shows where the values are that are read. */
  mark() {
    const { at } = this
    if (at === null || at < this.from || at > this.to) return this.marks.replaceChildren()
    const x = this.x(at)
    const line = svg("line", { x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM, class: "watch-cursor" })
    const dots = this.series.flatMap(({ slot, points }) => {
      const found = nearest(points, at)
      if (!found) return []
      const circle = svg("circle", { cx: this.x(found[0]), cy: this.y(found[1]), r: 4, class: "watch-dot" })
      return [svg("g", { class: `watch-slot-${slot}` }, circle)]
    })
    this.marks.replaceChildren(line, ...dots)
  }

  /** The points that one moves along: those of the series that has the most. */
  get track() {
    return this.series.reduce(
      (most, one) => (one.points.length > most.length ? one.points : most),
      /** @type {Point[]} */ ([]),
    )
  }

  /** @param {PointerEvent} event */
  follow(event) {
    const share = (event.offsetX - this.left) / Math.max(1, this.right - this.left)
    this.move(nearest(this.track, this.from + share * (this.to - this.from))?.[0] ?? null)
  }

  /** @param {KeyboardEvent} event */
  press(event) {
    const { track } = this
    const now = this.at === null ? track.length - 1 : track.findIndex(([x]) => x === nearest(track, this.at ?? 0)?.[0])
    const far = event.shiftKey ? 10 : 1
    /** @type {Record<string, number>} */
    const moves = { ArrowLeft: now - far, ArrowRight: now + far, Home: 0, End: track.length - 1 }
    const next = moves[event.key]
    if (event.key === "Escape") this.move(null)
    if (next === undefined || track.length === 0) return
    event.preventDefault()
    this.move(track[Math.min(Math.max(next, 0), track.length - 1)]?.[0] ?? null)
    this.told.textContent = [this.where.textContent, ...[...this.legend.children].map((one) => one.textContent)].join(
      "; ",
    )
  }

  /** @param {number | null} at */
  move(at) {
    this.point(at)
    this.pointed(at)
  }
}

/**
 * @param {Point[]} points  by rising x
 * @param {number} at
 */
function nearest(points, at) {
  let low = 0
  let high = points.length - 1
  while (low < high) {
    const middle = (low + high) >> 1
    if (/** @type {Point} */ (points[middle])[0] < at) low = middle + 1
    else high = middle
  }
  const [before, after] = [points[low - 1], points[low]]
  return before && after && at - before[0] < after[0] - at ? before : after
}

/**
 * Round numbers that hold a span between them, about so many.
 * @param {number} from
 * @param {number} to
 * @param {number} count
 * @param {boolean} [whole]
 */
function rounds(from, to, count, whole = false) {
  const raw = Math.max(to - from, 1e-12) / count
  const power = 10 ** Math.floor(Math.log10(raw))
  const factor = [1, 2, 5, 10].find((one) => one * power >= raw * 0.999) ?? 10
  const step = whole ? Math.max(1, factor * power) : factor * power
  const first = Math.floor(from / step)
  const last = Math.max(first + 1, Math.ceil(to / step - 1e-9))
  return Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step)
}

/**
 * Ticks of a logarithmic axis: 1, 10, 100; with 2 and 5 between them where that is little.
 * @param {number} from
 * @param {number} to
 */
function powers(from, to) {
  const [first, last] = [Math.floor(Math.log10(from)), Math.ceil(Math.log10(to))]
  const factors = last - first > 2 ? [1] : [1, 2, 5]
  const ticks = []
  for (let power = first; power <= last; power++) ticks.push(...factors.map((factor) => factor * 10 ** power))
  const low = ticks.findLastIndex((tick) => tick <= from)
  const high = ticks.findIndex((tick) => tick >= to)
  return ticks.slice(Math.max(0, low), Math.max(high, low + 1) + 1)
}
