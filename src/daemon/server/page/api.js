// Requests. Addresses are relative to the page, so that a proxy may serve it under a prefix.

const BASE = new URL(location.pathname.replace(/\/?$/, "/"), location.origin);
const TOKEN_KEY = "pullwatch-token";

class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function token() {
  try {
    return sessionStorage.getItem(TOKEN_KEY) || "";
  } catch {
    return "";
  }
}

function setToken(value) {
  try {
    if (value) sessionStorage.setItem(TOKEN_KEY, value);
    else sessionStorage.removeItem(TOKEN_KEY);
  } catch {
    // Storage is blocked: the token is asked for again after a reload.
  }
}

function request(path, options = {}) {
  const headers = { ...options.headers };
  if (token()) headers.Authorization = "Bearer " + token();
  return fetch(new URL(path, BASE), { cache: "no-store", credentials: "same-origin", redirect: "error", ...options, headers });
}

async function api(path, options) {
  const response = await request(path, options);
  let body = null;
  try {
    body = await response.json();
  } catch {
    // An answer of a proxy.
  }
  if (!response.ok) {
    throw new ApiError(response.status, (body && body.error) || "status " + response.status);
  }
  return body;
}

/** Whether a name matches a pattern in which `*` stands for any text; as the server does it. */
function matches(pattern, name) {
  const pieces = pattern.split("*");
  if (pieces.length === 1) return name === pattern;
  const first = pieces.shift();
  const last = pieces.pop();
  if (!name.startsWith(first)) return false;
  let at = first.length;
  for (const piece of pieces) {
    const found = name.indexOf(piece, at);
    if (found < 0) return false;
    at = found + piece.length;
  }
  return name.length - at >= last.length && name.endsWith(last);
}

/** What is typed matches a part of a name, unless it says where with `*`. */
function pattern(typed) {
  return typed.includes("*") ? typed : "*" + typed + "*";
}

/** The members of an alert that lists show, whether it comes from a page or from the stream. */
function summary(seq, alert, acknowledged) {
  const data = alert && typeof alert === "object" ? alert : {};
  const registry = data.registry && typeof data.registry === "object" ? data.registry : {};
  const object = (data.event && data.event.objectRef) || {};
  const secrets = Array.isArray(registry.secrets) ? registry.secrets : [];
  const target = [object.resource, [object.namespace, object.name].filter(Boolean).join("/")].filter(Boolean).join(" ");
  return {
    seq,
    id: String(data.id || ""),
    time: data.time,
    rule: String(data.rule || ""),
    priority: String(data.priority || ""),
    actor: String(data.actor || ""),
    credential: String(data.credential || ""),
    target,
    exposure: String(registry.exposure || ""),
    acknowledged: acknowledged || null,
    output: String(data.output || ""),
    secrets,
    namespaces: [object.namespace, ...secrets.map((secret) => String(secret).split("/")[0])].filter(Boolean),
    hosts: Array.isArray(registry.hosts) ? registry.hosts : [],
  };
}

/** Whether an alert of the stream matches the filters of the list. */
function passes(filters, one) {
  const some = (filter, names) => !filter || names.some((name) => matches(pattern(filter), String(name)));
  const rank = PRIORITIES.indexOf(one.priority);
  const actors = [one.actor, ...one.actor.split(" as ")];
  const text = (filters.text || "").toLowerCase();
  return (!filters.priority || rank <= PRIORITIES.indexOf(filters.priority))
    && some(filters.rule, [one.rule])
    && some(filters.actor, actors)
    && some(filters.credential, one.secrets)
    && some(filters.namespace, one.namespaces)
    && some(filters.registry, one.hosts)
    && (!text || [one.output, one.rule, one.actor, one.target].some((part) => part.toLowerCase().includes(text)));
}

function query(filters, more) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(filters)) {
    if (value === "" || value === false) continue;
    if (name === "open") parameters.set("acknowledged", "false");
    else if (["rule", "actor", "credential", "namespace", "registry"].includes(name)) parameters.set(name, pattern(value));
    else parameters.set(name, value);
  }
  for (const [name, value] of Object.entries(more)) parameters.set(name, String(value));
  return "api/v1/alerts?" + parameters;
}

/**
 * Follows the stream of alerts. `EventSource` cannot send a token, so the events are read here. Ends with `signal`; connects again,
 * after the last alert seen, when the connection is lost.
 */
async function follow(after, signal, onAlert, onState) {
  let last = after;
  let delay = 1000;
  while (!signal.aborted) {
    try {
      const response = await request("api/v1/alerts/stream?after=" + last, { signal, headers: { Accept: "text/event-stream" } });
      if (!response.ok || !response.body) throw new ApiError(response.status, "status " + response.status);
      onState(true);
      delay = 1000;
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) {
          let id = null;
          const data = [];
          for (const line of block.split("\n")) {
            if (line.startsWith("id: ")) id = Number(line.slice(4));
            else if (line.startsWith("data: ")) data.push(line.slice(6));
          }
          if (id === null || !data.length) continue;
          last = id;
          try {
            onAlert(id, JSON.parse(data.join("\n")));
          } catch {
            // A damaged alert; the list shows it after a reload.
          }
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 401 || error.status === 403) {
        onState(false);
        return;
      }
    }
    onState(false);
    await new Promise((resolve) => setTimeout(resolve, delay));
    delay = Math.min(delay * 2, 30000);
  }
}
