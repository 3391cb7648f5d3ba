// Copies a text to the clipboard. Browsers have one on localhost and over HTTPS only.

const MILLISECONDS = 2500;

// Says on the button what has happened. `otherwise` is called where there is no clipboard, and
// returns what to say then.
export async function copy(text, button, otherwise) {
  const label = (button.dataset.label ??= button.textContent);
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = otherwise();
  }
  setTimeout(() => (button.textContent = label), MILLISECONDS);
}
