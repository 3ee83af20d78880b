// What a model says to one dev source, from validation to validation: one sees the outputs get better.

import { h } from "./dom.js"

/** @import {RunCurves} from "./types.js" */

const SHOWN = 60 // characters of a source, in the list of them

/** Samples of the runs that are looked at. */
export class Samples {
  constructor() {
    this.run = h("select", { id: "sampled-run" })
    this.sample = h("select", { id: "sample" })
    this.body = h("tbody")
    this.foot = h("tfoot")
    this.source = h("p", { class: "watch-source", dir: "auto" })
    const heads = h("tr", {}, h("th", { scope: "col" }, "Step"), h("th", { scope: "col" }, "Output"))
    this.runField = h("div", {}, h("label", { for: "sampled-run" }, "Run"), this.run)
    this.element = h(
      "section",
      { class: "card stack watch-samples", "aria-labelledby": "samples-title", hidden: true },
      h("h2", { id: "samples-title" }, "Samples"),
      h(
        "p",
        { class: "lead" },
        "The same source at every validation: how the output changes while the model learns. Words in bold stand in the reference too.",
      ),
      h("div", { class: "row" }, this.runField, h("div", {}, h("label", { for: "sample" }, "Dev source"), this.sample)),
      this.source,
      h("table", { class: "watch-table watch-outputs" }, h("thead", {}, heads), this.body, this.foot),
    )
    /** @type {RunCurves[]} */
    this.runs = []
    this.shown = "" // the sample, as JSON
    this.run.addEventListener("change", () => this.fill())
    this.sample.addEventListener("change", () => this.show())
  }

  /** @param {RunCurves[]} runs */
  update(runs) {
    this.runs = runs.filter(({ samples }) => samples.length > 0)
    this.element.hidden = this.runs.length === 0
    this.runField.hidden = this.runs.length < 2
    choose(
      this.run,
      this.runs.map(({ name }) => [name, name]),
    )
    this.fill()
  }

  get samples() {
    return this.runs.find(({ name }) => name === this.run.value)?.samples ?? []
  }

  fill() {
    choose(
      this.sample,
      this.samples.map(({ source }) => [source, source.length > SHOWN ? `${source.slice(0, SHOWN)}…` : source]),
    )
    this.show()
  }

  show() {
    const sample = this.samples.find(({ source }) => source === this.sample.value)
    if (!sample) return
    const shown = JSON.stringify(sample)
    if (this.shown === shown) return
    this.shown = shown
    this.source.textContent = sample.source
    this.body.replaceChildren(...sample.outputs.map((one) => row(one.step, emphasised(one.output, sample.reference))))
    this.foot.replaceChildren(
      h("tr", {}, h("th", { scope: "row" }, "Reference"), h("td", { dir: "auto" }, sample.reference)),
    )
  }
}

/**
 * @param {number} step
 * @param {(string | Node)[]} output
 */
function row(step, output) {
  const text = output.length > 0 ? output : [h("span", { class: "muted" }, "nothing")]
  return h(
    "tr",
    { "data-step": step },
    h("th", { scope: "row" }, step.toLocaleString("en")),
    h("td", { dir: "auto" }, ...text),
  )
}

/**
 * An output with the words in bold that the reference has too, each as often as it has it.
 * @param {string} output
 * @param {string} reference
 */
function emphasised(output, reference) {
  /** @type {Map<string, number>} */
  const left = new Map()
  for (const word of reference.split(/\s+/)) left.set(bare(word), (left.get(bare(word)) ?? 0) + 1)
  return output
    .split(/(\s+)/)
    .filter(Boolean)
    .map((word) => {
      const count = left.get(bare(word)) ?? 0
      if (!bare(word) || count === 0) return word
      left.set(bare(word), count - 1)
      return h("b", {}, word)
    })
}

/** A word without what stands around it. @param {string} word */
function bare(word) {
  return word.toLowerCase().replace(/^[^\p{L}\p{N}]+|[^\p{L}\p{N}]+$/gu, "")
}

/**
 * Options of a choice, which stays what it was where that is still there.
 * @param {HTMLSelectElement} select
 * @param {string[][]} options  values and their labels
 */
function choose(select, options) {
  const { value } = select
  if (options.map(([one]) => one).join("\n") === [...select.options].map((one) => one.value).join("\n")) return
  select.replaceChildren(...options.map(([one, label]) => h("option", { value: one, selected: one === value }, label)))
}
