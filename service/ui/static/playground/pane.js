// One pane: a model, its legend, and the talk with it.
import { requestOf } from "/static/playground/requests.js";
import * as settings from "/static/playground/settings.js";
import { explain, tokenElement } from "/static/playground/shares.js";
import { Speakers, element } from "/static/playground/speakers.js";
import { Refused, ask } from "/static/playground/stream.js";
import { Tokens } from "/static/playground/tokens.js";

// In the code of a request before anything is typed.
const EXAMPLE = "Hello!";
const NETWORK = "One network: it has no experts to color.";

export class Pane {
  // `models` are views by name. `onChange` is called when the model or a switch has changed, and
  // `onCode` when the code of the request is asked for.
  constructor(models, { onChange, onCode }) {
    this.models = models;
    this.onChange = onChange;
    this.root = document.getElementById("pane").content.cloneNode(true).querySelector(".pane");
    const find = (selector) => this.root.querySelector(selector);
    this.select = find("select");
    this.about = find("header .about");
    this.problem = find(".problem");
    this.legend = find(".speakers");
    this.lines = find(".lines");
    this.speed = find(".speed");
    this.talk = [];
    this.select.addEventListener("change", () => {
      this.#showModel();
      onChange();
    });
    find(".show-code").addEventListener("click", () => onCode(this));
    this.#showModel();
  }

  get model() {
    return this.select.value;
  }

  get disabled() {
    return this.speakers.disabled;
  }

  get state() {
    return { model: this.model, disabled: this.disabled };
  }

  // Takes a model, and who is off in it. What is not there is said, and nothing else is taken.
  set({ model, disabled }) {
    if (!this.models.has(model)) {
      this.#complain(`${model} does not answer now; this is ${this.model}.`);
      return;
    }
    this.select.value = model;
    this.#showModel();
    const { names } = this.speakers;
    const strangers = disabled.filter((name) => !names.includes(name));
    if (strangers.length) this.#complain(`${strangers.join(", ")}: not in ${model}.`);
    if (names.some((name) => !disabled.includes(name))) this.speakers.disabled = disabled;
  }

  // Returns the request that a typed message makes; without one, the last that was made.
  request(typed) {
    const talk = typed || !this.talk.length ? this.talk : this.talk.slice(0, -2);
    const text = typed || this.talk.at(-2)?.content || EXAMPLE;
    return this.#request([...talk, { role: "user", content: text }]);
  }

  clear() {
    this.talk = [];
    this.lines.replaceChildren();
    this.speed.textContent = "";
    this.speakers.forget();
  }

  // Asks, and shows the answer. Returns whether there was one, or a part of one.
  async ask(text, signal) {
    const talk = this.talk; // a new chat replaces the talk, not this one
    for (const failed of this.lines.querySelectorAll(".turn.failed")) failed.remove();
    const turn = element("div", "turn");
    const line = element("div", "line assistant");
    turn.append(element("div", "line user", text), line);
    this.lines.append(turn);
    turn.scrollIntoView({ block: "nearest" });
    this.lines.setAttribute("aria-busy", "true");
    explain(line);
    const messages = [...talk, { role: "user", content: text }];
    try {
      await this.#answer(line, messages, signal);
    } catch (error) {
      if (!signal.aborted) return this.#fail(turn, line, error);
    } finally {
      this.lines.setAttribute("aria-busy", "false");
    }
    talk.push(messages.at(-1), { role: "assistant", content: line.textContent });
    return true;
  }

  #request(messages, { tellsExperts = this.speakers.names.length > 0 } = {}) {
    return requestOf({ model: this.model, messages, disabled: this.disabled, tellsExperts });
  }

  async #answer(line, messages, signal) {
    const [request, { disabled }] = [this.#request(messages), this];
    const plain = this.#request(messages, { tellsExperts: false });
    this.speed.textContent = "";
    this.speakers.forget();
    try {
      await this.#stream(line, ask(request, signal));
    } catch (error) {
      const isMute = error instanceof Refused && error.param === "nexus" && !disabled.length;
      if (!isMute) throw error;
      // An engine that cannot say who spoke can still answer.
      this.#complain(error.message);
      await this.#stream(line, ask(plain, signal));
    }
  }

  async #stream(line, events) {
    const [began, tokens] = [performance.now(), new Tokens()];
    let first = null;
    for await (const event of events) {
      if (event.nexus?.preview) line.classList.add("preview");
      for (const choice of event.choices) {
        const made = tokens.take(choice).map((token) => tokenElement(token, this.speakers));
        if (made.length && first === null) first = performance.now();
        line.append(...made);
      }
      line.scrollIntoView({ block: "nearest" });
      if (event.usage) this.#tell(event.usage, { began, first });
    }
    const entry = line.querySelector(".token[tabindex]");
    if (entry) entry.tabIndex = 0;
  }

  #tell(usage, { began, first }) {
    const now = performance.now();
    const count = usage.completion_tokens;
    const parts = [`${count} ${count === 1 ? "token" : "tokens"}`];
    if (first !== null && count > 1 && now > first)
      parts.push(`${((1000 * (count - 1)) / (now - first)).toFixed(1)} a second`);
    if (first !== null) parts.push(`first after ${((first - began) / 1000).toFixed(2)} s`);
    this.speed.textContent = parts.join(" · ");
    if (usage.nexus) this.speakers.tell(usage.nexus.completion_tokens);
  }

  #fail(turn, line, error) {
    turn.classList.add("failed");
    line.className = "line failed";
    const isShown = error instanceof Refused && settings.complain(error.param, error.message);
    line.textContent = isShown ? `Not sent: see ${error.param} in the settings.` : error.message;
    line.scrollIntoView({ block: "nearest" });
    return false;
  }

  #showModel() {
    const model = this.models.get(this.model);
    this.speakers = new Speakers(model);
    this.legend.hidden = !model.experts.length;
    this.speakers.show(this.legend.querySelector("ul"), this.onChange);
    const marks = [
      model.mix,
      model.is_preview && "preview, not judged yet",
      model.is_asleep && "asleep: its first answer waits until it is awake",
    ];
    if (!model.experts.length) marks.push(NETWORK);
    this.about.textContent = marks.filter(Boolean).join(" · ");
    this.speed.textContent = "";
    this.#complain("");
  }

  #complain(message) {
    this.problem.textContent = message;
    this.problem.hidden = !message;
  }
}
