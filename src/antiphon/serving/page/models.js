// Choosing one of the models that are served, and saying what it is.

import { h } from "./dom.js"

/** @import {ServedModel, ServerInfo} from "./types.js" */

/**
 * A labelled choice of a model.
 * @param {ServerInfo} server
 * @param {string} id
 * @param {string} [label]
 */
export function modelChoice(server, id, label = "Model") {
  const options = server.models.map((one) => h("option", { value: one.name }, titleOf(one)))
  const select = h("select", { id }, ...options)
  const element = h("div", { class: "choice" }, h("label", { for: id }, label), select)
  return {
    element,
    get value() {
      return select.value
    },
    /** A name that is not served changes nothing. */
    set value(name) {
      if (server.models.some((one) => one.name === name)) select.value = name
    },
    /** @returns {ServedModel} */
    get model() {
      return /** @type {ServedModel} */ (server.models.find((one) => one.name === select.value))
    },
  }
}

/** @param {ServedModel} model */
function titleOf(model) {
  return model.source && model.target ? `${model.name} (${model.source.name} to ${model.target.name})` : model.name
}

/** What kind of network it is, in a few words. @param {ServedModel} model */
export function describe(model) {
  const parts = [
    `${titleOfKind(model.encoder)} encoder, ${layers(model.encoder_layers)}`,
    `${titleOfKind(model.decoder)} decoder, ${layers(model.decoder_layers)}`,
    model.attention === "none" ? "no attention" : `${model.attention} attention`,
    `vectors of ${model.d_model}`,
  ]
  const told = parts.join(" · ")
  return model.members > 1 ? `an ensemble of ${model.members}, the first: ${told}` : told
}

/** @param {number} count */
function layers(count) {
  return count === 1 ? "1 layer" : `${count} layers`
}

/** @param {string} kind */
function titleOfKind(kind) {
  return kind === "transformer" ? "transformer" : kind.toUpperCase()
}
