"use strict";
// The live page: asks for the status again and again, and writes it into the document. Whatever comes from an app is
// text, put in with textContent alone. What is there stays there, so that the focus, and what is selected, stay too.

const EVERY_MS = 1000;
const KEPT = 120;
const PROFILE_S = 10;
const $ = (id) => document.getElementById(id);

let before = null;
let seenAt = 0;
let paused = false;
let failures = 0;
const history = new Map(); // by key of an app: requests a second, the newest last
const open = new Set(); // keys of apps whose details are shown
const busy = new Set(); // actions that are under way

// -- text ----------------------------------------------------------------------------------------------------------

function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s >= 86400) return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
  if (s >= 3600) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  if (s >= 60) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${s} s`;
}

function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let n = count, u = 0;
  while (n >= 1000 && u < units.length - 1) { n /= 1000; u += 1; }
  return u ? `${n.toFixed(1)} ${units[u]}` : `${n} B`;
}

function duration(seconds) {
  if (seconds === null) return "–";
  if (seconds >= 1) return `${seconds.toFixed(1)} s`;
  return seconds < 0.01 ? `${(seconds * 1000).toFixed(1)} ms` : `${(seconds * 1000).toFixed(0)} ms`;
}

const ago = (at) => `${span(Date.now() / 1000 - at)} ago`;
const sum = (values) => values.reduce((a, b) => a + b, 0);
const rate = (value) => (value >= 100 ? value.toFixed(0) : value.toFixed(1));

// As Prometheus' histogram_quantile: in proportion between two bounds, and at most the last.
function quantile(wanted, bounds, counts) {
  const total = sum(counts);
  if (!total) return null;
  const rank = wanted * total;
  let below = 0, lower = 0;
  for (let i = 0; i < bounds.length; i++) {
    if (counts[i] && below + counts[i] >= rank) return lower + ((bounds[i] - lower) * (rank - below)) / counts[i];
    below += counts[i];
    lower = bounds[i];
  }
  return bounds[bounds.length - 1];
}

// -- elements --------------------------------------------------------------------------------------------------------

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function classes(element, name) {
  if (element.className !== name) element.className = name;
}

// A button whose action is under way. One that is disabled would lose the focus.
function mark(button, isBusy) {
  button.setAttribute("aria-disabled", String(isBusy));
}

// Rows of a table by key, in order; made once, then filled again and again.
function rows(body, items, key, build, fill) {
  const known = new Map([...body.children].filter((row) => row.dataset.key !== undefined).map((row) => [row.dataset.key, row]));
  let at = body.firstElementChild;
  for (const item of items) {
    const id = key(item);
    let row = known.get(id);
    known.delete(id);
    if (!row) {
      row = build(item);
      row.dataset.key = id;
    }
    if (row === at) at = at.nextElementSibling;
    else body.insertBefore(row, at);
    fill(row, item);
  }
  for (const row of known.values()) row.remove();
}

function cells(labels) {
  const row = make("tr");
  labels.forEach(([label, name], i) => {
    const tag = i ? "td" : "th";
    row.append(make(tag, { scope: i ? null : "row", "data-label": (i && label) || null, class: name || null }));
  });
  return row;
}

function fillCells(row, values) {
  values.forEach((value, i) => {
    if (value !== undefined) write(row.cells[i], String(value));
  });
}

const SVG = "http://www.w3.org/2000/svg";

function spark() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", "0 0 120 26");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS(SVG, "polygon"), document.createElementNS(SVG, "polyline"));
  return svg;
}

function draw(svg, values) {
  const most = Math.max(1, ...values);
  const points = values.map((value, i) => `${120 - values.length + i + 1},${(24.5 - (value / most) * 22).toFixed(1)}`);
  svg.lastChild.setAttribute("points", points.join(" "));
  const first = 120 - values.length + 1;
  svg.firstChild.setAttribute("points", values.length ? `${first},26 ${points.join(" ")} 120,26` : "");
}

// -- the last quarter of an hour ----------------------------------------------------------------------------------------

const CHARTS = [
  ["Requests a second", [["requests_per_s", "first"]], rate],
  ["Errors a second", [["errors_per_s", "bad"]], rate],
  ["Median and p95", [["median_s", "first"], ["p95_s", "second"]], duration],
  ["Queue time, p95", [["queue_s", "first"]], duration],
  ["Memory", [["memory_bytes", "first"]], bytes],
  ["Workers ready", [["workers", "first"]], String],
];
const CHART_W = 300, CHART_H = 64;
const MARKS_READ = 10; // the latest, to who hears the page
const WHAT = { build: "new build", refused: "refused build", crash: "crash" };

// What happened to several apps at one time is one mark.
function together(marks) {
  const found = new Map();
  for (const mark of marks) {
    const key = `${mark.at} ${mark.what}`, former = found.get(key);
    found.set(key, former ? { ...former, app: `${former.app}, ${mark.app}`, apps: former.apps + 1 } : { ...mark, apps: 1 });
  }
  return [...found.values()];
}

const happening = (mark) => `${WHAT[mark.what]} of ${mark.apps > 1 ? `${mark.apps} apps` : mark.app} ${ago(mark.at)}`;

function svg(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function buildChart([title, lines]) {
  const figure = make("figure", { class: "chart" });
  const drawn = svg("svg", { viewBox: `0 0 ${CHART_W} ${CHART_H}`, preserveAspectRatio: "none", role: "img" });
  for (const [, name] of lines) drawn.append(svg("path", { class: `line ${name}` }));
  drawn.append(svg("g", {}));
  figure.append(make("figcaption", {}, make("span", {}, title), make("b")), drawn, make("p", { class: "scale" }));
  return figure;
}

function fillChart(figure, [title, lines, show], series, at, marks) {
  const [caption, drawn, scale] = figure.children;
  const known = lines.flatMap(([name]) => series[name].filter((value) => value !== null));
  const most = Math.max(...known, 0) || 1;
  const x = (i) => (at.length > 1 ? (i / (at.length - 1)) * CHART_W : CHART_W);
  lines.forEach(([name], n) => {
    let path = "", pen = "M";
    series[name].forEach((value, i) => {
      if (value === null) { pen = "M"; return; }
      path += `${pen}${x(i).toFixed(1)} ${(CHART_H - 3 - (value / most) * (CHART_H - 8)).toFixed(1)}`;
      pen = "L";
    });
    drawn.children[n].setAttribute("d", path || "M0 0");
  });
  const span_s = at.length > 1 ? at[at.length - 1] - at[0] : 1;
  drawn.lastChild.replaceChildren(...marks.map((mark) => {
    const place = (((mark.at - at[0]) / span_s) * CHART_W).toFixed(1);
    const line = svg("line", { class: `mark ${mark.what}`, x1: place, x2: place, y1: 0, y2: CHART_H });
    const told = svg("title", {});
    told.textContent = happening(mark) + (mark.apps > 1 ? `: ${mark.app}` : "");
    line.append(told);
    return line;
  }));
  const latest = lines.map(([name]) => series[name].findLast((value) => value !== null)).map((value) => (value === undefined ? "–" : show(value)));
  write(caption.lastChild, latest.join(" / "));
  write(scale, known.length ? `most ${show(Math.max(...known))}` : "nothing yet");
  const happened = marks.length ? ` ${marks.slice(-MARKS_READ).map(happening).join(", ")}.` : "";
  drawn.setAttribute("aria-label", `${title} in the last ${span(span_s)}: now ${latest.join(" and ")}${known.length ? `, most ${show(Math.max(...known))}` : ""}.${happened}`);
}

function paintCharts(place, label) {
  const series = past && past.series[label];
  place.hidden = !series;
  if (!series) return;
  const marks = together(past.marks.filter((mark) => !label || mark.app === label));
  rows(place, CHARTS, (chart) => chart[0], buildChart, (figure, chart) => fillChart(figure, chart, series, past.at, marks));
}

let past = null;
let pastAt = 0;

async function lookBack() {
  if (past && performance.now() - pastAt < past.every_s * 1000) return;
  pastAt = performance.now();
  const response = await fetch("history", { cache: "no-store", signal: AbortSignal.timeout(10000) });
  if (response.ok) past = await response.json();
}

// -- what is done ------------------------------------------------------------------------------------------------------

async function act(what, method, path, done) {
  if (busy.has(path)) return;
  busy.add(path);
  tell(`${what} …`, "good");
  paint();
  try {
    const response = await fetch(path, { method });
    const answer = await response.json();
    if (!response.ok) throw new Error([answer.error, answer.hint].filter(Boolean).join("\n"));
    tell(done(answer), "good");
  } catch (error) {
    tell(`${what}: ${error.message}`, "bad");
  } finally {
    busy.delete(path);
    await look();
  }
}

// A profile becomes a file of its own: this page lets nothing run that is written into a document.
function keepProfile(answer) {
  const url = URL.createObjectURL(new Blob([answer.content], { type: "text/html" }));
  const name = `profile ${answer.name}.html`.replace(/[^\w.-]+/g, "-");
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
  const missing = answer.warnings.length ? `. Without: ${answer.warnings.join("; ")}` : "";
  return `${name} is among your downloads${missing}`;
}

function tell(text, kind) {
  $("result").replaceChildren(make("p", { class: kind }, text));
}

const appPath = (key) => `apps/${encodeURIComponent(key)}`;

// -- parts of the page ------------------------------------------------------------------------------------------------

const STATES = { serving: "good", starting: "warn", stopping: "warn", broken: "bad", failing: "bad" };

function paintDaemon(status) {
  const d = status.daemon;
  write($("phase"), d.phase);
  classes($("phase"), `badge ${d.phase === "ready" ? "good" : "warn"}`);
  const read = d.build ? `, read ${ago(d.build.since_at)}` : "";
  write($("about"), `${d.version} on ${d.python}, process ${d.pid}, up ${span(Date.now() / 1000 - d.started_at)}. Runs ${d.file}${read}.`);
  document.title = `${status.apps.some((a) => a.refused || STATES[a.state] === "bad") || d.refused ? "⚠ " : ""}caddysnake`;
  mark($("reload"), busy.has("load"));
}

function paintAlerts(status) {
  const found = [];
  const d = status.daemon;
  if (d.refused) found.push(["reload", `The last reload was refused ${ago(d.refused.last_at)}: ${d.refused.code}`, d.refused.error, "alert"]);
  for (const app of status.apps) {
    if (app.refused && !(d.refused && d.refused.error.includes(app.refused.error.trim().split("\n").pop()))) {
      const runs = app.build ? `build ${app.build.number} keeps serving` : "nothing serves";
      found.push([`refused ${app.key}`, `${app.name}: build ${app.refused.number} was refused ${ago(app.refused.last_at)} (${app.refused.code}); ${runs}`, app.refused.error, "alert"]);
    }
    if (app.trial) {
      const t = app.trial;
      const line = (which) => `${which}: ${t[which].requests} requests, ${t[which].errors} errors, p95 ${t[which].p95_s === null ? "–" : duration(t[which].p95_s)}`;
      const left = span(Math.max(0, t.ends_at - Date.now() / 1000));
      found.push([`trial ${app.key}`, `${app.name}: a new build is on trial with ${(t.share * 100).toFixed(1)} % of the requests, ${left} left`, `${line("new")}\n${line("old")}`, "alert warn"]);
    }
    if (app.kept) {
      const left = span(Math.max(0, app.kept.until_at - Date.now() / 1000));
      found.push([`kept ${app.key}`, `${app.name}: build ${app.kept.build} is kept for ${left}: caddysnake rollback`, "", "alert warn"]);
    }
    for (const each of app.workers.filter((w) => w.blocked_s >= 10)) {
      const what = `${app.name}: worker ${each.pid} has taken no request for ${duration(each.blocked_s)}: its event loop is blocked, or all of its threads are, or it is stopped as a whole`;
      found.push([`blocked ${each.pid}`, what, `caddysnake dump ${each.pid}`, "alert"]);
    }
    for (const each of app.processes.filter((p) => p.state === "failed")) {
      found.push([`process ${app.key} ${each.name}`, `${app.name}: process ${each.name} ends again and again`, endOf(each.last_end), "alert"]);
    }
    for (const each of app.schedules.filter((s) => stateOf(s) === "failed")) {
      found.push([`schedule ${app.key} ${each.name}`, `${app.name}: the last run of ${each.name} failed`, endOf(each.last_run), "alert warn"]);
    }
    if (!app.workers_ready && app.state !== "starting" && app.state !== "stopping") {
      const why = app.last_failure ? app.last_failure.error : "";
      found.push([`down ${app.key}`, `${app.name} has no worker`, why, "alert"]);
    }
  }
  rows($("alerts"), found, (each) => each[0],
    () => make("details", {}, make("summary"), make("pre")),
    (row, [, title, text, kind]) => {
      classes(row, kind);
      write(row.firstChild, title);
      write(row.lastChild, text);
      row.lastChild.hidden = !text;
    });
}

function paintTiles(status, passed) {
  const all = (pick) => sum(status.apps.map(pick));
  const groups = [...status.apps.filter((a) => !a.template).map((a) => [`a ${a.key}`, a.traffic]), ...status.templates.map((t) => [`t ${t.name}`, t.traffic])];
  let requests = 0, failed = 0;
  const latencies = status.latency_bounds_s.map(() => 0).concat(0);
  for (const [key, traffic] of groups) {
    const former = before && before.groups.get(key);
    if (!former) continue;
    requests += Math.max(0, traffic.requests - former.requests);
    failed += Math.max(0, traffic.errors - former.errors);
    traffic.latencies.forEach((count, i) => { latencies[i] += Math.max(0, count - former.latencies[i]); });
  }
  const wanted = all((a) => a.workers_wanted);
  const pids = new Map();
  for (const app of status.apps) for (const worker of app.workers) pids.set(worker.pid, worker.memory_bytes);
  for (const relay of status.relays) pids.set(relay.pid, relay.memory_bytes);
  const memory = sum([...pids.values()]) + status.daemon.memory_bytes;
  const tiles = [
    ["Requests", before ? rate(requests / passed) : "–", "a second"],
    ["Errors", requests ? `${((100 * failed) / requests).toFixed(1)} %` : "–", ""],
    ["Median", duration(quantile(0.5, status.latency_bounds_s, latencies)), ""],
    ["p95", duration(quantile(0.95, status.latency_bounds_s, latencies)), ""],
    ["In flight", String(all((a) => a.in_flight)), all((a) => a.waiting) ? `and ${all((a) => a.waiting)} in the queue` : ""],
    ["Workers ready", `${all((a) => a.workers_ready)}`, `of ${wanted}`],
    ["Connections", String(status.daemon.connections), ""],
    ["Memory", bytes(memory), ""],
  ];
  rows($("tiles"), tiles, (tile) => tile[0],
    () => make("dl", { class: "tile" }, make("dt"), make("dd", {}, make("span"), " ", make("small"))),
    (tile, [name, value, rest]) => {
      write(tile.firstChild, name);
      write(tile.lastChild.firstChild, value);
      write(tile.lastChild.lastChild, rest);
    });
}

const APP_CELLS = [["App", "full"], ["State"], ["Workers", "n"], ["Requests/s", "n"], ["Last two minutes", "wide"], ["Queue time", "n", "95 % waited less before the app was called"], ["Median", "n"], ["p95", "n"], ["In flight", "n"], ["Queue", "n"], ["Errors", "n"], ["Memory", "n"], ["Restarts", "n"], ["", "full actions"]];

function buildApp(app) {
  const row = cells(APP_CELLS);
  const name = make("button", { type: "button", class: "name", "aria-expanded": "false" });
  name.addEventListener("click", () => {
    if (!open.delete(app.key)) open.add(app.key);
    paint();
  });
  row.cells[0].append(name);
  row.cells[1].append(make("span", { class: "badge" }));
  row.cells[4].append(spark());
  const profile = make("button", { type: "button", class: "small" }, "Profile", make("span", { class: "hidden" }, ` ${app.name}`));
  profile.addEventListener("click", () => act(`Looking at ${app.name} for ${PROFILE_S} s`, "POST", `${appPath(app.key)}/profile?seconds=${PROFILE_S}`, keepProfile));
  row.cells[13].append(profile);
  const reload = make("button", { type: "button", class: "small" }, "Reload", make("span", { class: "hidden" }, ` ${app.name}`));
  reload.addEventListener("click", () => act(`Reloading ${app.name}`, "POST", `${appPath(app.key)}/reload`, (a) => `${a.app} reloaded in ${a.seconds.toFixed(1)} s`));
  row.cells[13].append(reload);
  if (app.template !== null) {
    const evict = make("button", { type: "button", class: "small" }, "Evict", make("span", { class: "hidden" }, ` ${app.name}`));
    evict.addEventListener("click", () => act(`Putting ${app.name} to sleep`, "DELETE", appPath(app.key), (a) => `${a.app} sleeps; its next request starts it`));
    row.cells[13].append(evict);
  }
  return row;
}

function fillApp(row, app, status) {
  const [name] = row.cells[0].children;
  write(name, app.name);
  name.setAttribute("aria-expanded", String(open.has(app.key)));
  const badge = row.cells[1].firstChild;
  write(badge, app.state + (app.refused && app.workers_ready ? ", older build" : ""));
  classes(badge, `badge ${app.refused && app.state === "serving" ? "warn" : STATES[app.state]}`);
  const past = history.get(app.key) || { rates: [], latencies: null, queues: null };
  const latest = past.latencies;
  fillCells(row, [undefined, undefined, `${app.workers_ready}/${app.workers_wanted}${app.workers_most > app.workers_least ? ` (${app.workers_least}–${app.workers_most})` : ""}`, past.rates.length ? rate(past.rates[past.rates.length - 1]) : "–", undefined,
    duration(past.queues && quantile(0.95, status.queue_bounds_s, past.queues)), duration(latest && quantile(0.5, status.latency_bounds_s, latest)), duration(latest && quantile(0.95, status.latency_bounds_s, latest)),
    app.in_flight, app.waiting, app.traffic.errors, bytes(app.memory_bytes), sum(Object.values(app.restarts))]);
  draw(row.cells[4].firstChild, past.rates);
  const [profile, reload, evict] = row.cells[13].children;
  mark(profile, busy.has(`${appPath(app.key)}/profile?seconds=${PROFILE_S}`));
  mark(reload, busy.has(`${appPath(app.key)}/reload`));
  if (evict) mark(evict, busy.has(appPath(app.key)));
}

const WORKER_CELLS = [["Process", "full"], ["State"], ["Runs"], ["Age", "n"], ["Requests", "n"], ["In flight", "n"], ["Oldest request", "n"], ["Connections", "n"], ["Memory", "n"], ["Processor", "n"], ["", "actions full"]];

function headOf(labels) {
  const row = make("tr");
  for (const [label, name, title] of labels) row.append(make("th", { scope: "col", class: ["n", "wide"].includes(name) ? name : null, title: title || null }, label || make("span", { class: "hidden" }, "Actions")));
  return row;
}

function buildWorker(worker) {
  const row = cells(WORKER_CELLS);
  row.cells[1].append(make("span", { class: "badge plain" }));
  const dump = make("button", { type: "button", class: "small" }, "Write stacks to the log", make("span", { class: "hidden" }, ` of process ${worker.pid}`));
  dump.addEventListener("click", () => act(`Asking process ${worker.pid} for its stacks`, "POST", `workers/${worker.pid}/dump`, (a) => `Process ${a.pid} writes its stacks to the log`));
  row.cells[10].append(dump);
  return row;
}

function fillWorker(row, worker) {
  const badge = row.cells[1].firstChild;
  write(badge, worker.state);
  classes(badge, `badge ${worker.state === "ready" ? "good" : "warn"}`);
  fillCells(row, [worker.pid, undefined, worker.runs || "–", span(worker.age_s), worker.traffic.requests, worker.in_flight,
    worker.oldest_request_s === null ? "–" : duration(worker.oldest_request_s), worker.websockets ? `${worker.connections} (${worker.websockets} WebSockets)` : worker.connections, bytes(worker.memory_bytes), `${worker.cpu_s.toFixed(1)} s`]);
}

const workerKey = (worker) => `${worker.pid} ${worker.generation} ${worker.index}`;

function buildDetail() {
  const cell = make("td", { colspan: "14" });
  const table = make("table", { class: "cards" }, make("thead", {}, headOf(WORKER_CELLS)), make("tbody"));
  cell.append(make("div", { class: "charts" }), make("dl", { class: "facts" }), make("h3", {}, "Workers"), make("div", { class: "scroll" }, table));
  for (const title of ["Refused", "Last failure"]) cell.append(make("h3", {}, title), make("pre", { tabindex: "0" }));
  return make("tr", { class: "detail" }, cell);
}

function fillDetail(row, app) {
  const [charts, facts, , scroll, refusedTitle, refused, failureTitle, failure] = row.firstChild.children;
  paintCharts(charts, app.template === null ? app.key : app.template);
  const restarts = Object.entries(app.restarts).map(([cause, count]) => `${cause} ${count}`).join(", ");
  const refusals = Object.entries(app.refusals).map(([code, count]) => `${code} ${count}`).join(", ");
  const isolated = app.isolated ? "yes" : app.shared_with.length ? `no: shares its user with ${app.shared_with.join(", ")}` : "no: runs as the daemon's user";
  const pairs = [
    ["Runs", `${app.module} (${app.interface}, ${app.runtime}) in ${app.working_dir}`],
    ["Interpreter", app.python],
    ["User", `${app.user === null ? "the daemon's" : app.user}; isolated: ${isolated}`],
    ["Sandbox", app.sandbox === "off" ? "none" : `${app.sandbox}: ${app.sandbox_holds}`],
    ["Reached", `${app.mode}: ${app.reason || "–"}`],
    ["Listeners", app.listeners.join(", ") || "–"],
    ["Build", app.build ? `${app.build.number}, since ${ago(app.build.since_at)}` : "none serves"],
    ["Requests", `${app.traffic.requests}; by class ${["1xx", "2xx", "3xx", "4xx", "5xx"].map((name, i) => `${name} ${app.traffic.responses[i]}`).join(", ")}`],
    ["Restarts", restarts || "none"],
    ["Answered in its place", refusals || "none"],
  ];
  rows(facts, pairs.flatMap(([name, value]) => [[`dt ${name}`, "dt", name], [`dd ${name}`, "dd", value]]), (each) => each[0], (each) => make(each[1]), (element, each) => write(element, each[2]));
  rows(scroll.firstChild.tBodies[0], app.workers, workerKey, buildWorker, fillWorker);
  refusedTitle.hidden = refused.hidden = !app.refused;
  if (app.refused) {
    write(refusedTitle, `Refused: build ${app.refused.number}, ${ago(app.refused.last_at)}, tried ${app.refused.tries} time${app.refused.tries === 1 ? "" : "s"} (${app.refused.code})`);
    write(refused, app.refused.error);
  }
  const isTold = app.refused && app.last_failure && app.refused.error === app.last_failure.error;
  failureTitle.hidden = failure.hidden = !app.last_failure || isTold;
  if (app.last_failure) {
    const over = app.last_failure.over_at === null ? "" : `; over since ${span(Date.now() / 1000 - app.last_failure.over_at)}`;
    write(failureTitle, `Last failure: ${ago(app.last_failure.at)} (${app.last_failure.code})${over}`);
    write(failure, app.last_failure.error);
  }
}

function paintApps(status) {
  const wanted = $("filter").value.trim().toLowerCase();
  const shown = status.apps.filter((app) => app.name.toLowerCase().includes(wanted));
  const items = shown.flatMap((app) => (open.has(app.key) ? [{ app, detail: false }, { app, detail: true }] : [{ app, detail: false }]));
  if (!$("app-head").children.length) $("app-head").append(headOf(APP_CELLS));
  rows($("app-rows"), items, (item) => `${item.detail ? "detail" : "app"} ${item.app.key}`,
    (item) => (item.detail ? buildDetail() : buildApp(item.app)),
    (row, item) => (item.detail ? fillDetail(row, item.app) : fillApp(row, item.app, status)));
  $("no-apps").hidden = shown.length > 0;
  write($("no-apps"), status.apps.length ? "No app has this in its name." : "No app runs.");
}

// A section with a table of its own, made when there is something in it.
function table(id, title, labels, items, key, build, fill) {
  let place = $(id);
  if (!place && !items.length) return;
  if (!place) {
    const inside = make("table", { class: "cards" }, make("thead", {}, headOf(labels)), make("tbody"));
    place = make("section", { id, "aria-labelledby": `${id}-title` }, make("h2", { id: `${id}-title` }, title), make("div", { class: "scroll" }, inside));
    $("main").append(place);
  }
  place.hidden = !items.length;
  rows(place.querySelector("tbody"), items, key, build, fill);
}

// -- beside the workers --------------------------------------------------------------------------------------------------

const PROCESS_CELLS = [["Process", "full"], ["State"], ["Id", "n"], ["Since", "n"], ["Restarts", "n"], ["Memory", "n"], ["Processor", "n"], ["Last end", "path"], ["", "full actions"]];
const SCHEDULE_CELLS = [["Schedule", "full"], ["State"], ["Times"], ["Next run", "n"], ["Took", "n"], ["Left out", "n"], ["Last run", "path"], ["", "full actions"]];
const OUTPUT_LINES = 20;
const outputs = new Map(); // what was written last, by where in the log that is, while it is shown

const endOf = (end) => (end ? `${ago(end.at)}: ${end.reason}` : "–");
const stateOf = (each) => (each.is_leaving ? "leaving" : each.state || (each.running.length ? "running" : each.last_run && !each.last_run.ok ? "failed" : "waiting"));

function processValues(each) {
  return [each.pid || "–", span(Date.now() / 1000 - each.since_at), each.restarts, bytes(each.memory_bytes), `${each.cpu_s.toFixed(1)} s`, endOf(each.last_end)];
}

function scheduleValues(each) {
  const next = each.next_at === null ? "never" : `in ${span(each.next_at - Date.now() / 1000)}`;
  return [each.cron, next, duration(each.last_run && each.last_run.seconds), each.skipped + each.missed, endOf(each.last_run)];
}

function buildBeside({ owner, each, log, isOutput }, labels, [what, path]) {
  if (isOutput) return make("tr", { class: "detail" }, make("td", { colspan: String(labels.length) }, make("pre", { tabindex: "0" })));
  const row = cells(labels);
  row.cells[1].append(make("span"));
  const button = (name, done) => {
    const made = make("button", { type: "button", class: "small" }, name, make("span", { class: "hidden" }, ` of ${each.name} of ${owner.name}`));
    made.addEventListener("click", done);
    row.lastChild.append(made);
  };
  button("Output", () => {
    if (!outputs.delete(log)) outputs.set(log, "…");
    look();
  });
  if (owner.key && !each.is_leaving) button(what, () => act(`${what} ${each.name}`, "POST", `${appPath(owner.key)}/${path(encodeURIComponent(each.name))}`, (a) => (a.reason ? `${a.schedule} has ended: ${a.reason}` : `${a.process} ends, and starts again`)));
  return row;
}

function paintBeside(place, title, owners, labels, valuesOf, action) {
  const shown = owners.flatMap((owner) => owner[place].map((each) => {
    const log = `logs?${new URLSearchParams({ process: each.name, lines: OUTPUT_LINES, ...(owner.key && { app: owner.name }) })}`;
    return { owner, each, log, key: `${owner.key || owner.name} ${each.name} ${each.is_leaving ? each.pid : ""}` };
  }));
  const items = shown.flatMap((item) => (outputs.has(item.log) ? [item, { ...item, isOutput: true, key: `output ${item.key}` }] : [item]));
  table(place, title, labels, items, (item) => item.key, (item) => buildBeside(item, labels, action), (row, { owner, each, log, isOutput }) => {
    if (isOutput) return write(row.querySelector("pre"), outputs.get(log));
    const state = stateOf(each);
    write(row.cells[1].firstChild, state);
    classes(row.cells[1].firstChild, `badge ${{ running: "good", failed: "bad", ended: "plain", waiting: each.cron ? "plain" : "warn" }[state] || "warn"}`);
    row.lastChild.firstChild.setAttribute("aria-expanded", String(outputs.has(log)));
    fillCells(row, [`${each.name} of ${owner.name}`, undefined, ...valuesOf(each)]);
  });
}

async function readOutputs() {
  for (const log of outputs.keys()) {
    const response = await fetch(log, { cache: "no-store", signal: AbortSignal.timeout(10000) });
    const lines = (await response.text()).split("\n").filter(Boolean).map(JSON.parse);
    const told = lines.map((each) => (response.ok ? [new Date(each.ts * 1000).toLocaleTimeString(), each.msg, each.reason].filter(Boolean).join("  ") : each.error));
    outputs.set(log, told.join("\n") || "It has written nothing of late.");
  }
}

const TEMPLATE_CELLS = [["Template", "full path"], ["Live", "n"], ["Starting", "n"], ["Leaving", "n"], ["Requests", "n"], ["Restarts", "n"], ["Answered in their place"]];
const LISTENER_CELLS = [["Socket", "full path"], ["Mode"], ["Why", "path"], ["Apps", "path"]];

function paintRest(status) {
  table("templates", "Templates of apps", TEMPLATE_CELLS, status.templates, (t) => t.name, () => cells(TEMPLATE_CELLS), (row, t) => fillCells(row, [
    t.name, `${t.live} of ${t.capacity}`, t.starting, t.leaving, t.traffic.requests, sum(Object.values(t.restarts)),
    Object.entries(t.refusals).map(([code, count]) => `${code} ${count}`).join(", ") || "–"]));
  table("listeners", "Listeners", LISTENER_CELLS, status.listeners, (l) => l.address, () => cells(LISTENER_CELLS), (row, l) => fillCells(row, [l.address, l.mode, l.reason || "–", l.apps.join(", ")]));
  table("relays", "Relays", WORKER_CELLS, status.relays, workerKey, buildWorker, fillWorker);
}

function remember(status, passed) {
  const living = new Set();
  for (const app of status.apps) {
    living.add(app.key);
    const past = history.get(app.key) || { rates: [], latencies: null, queues: null, traffic: null };
    if (past.traffic) {
      past.rates.push(Math.max(0, app.traffic.requests - past.traffic.requests) / passed);
      if (past.rates.length > KEPT) past.rates.shift();
      past.latencies = app.traffic.latencies.map((count, i) => Math.max(0, count - past.traffic.latencies[i]));
      past.queues = app.traffic.queues.map((count, i) => Math.max(0, count - past.traffic.queues[i]));
    }
    past.traffic = app.traffic;
    history.set(app.key, past);
  }
  for (const key of [...history.keys()]) if (!living.has(key)) history.delete(key);
}

// -- again and again ---------------------------------------------------------------------------------------------------

let now = null;
let passedS = 1;

function paint() {
  if (!now) return;
  paintDaemon(now);
  paintAlerts(now);
  paintTiles(now, passedS);
  paintCharts($("charts"), "");
  paintApps(now);
  paintBeside("processes", "Processes", now.apps, PROCESS_CELLS, processValues, ["Restart", (name) => `processes/${name}/restart`]);
  paintBeside("schedules", "Schedules", [...now.apps, ...now.templates], SCHEDULE_CELLS, scheduleValues, ["Run now", (name) => `schedules/${name}/run`]);
  paintRest(now);
}

async function look() {
  try {
    const response = await fetch("status", { cache: "no-store", signal: AbortSignal.timeout(10000) });
    const status = await response.json();
    if (!response.ok) throw new Error(status.error);
    const at = performance.now();
    passedS = Math.max(0.1, (at - seenAt) / 1000);
    if (now) {
      before = { groups: new Map([...now.apps.filter((a) => !a.template).map((a) => [`a ${a.key}`, a.traffic]), ...now.templates.map((t) => [`t ${t.name}`, t.traffic])]) };
    }
    remember(status, passedS);
    await lookBack();
    await readOutputs();
    now = status;
    seenAt = at;
    failures = 0;
    paint();
  } catch (error) {
    failures += 1;
    write($("live"), `not reached: ${error.message}`);
  }
  classes($("live"), failures ? "live off" : "live");
  if (!failures) write($("live"), paused ? "paused" : "live");
}

async function turn() {
  if (!paused && document.visibilityState === "visible") await look();
  setTimeout(turn, EVERY_MS * Math.min(1 + failures, 10));
}

$("filter").addEventListener("input", paint);
$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  write($("live"), paused ? "paused" : "live");
});
$("reload").addEventListener("click", () => act("Reloading everything", "POST", "load", (a) => {
  const refused = a.outcomes.filter((o) => o.result === "refused").map((o) => o.app);
  return `${a.file} reloaded in ${a.seconds.toFixed(1)} s${refused.length ? `, but for ${refused.join(", ")}` : ""}`;
}));
turn();
