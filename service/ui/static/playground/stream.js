// Asks the OpenAI endpoint of this service, and yields the events of its answer. The page's cookie
// signs in.

// Why there is no answer; `param` names the wrong field of the request, where there is one.
export class Refused extends Error {
  constructor({ message, param }) {
    super(message);
    this.param = param ?? "";
  }
}

export async function* ask(body, signal) {
  const response = await sent(body, signal);
  if (!response.ok) {
    const answer = await response.json().catch(() => ({}));
    throw new Refused(answer.error ?? { message: `the service answers ${response.status}` });
  }
  for await (const event of events(response)) {
    if (event.error) throw new Refused(event.error);
    yield event;
  }
}

async function sent(body, signal) {
  try {
    return await fetch("/v1/chat/completions", {
      method: "POST",
      signal,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Refused({ message: "the service cannot be reached; is it running?" });
  }
}

// Yields the server-sent events of a response as parsed JSON, until [DONE].
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split(/\r?\n\r?\n/);
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: ?/, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}
