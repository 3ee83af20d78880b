// Pointing at pieces and steps, by pointer or by keyboard: what carries data-source or data-step is told to all chapters.

import { h, visible } from "../dom.js"

/**
 * Sends a "point" event for what is hovered, focussed or tapped within an element.
 * @param {HTMLElement} element
 */
export function tellPointed(element) {
  for (const kind of ["pointerover", "focusin", "click"])
    element.addEventListener(kind, ({ target }) => {
      const found = target instanceof Element && target.closest("[data-source], [data-step]")
      if (found instanceof HTMLElement || found instanceof SVGElement) point(element, found.dataset)
    })
}

/**
 * @param {HTMLElement} element
 * @param {{ source?: string | number, step?: string | number }} pointed
 */
export function point(element, { source, step }) {
  const detail = { ...(source !== undefined && { source: +source }), ...(step !== undefined && { step: +step }) }
  element.dispatchEvent(new CustomEvent("point", { bubbles: true, detail }))
}

/**
 * One tab stop for many elements, in rows of so many columns; the arrow keys, Home and End move among them.
 * @param {HTMLElement} container
 * @param {HTMLElement[]} items
 * @param {number} [columns]
 */
export function rove(container, items, columns = items.length) {
  for (const [index, item] of items.entries()) item.tabIndex = index ? -1 : 0
  container.addEventListener("keydown", (event) => {
    const from = items.indexOf(/** @type {HTMLElement} */ (document.activeElement))
    const to = from < 0 ? from : destination(event.key, from, columns, getComputedStyle(container).direction)
    const item = items[to]
    if (!item || to === from) return
    event.preventDefault()
    for (const other of items) other.tabIndex = -1
    item.tabIndex = 0
    item.focus()
  })
}

/**
 * Where a key leads from an item; a row is not left sideways.
 * @param {string} key
 * @param {number} from
 * @param {number} columns
 * @param {string} direction
 */
function destination(key, from, columns, direction) {
  const first = from - (from % columns)
  const last = first + columns - 1
  const onward = direction === "rtl" ? -1 : 1
  if (key === "ArrowRight") return Math.min(last, Math.max(first, from + onward))
  if (key === "ArrowLeft") return Math.min(last, Math.max(first, from - onward))
  if (key === "ArrowDown") return from + columns
  if (key === "ArrowUp") return from - columns
  if (key === "Home") return first
  if (key === "End") return last
  return from
}

/**
 * Whether an element stands for the source piece that is pointed at.
 * @param {Element} element
 * @param {number | null} source
 */
export function isAt(element, source) {
  return source !== null && element.getAttribute("data-source") === String(source)
}

/**
 * A piece within a sentence.
 * @param {string} [piece]
 * @param {"source" | "target"} [side]
 */
export function chipOf(piece = "", side = "source") {
  return h("span", { class: `piece of-${side}`, dir: "auto" }, visible(piece))
}

/** @param {number} value */
export function signed(value) {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`
}
