// Elements of the page, made in one expression. Styles are set through the style object: the page's policy forbids
// style attributes.

/**
 * @typedef {string | number | Node | null | undefined | false} Child
 * @typedef {Record<string, any>} Attributes  on...: a listener; style: custom properties and others by name;
 *   false, null, undefined: left out
 */

/**
 * An HTML element.
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name
 * @param {Attributes} [attributes]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[Name]}
 */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name)
  dress(element, attributes)
  element.append(...present(children))
  return element
}

/**
 * An SVG element.
 * @template {keyof SVGElementTagNameMap} Name
 * @param {Name} name
 * @param {Attributes} [attributes]
 * @param {...Child} children
 * @returns {SVGElementTagNameMap[Name]}
 */
export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name)
  dress(element, attributes)
  element.append(...present(children))
  return element
}

/**
 * @param {HTMLElement | SVGElement} element
 * @param {Attributes} attributes
 */
function dress(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value)
    else if (name === "style")
      for (const [key, one] of Object.entries(value)) element.style.setProperty(key, String(one))
    else element.setAttribute(name, value === true ? "" : String(value))
  }
}

/**
 * @param {Child[]} children
 * @returns {(string | Node)[]}
 */
function present(children) {
  return children
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : String(child)))
}

/**
 * The element that must be there.
 * @template {Element} [Kind=HTMLElement]
 * @param {string} selector
 * @param {ParentNode} [within]
 * @returns {Kind}
 */
export function find(selector, within = document) {
  const found = within.querySelector(selector)
  if (!found) throw new Error(`The page has no ${selector}.`)
  return /** @type {Kind} */ (found)
}

/** A share as people read it: 0.934 is 93%, 0.0004 is 0.04%. @param {number} share */
export function percent(share) {
  if (share < 0.00001) return "<0.001%"
  if (share < 0.005) return `${Number((share * 100).toPrecision(1))}%`
  if (share < 1 && share > 0.995) return ">99%"
  return `${Math.round(share * 100)}%`
}

/** A piece of a word to look at: a space at its beginning is shown. @param {string} piece */
export function visible(piece) {
  return piece.replace(/^ /, "␣").replaceAll("\n", "⏎") || "∅"
}
