// The page: finds out what is served, and shows the view that the address names.

import { connection, readServer, Unreachable, useKey } from "./api.js"
import { find, h } from "./dom.js"

/** @import {Context, ServerInfo, View} from "./types.js" */

/**
 * A view: its code, its styles, which are loaded when it is first shown, and whether there is nothing to see without a
 * model.
 * @typedef {{ needsModel: boolean, styles: string[], load: () => Promise<Code> }} Kind
 * @typedef {{ create: (context: Context) => View }} Code
 */

const CHAPTERS = ["journey", "encoder", "decoder", "attention", "search"].map((name) => `explain/${name}`)

/** @type {Record<string, Kind>} */
const VIEWS = {
  use: { needsModel: true, styles: [], load: () => import("./use.js") },
  explain: { needsModel: true, styles: ["explain", ...CHAPTERS], load: () => import("./explain.js") },
  compare: {
    needsModel: true,
    styles: ["explain", "explain/attention", "compare"],
    load: () => import("./compare.js"),
  },
  training: { needsModel: false, styles: ["watch"], load: () => import("./training.js") },
  server: { needsModel: false, styles: ["watch"], load: () => import("./load.js") },
}

const main = find("#view")
const notice = find("#notice")

/** @type {Map<string, View>} */
const made = new Map()
/** @type {View | null} */
let shown = null

/** The view and its parameters that the address names: #use?text=... */
function wanted() {
  const [, name = "", query = ""] = /^#?([^?]*)\??(.*)$/s.exec(location.hash) ?? []
  return { name: Object.hasOwn(VIEWS, name) ? name : "use", parameters: new URLSearchParams(query) }
}

/**
 * @param {string} name
 * @param {Record<string, string>} parameters
 */
function address(name, parameters) {
  const query = new URLSearchParams(parameters).toString()
  return `#${name}${query ? `?${query}` : ""}`
}

/**
 * What the views are given.
 * @param {ServerInfo} server
 * @returns {Context}
 */
function contextOf(server) {
  return {
    server,
    go: (view, parameters = {}) => {
      location.hash = address(view, parameters)
    },
    keep: (parameters) => history.replaceState(null, "", address(wanted().name, parameters)),
    announce: (message) => {
      find("#announcement").textContent = message
    },
  }
}

/** Loads a style sheet, unless it is there. @param {string} style */
function dress(style) {
  const href = `page/${style}.css`
  if (document.querySelector(`link[href="${href}"]`)) return null
  const link = h("link", { rel: "stylesheet", href })
  const loaded = new Promise((resolve) => {
    link.addEventListener("load", resolve)
    link.addEventListener("error", resolve)
  })
  document.head.append(link)
  return loaded
}

/** @param {Context} context */
async function show(context) {
  const { name, parameters } = wanted()
  const { needsModel, styles, load } = /** @type {Kind} */ (VIEWS[name])
  const isIdle = needsModel && context.server.models.length === 0
  const [code] = await Promise.all([isIdle ? { create: withoutModels } : load(), ...styles.map(dress)])
  if (wanted().name !== name) return // somebody was quicker
  const view = made.get(name) ?? code.create(context)
  made.set(name, view)
  if (shown !== view) {
    shown?.hide()
    main.replaceChildren(view.element)
    shown = view
  }
  document.querySelector("nav [aria-current]")?.removeAttribute("aria-current")
  const link = find(`nav [href="#${name}"]`)
  link.setAttribute("aria-current", "page")
  document.title = `${link.textContent} · Antiphon`
  view.show(parameters)
}

/** @returns {View} */
function withoutModels() {
  const training = h("a", { href: "#training" }, "watch the trainings")
  const line = h("p", { class: "empty" }, "No model is served here; you can ", training, ".")
  return { element: line, show() {}, hide() {} }
}

/** @param {...(string | Node)} parts */
function tell(...parts) {
  notice.replaceChildren(...parts)
  notice.hidden = parts.length === 0
}

connection.addEventListener("gone", (event) => {
  const { detail } = /** @type {CustomEvent<string>} */ (event)
  tell(h("strong", {}, detail), " What you wrote is kept; the page goes on by itself when the server is back.")
})
connection.addEventListener("back", () => tell())
connection.addEventListener("key", () => notice.querySelector("form") || tell(askForKey()))
find(".skip").addEventListener("click", (event) => {
  event.preventDefault() // its address is no view
  main.focus()
})

function askForKey() {
  const field = h("input", { type: "password", autocomplete: "off", id: "key", required: true })
  return h(
    "form",
    {
      class: "key",
      onsubmit: (/** @type {Event} */ event) => {
        event.preventDefault()
        useKey(field.value)
        location.reload()
      },
    },
    h("label", { for: "key" }, "This server asks for an API key:"),
    field,
    h("button", {}, "Use it"),
  )
}

async function start() {
  let server
  try {
    server = await readServer()
  } catch (error) {
    if (error instanceof Unreachable) connection.addEventListener("back", start, { once: true })
    else if (error instanceof Error && notice.hidden) tell(error.message)
    return
  }
  if (server.status !== "ready") {
    find("#waiting").textContent = "The models are being loaded…"
    setTimeout(start, 500)
    return
  }
  const context = contextOf(server)
  window.addEventListener("hashchange", () => show(context))
  await show(context)
}

start()
