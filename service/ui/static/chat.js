// A chat with a served model through the OpenAI endpoint of this service. The page's cookie signs in.
"use strict";
{
  const byId = (id) => document.getElementById(id);
  const [lines, form, message, send, speed, model] =
    ["lines", "ask", "message", "send", "speed", "model"].map(byId);
  let history = [];
  let running = null; // the AbortController of the running answer

  function add(role, text = "") {
    const line = document.createElement("div");
    line.className = `line ${role}`;
    line.textContent = text;
    lines.append(line);
    line.scrollIntoView({ block: "nearest" });
    return line;
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

  async function answer(line, talk) {
    const began = performance.now();
    const response = await fetch("/v1/chat/completions", {
      method: "POST",
      signal: running.signal,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({
        model: model.value,
        messages: talk,
        max_tokens: 256,
        // Small models drift from the subject at higher temperatures.
        temperature: 0.3,
        stream: true,
        stream_options: { include_usage: true },
      }),
    });
    if (!response.ok) throw new Error((await response.json()).error.message);
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      line.textContent += event.choices[0]?.delta?.content ?? "";
      line.scrollIntoView({ block: "nearest" });
      if (event.nexus?.preview) line.classList.add("preview");
      if (event.usage) {
        const seconds = (performance.now() - began) / 1000;
        const tokens = event.usage.completion_tokens;
        speed.textContent = `${tokens} tokens, ${(tokens / seconds).toFixed(1)} a second`;
      }
    }
  }

  async function submit() {
    const text = message.value.trim();
    if (!text || running) return;
    const talk = history; // a new chat replaces `history`, not this one
    message.value = "";
    add("user", text);
    talk.push({ role: "user", content: text });
    const line = add("assistant");
    running = new AbortController();
    send.textContent = "Stop";
    lines.setAttribute("aria-busy", "true");
    try {
      await answer(line, talk);
      talk.push({ role: "assistant", content: line.textContent });
    } catch (error) {
      if (running.signal.aborted) {
        talk.push({ role: "assistant", content: line.textContent });
      } else {
        talk.pop();
        line.className = "line failed";
        line.textContent = error.message;
      }
    } finally {
      running = null;
      send.textContent = "Send";
      lines.setAttribute("aria-busy", "false");
      message.focus();
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
  byId("clear").addEventListener("click", () => {
    running?.abort();
    history = [];
    lines.replaceChildren();
    speed.textContent = "";
  });
}
