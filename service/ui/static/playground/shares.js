// Shows who computed a token, beside the token that the pointer is on or that has the focus.
import { element, percent } from "/static/playground/speakers.js";
import { overall } from "/static/playground/tokens.js";

const card = document.getElementById("shares");
const tokens = new WeakMap(); // element -> { token, speakers }
let shown = null; // the element that the card explains
const KEYS = { ArrowLeft: -1, ArrowRight: 1 };

const visible = (text) => text.replaceAll(" ", "␣").replaceAll("\n", "⏎");

// Returns the element of a token, colored by the one that spoke.
export function tokenElement(token, speakers) {
  const made = element("span", "token", token.text);
  if (!token.row) return made;
  const [name, weight] = speakers.speaker(token.row);
  speakers.tint(made, name);
  made.dataset.speaker = name;
  made.style.setProperty("--weight", weight.toFixed(3));
  made.tabIndex = -1;
  tokens.set(made, { token, speakers });
  return made;
}

// Lets the keys and the pointer move over the tokens of an answer; it has one stop for Tab.
export function explain(answer) {
  const own = (event) => (tokens.has(event.target) ? event.target : null);
  answer.addEventListener("pointerover", (event) => own(event) && show(own(event)));
  answer.addEventListener("pointerleave", hide);
  answer.addEventListener("focusin", (event) => own(event) && show(own(event)));
  answer.addEventListener("focusout", hide);
  answer.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    const all = [...answer.querySelectorAll(".token[tabindex]")];
    const next = all[all.indexOf(event.target) + KEYS[event.key]];
    if (!next) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}

function show(target) {
  const { token, speakers } = tokens.get(target);
  const rows = Object.entries(token.row).sort((a, b) => overall(b[1]) - overall(a[1]));
  const head = element("p", "small");
  head.append(element("code", "", visible(token.text)));
  if (token.probability !== undefined)
    head.append(element("span", "quiet", ` probability ${percent(token.probability)}`));
  card.replaceChildren(head, ...rows.map(([name, weight]) => line(name, weight, speakers)));
  if (rows.some(([, weight]) => Array.isArray(weight)))
    card.append(element("p", "quiet small", "Weights in each block, the first on the left."));
  target.setAttribute("aria-describedby", card.id);
  shown = target;
  card.showPopover();
  place(target);
}

export function hide() {
  if (card.matches(":popover-open")) card.hidePopover();
}

function line(name, weight, speakers) {
  const made = element("div", "share");
  speakers.tint(made, name);
  const bar = element("span", "bar-of-share");
  bar.style.setProperty("--weight", overall(weight).toFixed(3));
  made.append(element("span", "swatch"), element("span", "name", name), bar);
  made.append(element("span", "number small", percent(overall(weight))));
  if (Array.isArray(weight)) made.append(blocks(weight));
  return made;
}

function blocks(weights) {
  const made = element("div", "blocks");
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", weights.map((weight, i) => `${i}: ${percent(weight)}`).join(", "));
  for (const weight of weights) {
    const cell = element("span");
    cell.style.setProperty("--weight", weight.toFixed(3));
    made.append(cell);
  }
  return made;
}

// Below the token, or above it where there is no room; never outside the window.
function place(target) {
  const [token, own] = [target.getClientRects()[0], card.getBoundingClientRect()];
  const gap = 6;
  const below = token.bottom + gap;
  const top = below + own.height > innerHeight ? token.top - own.height - gap : below;
  const left = Math.min(token.left, innerWidth - own.width - gap);
  card.style.top = `${Math.max(gap, top)}px`;
  card.style.left = `${Math.max(gap, left)}px`;
}

// Moving to a token by the keys may scroll.
addEventListener("scroll", () => card.matches(":popover-open") && place(shown), { passive: true });
