// The text that a view decodes: read when nobody has typed for a moment, and an example until somebody does.

import { connection } from "./api.js"
import { h } from "./dom.js"

const EXAMPLE = "The cat ate the mouse."
const PAUSE = 300 // milliseconds without a key before the text is decoded

/**
 * @param {string} id
 * @param {(text: string, signal: AbortSignal) => void} decode  the signal says when nobody waits for it any more
 * @param {...HTMLElement} beside
 */
export function createQuestion(id, decode, ...beside) {
  const field = h("textarea", { id, rows: 2, dir: "auto", spellcheck: "false" })
  const written = h("div", { class: "grow" }, h("label", { for: id }, "Source text"), field)
  const element = h("div", { class: "card asked" }, written, ...beside)
  let controller = new AbortController()
  let timer = 0

  function ask() {
    stop()
    controller = new AbortController()
    decode(field.value.trim(), controller.signal)
  }

  function stop() {
    clearTimeout(timer)
    controller.abort()
  }

  field.addEventListener("input", () => {
    clearTimeout(timer)
    timer = setTimeout(ask, PAUSE)
  })
  connection.addEventListener("back", () => element.isConnected && ask())

  return {
    element,
    ask,
    stop,
    get text() {
      return field.value
    },
    /** @param {URLSearchParams} parameters */
    show(parameters) {
      field.value = parameters.get("text") || field.value || EXAMPLE
      ask()
    },
  }
}
