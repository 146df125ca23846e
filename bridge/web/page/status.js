/**
 * The operators' status page: asks the bridge every two seconds and shows its answer. Its first
 * part decides what to say: functions of their arguments, no document, no clock. Its second part
 * fetches and writes. Every string of an answer is untrusted (a device names its own faults), so
 * text reaches the document through textContent only.
 */

const POLL_MS = 2_000;
const TIMEOUT_MS = 4_000; // two polls: longer and the operator would look at old figures unwarned
const HISTORY_MS = 600_000; // width of the sparkline
const GAP_MS = TIMEOUT_MS + 2 * POLL_MS; // polls further apart than this are not joined by a line
const SKEW_TOLERANCE_MS = 2_000; // the Date header has whole seconds; less than this is rounding
const DEVICE_LIMIT = 200;
const REVISION_CHARS = 12;

const LEVEL_WORDS = new Map([["ok", "OK"], ["degraded", "Degraded"], ["down", "Down"]]);
const NOTHING = "–";
const NBSP = "\u00a0"; // keeps a figure and its unit on one line
const COUNT = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

// ---- What to say -------------------------------------------------------------------------------

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value) ?? NOTHING);
const count = (value) => (isNumber(value) ? COUNT.format(value) : NOTHING);
const counted = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
const fixed = (value, digits) => (isNumber(value) ? value.toFixed(digits) : NOTHING);
const stateWord = (state) => asText(state).replace("_", " ");

/** A ratio as a percentage, rounded down: only a whole 1 may read 100 %. */
function percent(ratio) {
  if (!isNumber(ratio)) return NOTHING;
  const rounded = Math.floor(ratio * 1000 + 1e-6) / 10; // 0.57 * 1000 is 569.99…
  return `${ratio === 0 || ratio === 1 ? rounded : rounded.toFixed(1)}${NBSP}%`;
}

/** A duration in ms in its two largest units. */
function duration(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  const [min, h, d] = [60, 3600, 86400].map((unitS) => Math.floor(s / unitS));
  if (min < 1) return `${s}${NBSP}s`;
  if (h < 1) return `${min}${NBSP}min`;
  if (d < 1) return `${h}${NBSP}h ${min % 60}${NBSP}min`;
  return `${d}${NBSP}d ${h % 24}${NBSP}h`;
}

const ago = (ms, nowMs) => (isNumber(ms) ? `${duration(nowMs - ms)} ago` : NOTHING);

/** Local wall-clock time; with its date when that is not the day of `nowMs`. */
function clock(ms, nowMs) {
  if (!isNumber(ms)) return NOTHING;
  const [time, now] = [new Date(ms), new Date(nowMs)];
  const two = (part) => String(part).padStart(2, "0");
  const ofDay = [time.getHours(), time.getMinutes(), time.getSeconds()].map(two).join(":");
  if (time.toDateString() === now.toDateString()) return ofDay;
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ${ofDay}`;
}

const when = (ms, nowMs) => (isNumber(ms) ? `${clock(ms, nowMs)} (${ago(ms, nowMs)})` : NOTHING);

function levelNote(status, nowMs) {
  if (status.cause) return `For ${duration(nowMs - status.cause.since_ms)}. The reason is below.`;
  if (status.level !== "ok") return "The cause is not known yet.";
  return status.devices.enrolled === 0 ? "Waiting for the first device." : "Nothing needs doing.";
}

function healthDetail({ stored, expected, window_s: windowS }) {
  const window = `in the last ${windowS}${NBSP}s`;
  if (expected === 0 && stored === 0) return `no reading was expected ${window}`;
  return `stored ${count(stored)} of ${count(expected)} expected ${window}`;
}

/** Whether received = stored + duplicate + refused + pending, in words. */
function balance({ received, stored, duplicate, refused, pending }) {
  const missing = received - (stored + duplicate + refused + pending);
  if (missing === 0) return { icon: "ok", text: "Balances: every reading is accounted for." };
  const what = missing > 0 ? "received without an outcome" : "more outcomes than received";
  return { icon: "down", text: `Does not balance: ${count(Math.abs(missing))} ${what}.` };
}

/**
 * SVG paths of the health curve and of what is missing above it, on a grid of 600 x 60: one unit
 * a second, 100 % at y = 2, 0 % at y = 58. A gap in the polls is a gap in the curve.
 */
function sparkline(history, nowMs) {
  let [line, missing, lastMs] = ["", "", -Infinity];
  for (const { atMs, health } of history) {
    const joined = atMs - lastMs <= GAP_MS;
    if (!joined && missing) missing += "V2Z";
    const x = (600 - (nowMs - atMs) / 1000).toFixed(1);
    const y = (58 - 56 * Math.min(1, Math.max(0, health))).toFixed(1);
    line += joined ? `L${x} ${y}` : `M${x} ${y}l0 0`; // l0 0: a lone point shows as a dot
    missing += joined ? `L${x} ${y}` : `M${x} 2V${y}`;
    lastMs = atMs;
  }
  return { line, missing: missing && `${missing}V2Z` };
}

function searchable(device) {
  const words = [device.device, device.site, stateWord(device.state), ...(device.faults ?? [])];
  return words.map((word) => asText(word ?? "")).join("\n").toLowerCase();
}

function showing(shown, loaded, total, filtered) {
  if (!filtered && loaded === total) return counted(total, "device");
  if (!filtered || loaded === total) return `showing ${count(shown)} of ${count(total)}`;
  return `showing ${count(shown)} of the first ${count(loaded)}; ${count(total)} in all`;
}

function failureReason(error) {
  if (error.name === "TimeoutError") return `nothing came within ${TIMEOUT_MS / 1000} s`;
  if (error.name === "TypeError") return "no connection";
  if (error.name === "SyntaxError") return "its answer is not JSON";
  return error.message;
}

const REFUSAL_COLUMNS = [
  { name: "code", text: (row) => asText(row.code) },
  { name: "stage", text: (row) => asText(row.stage) },
  { name: "times number", text: (row) => count(row.count) },
  { name: "by number", text: (row) => count(row.devices) },
  { name: "last number", text: (row, nowMs) => ago(row.last_ms, nowMs) },
];

const DEVICE_COLUMNS = [
  { name: "device clipped", text: (row) => asText(row.device) },
  { name: "site clipped", text: (row) => asText(row.site ?? NOTHING) },
  { name: "state", text: (row) => stateWord(row.state) },
  { name: "last number", text: (row, nowMs) => ago(row.last_ms, nowMs) },
  { name: "temperature number", text: (row) => fixed(row.values?.temperature_c, 1) },
  { name: "humidity number", text: (row) => fixed(row.values?.humidity_pct, 1) },
  { name: "gas number", text: (row) => fixed(row.values?.gas_ratio, 2) },
  { name: "refused number", text: (row) => (row.refused > 0 ? count(row.refused) : "") },
  { name: "faults clipped", text: (row) => (row.faults ?? []).map(asText).join(", ") },
];

// ---- Fetching and writing ----------------------------------------------------------------------

const byId = (id) => document.getElementById(id);
const shownBefore = new WeakMap();

/** True when `value` differs from what `node` showed at the previous call. */
function changed(node, value) {
  const key = JSON.stringify(value);
  if (shownBefore.get(node) === key) return false;
  shownBefore.set(node, key);
  return true;
}

// Writing the same text again would drop the operator's selection and wake screen readers.
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const setIcon = (id, name) => byId(id).setAttribute("href", `#icon-${name}`);

function element(tag, className, ...children) {
  const node = Object.assign(document.createElement(tag), { className });
  node.append(...children); // strings become text nodes, never markup
  return node;
}

/** Text in which `backticks` mark a command. */
const prose = (text) =>
  asText(text).split("`").map((part, i) => (i % 2 ? element("code", "", part) : part));

function setTime(id, ms, text) {
  setText(byId(id), text);
  if (isNumber(ms)) byId(id).dateTime = new Date(ms).toISOString();
}

function setList(id, items, childrenOf) {
  byId(`${id}-block`).hidden = items.length === 0;
  if (!changed(byId(id), items)) return;
  byId(id).replaceChildren(...items.map((item) => element("li", "", ...childrenOf(item))));
}

function newRow(columns) {
  const row = element("tr", "");
  row.role = "row";
  columns.forEach(({ name }, i) => {
    const cell = element(i === 0 ? "th" : "td", name, element("span", "text"));
    cell.role = i === 0 ? "rowheader" : "cell";
    if (i === 0) cell.scope = "row";
    row.append(cell);
  });
  return row;
}

/** Makes the table's body show `items` in their order; a row lives as long as its key field. */
function syncRows(body, rows, items, field, columns, nowMs) {
  const keyOf = (item) => asText(item[field]);
  const keys = new Set(items.map(keyOf));
  for (const [key, row] of rows) {
    if (keys.has(key)) continue;
    row.remove();
    rows.delete(key);
  }
  items.forEach((item, position) => {
    const key = keyOf(item);
    if (!rows.has(key)) rows.set(key, newRow(columns));
    const row = rows.get(key);
    row.dataset.state = asText(item.state ?? "");
    columns.forEach(({ name, text }, i) => {
      setText(row.cells[i].firstChild, text(item, nowMs));
      if (name.endsWith("clipped")) row.cells[i].title = row.cells[i].textContent;
    });
    if (body.children[position] !== row) body.insertBefore(row, body.children[position] ?? null);
  });
}

const view = {
  title: "", // level and health, or that no answer came
  enrolled: null,
  answeredMs: null,
  failingSinceMs: null,
  devices: [], // as answered, in the order of the table
  total: 0,
  skewMs: 0, // the bridge's clock minus the browser's
  history: [],
  deviceRows: new Map(),
  refusalRows: new Map(),
};

const bridgeNow = () => Date.now() + view.skewMs;

function showCause(cause, nowMs) {
  byId("cause").hidden = !cause;
  if (!cause) return;
  setText(byId("cause-summary"), asText(cause.summary));
  setText(byId("cause-code"), asText(cause.code));
  setTime("cause-since", cause.since_ms, when(cause.since_ms, nowMs));
  setList("cause-evidence", cause.evidence ?? [], prose);
  setList("cause-ruled-out", cause.ruled_out ?? [], ({ code, because }) =>
    [element("code", "", asText(code)), " because ", ...prose(because)]);
  const action = byId("cause-action");
  if (changed(action, cause.action)) action.replaceChildren(...prose(cause.action));
}

function showHealth(status) {
  setText(byId("health"), percent(status.ingest_health));
  setText(byId("health-detail"), healthDetail(status));
  const atMs = Date.now();
  view.history = view.history.filter((point) => atMs - point.atMs <= HISTORY_MS);
  view.history.push({ atMs, health: status.ingest_health });
  const curve = sparkline(view.history, atMs);
  for (const part of ["line", "missing"]) byId(`spark-${part}`).setAttribute("d", curve[part]);
  const lowest = percent(Math.min(...view.history.map((point) => point.health)));
  setText(byId("spark-lowest"), `lowest ${lowest}`);
}

function showLedger(ledger) {
  for (const part of ["received", "stored", "duplicate", "refused", "pending"]) {
    setText(byId(`ledger-${part}`), count(ledger[part]));
  }
  const { icon, text } = balance(ledger);
  setIcon("balance-icon", icon);
  byId("balance").dataset.icon = icon;
  setText(byId("balance-text"), text);
}

function showCounts(devices) {
  for (const state of ["enrolled", "reporting", "late", "silent", "never_seen"]) {
    const figure = byId(`count-${state}`);
    setText(figure, count(devices[state]));
    figure.parentElement.classList.toggle("zero", devices[state] === 0);
  }
}

function showRefusals(refusals, refusedEver, nowMs) {
  byId("refusals").hidden = refusals.length === 0;
  byId("no-refusals").hidden = refusals.length > 0;
  setText(byId("no-refusals"), refusedEver > 0 ? "No recent refusals." : "No refusals so far.");
  syncRows(byId("refusal-rows"), view.refusalRows, refusals, "code", REFUSAL_COLUMNS, nowMs);
}

function showSinkAndPolicy({ sink, policy, cause }, nowMs) {
  byId("sink").dataset.icon = asText(cause?.code).startsWith("store.") ? "down" : "";
  setText(byId("sink-kind"), asText(sink.kind));
  setText(byId("sink-state"), asText(sink.state));
  const backlog = sink.backlog === 0 ? "nothing" : counted(sink.backlog, "reading");
  setText(byId("sink-backlog"), `${backlog} waiting`);
  setText(byId("policy-revision"), asText(policy.revision ?? NOTHING).slice(0, REVISION_CHARS));
  byId("policy-revision").title = asText(policy.revision ?? "");
  setTime("policy-activated", policy.activated_ms, when(policy.activated_ms, nowMs));
}

// A hidden tab does not ask, so its title must not pass for the state of now.
function showTitle() {
  document.title = `${document.hidden ? "Paused · " : ""}${view.title} · Ingest status`;
}

function showEmpty() {
  const empty = view.enrolled === 0;
  byId("first-steps").hidden = !empty;
  byId("devices").hidden = empty && view.total === 0;
}

function showStatus(status) {
  const nowMs = bridgeNow();
  const level = LEVEL_WORDS.has(status.level) ? status.level : "unknown";
  const word = LEVEL_WORDS.get(status.level) ?? asText(status.level);
  document.body.dataset.level = level;
  setIcon("level-icon", level);
  setText(byId("level-word"), word);
  setText(byId("level-note"), levelNote(status, nowMs));
  showHealth(status);
  showCause(status.cause, nowMs);
  showLedger(status.ledger);
  showCounts(status.devices);
  showRefusals(status.refusals, status.ledger.refused, nowMs);
  showSinkAndPolicy(status, nowMs);
  setTime("updated", nowMs, clock(nowMs, nowMs));
  const { enrolled } = status.devices;
  const title = `${word} · ${percent(status.ingest_health)}`;
  Object.assign(view, { title, enrolled, answeredMs: Date.now(), failingSinceMs: null });
  showTitle();
  for (const flag of ["stale", "waiting"]) delete document.body.dataset[flag];
  setText(byId("banner"), "");
  showEmpty();
}

function showBridgeSilent(error) {
  const nowMs = Date.now();
  view.failingSinceMs ??= nowMs;
  const since = clock(view.failingSinceMs, nowMs);
  const old = view.answeredMs === null ? "" : "; what is shown is old";
  setText(byId("banner"),
    `The bridge does not answer since ${since}${old} (${failureReason(error)}).`);
  document.body.dataset.stale = "";
  setIcon("level-icon", "unknown");
  view.title = `No answer since ${since}`;
  showTitle();
  if (old) setText(byId("level-note"), `As it was at ${clock(view.answeredMs, nowMs)}.`);
}

function applyFilter() {
  const needle = byId("filter").value.trim().toLowerCase();
  let shown = 0;
  for (const device of view.devices) {
    const visible = searchable(device).includes(needle);
    view.deviceRows.get(asText(device.device)).hidden = !visible;
    shown += visible ? 1 : 0;
  }
  setText(byId("showing"), showing(shown, view.devices.length, view.total, needle !== ""));
  byId("device-table").hidden = shown === 0;
}

function showDevices({ devices, total }) {
  Object.assign(view, { devices, total });
  syncRows(byId("device-rows"), view.deviceRows, devices, "device", DEVICE_COLUMNS, bridgeNow());
  applyFilter();
  setText(byId("devices-stale"), "");
  showEmpty();
}

function showDevicesSilent(error) {
  setText(byId("devices-stale"), `This list is old: no new one came (${failureReason(error)}).`);
}

async function ask(path) {
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  const response = await fetch(path, { cache: "no-store", signal });
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  const body = await response.json();
  const skewMs = Date.parse(response.headers.get("date")) - Date.now();
  view.skewMs = Math.abs(skewMs) > SKEW_TOLERANCE_MS ? skewMs : 0;
  return body;
}

function show(write, answer) {
  try {
    write(answer);
  } catch (error) {
    throw new Error("its answer has an unknown shape", { cause: error });
  }
}

/** Asks again POLL_MS after each answer or failure; not at all while the tab is hidden. */
function poll(path, write, fail) {
  let [timer, asking] = [0, false];
  async function tick() {
    clearTimeout(timer);
    if (asking || document.hidden) return;
    asking = true;
    await ask(path).then((answer) => show(write, answer)).catch(fail);
    asking = false;
    timer = setTimeout(tick, POLL_MS);
  }
  document.addEventListener("visibilitychange", tick);
  tick();
}

setText(byId("host"), location.host);
setText(byId("zone"), `Times are in ${Intl.DateTimeFormat().resolvedOptions().timeZone}.`);
byId("filter").addEventListener("input", applyFilter);
document.addEventListener("visibilitychange", showTitle);
poll("/api/status", showStatus, showBridgeSilent);
poll(`/api/devices?limit=${DEVICE_LIMIT}&sort=state`, showDevices, showDevicesSilent);
