// What else could stand in a word's place: a small list that opens at the word.

import { h, percent } from "../dom.js"

/** @import {AlternativeWord} from "../types.js" */

const ROOM = 8 // pixels to the window's edge

export function createPicker() {
  const list = h("ul", { class: "use-choices" })
  const note = h("p", { class: "small muted" })
  const element = h(
    "div",
    { class: "use-picker", popover: "auto", role: "dialog", "aria-label": "Other words" },
    list,
    note,
  )
  let controller = new AbortController()
  /** @type {HTMLElement | null} */
  let word = null

  element.addEventListener("toggle", (event) => {
    const closed = /** @type {ToggleEvent} */ (event).newState === "closed"
    word?.classList.toggle("is-open", !closed)
    if (!closed) return
    controller.abort()
    if (element.contains(document.activeElement) || document.activeElement === document.body) word?.focus()
  })
  element.addEventListener("keydown", (event) => {
    const buttons = [...list.querySelectorAll("button")]
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key]
    if (step === undefined) return
    buttons[buttons.indexOf(/** @type {HTMLButtonElement} */ (document.activeElement)) + step]?.focus()
    event.preventDefault()
  })

  function place() {
    if (!word) return
    const box = word.getBoundingClientRect()
    const left = Math.max(ROOM, Math.min(box.left, innerWidth - element.offsetWidth - ROOM))
    const fits = box.bottom + element.offsetHeight + ROOM < innerHeight || box.top < element.offsetHeight + ROOM
    const top = fits ? box.bottom + 4 : box.top - element.offsetHeight - 4
    element.style.setProperty("left", `${left}px`)
    element.style.setProperty("top", `${top}px`)
  }

  return {
    element,
    /** Opens at a word; the signal says when nobody waits for it any more. @param {HTMLElement} at */
    open(at) {
      controller.abort() // two toggles in one task are told as one
      word?.classList.remove("is-open")
      element.hidePopover()
      word = at
      controller = new AbortController()
      list.replaceChildren()
      note.textContent = "Asking the model…"
      element.showPopover()
      place()
      return controller.signal
    },
    close: () => element.hidePopover(),
    /** @param {string} message */
    tell(message) {
      list.replaceChildren()
      note.textContent = message
      place()
    },
    /**
     * @param {AlternativeWord[]} found
     * @param {string} now  the word that stands there
     * @param {(chosen: AlternativeWord) => void} choose
     */
    fill(found, now, choose) {
      const items = found.map((one) => {
        const pick = () => {
          element.hidePopover()
          choose(one)
        }
        return h("li", {}, drawChoice(one, one.word === now, pick))
      })
      list.replaceChildren(...items)
      note.textContent =
        items.length > 1 ? "The rest is written anew from the word you choose." : "The model sees no other word here."
      place()
      list.querySelector("button")?.focus()
    },
  }
}

/**
 * @param {AlternativeWord} alternative
 * @param {boolean} isNow
 * @param {() => void} pick
 */
function drawChoice({ word, probability, output }, isNow, pick) {
  return h(
    "button",
    {
      class: "plain use-choice",
      onclick: pick,
      title: output.text,
      "data-word": word,
      "aria-current": isNow && "true",
    },
    h("span", { dir: "auto" }, word),
    h("span", { class: "bar", style: { "--share": probability } }),
    h("span", { class: "small muted" }, percent(probability)),
  )
}
