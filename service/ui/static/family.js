// Registers a family from a folder on this computer: announces the seed, sends the blobs that are
// missing, and completes it. The page's cookie signs in. The same steps as in the client library.
"use strict";
{
  const API = "/api/v1";
  const byId = (id) => document.getElementById(id);
  const form = byId("register");
  const kept = JSON.parse(form.dataset.kept);

  class Refused extends Error {
    constructor(message, problems = []) {
      super(message);
      this.problems = problems;
    }
  }

  const megabytes = (bytes) => (bytes / 1e6).toFixed(0);
  const say = (text) => (byId("progress").textContent = text);

  function refuse(error) {
    const notice = byId("refusal");
    notice.querySelector("strong").textContent = error.message;
    const lines = (error.problems ?? []).map(({ pointer, detail }) => {
      const line = document.createElement("li");
      line.textContent = `${pointer} ${detail}`;
      return line;
    });
    notice.querySelector("ul").replaceChildren(...lines);
    notice.hidden = false;
  }

  async function ask(method, path, body, headers = {}) {
    const response = await fetch(path, { method, body, headers });
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    throw new Refused(problem.detail ?? `the service answers ${response.status}`, problem.errors);
  }

  const post = async (path, body) =>
    (
      await ask("POST", API + path, body && JSON.stringify(body), {
        "Content-Type": "application/json",
      })
    ).json();

  async function digest(blob) {
    const sum = await crypto.subtle.digest("SHA-256", await blob.arrayBuffer());
    return Array.from(new Uint8Array(sum), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  // The safetensors files that hold the weights, as transformers finds them.
  async function weightsOf(own) {
    const named = (name) => own.find((file) => file.name === name);
    const index = named("model.safetensors.index.json");
    if (named("model.safetensors")) return [named("model.safetensors")];
    if (!index)
      return own.filter(({ name }) => name.endsWith(".safetensors") && name !== kept.adapter);
    const names = new Set(Object.values(JSON.parse(await index.text()).weight_map));
    return [...names].sort().map((name) => {
      if (!named(name)) throw new Refused(`${name}, which the index names, is missing`);
      return named(name);
    });
  }

  // The files directly in the folder that the registry keeps, as [weights, others].
  async function chosen(files) {
    const own = [...files].filter(
      (file) => file.webkitRelativePath.split("/").length === 2 && !file.name.startsWith("."),
    );
    const weights = await weightsOf(own);
    const others = own.filter(
      ({ name, size }) =>
        size > 0 &&
        !kept.computed.includes(name) &&
        (kept.names.includes(name) || kept.suffixes.some((suffix) => name.endsWith(suffix))),
    );
    return [weights, others];
  }

  // Reads the header of a safetensors file: its text, and the bytes of each tensor.
  async function shard(file) {
    const length = new DataView(await file.slice(0, 8).arrayBuffer()).getBigUint64(0, true);
    if (length > file.size) throw new Refused(`${file.name} is no safetensors file`);
    const start = 8 + Number(length);
    const header = await file.slice(8, start).text();
    const tensors = Object.entries(JSON.parse(header))
      .filter(([name]) => name !== "__metadata__")
      .map(([name, { data_offsets: [from, to] }]) => [
        name,
        file.slice(start + from, start + to),
      ]);
    return { description: { file: file.name, size: file.size, header }, tensors };
  }

  async function register() {
    if (!globalThis.crypto?.subtle)
      throw new Refused("a browser hashes files over HTTPS or on localhost only: use the command");
    const [weights, others] = await chosen(byId("folder").files);
    const config = [...byId("folder").files].find(
      (file) => file.name === "config.json" && file.webkitRelativePath.split("/").length === 2,
    );
    if (!weights.length || !config)
      throw new Refused("the folder has no config.json with a *.safetensors beside it");
    const sources = new Map();
    const keep = async (blob) => {
      const name = await digest(blob);
      sources.set(name, blob);
      return name;
    };
    const shards = await Promise.all(weights.map(shard));
    const tensors = shards.flatMap((each) => each.tensors);
    const total = tensors.reduce((sum, [, blob]) => sum + blob.size, 0);
    let done = 0;
    const digests = {};
    for (const [name, blob] of tensors) {
      digests[name] = await keep(blob);
      done += blob.size;
      say(`${megabytes(done)} of ${megabytes(total)} MB hashed`);
    }
    const files = {};
    for (const file of others) files[file.name] = await keep(file);
    const name = byId("name").value;
    const begun = await post("/families", {
      name,
      license: byId("license").value,
      description: byId("description").value,
      config: JSON.parse(await config.text()),
      files,
      shards: shards.map((each) => each.description),
      digests,
    });
    done = 0;
    for (const { digest: missing, url, headers } of begun.missing) {
      if (!url.startsWith("/"))
        throw new Refused("tensors go to an object store, which a page cannot reach: use the command");
      const blob = sources.get(missing);
      await ask("PUT", url, blob, headers);
      done += blob.size;
      say(`${megabytes(done)} MB sent`);
    }
    say("checking what was sent");
    await post(`/families/${encodeURIComponent(name)}/complete`);
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    byId("refusal").hidden = true;
    byId("send").disabled = true;
    try {
      await register();
      location.reload();
    } catch (error) {
      say("");
      refuse(error);
    } finally {
      byId("send").disabled = false;
    }
  });
}
