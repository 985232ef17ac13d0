// Routes and the frame around the views.

let view = null;

function showTokenForm(isShown) {
  byId("token-form").hidden = !isShown;
  byId("token-button").setAttribute("aria-expanded", String(isShown));
}

function route() {
  if (view) view.end();
  const path = location.hash.replace(/^#/, "") || "/";
  const alert = /^\/alerts\/([0-9A-Fa-f]{1,32})$/.exec(path);
  const name = alert || path === "/" ? "alerts" : path === "/exposures" ? "exposures" : path === "/status" ? "status" : null;
  view = alert ? alertView(alert[1]) : name === "alerts" ? alertsView() : name === "exposures" ? exposuresView() : name === "status" ? statusView()
    : { title: "Not found", elements: [h("p", null, "There is no such view.")], end: () => {} };
  for (const one of ["alerts", "exposures", "status"]) {
    if (one === name) byId("nav-" + one).setAttribute("aria-current", alert ? "true" : "page");
    else byId("nav-" + one).removeAttribute("aria-current");
  }
  const heading = h("h1", { tabindex: "-1" }, view.title);
  clear(byId("main"), heading, view.elements);
  document.title = view.title + " – pullwatch";
  if (hasStarted) heading.focus({ preventScroll: false });
  hasStarted = true;
}
let hasStarted = false;

async function health() {
  if (document.hidden) return;
  const pill = byId("health");
  let [text, kind] = ["unreachable", "bad"];
  try {
    // 503 is an answer too.
    const response = await request("readyz");
    const body = await response.json();
    [text, kind] = body.ok ? ["healthy", "good"] : body.status === "degraded" ? ["degraded", "warn"] : ["unavailable", "bad"];
  } catch {
    // Unreachable.
  }
  pill.textContent = text;
  pill.className = "pill " + kind;
  pill.setAttribute("aria-label", "health: " + text);
}

byId("token-button").addEventListener("click", () => {
  showTokenForm(byId("token-form").hidden);
  if (!byId("token-form").hidden) byId("token").focus();
});
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(byId("token").value.trim());
  byId("token").value = "";
  showTokenForm(false);
  route();
  health();
});
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
byId("openapi").href = String(new URL("api/v1/openapi.json", BASE));
byId("footer").textContent = "Times are in UTC.";
addEventListener("hashchange", route);
setInterval(health, 15000);
health();
route();
