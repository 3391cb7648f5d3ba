// A state of the playground as the fragment of its address. Browsers do not send the fragment, so
// prompts are in nobody's log.

const ORDINALS = ["", "2"];

// `panes` have a model and who is off in it; `settings` are values of fields by name.
export function fragmentOf({ panes, settings, message }) {
  const values = new URLSearchParams();
  panes.forEach(({ model, disabled }, i) => {
    values.set(`model${ORDINALS[i]}`, model);
    for (const name of disabled) values.append(`off${ORDINALS[i]}`, name);
  });
  for (const [name, value] of Object.entries(settings)) if (value) values.set(name, value);
  if (message) values.set("message", message);
  return `#${values}`;
}

// The other way; what the fragment does not have is missing.
export function stateOf(fragment) {
  const values = new URLSearchParams(fragment.slice(1));
  const panes = ORDINALS.filter((ordinal) => values.has(`model${ordinal}`)).map((ordinal) => ({
    model: values.get(`model${ordinal}`),
    disabled: values.getAll(`off${ordinal}`),
  }));
  return { panes, settings: values, message: values.get("message") };
}
