// Other versions of a sentence: the best outputs that a beam finds, to choose from.

import { h, percent } from "../dom.js"

/** @import {Sentence} from "../types.js" */

/** @param {(index: number, sentence: Sentence) => void} choose */
export function createVersions(choose) {
  const title = h("h2", { tabindex: -1 }, "Other versions")
  const list = h("ol", { class: "use-versions" })
  const element = h("section", { class: "card stack", "aria-label": "Other versions", hidden: true }, title, list)
  return {
    element,
    clear() {
      element.hidden = true
    },
    /**
     * @param {number} index
     * @param {Sentence} now
     * @param {Sentence[]} found
     */
    present(index, now, found) {
      title.textContent = `Other versions of “${now.source}”`
      list.replaceChildren(...found.map((one) => draw(one, one.target === now.target, () => choose(index, one))))
      element.hidden = false
      title.focus()
    },
  }
}

/**
 * @param {Sentence} sentence
 * @param {boolean} isNow
 * @param {() => void} pick
 */
function draw({ target, words = [] }, isNow, pick) {
  const probability = words.reduce((product, word) => product * word.probability, 1)
  const button = h(
    "button",
    { class: "plain use-version", onclick: pick, "aria-current": isNow && "true" },
    h("span", { dir: "auto" }, target),
    h("span", { class: "small muted" }, isNow ? "shown now" : percent(probability)),
  )
  return h("li", {}, button)
}
