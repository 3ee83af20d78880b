// The output: its sentences, and their words shaded where the model was unsure; each word can be changed for another.

import { sentenceOf } from "../api.js"
import { h, percent } from "../dom.js"
import { createPicker } from "./picker.js"

/** @import {AlternativeWord, Sentence, Word} from "../types.js" */

/**
 * @typedef {{
 *   pointed: (index: number | null) => void,
 *   asked: (index: number, prefix: string, signal: AbortSignal) => Promise<AlternativeWord[]>,
 *   rewritten: (index: number) => void,
 * }} Listener  pointed: at a sentence, or at none; asked: for the words that could come after a prefix of a sentence
 */

export class Output {
  /** @param {Listener} listener */
  constructor(listener) {
    this.listener = listener
    /** @type {Sentence[]} */
    this.sentences = []
    /** @type {string[]} what stands before each sentence, and after the last */
    this.gaps = [""]
    this.isSettled = false
    /** The sentence that was last worked on. */
    this.current = 0
    this.text = ""
    this.body = h("div", {
      class: "use-text use-output",
      dir: "auto",
      id: "output",
      role: "group",
      "aria-label": "Output",
    })
    this.picker = createPicker()
    this.element = h(
      "div",
      {},
      h("div", { class: "row spread" }, h("span", { class: "small muted" }, "Output"), legend()),
      this.body,
      this.picker.element,
    )
    this.body.addEventListener("click", (event) => this.clicked(event.target))
    this.body.addEventListener("keydown", (event) => this.pressed(event))
    this.body.addEventListener("mouseover", (event) => this.hovered(event.target))
    this.body.addEventListener("mouseleave", () => this.hovered(null))
  }

  begin() {
    this.close()
    this.sentences = []
    this.text = ""
    this.isSettled = false
    this.body.setAttribute("aria-busy", "true")
  }

  /** @param {string} delta */
  write(delta) {
    this.text += delta
    this.body.replaceChildren(this.text)
  }

  /** It ends before its end. */
  stop() {
    this.body.replaceChildren(this.text)
    this.body.removeAttribute("aria-busy")
  }

  close() {
    this.picker.close()
  }

  /**
   * The whole answer: its text, and the sentences in it.
   * @param {string} text
   * @param {Sentence[]} sentences
   */
  settle(text, sentences) {
    this.close()
    this.sentences = sentences
    this.gaps = []
    this.current = 0
    let place = 0
    for (const { target } of sentences) {
      const start = Math.max(place, text.indexOf(target, place))
      this.gaps.push(text.slice(place, start))
      place = start + target.length
    }
    this.gaps.push(text.slice(place))
    this.isSettled = true
    this.draw()
    this.body.removeAttribute("aria-busy")
  }

  /** @param {number} index */
  sentence(index) {
    return this.sentences[index]
  }

  /**
   * Another output for a sentence. kept: words at its beginning that somebody chose.
   * @param {number} index
   * @param {Sentence} sentence
   * @param {number} [kept]
   */
  replace(index, sentence, kept = 0) {
    this.sentences[index] = sentence
    this.draw()
    const own = this.words.filter((word) => word.dataset.sentence === String(index))
    own[kept - 1]?.classList.add("is-chosen")
    for (const word of own.slice(kept)) word.classList.add("is-new")
    const at = own[Math.max(0, kept - 1)]
    if (at) focusOnly(this.words, at)
    this.listener.rewritten(index)
  }

  draw() {
    const parts = this.sentences.flatMap((sentence, index) => [this.gaps[index] ?? "", drawSentence(sentence, index)])
    this.body.replaceChildren(...parts, this.gaps.at(-1) ?? "")
    this.text = this.body.textContent ?? ""
    this.body.querySelector(".use-word")?.setAttribute("tabindex", "0")
  }

  get words() {
    return /** @type {HTMLElement[]} */ ([...this.body.querySelectorAll(".use-word")])
  }

  /** @param {number | null} index */
  mark(index) {
    this.body.querySelectorAll(".use-sentence").forEach((one, place) => {
      one.classList.toggle("is-marked", this.sentences.length > 1 && place === index)
    })
  }

  /** @param {EventTarget | null} target */
  hovered(target) {
    const sentence = target instanceof Element ? target.closest(".use-sentence") : null
    const index = sentence instanceof HTMLElement ? Number(sentence.dataset.index) : null
    this.mark(index)
    this.listener.pointed(index)
  }

  /** @param {EventTarget | null} target */
  clicked(target) {
    const word = target instanceof Element ? target.closest(".use-word") : null
    if (word instanceof HTMLElement) this.openPicker(word)
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    const { words } = this
    const at = words.indexOf(/** @type {HTMLElement} */ (document.activeElement))
    if (at < 0) return
    const turn = getComputedStyle(this.body).direction === "rtl" ? -1 : 1
    const steps = { ArrowRight: turn, ArrowLeft: -turn, Home: -at, End: words.length - 1 - at }
    const step = steps[/** @type {keyof typeof steps} */ (event.key)]
    if (step !== undefined) words[at + step] && focusOnly(words, /** @type {HTMLElement} */ (words[at + step]))
    else if (event.key === "Enter" || event.key === " ") this.clicked(words[at] ?? null)
    else return
    event.preventDefault()
  }

  /** @param {HTMLElement} word */
  async openPicker(word) {
    const index = Number(word.dataset.sentence)
    const place = Number(word.dataset.place)
    const sentence = this.sentences[index]
    if (!sentence || !this.isSettled) return
    this.current = index
    const start = startOf(sentence, place)
    const before = sentence.target.slice(0, start)
    const signal = this.picker.open(word)
    try {
      const found = await this.listener.asked(index, before.trimEnd(), signal)
      if (signal.aborted) return
      const rest = sentence.target.slice(start)
      this.picker.fill(usable(found, before, rest), sentence.words?.[place]?.text ?? "", (chosen) => {
        const next = { source: sentence.source, target: chosen.output.text, words: chosen.output.words ?? [] }
        this.replace(index, next, place + 1)
      })
    } catch (error) {
      if (!signal.aborted) this.picker.tell(sentenceOf(error))
    }
  }
}

/**
 * The alternatives that leave what stands before as it is, and put a word of its own after it.
 * @param {AlternativeWord[]} found
 * @param {string} before
 * @param {string} rest
 */
function usable(found, before, rest) {
  return found.filter(({ output }) => output.text.startsWith(before) && output.text.length > before.length && rest)
}

/**
 * Where a word begins in its sentence.
 * @param {Sentence} sentence
 * @param {number} place
 */
function startOf({ target, words = [] }, place) {
  let end = 0
  let start = 0
  for (const { text } of words.slice(0, place + 1)) {
    start = Math.max(end, target.indexOf(text, end))
    end = start + text.length
  }
  return start
}

/** @param {HTMLElement[]} words @param {HTMLElement} word */
function focusOnly(words, word) {
  for (const one of words) one.tabIndex = one === word ? 0 : -1
  word.focus()
}

/** @param {Sentence} sentence @param {number} index */
function drawSentence({ target, words = [] }, index) {
  const span = h("span", { class: "use-sentence", "data-index": index })
  let place = 0
  words.forEach((word, number) => {
    const start = target.indexOf(word.text, place)
    span.append(target.slice(place, start), drawWord(word, index, number))
    place = start + word.text.length
  })
  span.append(target.slice(place))
  return span
}

/**
 * @param {Word} word
 * @param {number} sentence
 * @param {number} place
 */
function drawWord({ text, probability }, sentence, place) {
  return h(
    "span",
    {
      class: `use-word${probability < 0.6 ? " is-unsure" : ""}`,
      role: "button",
      tabindex: -1,
      "aria-haspopup": "dialog",
      "aria-label": `${text}, ${percent(probability)} sure`,
      title: `${percent(probability)} sure. Click for other words.`,
      "data-sentence": sentence,
      "data-place": place,
      "data-probability": probability,
      style: { "--doubt": (1 - probability).toFixed(3) },
    },
    text,
  )
}

function legend() {
  const shades = [0.05, 0.35, 0.65, 0.95].map((doubt) => h("i", { style: { "--doubt": doubt } }))
  return h(
    "span",
    { class: "use-legend small muted" },
    "sure",
    h("span", { "aria-hidden": "true" }, ...shades),
    "unsure",
  )
}
