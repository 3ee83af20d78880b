// The list of runs: what each is, how far it is, and whether its curves are looked at.

import { short, swatch } from "./chart.js"
import { h, percent } from "./dom.js"

/** @import {RunSummary} from "./types.js" */

/** @type {Record<string, string>} */
const METRICS = {
  loss: "loss",
  bleu: "BLEU",
  char_bleu: "character BLEU",
  chrf: "chrF",
  ter: "TER",
  exact_match: "exact match",
  wer: "WER",
  per: "PER",
}
const SHARES = new Set(["exact_match", "ter", "wer", "per"])

/** A dev metric as people write it. @param {string} metric */
export function nameOf(metric) {
  return METRICS[metric] ?? metric
}

/** @param {string} metric */
export function unitOf(metric) {
  return SHARES.has(metric) ? "%" : ""
}

/** A run in the list. */
export class Row {
  /**
   * @param {string} name
   * @param {(wanted: boolean) => void} tick
   */
  constructor(name, tick) {
    this.box = h("input", { type: "checkbox", onchange: () => tick(this.box.checked) })
    this.line = h("span", { class: "watch-of" })
    this.kind = h("span", { class: "muted small" })
    this.status = h("span", { class: "watch-status small" })
    this.facts = h("dl", { class: "watch-facts" })
    const title = h("span", { class: "watch-title" }, h("b", { class: "watch-name" }, name), this.kind)
    this.element = h("li", { "data-run": name }, h("label", {}, this.box, this.line, title), this.status, this.facts)
  }

  /** @param {RunSummary} run */
  update(run) {
    const lost = run.unreadable > 0 ? ` · unreadable lines: ${run.unreadable}` : ""
    this.kind.textContent = run.architecture + lost
    const status = run.live ? "training" : run.kept ? "ended" : "stopped"
    this.status.className = `watch-status small watch-${status}`
    this.status.textContent = run.kept ? status : `${status}, ${percent(run.share)} done`
    this.status.dataset.status = status
    const facts = [
      ["step", run.step.toLocaleString("en"), run.step],
      ["trained for", duration(run.seconds), run.seconds],
      ["last loss", run.loss === null ? "–" : short(run.loss), run.loss],
      [`best ${nameOf(run.metric)}`, run.best === null ? "–" : short(run.best) + unitOf(run.metric), run.best],
    ]
    this.facts.replaceChildren(
      ...facts.map(([label, text, value]) => h("div", {}, h("dt", {}, label), h("dd", { "data-value": value }, text))),
    )
  }

  /**
   * @param {number | undefined} slot  of its line in the charts
   * @param {boolean} isFull  no further run can be looked at
   */
  mark(slot, isFull) {
    this.box.checked = slot !== undefined
    this.box.disabled = slot === undefined && isFull
    this.line.replaceChildren(...(slot === undefined ? [] : [swatch(slot)]))
  }
}

/** @param {number} seconds */
function duration(seconds) {
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`
}
