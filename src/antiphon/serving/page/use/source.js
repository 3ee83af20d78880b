// The source: a text to type into, over a mirror of itself in which the sentences can be marked.

import { h } from "../dom.js"

/** @import {ServedModel} from "../types.js" */

/**
 * @param {{ typed: () => void, pointed: (index: number | null) => void }} listener  pointed: at a sentence, or at none
 */
export function createSource({ typed, pointed }) {
  const label = h("label", { for: "source" }, "Source")
  const field = h("textarea", {
    id: "source",
    class: "use-text",
    rows: 6,
    dir: "auto",
    placeholder: "Type or paste a text",
  })
  const mirror = h("div", { class: "use-text use-mirror", "aria-hidden": "true", dir: "auto" })
  const count = h("span", { class: "muted small" })
  const clear = h("button", { class: "plain" }, "Clear")
  const element = h(
    "div",
    { class: "use-source" },
    h("div", { class: "row spread" }, label, clear),
    h("div", { class: "use-layers" }, mirror, field),
    count,
  )
  /** @type {HTMLElement[]} */
  let marks = []
  /** @type {number | null} */
  let under = null

  function changed() {
    marks = []
    mirror.replaceChildren()
    clear.hidden = !field.value
    count.textContent = field.value ? `${field.value.length.toLocaleString("en")} characters` : ""
  }

  /** @param {number | null} index */
  function point(index) {
    if (index === under) return
    under = index
    mark(index)
    pointed(index)
  }

  /** @param {number | null} index */
  function mark(index) {
    for (const [place, one] of marks.entries()) one.classList.toggle("is-marked", marks.length > 1 && place === index)
  }

  field.addEventListener("input", () => {
    changed()
    typed()
  })
  field.addEventListener("mousemove", (event) => point(sentenceAt(marks, event.clientX, event.clientY)))
  field.addEventListener("mouseleave", () => point(null))
  clear.addEventListener("click", () => {
    field.value = ""
    changed()
    typed()
    field.focus()
  })
  changed()

  return {
    element,
    mark,
    focus: () => field.focus({ preventScroll: true }),
    get text() {
      return field.value
    },
    set text(text) {
      field.value = text
      changed()
    },
    /** The sentences that the text has been split into, in their order. @param {string[]} sentences */
    settle(sentences) {
      mirror.replaceChildren()
      marks = []
      let place = 0
      for (const sentence of sentences) {
        const start = field.value.indexOf(sentence, place)
        if (start < 0) continue
        const span = h("span", {}, sentence)
        mirror.append(field.value.slice(place, start), span)
        marks.push(span)
        place = start + sentence.length
      }
      mirror.append(`${field.value.slice(place)}​`) // a last line that is empty has a height too
    },
    /** @param {ServedModel} model */
    describe(model) {
      label.textContent = model.source?.name ?? "Source"
      field.lang = model.source?.code ?? ""
    },
  }
}

/**
 * @param {HTMLElement[]} marks
 * @param {number} x
 * @param {number} y
 */
function sentenceAt(marks, x, y) {
  const found = marks.findIndex((mark) =>
    [...mark.getClientRects()].some((box) => box.left <= x && x <= box.right && box.top <= y && y <= box.bottom),
  )
  return found < 0 ? null : found
}
