// The playground: what is typed goes to every pane.
import { curl, python } from "/static/playground/code.js";
import { copy } from "/static/playground/copying.js";
import { fragmentOf, stateOf } from "/static/playground/link.js";
import { Pane } from "/static/playground/pane.js";
import * as settings from "/static/playground/settings.js";
import { hide } from "/static/playground/shares.js";

const byId = (id) => document.getElementById(id);
const [form, message, send, compare, code] =
  ["ask", "message", "send", "compare", "code"].map(byId);
const views = JSON.parse(byId("playground").dataset.models);
const models = new Map(views.map((view) => [view.name, view]));
const panes = [];
let running = null; // the AbortController of the running answers
let asked = ""; // the last message

// Keeps the address a link to what is set.
function remember() {
  const state = { panes: panes.map((pane) => pane.state), settings: settings.values() };
  const link = fragmentOf({ ...state, message: message.value.trim() || asked });
  history.replaceState(null, "", link);
}

function restore() {
  const state = stateOf(location.hash);
  compareWith(state.panes[1]);
  if (state.panes[0]) panes[0].set(state.panes[0]);
  if (state.panes.length) settings.set(state.settings);
  if (state.message !== null) message.value = state.message;
}

function addPane() {
  const pane = new Pane(models, { onChange: remember, onCode: showCode });
  panes.push(pane);
  byId("panes").append(pane.root);
  return pane;
}

// Shows a second pane in this state, or none.
function compareWith(state) {
  compare.setAttribute("aria-pressed", String(Boolean(state)));
  if (!state) panes.splice(1).forEach((pane) => pane.root.remove());
  else (panes[1] ?? addPane()).set(state);
}

function showCode(pane) {
  const request = pane.request(message.value.trim());
  byId("curl").textContent = curl(request, location.origin);
  byId("python").textContent = python(request, location.origin);
  code.showModal();
}

async function submit() {
  const text = message.value.trim();
  if (!text || running || !settings.check()) return;
  asked = text;
  message.value = "";
  hide();
  remember();
  running = new AbortController();
  send.textContent = "Stop";
  const { signal } = running;
  const answered = await Promise.all(panes.map((pane) => pane.ask(text, signal)));
  running = null;
  send.textContent = "Send";
  if (answered.some(Boolean)) {
    message.focus();
  } else if (!message.value) {
    message.value = text; // to be sent again when its cause is mended
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
send.addEventListener("click", (event) => {
  if (!running) return; // the click submits the form
  event.preventDefault();
  running.abort();
});
message.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    submit();
  }
});
message.addEventListener("change", remember);
settings.onChange(remember);
compare.addEventListener("click", () => {
  const other = views.find((view) => view.name !== panes[0].model) ?? views[0];
  compareWith(panes[1] ? undefined : { model: other.name, disabled: [] });
  remember();
});
byId("link").addEventListener("click", ({ currentTarget }) => {
  remember();
  copy(location.href, currentTarget, () => "It is this page's address");
});
for (const button of code.querySelectorAll("[data-copies]")) {
  button.addEventListener("click", () => {
    const text = byId(button.dataset.copies);
    copy(text.textContent, button, () => {
      getSelection().selectAllChildren(text);
      return "Selected";
    });
  });
}
byId("clear").addEventListener("click", () => {
  running?.abort();
  asked = "";
  for (const pane of panes) pane.clear();
});
addEventListener("hashchange", restore);

addPane();
restore();
