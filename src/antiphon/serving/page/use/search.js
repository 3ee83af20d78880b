// How to search: greedy, with a beam, or by sampling; each with the few numbers that it needs.

import { h } from "../dom.js"

/** @import {Search, ServedModel} from "../types.js" */

const WAYS = [
  { value: "greedy", label: "Greedy", title: "The most probable token, each time" },
  { value: "beam", label: "Beam", title: "The best of several outputs that are followed at once" },
  { value: "sample", label: "Sampling", title: "A token drawn by its probability, each time" },
]

/** @param {() => void} changed */
export function createSearchChoice(changed) {
  const ways = WAYS.map(({ value, label, title }) => {
    const input = h("input", { type: "radio", name: "way", value })
    return { input, element: h("label", { title }, input, label) }
  })
  const width = number("Width", "width", { min: 2, max: 12, step: 1, value: 5 })
  const temperature = number("Temperature", "temperature", { min: 0.1, max: 2, step: 0.1, value: 0.8 })
  const top = number("Top p", "top_p", { min: 0.1, max: 1, step: 0.05, value: 0.95 })
  const again = h("button", { title: "Draw another output" }, "Draw again")
  const element = h(
    "fieldset",
    { class: "use-search" },
    h("legend", {}, "Search"),
    h(
      "div",
      {},
      h("span", { class: "segments" }, ...ways.map((way) => way.element)),
      width.element,
      temperature.element,
      top.element,
      again,
    ),
  )
  let seed = 1
  let isTouched = false

  const way = () => ways.find(({ input }) => input.checked)?.input.value ?? "greedy"
  /** @param {string} value */
  const choose = (value) => {
    for (const { input } of ways) input.checked = input.value === value
    present()
  }

  function present() {
    width.element.hidden = way() !== "beam"
    temperature.element.hidden = top.element.hidden = again.hidden = way() !== "sample"
  }

  element.addEventListener("input", () => {
    isTouched = true
    present()
    changed()
  })
  again.addEventListener("click", () => {
    isTouched = true
    seed += 1
    changed()
  })
  choose("greedy")

  return {
    element,
    /** What the model does by itself, unless somebody has chosen. @param {ServedModel} model */
    suit({ generation }) {
      if (isTouched) return
      if (generation.beam_size > 1) width.value = generation.beam_size
      if (generation.sample) {
        temperature.value = generation.temperature
        top.value = generation.top_p
      }
      choose(generation.sample ? "sample" : generation.beam_size > 1 ? "beam" : "greedy")
    },
    /** @returns {Search} */
    settings() {
      const sample = way() === "sample"
      const drawn = sample && { temperature: temperature.value, top_p: top.value, seed }
      return { beam_size: way() === "beam" ? width.value : 1, n_best: 1, sample, ...drawn }
    },
    /** @returns {Record<string, string>} what a link keeps */
    parameters() {
      if (!isTouched) return {}
      if (way() === "beam") return { search: "beam", width: String(width.value) }
      if (way() === "greedy") return { search: "greedy" }
      return { search: "sample", temperature: String(temperature.value), top_p: String(top.value), seed: String(seed) }
    },
    /** @param {URLSearchParams} parameters */
    read(parameters) {
      const wanted = parameters.get("search")
      if (!WAYS.some(({ value }) => value === wanted)) return
      isTouched = true
      width.value = Number(parameters.get("width")) || width.value
      temperature.value = Number(parameters.get("temperature")) || temperature.value
      top.value = Number(parameters.get("top_p")) || top.value
      seed = Number(parameters.get("seed")) || seed
      choose(wanted ?? "greedy")
    },
  }
}

/**
 * A labelled slider that shows its number.
 * @param {string} label
 * @param {string} id
 * @param {{ min: number, max: number, step: number, value: number }} range
 */
function number(label, id, range) {
  const input = h("input", { type: "range", id, ...range })
  const shown = h("output", { for: id }, range.value)
  input.addEventListener("input", () => {
    shown.textContent = input.value
  })
  return {
    element: h("span", { class: "use-number" }, h("label", { for: id }, label), input, shown),
    get value() {
      return input.valueAsNumber
    },
    /** A value that need not be one of the slider's. */
    set value(value) {
      Object.assign(input, { min: Math.min(+input.min, value), max: Math.max(+input.max, value), value })
      if (input.valueAsNumber !== value) Object.assign(input, { step: "any", value })
      shown.textContent = input.value
    },
  }
}
