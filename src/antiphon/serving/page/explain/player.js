// The player: buttons and a slider that go over the steps of an output.

import { h, svg, visible } from "../dom.js"

/** @import {TraceStep} from "../types.js" */

const PACE = 900 // milliseconds that a step stays while playing

const ICONS = {
  first: "M5 4v12M16 4 8 10l8 6z",
  previous: "M14 4 6 10l8 6z",
  play: "M6 3.5 16 10 6 16.5z",
  pause: "M7 4v12M13 4v12",
  next: "M6 4l8 6-8 6z",
  last: "M15 4v12M4 4l8 6-8 6z",
}

/** @param {keyof ICONS} name */
function icon(name) {
  return svg(
    "svg",
    { class: "decoder-icon", viewBox: "0 0 20 20", "aria-hidden": "true" },
    svg("path", { d: ICONS[name] }),
  )
}

/**
 * Buttons and a slider that go over the steps.
 * @param {(step: number) => void} go
 */
export function createPlayer(go) {
  const slider = h("input", { type: "range", min: 0, "aria-label": "Step", oninput: () => jump(Number(slider.value)) })
  const count = h("span", { class: "decoder-count small muted" })
  /** @param {keyof ICONS} name @param {string} label @param {() => void} onclick */
  const button = (name, label, onclick) => h("button", { "aria-label": label, onclick }, icon(name))
  const play = button("play", "Play", () => (timer ? stop() : start()))
  const back = [button("first", "First step", () => jump(0)), button("previous", "Previous step", () => jump(at - 1))]
  const on = [button("next", "Next step", () => jump(at + 1)), button("last", "Last step", () => jump(path.length - 1))]
  const buttons = h("div", { class: "decoder-buttons" }, ...back, play, ...on)
  const element = h("div", { class: "decoder-player", role: "group", "aria-label": "Player" }, buttons, slider, count)
  /** @type {TraceStep[]} */
  let path = []
  let at = 0
  let timer = 0

  /** @param {number} step */
  function jump(step) {
    stop()
    if (path[step]) go(step)
  }

  function start() {
    timer = setInterval(beat, PACE)
    draw()
    go(at === path.length - 1 ? 0 : at)
  }

  function stop() {
    clearInterval(timer)
    timer = 0
    draw()
  }

  function beat() {
    if (at + 1 >= path.length - 1 || !element.isConnected || document.hidden) stop()
    if (element.isConnected && !document.hidden && path[at + 1]) go(at + 1)
  }

  function draw() {
    play.replaceChildren(icon(timer ? "pause" : "play"))
    play.setAttribute("aria-label", timer ? "Pause" : "Play")
    // A button that is truly disabled would lose the focus of whoever has just pressed it.
    for (const one of back) one.setAttribute("aria-disabled", String(at === 0))
    for (const one of on) one.setAttribute("aria-disabled", String(at === path.length - 1))
  }

  return {
    element,
    jump,
    get playing() {
      return timer !== 0
    },
    /** @param {TraceStep[]} found */
    update(found) {
      path = found
      slider.max = String(path.length - 1)
      stop()
    },
    /** @param {number} step */
    focus(step) {
      at = step
      slider.value = String(step)
      slider.setAttribute("aria-valuetext", `step ${step + 1} of ${path.length}: ${visible(path[step]?.piece ?? "")}`)
      count.textContent = `Step ${step + 1} of ${path.length}`
      draw()
    },
  }
}
