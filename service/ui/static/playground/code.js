// A request as a command and as a program. The key is a variable of the environment, never a value.

const KEY = "NEXUSMIX_KEY";
const path = "/v1/chat/completions";
// Fields that OpenAI's client does not know.
const EXTRA = ["nexus"];

const quoted = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;

export function curl(request, origin) {
  return [
    `curl -N ${quoted(origin + path)} \\`,
    `  -H "Authorization: Bearer $${KEY}" -H "Content-Type: application/json" \\`,
    `  -d ${quoted(JSON.stringify(request, null, 2))}`,
  ].join("\n");
}

export function python(request, origin) {
  const known = Object.entries(request).filter(([name]) => !EXTRA.includes(name));
  const extra = Object.fromEntries(EXTRA.filter((n) => n in request).map((n) => [n, request[n]]));
  const lines = known.map(([name, value]) => `    ${name}=${literal(value)},`);
  if (Object.keys(extra).length) lines.push(`    extra_body=${literal(extra)},`);
  return [
    "import os",
    "",
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${literal(`${origin}/v1`)}, api_key=os.environ["${KEY}"])`,
    "stream = client.chat.completions.create(",
    ...lines,
    ")",
    "for event in stream:",
    "    if event.choices:",
    '        print(event.choices[0].delta.content or "", end="", flush=True)',
    "",
  ].join("\n");
}

// A value of JSON as Python writes it. The escapes of strings are the same.
function literal(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") {
    const entries = Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}: ${literal(v)}`);
    return `{${entries.join(", ")}}`;
  }
  return JSON.stringify(value);
}
