// The request as one would write it oneself: for curl, and in Python.

import { h } from "../dom.js"

/** @import {GenerateRequest} from "../types.js" */

export function createRequestCode() {
  const curl = h("pre", { tabindex: 0, "aria-label": "For curl", id: "as-curl" })
  const python = h("pre", { tabindex: 0, "aria-label": "In Python", id: "as-python" })
  const api = h("p", { class: "small muted" }, "All that can be asked is told ", h("a", { href: "docs" }, "here"), ".")
  const element = h(
    "details",
    { class: "use-fold" },
    h("summary", {}, "This request as code"),
    h("div", { class: "stack" }, h("h2", {}, "curl"), curl, h("h2", {}, "Python"), python, api),
  )
  return {
    element,
    /** @param {GenerateRequest} request */
    update(request) {
      const place = new URL("v1/generate", document.baseURI).href
      const body = { ...request, text: request.text || "..." }
      const quoted = JSON.stringify(body).replaceAll("'", "'\\''")
      curl.textContent = `curl -s ${place} \\\n  -H 'content-type: application/json' \\\n  -d '${quoted}'`
      python.textContent = [
        "import requests",
        "",
        `body = ${inPython(body)}`,
        `answer = requests.post("${place}", json=body).json()`,
        'print(answer["outputs"][0][0]["text"])',
      ].join("\n")
    },
  }
}

/**
 * A value as Python writes it.
 * @param {unknown} value
 * @returns {string}
 */
function inPython(value) {
  if (value === true) return "True"
  if (value === false) return "False"
  if (value === null) return "None"
  if (Array.isArray(value)) return `[${value.map(inPython).join(", ")}]`
  if (typeof value === "object" && value) {
    return `{${Object.entries(value)
      .map(([key, one]) => `${JSON.stringify(key)}: ${inPython(one)}`)
      .join(", ")}}`
  }
  return JSON.stringify(value) // numbers, and strings, whose escapes Python knows too
}
