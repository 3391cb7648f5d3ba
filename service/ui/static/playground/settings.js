// The settings of all panes: read, checked where they are wrong, and set.

const form = document.getElementById("settings");
const card = document.getElementById("settings-card");
const NUMBERS = ["temperature", "max_tokens", "top_p", "seed"];
const field = (name) => form.elements.namedItem(name);

card.open = matchMedia("(min-width: 60rem)").matches;
for (const name of NUMBERS) field(name).addEventListener("input", () => complain(name, ""));
form.addEventListener("submit", (event) => event.preventDefault());

// Returns the settings as fields of a request. A number that is not set is left out.
export function read() {
  const numbers = NUMBERS.filter((name) => field(name).value !== "");
  return Object.fromEntries(numbers.map((name) => [name, field(name).valueAsNumber]));
}

export const system = () => field("system").value.trim();
export const everyBlock = () => field("blocks").checked;

// The values of all fields by name, as texts; an empty one is not set.
export function values() {
  const numbers = NUMBERS.map((name) => [name, field(name).value]);
  return { ...Object.fromEntries(numbers), system: system(), blocks: everyBlock() ? "1" : "" };
}

// Sets the fields that `values` has, and clears the optional ones that it does not have.
export function set(values) {
  for (const name of NUMBERS) if (values.has(name)) field(name).value = values.get(name);
  if (!values.has("seed")) field("seed").value = "";
  field("system").value = values.get("system") ?? "";
  field("blocks").checked = values.has("blocks");
}

export const onChange = (handle) => form.addEventListener("change", handle);

// Shows a problem beside its setting, and leads there. Returns whether there is such a setting.
export function complain(name, message) {
  if (!NUMBERS.includes(name)) return false;
  document.getElementById(`${name}-problem`).textContent = message;
  field(name).setAttribute("aria-invalid", String(Boolean(message)));
  if (message) {
    card.open = true;
    field(name).focus();
  }
  return true;
}

// Returns whether all settings can be sent; complains about the first that cannot.
export function check() {
  for (const name of NUMBERS) {
    complain(name, "");
    if (field(name).validity.valid) continue;
    complain(name, field(name).validationMessage);
    return false;
  }
  return true;
}
