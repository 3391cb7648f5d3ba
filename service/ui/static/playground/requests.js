// The request that a pane sends.
import * as settings from "/static/playground/settings.js";

// `messages` are those of the talk; a model without experts is not asked who spoke.
export function requestOf({ model, messages, disabled, tellsExperts }) {
  const system = settings.system();
  const request = {
    model,
    messages: system ? [{ role: "system", content: system }, ...messages] : messages,
    ...settings.read(),
    stream: true,
    stream_options: { include_usage: true },
  };
  if (!tellsExperts) return request;
  const nexus = { routing: settings.everyBlock() ? "blocks" : true };
  if (disabled.length) nexus.disable = disabled;
  // Log-probabilities say where a token of an event ends.
  return { ...request, logprobs: true, nexus };
}
