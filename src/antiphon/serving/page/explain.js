// The explanation: one text, one trace of its decode, and chapters that each show a part of it.

import { trace as askForTrace, isAborted, Refused, sentenceOf } from "./api.js"
import { h } from "./dom.js"
import { create as createAttention } from "./explain/attention.js"
import { create as createDecoder } from "./explain/decoder.js"
import { create as createEncoder } from "./explain/encoder.js"
import { create as createJourney } from "./explain/journey.js"
import { create as createSearch } from "./explain/search.js"
import { modelChoice } from "./models.js"
import { createQuestion } from "./question.js"

/** @import {Chapter, Context, Focus, Trace, View} from "./types.js" */

/**
 * @param {Context} context
 * @returns {View}
 */
export function create(context) {
  const model = modelChoice(context.server, "explained-model")
  const question = createQuestion("explained", explain, model.element)
  const told = h("p", { class: "error", role: "status" })

  /** @type {{ id: string, title: string, chapter: Chapter }[]} */
  const chapters = [
    { id: "encoder", title: "The encoder", chapter: createEncoder() },
    { id: "decoder", title: "The decoder", chapter: createDecoder() },
    { id: "attention", title: "Attention", chapter: createAttention() },
    { id: "search", title: "The search", chapter: createSearch() },
  ]
  const journey = createJourney((id) => document.getElementById(id)?.scrollIntoView())
  const parts = [journey, ...chapters.map(({ chapter }) => chapter)]
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
    question.element,
    told,
    body,
  )

  /** what is wanted beside the text: the beam's width (0: the model's own), and a true target */
  let width = 0
  let target = ""
  /** @type {Focus} */
  let focus = { step: 0, source: null }

  /** @param {string} text @param {AbortSignal} signal */
  async function explain(text, signal) {
    context.keep(parametersNow())
    if (!text) {
      element.removeAttribute("aria-busy")
      body.hidden = true
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
      if (target && error instanceof Refused && error.message.startsWith("target:")) {
        target = "" // all else is shown without it
        await explain(text, signal)
        if (!signal.aborted) told.textContent = error.message
        return
      }
      told.textContent = sentenceOf(error)
      if (error instanceof Refused) body.hidden = true
    }
    element.removeAttribute("aria-busy")
  }

  /** @param {Trace} found */
  function present(found) {
    body.hidden = false
    focus = { step: Math.min(focus.step, found.path.length - 1), source: null }
    for (const part of parts) {
      part.update(found)
      part.focus(focus)
    }
    context.announce(`${found.path.length} steps: ${found.outputs[0]?.text ?? ""}`)
  }

  function parametersNow() {
    const parameters = { text: question.text, model: model.value }
    return { ...parameters, ...(width && { width: String(width) }), ...(target && { target }) }
  }

  model.element.addEventListener("change", question.ask)
  element.addEventListener("point", (event) => {
    focus = { ...focus, .../** @type {CustomEvent<Partial<Focus>>} */ (event).detail }
    for (const part of parts) part.focus(focus)
  })
  element.addEventListener("widen", (event) => {
    width = /** @type {CustomEvent<number>} */ (event).detail
    question.ask()
  })
  element.addEventListener("force", (event) => {
    target = /** @type {CustomEvent<string>} */ (event).detail
    question.ask()
  })

  return {
    element,
    show(parameters) {
      model.value = parameters.get("model") ?? model.value
      width = Number(parameters.get("width") ?? width)
      target = parameters.get("target") ?? target
      question.show(parameters)
    },
    hide: question.stop,
  }
}
