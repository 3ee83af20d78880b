// A file of lines: each line is answered, and the outputs are one line each of the file to download.

import { connection, generate, isAborted, Refused, Unreachable } from "../api.js"
import { h } from "../dom.js"

/** @import {GenerateRequest} from "../types.js" */

const TOGETHER = 32 // lines in one request
const BUSY = 1000 // milliseconds after which a busy server is asked again
const SHOWN = 5 // lines that could not be answered are told, so many of them in words

/** @param {() => GenerateRequest} wanted  how lines are to be answered */
export function createLines(wanted) {
  const picker = h("input", {
    type: "file",
    class: "unseen",
    id: "lines-file",
    accept: ".txt,text/*",
    tabindex: -1,
    "aria-label": "File of lines",
  })
  const button = h(
    "button",
    { onclick: () => picker.click(), title: "Or drop it anywhere on this page" },
    "A file of lines…",
  )
  const name = h("strong")
  const state = h("span", { class: "muted small", role: "status" })
  const progress = h("progress", { "aria-label": "Lines answered", max: 1, value: 0 })
  const cancel = h("button", {}, "Cancel")
  const download = h("a", { class: "button", hidden: true }, "Download the result")
  const faults = h("ul", { class: "error small" })
  const head = h(
    "div",
    { class: "row spread" },
    h("span", {}, name, " ", state),
    h("span", { class: "row" }, cancel, download),
  )
  const element = h(
    "section",
    { class: "card stack use-lines", "aria-label": "A file of lines", hidden: true },
    head,
    progress,
    faults,
  )
  let controller = new AbortController()
  cancel.addEventListener("click", () => controller.abort())

  /** @param {File} file */
  async function run(file) {
    controller.abort()
    const own = new AbortController()
    controller = own
    const request = wanted() // once: what is chosen later is not for this file
    element.hidden = false
    download.hidden = true
    cancel.hidden = false
    faults.replaceChildren()
    name.textContent = file.name
    const lines = linesOf(await file.text())
    try {
      const { outputs, refused } = await answerAll(lines, request, own.signal, (done) => {
        progress.value = lines.length ? done / lines.length : 1
        state.textContent = `${done.toLocaleString("en")} of ${lines.length.toLocaleString("en")} lines`
      })
      offer(`${file.name.replace(/\.[^.]*$/, "")}.${request.model}.txt`, outputs)
      tellFaults(refused)
    } catch (error) {
      if (!isAborted(error)) throw error
      if (own !== controller) return // another file has taken its place
      state.textContent = "Cancelled."
    }
    cancel.hidden = true
  }

  /** @param {string} to @param {string[]} outputs */
  function offer(to, outputs) {
    if (download.href) URL.revokeObjectURL(download.href)
    const text = outputs.map((line) => `${line}\n`).join("")
    download.href = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }))
    download.download = to
    download.hidden = false
  }

  /** @param {{ line: number, message: string }[]} refused */
  function tellFaults(refused) {
    const told = refused
      .slice(0, SHOWN)
      .map(({ line, message }) => h("li", {}, `Line ${line}: ${message} Its output is left empty.`))
    if (refused.length > SHOWN)
      told.push(h("li", {}, `And ${refused.length - SHOWN} more lines, which are left empty too.`))
    faults.replaceChildren(...told)
  }

  picker.addEventListener("change", () => {
    if (picker.files?.[0]) run(picker.files[0])
    picker.value = ""
  })
  acceptDrops(button, run)
  return { button: h("span", { class: "use-file" }, button, picker), element }
}

/**
 * A file that is dropped on the page while this part of it is shown.
 * @param {HTMLElement} part
 * @param {(file: File) => void} run
 */
function acceptDrops(part, run) {
  const isWanted = (/** @type {DragEvent} */ event) => part.isConnected && event.dataTransfer?.types.includes("Files")
  document.addEventListener("dragover", (event) => {
    if (!isWanted(event)) return
    event.preventDefault()
    document.body.classList.add("is-dropping")
  })
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("is-dropping")
  })
  document.addEventListener("drop", (event) => {
    document.body.classList.remove("is-dropping")
    const file = event.dataTransfer?.files[0]
    if (!isWanted(event) || !file) return
    event.preventDefault()
    run(file)
  })
}

/** @param {string} text */
function linesOf(text) {
  const lines = text.split(/\r\n|\n|\r/)
  if (lines.at(-1) === "") lines.pop()
  return lines
}

/**
 * @param {string[]} lines
 * @param {GenerateRequest} request
 * @param {AbortSignal} signal
 * @param {(done: number) => void} tell
 */
async function answerAll(lines, request, signal, tell) {
  /** @type {string[]} */
  const outputs = []
  /** @type {{ line: number, message: string }[]} */
  const refused = []
  tell(0)
  while (outputs.length < lines.length) {
    const some = lines.slice(outputs.length, outputs.length + TOGETHER)
    const found = await answer(some)
    if (Array.isArray(found)) outputs.push(...found)
    else await answerOneByOne(some)
    tell(outputs.length)
  }
  return { outputs: outputs.map((output) => output.replace(/\s*\n\s*/g, " ")), refused }

  /** @param {string[]} text */
  function answer(text) {
    return patiently(async () => {
      const found = await generate({ ...request, text }, signal)
      return found.outputs.map((some) => some[0]?.text ?? "")
    }, signal)
  }

  /** Which of them cannot be answered? @param {string[]} some */
  async function answerOneByOne(some) {
    for (const line of some) {
      const found = await answer([line])
      if (!Array.isArray(found)) refused.push({ line: outputs.length + 1, message: found.message })
      outputs.push(Array.isArray(found) ? (found[0] ?? "") : "")
    }
  }
}

/**
 * Waits where the server is busy or gone; what it refuses for good is returned.
 * @param {() => Promise<string[]>} ask
 * @param {AbortSignal} signal
 * @returns {Promise<string[] | Refused>}
 */
async function patiently(ask, signal) {
  for (;;) {
    try {
      return await ask()
    } catch (error) {
      if (error instanceof Refused && error.status !== 429) return error
      if (error instanceof Refused) await new Promise((resolve) => setTimeout(resolve, BUSY))
      else if (error instanceof Unreachable) await back(signal)
      else throw error
    }
  }
}

/** Until the server is back. @param {AbortSignal} signal */
function back(signal) {
  return new Promise((resolve, reject) => {
    connection.addEventListener("back", resolve, { once: true, signal })
    signal.addEventListener("abort", () => reject(signal.reason), { once: true })
  })
}
