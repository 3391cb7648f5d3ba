// Takes the tokens of an answer out of its events: the text of each, and what its experts weighed.

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// A weight, or the weights of all blocks, as one number.
export const overall = (weight) => (Array.isArray(weight) ? mean(weight) : weight);

export class Tokens {
  // Tokens of earlier events that are no text yet: parts of one character.
  #pieces = [];
  #rows = [];

  // Returns the tokens of an event as { text, row, probability }. `row` has weights by name, and is
  // undefined where the model has no experts.
  take(choice) {
    const text = choice.delta?.content ?? "";
    const pieces = [...this.#pieces, ...(choice.logprobs?.content ?? [])];
    const rows = [...this.#rows, ...(choice.nexus?.tokens ?? [])];
    this.#pieces = text ? [] : pieces;
    this.#rows = text ? [] : rows;
    if (!text) return [];
    const texts = pieces.length === rows.length ? split(text, pieces.map((each) => each.token)) : null;
    if (texts === null) return [{ text, row: average(rows) }];
    return texts
      .map((own, i) => ({ text: own, row: rows[i], probability: Math.exp(pieces[i].logprob) }))
      .filter((token) => token.text);
  }
}

// Splits a text where its tokens end. Some tokenizers drop the space before a token that is decoded
// alone, and what ends an answer is no text. Returns null where a token is only part of a character.
function split(text, tokens) {
  if (tokens.length < 2) return tokens.length ? [text] : null;
  const texts = [];
  let rest = text;
  for (const token of tokens) {
    const at = rest.indexOf(token);
    if (rest && (at < 0 || rest.slice(0, at).trim())) return null;
    const own = rest.slice(0, rest ? at + token.length : 0);
    texts.push(own);
    rest = rest.slice(own.length);
  }
  return rest ? null : texts;
}

function average(rows) {
  if (!rows.length) return undefined;
  const names = Object.keys(rows[0]);
  return Object.fromEntries(names.map((name) => [name, meanOf(rows.map((row) => row[name]))]));
}

const meanOf = (weights) =>
  Array.isArray(weights[0])
    ? weights[0].map((_, block) => mean(weights.map((each) => each[block])))
    : mean(weights);
