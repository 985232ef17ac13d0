// The views. Each returns elements, and a function that ends what it started.

const PAGE_SIZE = 100;
/** Rows in the page at once; older ones are read again on request. */
const MAX_ROWS = 400;
/** Interval at which alerts of the stream are shown, in milliseconds. */
const FLUSH_INTERVAL = 500;
/** Interval of announcements to screen readers. */
const ANNOUNCE_INTERVAL = 5000;

const TIMES = [["", "All"], ["15m", "Last 15 minutes"], ["1h", "Last hour"], ["24h", "Last 24 hours"], ["7d", "Last 7 days"], ["30d", "Last 30 days"]];

/** Kept while the page is open, so that going back from an alert shows the same list. */
const filters = { since: "", priority: "", rule: "", actor: "", credential: "", namespace: "", text: "", open: false };
let exposureSince = "";

function failure(error) {
  if (error.status === 401 || error.status === 403) {
    showTokenForm(true);
    return h("p", { class: "message", role: "alert" }, error.status === 401 ? "This server requires a token." : "Refused: " + visible(error.message, 300));
  }
  return h("p", { class: "message", role: "alert" }, "Not available: " + visible(error.message, 300));
}

function select(name, value, options, onchange) {
  return h("select", { name, onchange }, options.map(([key, title]) => h("option", { value: key, selected: key === value }, title)));
}

function alertRow(one, isFresh) {
  const what = one.credential || one.target;
  return h("li", { "data-seq": one.seq, class: [isFresh ? "fresh" : "", one.acknowledged ? "acked" : ""].join(" ").trim() || null },
    h("span", { class: "time" }, timeElement(one.time)),
    h("span", { class: "priority-cell" }, priority(one.priority), one.acknowledged ? h("span", { class: "pill good" }, "ack") : null),
    h("a", { class: "rule", href: "#/alerts/" + encodeURIComponent(one.id) }, visible(one.rule, 200)),
    h("span", { class: "actor" }, h("span", { class: "hidden" }, "by "), val(one.actor || "(unknown)", 200)),
    h("span", { class: "credential" }, val(what, 200)),
    h("span", { class: "kind" }, visible(one.exposure === "none" ? "" : one.exposure, 20)));
}

function alertsView() {
  const list = h("ol", { class: "rows", "aria-label": "Alerts, newest first" });
  const state = h("span", { class: "dim" });
  const older = h("button", { type: "button", hidden: true, onclick: () => loadOlder() }, "Older alerts");
  const pause = h("button", { type: "button", "aria-pressed": "false", onclick: () => setPaused(!isPaused) }, "Pause");
  const live = h("span", { class: "pill" }, "connecting");
  let next = null;
  let pending = [];
  let isPaused = false;
  let generation = 0;
  let stream = null;
  let lastAnnounced = 0;
  let unannounced = 0;

  const number = () => {
    const more = next === null ? "" : "; there are more";
    state.textContent = (list.childElementCount ? count(list.childElementCount, "alert", "alerts") + " shown" + more : "No alert matches.")
      + (isPaused && pending.length ? "; " + count(pending.length, "new one", "new ones") : "");
  };

  const setPaused = (value) => {
    isPaused = value;
    pause.textContent = value ? "Resume" : "Pause";
    pause.setAttribute("aria-pressed", String(value));
    flush();
  };

  /** Shows what arrived since the last time, in one step: the page stays responsive however many arrive. */
  const flush = () => {
    number();
    if (isPaused || !pending.length || document.hidden) return;
    const batch = pending;
    pending = [];
    const rows = batch.map((one) => alertRow(one, true)).reverse();
    list.prepend(...rows);
    while (list.childElementCount > MAX_ROWS) {
      list.lastElementChild.remove();
      next = Number(list.lastElementChild.dataset.seq);
      older.hidden = false;
    }
    number();
    unannounced += batch.length;
    const latest = batch[batch.length - 1];
    if (Date.now() - lastAnnounced > ANNOUNCE_INTERVAL) {
      announce(count(unannounced, "new alert", "new alerts") + ". Latest: " + visible(latest.priority, 20) + ", " + visible(latest.rule, 100) + ", by " + visible(latest.actor, 100));
      lastAnnounced = Date.now();
      unannounced = 0;
    }
  };
  const timer = setInterval(flush, FLUSH_INTERVAL);

  const connect = (after) => {
    if (stream) stream.abort();
    stream = new AbortController();
    follow(after, stream.signal, (seq, alert) => {
      const one = summary(seq, alert, null);
      if (passes(filters, one)) pending.push(one);
      // The oldest pending alerts are dropped; they are read from the server again when they are shown.
      if (pending.length > MAX_ROWS) pending.shift();
    }, (isLive) => {
      live.textContent = isLive ? "live" : "disconnected";
      live.className = "pill " + (isLive ? "good" : "warn");
    });
  };

  const load = async () => {
    const own = ++generation;
    pending = [];
    try {
      const newest = await api("api/v1/alerts?limit=1");
      const page = await api(query(filters, { limit: PAGE_SIZE }));
      if (own !== generation) return;
      clear(list, page.alerts.map((one) => alertRow(summary(one.seq, { ...one.alert, id: one.id, actor: one.actor }, one.acknowledged), false)));
      next = page.next;
      older.hidden = next === null;
      number();
      announce(state.textContent);
      connect(Math.max(newest.alerts.length ? newest.alerts[0].seq : 0, page.alerts.length ? page.alerts[0].seq : 0));
    } catch (error) {
      if (own === generation) clear(list, h("li", null, failure(error)));
    }
  };

  const loadOlder = async () => {
    const own = generation;
    older.disabled = true;
    try {
      const page = await api(query(filters, { limit: PAGE_SIZE, before: next }));
      if (own !== generation) return;
      // The list is a window: what is above leaves, and comes back with a reload.
      const rows = page.alerts.map((one) => alertRow(summary(one.seq, { ...one.alert, id: one.id, actor: one.actor }, one.acknowledged), false));
      list.append(...rows);
      if (list.childElementCount > MAX_ROWS) {
        setPaused(true);
        while (list.childElementCount > MAX_ROWS) list.firstElementChild.remove();
      }
      next = page.next;
      older.hidden = next === null;
      number();
      if (rows.length) rows[0].querySelector("a").focus();
    } catch (error) {
      clear(state, failure(error));
    }
    older.disabled = false;
  };

  let typing = null;
  const changed = () => {
    clearTimeout(typing);
    typing = setTimeout(load, 300);
  };
  const text = (name, title) => h("label", null, title, h("input", {
    type: "search", name, value: filters[name], maxlength: 1000, autocomplete: "off", spellcheck: "false",
    oninput: (event) => { filters[name] = event.target.value.trim(); changed(); },
  }));
  const form = h("form", { class: "filters", role: "search", "aria-label": "Filter alerts", onsubmit: (event) => { event.preventDefault(); load(); } },
    h("label", null, "Time", select("since", filters.since, TIMES, (event) => { filters.since = event.target.value; load(); })),
    h("label", null, "Priority", select("priority", filters.priority, [["", "All"], ...PRIORITIES.slice(0, 7).map((name) => [name, name === "Emergency" ? name : name + " and above"])],
      (event) => { filters.priority = event.target.value; load(); })),
    text("text", "Text"), text("actor", "Actor"), text("credential", "Credential"), text("namespace", "Namespace"), text("rule", "Rule"),
    h("label", { class: "check" }, h("input", { type: "checkbox", name: "open", checked: filters.open, onchange: (event) => { filters.open = event.target.checked; load(); } }), "Not acknowledged"));
  load();
  return {
    title: "Alerts",
    elements: [form, h("div", { class: "bar" }, live, pause, h("button", { type: "button", onclick: load }, "Reload"), state), list, h("div", { class: "bar" }, older)],
    end: () => {
      generation++;
      clearInterval(timer);
      clearTimeout(typing);
      if (stream) stream.abort();
    },
  };
}

/** A view that reads one answer and shows it again every half minute while it is visible. */
function polled(title, path, show, head) {
  const body = h("div", null, h("p", { class: "dim" }, "Loading…"));
  let isEnded = false;
  const load = async (isFirst) => {
    try {
      const answer = await api(path());
      if (isEnded) return;
      const open = new Set([...body.querySelectorAll("details[open]")].map((one) => one.dataset.key));
      clear(body, show(answer));
      for (const one of body.querySelectorAll("details")) one.open = open.has(one.dataset.key);
      if (isFirst) announce(title + " loaded");
    } catch (error) {
      if (!isEnded) clear(body, failure(error));
    }
  };
  // No refresh while text is selected or an element of the view has the focus.
  const isBusy = () => body.contains(document.activeElement) || String(getSelection()) !== "";
  const timer = setInterval(() => { if (!document.hidden && !isBusy()) load(false); }, 30000);
  load(true);
  return { title, elements: [...head(load), body], end: () => { isEnded = true; clearInterval(timer); } };
}

function exposuresView() {
  const head = (load) => [h("form", { class: "filters", "aria-label": "Time range", onsubmit: (event) => event.preventDefault() },
    h("label", null, "Time", select("since", exposureSince, TIMES, (event) => { exposureSince = event.target.value; load(true); })))];
  const path = () => "api/v1/exposures" + (exposureSince ? "?since=" + exposureSince : "");
  return polled("Exposures", path, (data) => {
    const { credentials, actors, registries, credentials_without_registry: unknown, whole_scopes: scopes } = data.summary;
    const reads = (one) => [one.payload, one.presumed, one.metadata];
    return [
      h("p", { class: "answer" }, count(credentials, "credential", "credentials") + " exposed to " + count(actors, "actor", "actors") + "; " + count(registries, "registry", "registries") + " to rotate."),
      unknown ? h("p", null, "The log does not show the registry of " + count(unknown, "credential", "credentials") + ".") : null,
      scopes ? h("p", null, count(scopes, "read", "reads") + " of whole namespaces or of the cluster without a logged response: there may be further credentials.") : null,
      data.truncated ? h("p", { class: "message" }, "A limit was reached: there is more than is shown. Choose a shorter time, or use pullwatch report.") : null,
      h("p", { class: "dim" }, "From " + count(data.alerts, "stored alert", "stored alerts") + ". Payload: the log shows that the response contained the credential. Presumed: it may have. Metadata: names only."),
      h("h2", null, "Registries to rotate"),
      data.registries.length ? data.registries.map(registryCard) : h("p", null, "None."),
      h("h2", null, "By actor"),
      data.actors.length ? data.actors.map(actorCard) : h("p", null, "None."),
      h("h2", null, "By credential"),
      data.credentials.length ? table("Exposures by credential", ["Credential", "Actors", "Registry", "Payload#", "Presumed#", "Metadata#", "Last"],
        data.credentials.map((one) => [val(one.credential), textList(one.actors, 5), textList([...one.registries, ...one.possible_registries.map((host) => "perhaps " + host)], 5), ...reads(one), timeElement(one.last)])) : h("p", null, "None."),
    ];
  }, head);
}

function rotation(one) {
  const { step, command, link, kind } = one.rotation;
  // Steps and links are part of the program. Still, nothing but https becomes a link.
  const isSafe = typeof link === "string" && link.startsWith("https://");
  return [
    h("p", null, kind === "unknown" ? null : h("strong", null, visible(kind, 100) + ": "), visible(step, 1000), " ", isSafe ? h("a", { href: link, rel: "noopener noreferrer", target: "_blank" }, "Instructions") : null),
    command ? h("pre", null, visible(command, 1000)) : null,
  ];
}

function registryCard(one) {
  const holders = [...one.credentials, ...one.possible_credentials.map((name) => "perhaps " + name)];
  return h("div", { class: "card" },
    h("h3", null, one.registry === null ? "Registry not logged" : val(one.registry, 300)),
    rotation(one),
    h("dl", null,
      one.usernames.length ? [h("dt", null, one.usernames_are_uncertain ? "One or more of the users" : "User"), h("dd", null, textList(one.usernames))] : null,
      h("dt", null, "Credentials"), h("dd", null, textList(holders, 10)),
      h("dt", null, "Exposed to"), h("dd", null, textList(one.actors, 10)),
      h("dt", null, "Reads"), h("dd", null, one.payload + " with payload, " + one.presumed + " presumed"),
      h("dt", null, "Last"), h("dd", null, timeElement(one.last))));
}

function actorCard(one) {
  const counts = [one.credential_count && count(one.credential_count, "credential", "credentials"), one.payload && one.payload + " payload", one.presumed && one.presumed + " presumed",
    one.metadata && one.metadata + " metadata", one.whole_scopes.length && count(one.whole_scopes.length, "whole scope", "whole scopes"), one.denied && one.denied + " denied"].filter(Boolean).join(", ");
  const row = (name, values, limit) => values.length ? [h("dt", null, name), h("dd", null, textList(values, limit))] : null;
  return h("details", { class: "card", "data-key": one.actor },
    h("summary", null, val(one.actor, 300), " ", h("span", { class: "counts" }, counts)),
    h("dl", null,
      row("Credentials", one.credentials, 20), row("Whole scopes", one.whole_scopes, 10), row("Verbs", one.verbs, 10), row("Addresses", one.clients, 10),
      row("User agents", one.user_agents, 10), row("Rules", one.rules, 20),
      h("dt", null, "First"), h("dd", null, timeElement(one.first)), h("dt", null, "Last"), h("dd", null, timeElement(one.last))),
    h("p", null, h("a", { href: "#/", onclick: () => { Object.assign(filters, { since: exposureSince, priority: "", rule: "", actor: one.actor, credential: "", namespace: "", text: "", open: false }); } }, "Alerts of this actor")));
}

function state(one) {
  return one.ok ? h("span", { class: "pill good" }, "working") : [h("span", { class: "pill bad" }, "problem"), " ", val(one.problem, 500)];
}

const RULE_STATES = { enabled: ["enabled", ""], disabled: ["disabled", "warn"], below_minimum_priority: ["below minimum priority", "warn"] };

function statusView() {
  return polled("Status", () => "api/v1/status", (data) => [
    h("h2", null, "Health checks"),
    table("Health checks", ["Check", "State"], data.checks.map((one) => [visible(one.name, 100), state({ ok: one.ok, problem: one.reason })])),
    h("h2", null, "Sources"),
    data.sources.length ? table("Sources", ["Source", "Type", "State", "Events#", "Malformed#", "Behind#"],
      data.sources.map((one) => [val(one.name, 200), one.type, state(one), one.events, one.malformed, one.lag_seconds ? one.lag_seconds + " s" : "0 s"])) : h("p", null, "None."),
    h("h2", null, "Sinks"),
    data.sinks.length ? table("Sinks", ["Sink", "Type", "State", "Backlog#", "Delivered#", "Failed attempts#", "Dropped#", "Last delivery"],
      data.sinks.map((one) => [val(one.name, 200), one.type, state(one), one.backlog, one.delivered, one.failures, one.dropped, one.last_success ? timeElement(one.last_success) : null])) : h("p", null, "None: alerts are stored and shown here."),
    h("h2", null, "Rules"),
    h("p", { class: "dim" }, count(data.rules.length, "rule", "rules") + ", rule set ", val(data.rule_set, 40), ". Alerts since the start."),
    table("Rules", ["Rule", "Priority", "State", "Alerts#", "Throttled#"], data.rules.map((one) => {
      const [title, kind] = RULE_STATES[one.state] || [one.state, ""];
      return [ruleDetails(one), priority(one.priority), h("span", { class: "pill " + kind }, visible(title, 40)), one.alerts, one.throttled];
    })),
  ], (load) => [h("div", { class: "bar" }, h("button", { type: "button", onclick: () => load(true) }, "Reload"))]);
}

function ruleDetails(rule) {
  return h("details", { "data-key": rule.name }, h("summary", null, visible(rule.name, 200)), ruleText(rule));
}

function ruleText(rule) {
  return [h("p", null, visible(rule.description, 2000)), h("pre", null, visible(rule.condition, 5000)),
    h("p", { class: "dim" }, (rule.type === "correlation" ? "Correlation" : "Rule") + ", ", val(rule.location, 300), rule.tags.length ? "; tags: " + visible(rule.tags.join(", "), 300) : null)];
}

function alertView(id) {
  const body = h("div", null, h("p", { class: "dim" }, "Loading…"));
  let isEnded = false;
  const load = async () => {
    try {
      const [one, status] = await Promise.all([api("api/v1/alerts/" + encodeURIComponent(id)), api("api/v1/status")]);
      if (isEnded) return;
      clear(body, alertBody(one, status.can_acknowledge, load));
      document.title = visible((one.alert && one.alert.rule) || "Alert", 100) + " – pullwatch";
    } catch (error) {
      if (!isEnded) clear(body, failure(error));
    }
  };
  load();
  return { title: "Alert", elements: [h("p", null, h("a", { href: "#/" }, "All alerts")), body], end: () => { isEnded = true; } };
}

function alertBody(one, canAcknowledge, reload) {
  const alert = one.alert || {};
  const registry = alert.registry || {};
  const { rule, exposure } = one.explanation;
  const list = (name, values) => Array.isArray(values) && values.length ? [h("dt", null, name), h("dd", null, textList(values, 50))] : null;
  const row = (name, value) => value === null || value === undefined || value === "" ? null : [h("dt", null, name), h("dd", null, typeof value === "object" ? value : val(value, 1000))];
  const event = alert.event || {};
  return [
    h("h2", null, priority(String(alert.priority || "")), " ", visible(alert.rule || "Damaged alert", 300)),
    h("p", null, val(alert.output, 4000)),
    h("dl", null,
      row("Time", timeElement(alert.time)), row("Actor", one.actor), row("Target", one.target), list("Credentials", registry.secrets), list("Registries", registry.hosts),
      list("Registry users", registry.usernames), list("Addresses", event.sourceIPs), row("User agent", event.userAgent), row("Cluster", alert.cluster), row("Stored", timeElement(one.stored)), row("Id", one.id)),
    h("h2", null, "Acknowledgement"),
    one.acknowledged ? h("p", null, "Acknowledged by ", val(one.acknowledged.by, 300), " at ", timeElement(one.acknowledged.at), one.acknowledged.note ? [": ", val(one.acknowledged.note, 2000)] : null)
      : canAcknowledge ? ackForm(one.id, reload) : h("p", { class: "dim" }, "Acknowledging here requires a token: set server.token_file, or run ", h("code", null, "pullwatch alerts ack " + one.id.slice(0, 12)), "."),
    h("h2", null, "Why it fired"),
    rule ? ruleText(rule) : h("p", null, "The rule is no longer loaded."),
    h("p", null, visible(exposure, 500)),
    correlation(alert.correlation),
    fields(alert.output_fields),
    h("h2", null, "Event, redacted"),
    h("pre", { tabindex: "0", "aria-label": "Event" }, visibleJson(event)),
  ];
}

/** Indented JSON: the line breaks are ours, those of the event are escapes. */
function visibleJson(value) {
  return (JSON.stringify(value, null, 2) || "").split("\n").map((line) => visible(line, 20000)).join("\n");
}

function correlation(data) {
  if (!data || typeof data !== "object") return null;
  const alerts = Array.isArray(data.alerts) ? data.alerts.slice(0, 50) : [];
  return [
    h("p", null, "It summarizes " + count(Number(data.count) || 0, "match", "matches") + " from ", timeElement(data.first), " to ", timeElement(data.last), " of: ", val((data.rules || []).join(", "), 1000)),
    alerts.length ? h("ul", null, alerts.map((id) => h("li", null, h("a", { href: "#/alerts/" + encodeURIComponent(String(id)) }, visible(id, 40))))) : null,
  ];
}

function fields(data) {
  if (!data || typeof data !== "object") return null;
  const rows = Object.entries(data).filter(([name, value]) => value !== null && name !== "evt.time")
    .map(([name, value]) => [val(name, 200), Array.isArray(value) ? textList(value, 50) : val(value, 2000)]);
  return rows.length ? [h("h3", null, "Fields of its output"), table("Fields of the output", ["Field", "Value"], rows)] : null;
}

function ackForm(id, reload) {
  const problem = h("p", { role: "alert" });
  const by = h("input", { name: "by", required: true, maxlength: 200, autocomplete: "name" });
  const note = h("input", { name: "note", maxlength: 1000 });
  return [h("form", { class: "ack", "aria-label": "Acknowledge", onsubmit: async (event) => {
    event.preventDefault();
    try {
      await api("api/v1/alerts/" + encodeURIComponent(id) + "/ack", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ by: by.value, note: note.value }) });
      announce("Acknowledged");
      reload();
    } catch (error) {
      clear(problem, failure(error));
    }
  } }, h("label", null, "Your name", by), h("label", null, "Note", note), h("button", { type: "submit" }, "Acknowledge")), problem];
}
