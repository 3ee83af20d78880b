import { h } from "../dom.js"

/** @import {Focus, Trace} from "../types.js" */

/** @param {(chapterId: string) => void} goTo */
export function create(goTo) {
  const element = h("div", { onclick: () => goTo("encoder") })
  return { element, /** @param {Trace} trace */ update(trace) { element.title = trace.text }, /** @param {Focus} _focus */ focus(_focus) {} }
}
