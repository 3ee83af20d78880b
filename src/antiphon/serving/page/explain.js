// The explanation: one text, one trace of its decode, and chapters that each show a part of it.

import { trace as askForTrace, connection, isAborted, sentenceOf } from "./api.js"
import { h } from "./dom.js"
import { create as createAttention } from "./explain/attention.js"
import { create as createDecoder } from "./explain/decoder.js"
import { create as createEncoder } from "./explain/encoder.js"
import { create as createJourney } from "./explain/journey.js"
import { create as createSearch } from "./explain/search.js"
import { modelChoice } from "./models.js"

/** @import {Chapter, Context, Focus, Trace, View} from "./types.js" */

const EXAMPLE = "The cat ate the mouse."
const PAUSE = 300 // milliseconds without a key before the text is decoded

/**
 * @param {Context} context
 * @returns {View}
 */
export function create(context) {
  const field = h("textarea", { id: "explained", rows: 2, dir: "auto", spellcheck: "false" })
  const model = modelChoice(context.server, "explained-model")
  const told = h("p", { class: "error", role: "status" })

  /** @type {{ id: string, title: string, chapter: Chapter }[]} */
  const chapters = [
    { id: "encoder", title: "The encoder", chapter: createEncoder() },
    { id: "decoder", title: "The decoder", chapter: createDecoder() },
    { id: "attention", title: "Attention", chapter: createAttention() },
    { id: "search", title: "The search", chapter: createSearch() },
  ]
  const journey = createJourney((id) => document.getElementById(id)?.scrollIntoView())
  const sections = chapters.map(({ id, title, chapter }, index) =>
    h(
      "section",
      { id, class: "chapter", "aria-labelledby": `${id}-title` },
      h("h2", { id: `${id}-title` }, h("span", { class: "number" }, index + 1), title),
      chapter.element,
    ),
  )
  const body = h("div", { class: "stack chapters", hidden: true }, journey.element, ...sections)
  const element = h(
    "div",
    { class: "stack explain" },
    h("h1", {}, "Watch an encoder-decoder think"),
    h(
      "form",
      { class: "card asked", onsubmit: (/** @type {Event} */ event) => event.preventDefault() },
      h("div", { class: "grow" }, h("label", { for: "explained" }, "Source text"), field),
      model.element,
    ),
    told,
    body,
  )

  /** what is wanted beside the text: the beam's width (0: the model's own), and a true target */
  let width = 0
  let target = ""
  /** @type {Focus} */
  let focus = { step: 0, source: null }
  let controller = new AbortController()
  let timer = 0

  async function explain() {
    controller.abort()
    controller = new AbortController()
    const { signal } = controller
    const text = field.value.trim()
    context.keep(parametersNow())
    if (!text) {
      told.textContent = "Give a text to decode."
      return
    }
    element.setAttribute("aria-busy", "true")
    try {
      const search = width ? { beam_size: width, n_best: 1, sample: false } : {}
      const found = await askForTrace({ text, model: model.value, ...search, ...(target && { target }) }, signal)
      told.textContent = ""
      present({ ...found, spaced: model.model.target_tokens === "words" })
    } catch (error) {
      if (isAborted(error)) return
      told.textContent = sentenceOf(error)
    }
    element.removeAttribute("aria-busy")
  }

  /** @param {Trace} found */
  function present(found) {
    body.hidden = false
    focus = { step: Math.min(focus.step, found.path.length - 1), source: null }
    for (const part of [journey, ...chapters.map(({ chapter }) => chapter)]) {
      part.update(found)
      part.focus(focus)
    }
    context.announce(`${found.path.length} steps: ${found.outputs[0]?.text ?? ""}`)
  }

  function parametersNow() {
    const parameters = { text: field.value, model: model.value }
    return { ...parameters, ...(width && { width: String(width) }), ...(target && { target }) }
  }

  field.addEventListener("input", () => {
    clearTimeout(timer)
    timer = setTimeout(explain, PAUSE)
  })
  model.element.addEventListener("change", explain)
  element.addEventListener("point", (event) => {
    focus = { ...focus, .../** @type {CustomEvent<Partial<Focus>>} */ (event).detail }
    for (const part of [journey, ...chapters.map(({ chapter }) => chapter)]) part.focus(focus)
  })
  element.addEventListener("widen", (event) => {
    width = /** @type {CustomEvent<number>} */ (event).detail
    explain()
  })
  element.addEventListener("force", (event) => {
    target = /** @type {CustomEvent<string>} */ (event).detail
    explain()
  })
  connection.addEventListener("back", () => {
    if (element.isConnected) explain()
  })

  return {
    element,
    show(parameters) {
      field.value = parameters.get("text") || field.value || EXAMPLE
      model.value = parameters.get("model") ?? model.value
      width = Number(parameters.get("width") ?? width)
      target = parameters.get("target") ?? target
      explain()
    },
    hide() {
      clearTimeout(timer)
      controller.abort()
    },
  }
}
