// Using a model: the source on the left, the output on the right, written while one types; any word of it can be changed.

import { alternatives, connection, generate, isAborted, sentenceOf, stream } from "./api.js"
import { find, h } from "./dom.js"
import { describe, modelChoice } from "./models.js"
import { createHistory } from "./use/history.js"
import { createLines } from "./use/lines.js"
import { Output } from "./use/output.js"
import { createRequestCode } from "./use/request.js"
import { createSearchChoice } from "./use/search.js"
import { createSource } from "./use/source.js"
import { createVersions } from "./use/versions.js"

/** @import {Context, GenerateRequest, GenerateResponse, Sentence, View} from "./types.js" */

const PAUSE = 250 // milliseconds without a key before the text is sent
const SETTLED = 1500 // and before it becomes a part of the history

/**
 * @param {Context} context
 * @returns {View}
 */
export function create(context) {
  return new Use(context)
}

/** @implements {View} */
class Use {
  /** @param {Context} context */
  constructor(context) {
    this.context = context
    this.controller = new AbortController()
    this.timer = 0
    this.settling = 0
    this.asked = "" // what the output answers
    this.model = modelChoice(context.server, "model")
    this.search = createSearchChoice(() => this.translate())
    this.source = createSource({ typed: () => this.typed(), pointed: (index) => this.output.mark(index) })
    /** @type {Output} */
    this.output = new Output({
      pointed: (index) => this.source.mark(index),
      asked: (index, prefix, signal) => this.wordsAfter(index, prefix, signal),
      rewritten: (index) => this.rewritten(index),
    })
    this.versions = createVersions((index, sentence) => this.output.replace(index, sentence))
    this.history = createHistory((entry) => this.restore(entry))
    this.lines = createLines(() => this.request())
    this.code = createRequestCode()
    this.swap = h("button", { onclick: () => this.turnAround() }, "⇄ Swap")
    this.about = h("p", { class: "muted small use-about" })
    this.told = h("p", { class: "error", role: "alert" })
    this.element = this.laidOut()
    this.model.element.addEventListener("change", () => this.chosen())
    connection.addEventListener("back", () => this.element.isConnected && this.translate())
    this.chosen(false)
  }

  laidOut() {
    const actions = h(
      "div",
      { class: "row use-actions" },
      h("button", { onclick: () => this.copy(this.output.text, "Copied.") }, "Copy"),
      h("button", { onclick: () => this.showVersions() }, "Other versions"),
      h("button", { onclick: () => this.explain() }, "Explain"),
      h("button", { onclick: () => this.copy(location.href, "The link is copied.") }, "Copy link"),
    )
    return h(
      "div",
      { class: "stack use" },
      h("h1", { class: "unseen" }, "Use a model"),
      h("div", { class: "row use-bar" }, this.model.element, this.swap, this.search.element, this.lines.button),
      h(
        "div",
        { class: "use-sides" },
        h("section", { class: "card use-side", "aria-label": "Source" }, this.source.element),
        h("section", { class: "card use-side", "aria-label": "Output" }, this.output.element, this.told, actions),
      ),
      this.about,
      this.versions.element,
      this.lines.element,
      this.code.element,
      this.history.element,
    )
  }

  /** @param {URLSearchParams} parameters */
  show(parameters) {
    if (parameters.has("model")) this.model.value = parameters.get("model") ?? ""
    this.chosen(false)
    this.search.read(parameters)
    if (parameters.has("text")) this.source.text = parameters.get("text") ?? ""
    this.translate()
    if (matchMedia("(hover: hover)").matches) this.source.focus() // elsewhere a keyboard would cover the page
  }

  hide() {
    clearTimeout(this.timer)
    this.controller.abort()
    this.output.close()
    this.remember()
  }

  typed() {
    clearTimeout(this.timer)
    this.timer = setTimeout(() => this.translate(), PAUSE)
  }

  /** Another model: it may have a reverse, and another way to search by itself. */
  chosen(translate = true) {
    const { model } = this.model
    this.swap.disabled = this.reverse() === undefined
    this.swap.title = this.swap.disabled ? "No model that leads back is served" : "Translate the output back"
    this.about.textContent = describe(model)
    this.source.describe(model)
    this.search.suit(model)
    if (translate) this.translate()
  }

  reverse() {
    const { source, target } = this.model.model
    if (!source || !target) return undefined
    return this.context.server.models.find(
      (one) => one.source?.code === target.code && one.target?.code === source.code,
    )
  }

  turnAround() {
    const reverse = this.reverse()
    if (!reverse || !this.output.isSettled) return
    this.source.text = this.output.text
    this.model.value = reverse.name
    this.chosen()
  }

  /** @returns {GenerateRequest} */
  request() {
    const { name, source } = this.model.model
    return {
      text: this.source.text,
      model: name,
      split: "sentence",
      language: source?.code ?? "en",
      ...this.search.settings(),
    }
  }

  /** Sends the text as it is now; what was asked before is cancelled. */
  async translate() {
    clearTimeout(this.timer)
    this.controller.abort()
    this.controller = new AbortController()
    const { signal } = this.controller
    const request = this.request()
    this.asked = this.source.text
    this.context.keep({ text: this.source.text, model: this.model.value, ...this.search.parameters() })
    this.code.update(request)
    this.versions.clear()
    this.told.textContent = ""
    if (!this.source.text.trim()) {
      this.source.settle([])
      this.output.settle("", [])
      return
    }
    this.output.begin()
    try {
      this.present(await stream({ ...request, words: true }, (delta) => this.output.write(delta), signal))
    } catch (error) {
      if (isAborted(error)) return
      this.output.stop()
      this.told.textContent = sentenceOf(error)
    }
  }

  /** @param {GenerateResponse} answer */
  present(answer) {
    const sentences = answer.sentences?.[0] ?? []
    this.source.settle(sentences.map(({ source }) => source))
    this.output.settle(answer.outputs[0]?.[0]?.text ?? "", sentences)
    this.context.announce(`Output: ${this.output.text}`)
    this.settle()
  }

  settle() {
    clearTimeout(this.settling)
    this.settling = setTimeout(() => this.remember(), SETTLED)
  }

  remember() {
    clearTimeout(this.settling)
    if (this.output.isSettled && this.output.text) {
      this.history.add({
        source: this.asked,
        output: this.output.text,
        model: this.model.value,
        time: Date.now(),
      })
    }
  }

  /** @param {number} index */
  rewritten(index) {
    this.versions.clear()
    this.context.announce(`Written anew: ${this.output.sentence(index)?.target}`)
    this.settle()
  }

  /** A sentence as the model reads it: after the tag that the text begins with. @param {number} index */
  taggedSource(index) {
    const source = this.output.sentence(index)?.source ?? ""
    const tag = this.model.model.tags.find((one) => this.asked.trimStart().startsWith(`${one} `))
    return source && tag ? `${tag} ${source}` : source
  }

  /**
   * What else could come after a prefix of a sentence's output.
   * @param {number} index
   * @param {string} prefix
   * @param {AbortSignal} signal
   */
  wordsAfter(index, prefix, signal) {
    const asked = { text: this.taggedSource(index), prefix, model: this.model.value, count: 10 }
    return alternatives({ ...asked, ...this.search.settings(), sample: false }, signal)
  }

  async showVersions() {
    const index = this.output.current
    const sentence = this.output.sentence(index)
    if (!sentence) return
    try {
      const width = Math.max(this.search.settings().beam_size ?? 1, 5)
      const text = this.taggedSource(index)
      const request = { text, model: this.model.value, beam_size: width, n_best: 5, sample: false }
      const answer = await generate({ ...request, words: true }, this.controller.signal)
      /** @type {Sentence[]} */
      const found = (answer.outputs[0] ?? []).map(({ text, words = [] }) => ({
        source: sentence.source,
        target: text,
        words,
      }))
      this.versions.present(index, sentence, found)
    } catch (error) {
      this.told.textContent = sentenceOf(error)
    }
  }

  explain() {
    const { sample, beam_size: width = 1 } = this.search.settings()
    const text = this.taggedSource(this.output.current) || this.source.text
    this.context.go("explain", { text, model: this.model.value, width: String(sample ? 1 : width) })
  }

  /** @param {import("./use/history.js").Entry} entry */
  restore(entry) {
    this.model.value = entry.model
    this.chosen(false)
    this.source.text = entry.source
    this.translate()
    this.source.focus()
  }

  /**
   * @param {string} text
   * @param {string} message
   */
  async copy(text, message) {
    try {
      await navigator.clipboard.writeText(text)
      this.context.announce(message)
      find(".use-actions", this.element).dataset.done = message
    } catch {
      this.told.textContent = "The browser does not let this page copy; select the text and copy it by hand."
    }
    setTimeout(() => delete find(".use-actions", this.element).dataset.done, 2000)
  }
}
