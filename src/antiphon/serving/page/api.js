// The one way to the server. What it refuses, and that it cannot be reached, are errors with a sentence to show.

/** @import {AlternativeWord, GenerateRequest, GenerateResponse, Load, RunCurves, RunSummary, Search, ServerInfo, Trace, TraceRequest} from "./types.js" */

const KEY = "antiphon.key"
const PATIENCE = 2000 // milliseconds between two looks for a server that is gone

/** The server said no, and why. */
export class Refused extends Error {
  /**
   * @param {number} status
   * @param {string} message
   */
  constructor(status, message) {
    super(message)
    this.status = status
  }
}

/** There was no answer, or not the whole of one. */
export class Unreachable extends Error {}

/** Where the server can be reached or not: "gone" and "back" events. */
export const connection = new EventTarget()
let gone = false

/**
 * @param {string} path
 * @param {RequestInit} [init]
 * @returns {Promise<Response>}
 */
async function ask(path, init = {}) {
  const headers = new Headers(init.headers)
  const key = sessionStorage.getItem(KEY)
  if (key) headers.set("authorization", `Bearer ${key}`)
  let response
  try {
    response = await fetch(new URL(path, document.baseURI), { ...init, headers })
  } catch (error) {
    if (init.signal?.aborted) throw error
    throw lost()
  }
  if (response.ok) return response
  const body = await response.json().catch(() => null)
  const message = body?.error?.message ?? `The server answered ${response.status}.`
  if (response.status === 503 || response.status === 502) throw lost(message) // 502: of a proxy
  if (response.status === 401) connection.dispatchEvent(new Event("key"))
  throw new Refused(response.status, message)
}

/**
 * @param {string} path
 * @param {unknown} body
 * @param {AbortSignal} [signal]
 */
function post(path, body, signal) {
  return ask(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal: signal ?? null,
  })
}

/**
 * Notes that the server is gone, and looks for it until it is back.
 * @param {string} [message]
 */
function lost(message = "The server cannot be reached.") {
  if (!gone) {
    gone = true
    connection.dispatchEvent(new CustomEvent("gone", { detail: message }))
    look()
  }
  return new Unreachable(message)
}

async function look() {
  while (gone) {
    await new Promise((resolve) => setTimeout(resolve, PATIENCE))
    const response = await fetch(new URL("readyz", document.baseURI)).catch(() => null)
    gone = !response?.ok
  }
  connection.dispatchEvent(new Event("back"))
}

/** @param {string} key  "": none */
export function useKey(key) {
  if (key) sessionStorage.setItem(KEY, key)
  else sessionStorage.removeItem(KEY)
}

/** @returns {Promise<ServerInfo>} */
export async function readServer() {
  return (await ask("v1/server")).json()
}

/** @returns {Promise<Load>} */
export async function readLoad() {
  return (await ask("v1/load")).json()
}

/** The trainings in the folder that is watched. @returns {Promise<RunSummary[]>} */
export async function readRuns() {
  return (await (await ask("v1/runs")).json()).runs
}

/**
 * @param {string[]} names
 * @returns {Promise<RunCurves[]>}
 */
export async function readCurves(names) {
  const query = new URLSearchParams(names.map((name) => ["name", name]))
  return (await (await ask(`v1/runs/curves?${query}`)).json()).runs
}

/**
 * @param {GenerateRequest} request
 * @param {AbortSignal} [signal]
 * @returns {Promise<GenerateResponse>}
 */
export async function generate(request, signal) {
  return (await post("v1/generate", request, signal)).json()
}

/**
 * @param {TraceRequest} request
 * @param {AbortSignal} [signal]
 * @returns {Promise<Trace>}
 */
export async function trace(request, signal) {
  return (await post("v1/trace", request, signal)).json()
}

/**
 * @param {Search & { text: string, prefix: string, model: string, count?: number }} request
 * @param {AbortSignal} [signal]
 * @returns {Promise<AlternativeWord[]>}
 */
export async function alternatives(request, signal) {
  return (await (await post("v1/alternatives", request, signal)).json()).alternatives
}

/**
 * Streams an output: hands on each further text, and returns the whole answer.
 * @param {GenerateRequest} request
 * @param {(delta: string) => void} write
 * @param {AbortSignal} signal
 * @returns {Promise<GenerateResponse>}
 */
export async function stream(request, write, signal) {
  const response = await post("v1/generate", { ...request, stream: true }, signal)
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader()
  const decoder = new TextDecoder()
  let waiting = ""
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) break
      waiting += decoder.decode(value, { stream: true })
      const events = waiting.split("\n\n")
      waiting = events.pop() ?? ""
      for (const event of events) {
        const { name, data } = parse(event)
        if (name === "answer") return data
        if (name === "error") throw new Refused(500, data.error.message)
        write(data.delta)
      }
    }
  } catch (error) {
    if (signal.aborted || error instanceof Refused) throw error
    throw lost()
  }
  throw lost("The answer broke off.")
}

/**
 * An event of a stream.
 * @param {string} event
 * @returns {{ name: string, data: any }}
 */
function parse(event) {
  let name = "message"
  let data = ""
  for (const line of event.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7)
    if (line.startsWith("data: ")) data += line.slice(6)
  }
  return { name, data: JSON.parse(data) }
}

/** Whether an error only says that the request is not wanted any more. @param {unknown} error */
export function isAborted(error) {
  return error instanceof DOMException && error.name === "AbortError"
}

/**
 * What to say of an error beside what was asked: why the server refused it. That the server is gone is told for the whole
 * page, and a request that is not wanted any more needs no word. Throws what is a fault of the page.
 * @param {unknown} error
 */
export function sentenceOf(error) {
  if (error instanceof Refused) return error.message
  if (error instanceof Unreachable || isAborted(error)) return ""
  throw error
}
