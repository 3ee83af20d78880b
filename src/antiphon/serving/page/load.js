import { h } from "./dom.js"

/** @import {Context, View} from "./types.js" */

/**
 * @param {Context} _context
 * @returns {View}
 */
export function create(_context) {
  return { element: h("div"), show() {}, hide() {} }
}
