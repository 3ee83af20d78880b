// The model under teacher forcing: how probable it finds a true output, piece after piece.

import { h, percent } from "../dom.js"
import { chipOf } from "./pointing.js"
import { bar } from "./step.js"

/** @import {Forced, ForcedToken, Trace} from "../types.js" */

/**
 * The model on an output that is given, as in training.
 * @param {(text: string) => void} force
 */
export function createForcing(force) {
  const field = h("input", { id: "true-output", dir: "auto", autocomplete: "off", spellcheck: "false" })
  const own = h("button", { type: "button", class: "plain" }, "Take the model's output")
  const none = h("button", { type: "button", class: "plain" }, "Remove")
  const result = h("div", { class: "stack" })
  const form = h(
    "form",
    { class: "decoder-form" },
    h("label", { for: "true-output" }, "The true output"),
    field,
    h("div", { class: "decoder-actions" }, h("button", { class: "primary" }, "Score it"), own, none),
  )
  let output = ""
  let shown = ""

  form.addEventListener("submit", (event) => {
    event.preventDefault()
    force(field.value.trim())
  })
  own.addEventListener("click", () => {
    field.value = output
    field.focus()
  })
  none.addEventListener("click", () => {
    field.value = ""
    field.focus()
    force("")
  })

  const explanation =
    "In training there is no loop. Whatever the model would say, it is fed with the true output, piece after piece, and has to give the next true piece a high probability. Write an output to see how probable the model finds it."
  const element = h(
    "section",
    { class: "card stack decoder-forcing", "aria-labelledby": "forcing-title" },
    h("h3", { id: "forcing-title" }, "Teacher forcing: how it was trained"),
    h("p", { class: "lead" }, explanation),
    form,
    result,
  )
  return {
    element,
    /** @param {Trace} trace */
    update({ target, outputs }) {
      output = outputs[0]?.text ?? ""
      const text = target?.text ?? ""
      if (text && text !== shown && document.activeElement !== field) field.value = text
      shown = text
      none.hidden = !target
      result.hidden = !target
      result.replaceChildren(...(target ? [forcedTable(target), forcedSum(target)] : []))
    },
  }
}

/** @param {Forced} target */
function forcedTable({ tokens }) {
  const most = Math.max(1, ...tokens.map(({ loss }) => loss))
  const heads = ["Fed with", "True piece", "Its probability", "Loss", "The model would have said"]
  const table = h(
    "table",
    { class: "decoder-table" },
    h("thead", {}, h("tr", {}, ...heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, ...tokens.map((token, step) => forcedRow(token, step, most))),
  )
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Loss of each piece" }, table)
}

/** @param {ForcedToken} token @param {number} step @param {number} most  the highest loss */
function forcedRow(token, step, most) {
  const strays = token.best_piece !== token.piece
  const { piece, probability, loss } = token
  return h(
    "tr",
    { "data-step": step, "data-piece": piece, "data-probability": probability, "data-loss": loss },
    h("td", {}, chipOf(token.input, "target")),
    h("th", { scope: "row" }, chipOf(piece, "target")),
    h("td", {}, percent(probability)),
    h("td", {}, h("div", { class: "decoder-loss" }, bar(loss / most), loss < 0.01 ? "<0.01" : loss.toPrecision(2))),
    strays
      ? h(
          "td",
          { class: "decoder-stray" },
          "strays to ",
          chipOf(token.best_piece, "target"),
          ` ${percent(token.best_probability)}`,
        )
      : h("td", { class: "muted" }, "the same"),
  )
}

/** @param {Forced} target */
function forcedSum({ tokens, loss, perplexity }) {
  const strays = tokens.filter(({ piece, best_piece }) => piece !== best_piece).length
  const among = perplexity.toLocaleString("en", {
    notation: "compact",
    compactDisplay: "long",
    maximumSignificantDigits: 3,
  })
  const unsure = `On average it was as unsure as if it had to choose among ${among} equally likely pieces.`
  return h(
    "dl",
    { class: "decoder-sum" },
    figure(
      "Loss",
      `${Number(loss.toPrecision(3))} nats`,
      "The sum over all pieces. This is the number that training makes smaller.",
    ),
    figure("Perplexity", among, unsure),
    figure(
      "Strays",
      `${strays} of ${tokens.length}`,
      "Pieces at which the model would have said something else. It is fed with the true piece all the same.",
    ),
  )
}

/** @param {string} name @param {string} value @param {string} meaning */
function figure(name, value, meaning) {
  return h(
    "div",
    {},
    h("dt", {}, name),
    h("dd", { class: "decoder-figure" }, value),
    h("dd", { class: "small muted" }, meaning),
  )
}
