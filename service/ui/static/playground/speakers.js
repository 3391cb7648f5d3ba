// The experts of one model: their colors, the legend, and the switches.
import { hueOf } from "/static/hues.js";
import { overall } from "/static/playground/tokens.js";

// An expert has one color in both panes.
const numbers = new Map();

function hueOfName(name) {
  if (!numbers.has(name)) numbers.set(name, numbers.size);
  return hueOf(numbers.get(name));
}

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

export const percent = (share) => `${(100 * share).toFixed(share < 0.1 && share > 0 ? 1 : 0)} %`;

export class Speakers {
  constructor(model) {
    this.model = model;
    this.names = model.experts.map((expert) => expert.name);
    this.shared = model.shared?.name;
    this.outputs = new Map();
    this.switches = [];
  }

  get disabled() {
    return this.switches.filter((each) => !each.checked).map((each) => each.value);
  }

  set disabled(names) {
    for (const each of this.switches) each.checked = !names.includes(each.value);
    this.#keepOne();
  }

  // Colors something as the speaker of its name.
  tint(target, name) {
    target.classList.add("tinted");
    if (name === this.shared) target.classList.add("shared");
    else target.style.setProperty("--hue", hueOfName(name));
  }

  // The name of the one that spoke, and its weight. A shared expert that only has what the others
  // leave may be the one; if every token passes it whole, it says nothing about the token.
  speaker(row) {
    const heard = Object.entries(row).filter(
      ([name]) => name !== this.shared || this.model.is_convex,
    );
    const weighed = heard.map(([name, weight]) => [name, overall(weight)]);
    return weighed.reduce((most, each) => (each[1] > most[1] ? each : most));
  }

  // Fills a list with the legend; `onChange` is called when a switch moves.
  show(list, onChange) {
    const all = this.model.shared ? [...this.model.experts, this.model.shared] : this.model.experts;
    list.replaceChildren(...all.map((speaker) => this.#item(speaker, onChange)));
    this.#keepOne();
  }

  // Shows how much of an answer each has computed; `sums` has tokens by name.
  tell(sums) {
    const counted = this.model.is_convex ? [...this.outputs.keys()] : this.names;
    const total = counted.reduce((sum, name) => sum + (sums[name] ?? 0), 0);
    for (const name of counted)
      this.outputs.get(name).textContent = total ? percent((sums[name] ?? 0) / total) : "";
  }

  forget() {
    for (const output of this.outputs.values()) output.textContent = "";
  }

  #item(speaker, onChange) {
    const item = element("li");
    const label = element(speaker.name === this.shared ? "div" : "label", "speaker");
    this.tint(label, speaker.name);
    if (speaker.name !== this.shared) label.append(this.#switch(speaker.name, onChange));
    const about = element("span", "about");
    about.append(element("strong", "", speaker.name));
    const version = speaker.version ? `version ${speaker.version}` : speaker.about;
    const license = speaker.license ?? "no longer registered";
    about.append(element("span", "quiet small", `${version} · ${license}`));
    if (speaker.about) label.title = speaker.about;
    const output = element("output", "small");
    this.outputs.set(speaker.name, output);
    label.append(element("span", "swatch"), about, output);
    item.append(label);
    return item;
  }

  #switch(name, onChange) {
    const box = element("input");
    Object.assign(box, { type: "checkbox", checked: true, value: name });
    box.setAttribute("aria-label", `${name} may speak`);
    box.addEventListener("change", () => {
      this.#keepOne();
      onChange();
    });
    this.switches.push(box);
    return box;
  }

  // Without any expert there would be no mix: the last one stays on.
  #keepOne() {
    const on = this.switches.filter((each) => each.checked);
    for (const each of this.switches) {
      each.disabled = on.length === 1 && each.checked;
      each.title = each.disabled ? "One expert stays on. To hear the seed, serve it and ask it." : "";
    }
  }
}
