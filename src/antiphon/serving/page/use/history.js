// What was asked before: kept in this browser, and nowhere else.

import { h } from "../dom.js"

/** @typedef {{ source: string, output: string, model: string, time: number }} Entry */

const KEPT = 50
const PLACE = "antiphon.history"

/** @param {(entry: Entry) => void} restore */
export function createHistory(restore) {
  const list = h("ul", { class: "use-history" })
  const clear = h("button", { class: "plain" }, "Clear the history")
  const summary = h("summary", {})
  const note = h("p", { class: "muted small" }, "Kept in this browser only.")
  const element = h("details", { class: "use-fold" }, summary, h("div", { class: "row spread" }, note, clear), list)

  function draw() {
    const entries = read()
    summary.textContent = `History (${entries.length})`
    element.hidden = entries.length === 0
    list.replaceChildren(...entries.map((entry) => h("li", {}, drawEntry(entry, restore))))
  }

  clear.addEventListener("click", () => {
    write([])
    draw()
  })
  draw()
  return {
    element,
    /** A text that goes on from the last one takes its place. @param {Entry} entry */
    add(entry) {
      const others = read().filter((one, place) => {
        const isBefore = place === 0 && entry.source.startsWith(one.source)
        return !(one.model === entry.model && (one.source === entry.source || isBefore))
      })
      write([entry, ...others].slice(0, KEPT))
      draw()
    },
  }
}

/** @returns {Entry[]} */
function read() {
  try {
    const found = JSON.parse(localStorage.getItem(PLACE) ?? "[]")
    return Array.isArray(found) ? found : []
  } catch {
    return [] // something else wrote there, or the browser keeps nothing
  }
}

/** @param {Entry[]} entries */
function write(entries) {
  try {
    localStorage.setItem(PLACE, JSON.stringify(entries))
  } catch {
    // A browser that keeps nothing, or is full: the history is a convenience.
  }
}

/**
 * @param {Entry} entry
 * @param {(entry: Entry) => void} restore
 */
function drawEntry(entry, restore) {
  const { source, output, model, time } = entry
  return h(
    "button",
    { class: "plain use-entry", onclick: () => restore(entry) },
    h("span", { dir: "auto" }, source),
    h("span", { dir: "auto", class: "muted" }, output),
    h("span", { class: "small muted" }, `${model}, ${new Date(time).toLocaleString()}`),
  )
}
