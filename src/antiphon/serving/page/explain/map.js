// The map: the encoder's vectors in two dimensions, and which of them are alike.

import { h, percent, svg, visible } from "../dom.js"
import { chipOf, isAt, signed } from "./pointing.js"

/** @import {Trace} from "../types.js" */

const WIDTH = { least: 260, most: 480 } // of the drawing: as it is shown, so that its letters keep their size
const SHAPE = 0.75 // height by width
const MARGIN = 34
const FOOT = 22 // room for what the axes are called
const LETTER = 7.3 // how wide one of a label is
const NEIGHBOURS = 3

/** @typedef {{ x: number, y: number, width: number, height: number }} Box */
/** @typedef {{ width: number, height: number }} Room */

export function createMap() {
  const drawing = svg("svg", { class: "enc-map", role: "img" })
  const told = h("p", { class: "small enc-told" })
  const element = h(
    "div",
    { class: "card stack enc-near" },
    h("h3", {}, "Which vectors are alike"),
    h("p", { class: "small muted" }, "The same vectors on a plane, along the two directions in which they vary most."),
    drawing,
    told,
  )
  /** @type {Trace["source"] | null} */
  let source = null
  /** @type {[number, number][]} */
  let places = []
  let lines = svg("g", {})

  return {
    element,
    /** @param {Trace} trace */
    update(trace) {
      source = trace.source
      const room = roomOf(drawing)
      places = placesOf(source.projection, room)
      lines = svg("g", { class: "enc-lines" })
      const name = `Map of the vectors of ${source.pieces.length} pieces, from which their nearest are told below.`
      drawing.setAttribute("aria-label", name)
      drawing.setAttribute("viewBox", `0 0 ${room.width} ${room.height}`)
      const points = pointsOf(source.pieces, places, room)
      drawing.classList.toggle(
        "enc-dense",
        points.some((one) => one.classList.contains("enc-crowded")),
      )
      drawing.replaceChildren(...axesOf(source.variance, room), lines, ...points)
    },
    /** @param {number | null} at */
    focus(at) {
      const near = source && at !== null && source.vectors[at] ? nearest(source.vectors, at) : []
      for (const one of drawing.querySelectorAll("[data-piece]")) {
        one.classList.toggle("enc-on", isAt(one, at))
        if (isAt(one, at) && drawing.lastChild !== one) drawing.append(one) // above the others
        one.classList.toggle(
          "enc-neighbour",
          near.some(({ index }) => isAt(one, index)),
        )
      }
      lines.replaceChildren(...near.map(({ index }) => lineBetween(places[at ?? 0], places[index])))
      told.replaceChildren(...describeNear(source?.pieces ?? [], at, near))
    },
  }
}

/** @param {SVGElement} drawing */
function roomOf(drawing) {
  const width = Math.max(WIDTH.least, Math.min(WIDTH.most, drawing.getBoundingClientRect().width))
  return { width, height: width * SHAPE }
}

/**
 * Where the points are drawn: both axes to the same scale, so that distances are true.
 * @param {number[][]} projection
 * @param {Room} room
 * @returns {[number, number][]}
 */
function placesOf(projection, { width, height }) {
  const [xs, ys] = [0, 1].map((axis) => projection.map((one) => one[axis] ?? 0))
  const [x, y] = [spanOf(xs ?? []), spanOf(ys ?? [])]
  const scale = Math.min((width - 3 * MARGIN) / x.size, (height - FOOT - 2 * MARGIN) / y.size)
  return projection.map(([a = 0, b = 0]) => [
    width / 2 + (a - x.middle) * scale,
    (height - FOOT) / 2 - (b - y.middle) * scale,
  ])
}

/** @param {number[]} values */
function spanOf(values) {
  const [least, most] = [Math.min(...values), Math.max(...values)]
  return { middle: (least + most) / 2, size: most - least || 1 }
}

/**
 * @param {number[]} variance
 * @param {Room} room
 */
function axesOf([first = 0, second = 0], { width, height }) {
  const turned = `translate(14 ${height - FOOT - 4}) rotate(-90)`
  return [
    svg("path", { class: "enc-axes", d: `M22 8V${height - FOOT}H${width - 8}` }),
    svg("text", { class: "enc-axis", x: 26, y: height - 6 }, `1st direction: ${percent(first)} of the variance`),
    svg("text", { class: "enc-axis", transform: turned }, `2nd direction: ${percent(second)}`),
  ]
}

/**
 * The points with their labels; one whose label finds no room shows it when it is pointed at.
 * @param {string[]} pieces
 * @param {[number, number][]} places
 * @param {Room} room
 */
function pointsOf(pieces, places, room) {
  /** @type {Box[]} */
  const taken = places.map(([x, y]) => ({ x: x - 4, y: y - 4, width: 8, height: 8 }))
  return places.map(([x, y], index) => {
    const label = visible(pieces[index] ?? "")
    const spots = spotsOf(x, y, label.length * LETTER)
    const spot = spots.find(({ box }) => fits(box, taken, room))
    if (spot) taken.push(spot.box)
    const { dx, dy, anchor } = spot ?? /** @type {(typeof spots)[0]} */ (spots[0])
    return svg(
      "g",
      { class: spot ? "enc-point" : "enc-point enc-crowded", "data-piece": index, "data-source": index },
      svg("circle", { class: "enc-reach", cx: x, cy: y, r: 12 }),
      svg("circle", { class: "enc-dot", cx: x, cy: y, r: 4 }),
      svg("text", { x: x + dx, y: y + dy, "text-anchor": anchor }, label),
    )
  })
}

/**
 * @param {number} x
 * @param {number} y
 * @param {number} width
 */
function spotsOf(x, y, width) {
  const [left, right, centre] = [x - 9 - width, x + 9, x - width / 2]
  return [
    { dx: 9, dy: 4, anchor: "start", box: { x: right, y: y - 7, width, height: 14 } },
    { dx: -9, dy: 4, anchor: "end", box: { x: left, y: y - 7, width, height: 14 } },
    { dx: 0, dy: -9, anchor: "middle", box: { x: centre, y: y - 20, width, height: 14 } },
    { dx: 0, dy: 18, anchor: "middle", box: { x: centre, y: y + 7, width, height: 14 } },
  ]
}

/**
 * @param {Box} box
 * @param {Box[]} taken
 * @param {Room} room
 */
function fits(box, taken, { width, height }) {
  if (box.x < 24 || box.x + box.width > width || box.y < 0 || box.y + box.height > height - FOOT) return false
  return !taken.some(
    (other) =>
      box.x < other.x + other.width &&
      other.x < box.x + box.width &&
      box.y < other.y + other.height &&
      other.y < box.y + box.height,
  )
}

/**
 * The other vectors whose direction is most like that of one.
 * @param {number[][]} vectors
 * @param {number} at
 */
function nearest(vectors, at) {
  const one = vectors[at] ?? []
  const others = vectors
    .map((vector, index) => ({ index, cosine: cosine(one, vector) }))
    .filter(({ index }) => index !== at)
  return others.sort((a, b) => b.cosine - a.cosine).slice(0, NEIGHBOURS)
}

/**
 * @param {number[]} a
 * @param {number[]} b
 */
function cosine(a, b) {
  let product = 0
  for (const [index, value] of a.entries()) product += value * (b[index] ?? 0)
  return product / (Math.hypot(...a) * Math.hypot(...b) || 1)
}

/**
 * @param {[number, number]} [from]
 * @param {[number, number]} [to]
 */
function lineBetween([x1, y1] = [0, 0], [x2, y2] = [0, 0]) {
  return svg("line", { x1, y1, x2, y2 })
}

/**
 * @param {string[]} pieces
 * @param {number | null} at
 * @param {{ index: number, cosine: number }[]} near
 */
function describeNear(pieces, at, near) {
  if (at === null || !near.length)
    return [h("span", { class: "muted" }, "Point at a piece to see which are nearest to it.")]
  const named = near.map(({ index, cosine }) =>
    h("span", { class: "enc-pair" }, chipOf(pieces[index]), ` ${signed(cosine)}`),
  )
  return ["Nearest to ", chipOf(pieces[at]), " by cosine: ", ...named]
}
