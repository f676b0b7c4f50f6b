// The dashboard: asks for status.json every few seconds and shows what it says.
// Text goes into the page as text only; nothing is ever parsed as HTML.

import { draw, largest, newest } from "./charts.js";

const PERIOD_MS = 2000;
const PATIENCE_MS = 10000;
const SAMPLES = 60;
const HOUR = 360;

const at = (id) => document.getElementById(id);

// What a value looks like to a person

const size = (count) => {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 999.95 && unit < units.length - 1) {
    count /= 1000;
    unit += 1;
  }
  return `${unit ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
};

const duration = (seconds) => {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86400)} days`;
};

const number = (value) => value.toLocaleString("en-GB");
const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;
const words = (list, nothing) => list.join(", ") || nothing;

// Changing the page only where something changed, so that a selection stays

const say = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};
const show = (node, visible) => {
  if (node.hidden === visible) node.hidden = !visible;
};
const mark = (node, name) => {
  if (node.className !== name) node.className = name;
};

const resize = (parent, count, tag) => {
  while (parent.childElementCount > count) parent.lastElementChild.remove();
  while (parent.childElementCount < count) parent.append(document.createElement(tag));
};

// A cell is [text, class, title].  Rows of one identity after the first are marked `same`.
const fill = (body, rows) => {
  resize(body, rows.length, "tr");
  let before;
  rows.forEach((cells, index) => {
    const row = body.children[index];
    resize(row, cells.length, "td");
    cells.forEach(([text, kind = "", title = ""], column) => {
      const cell = row.children[column];
      say(cell, text);
      mark(cell, kind);
      if (cell.title !== title) cell.title = title;
      if (kind === "key") cell.style.setProperty("--hue", parseInt(text.slice(0, 4), 16) % 360);
    });
    const key = cells[0][1] === "key" ? cells[0][0] : undefined;
    mark(row, key !== undefined && key === before ? "same" : "");
    before = key;
  });
};

const progress = (bar, value, max) => {
  show(bar, value < max);
  bar.max = max;
  bar.value = value;
};

// The parts of the page

const showTor = (tor) => {
  const start = tor.bootstrap;
  const starting = start !== null && start.percent < 100;
  mark(at("tor-dot"), `dot ${tor.answers ? "good" : starting ? "wait" : "bad"}`);
  say(at("tor-headline"), tor.answers ? "answers" : starting ? `starting, ${start.percent} %` : "does not answer");
  progress(at("tor-progress"), starting ? start.percent : 100, 100);
  const parts = [tor.version ?? "", tor.mode === "managed" ? "our own" : "the system's"];
  if (starting) parts.push(start.warning ?? start.summary);
  else if (!tor.answers) parts.push(tor.state);
  parts.push(`control port ${tor.control}`);
  say(at("tor-detail"), parts.filter(Boolean).join(" · "));
};

const showNames = (names) => {
  const bar = at("names-progress");
  const light = names.servers !== undefined;
  progress(bar, 1, 1);
  if (!light) {
    const none = names.backend === "none";
    mark(at("names-dot"), none ? "dot" : names.problem ? "dot bad" : "dot good");
    say(at("names-headline"), none ? "not resolved" : names.backend);
    say(at("names-detail"), none ? ".bit names are refused" : names.problem ?? plural(names.cached, "answer") + " cached");
    return;
  }
  const { servers } = names;
  const healthy = servers.up >= names.quorum;
  mark(at("names-dot"), `dot ${names.problem ? "bad" : names.ready ? (healthy ? "good" : "bad") : "wait"}`);
  if (names.problem) say(at("names-headline"), "not now");
  else if (names.ready) say(at("names-headline"), `block ${number(names.tip)}`);
  else {
    say(at("names-headline"), `headers ${number(names.tip)} of ${number(names.target)}`);
    progress(bar, names.tip, Math.max(names.target, names.tip + 1));
  }
  const parts = [
    `${servers.up} of ${plural(servers.known, "server")} up`,
    `quorum ${names.quorum}`,
  ];
  if (names.problem) parts.unshift(names.problem);
  if (servers.demoted) parts.push(`${servers.demoted} demoted`);
  if (names.certificates.length) parts.push(`${plural(names.certificates.length, "certificate")} refused`);
  if (names.ready && !names.complete) parts.push(`headers down to ${number(names.base)}`);
  const { clean, bound } = names.connections;
  parts.push(`${plural(bound, "connection")} bound, ${clean} clean`, `${number(names.cached)} cached`);
  say(at("names-detail"), parts.join(" · "));
};

const showIsolation = (status) => {
  const { counters } = status;
  say(at("isolation-headline"), plural(counters.identities, "identity", "identities"));
  const parts = [
    plural(counters.open, "stream"),
    `${number(counters.opened)} since the start`,
    `epoch ${status.epoch}`,
  ];
  if (counters.circuits_pending) parts.push(`${plural(counters.circuits_pending, "circuit")} being built`);
  if (counters.circuits_queued) parts.push(`${counters.circuits_queued} queued`);
  parts.push(`${number(counters.local_lookups_refused)} local look-ups refused`);
  say(at("isolation-detail"), parts.join(" · "));
};

const history = { up: [], down: [], before: undefined };

const showTraffic = ({ counters }, now) => {
  const { before } = history;
  const sample = { up: counters.bytes_up, down: counters.bytes_down, now };
  for (const way of ["up", "down"]) {
    const seconds = before === undefined ? 0 : (now - before.now) / 1000;
    const rate = seconds > 0 ? Math.max(0, (sample[way] - before[way]) / seconds) : 0;
    history[way].push(rate);
    if (history[way].length > SAMPLES) history[way].shift();
    say(at(`rate-${way}`), `${size(rate)}/s`);
  }
  history.before = sample;
  const highest = Math.max(1000, ...history.up, ...history.down);
  for (const way of ["up", "down"]) {
    const first = SAMPLES - history[way].length;
    const points = history[way].map(
      (rate, index) =>
        `${((first + index) * 120) / (SAMPLES - 1)},${(31 - (rate / highest) * 30).toFixed(2)}`,
    );
    document.querySelector(`#chart .${way}`).setAttribute("points", points.join(" "));
  }
  say(at("traffic-detail"), `${size(counters.bytes_up)} up, ${size(counters.bytes_down)} down since the start`);
};

const listenerRow = (kind) => (one) => [
  [one.name],
  [one.address, "address", one.address],
  [(kind ? `${kind} · ` : "") + words(one.isolate, "nothing"), "wide quiet"],
  [number(one.open), "number"],
  [number(one.accepted), "number"],
];

const keyCell = (key) => (key ? [key, "key"] : ["–", "key none"]);
const STATES = { relaying: "", opening: "wait", handshake: "quiet", closing: "quiet" };

// The relays of a circuit, where the control port tells; the first is never named.
const relayText = (circuits, relays) =>
  circuits.filter((one) => relays[one]).map((one) => `${one}: ${relays[one].join(" → ")}`).join("\n");

const flowRow = (relays) => (flow) => [
  keyCell(flow.key),
  [flow.target ?? "–", "target", flow.target ?? ""],
  [flow.state, STATES[flow.state] ?? ""],
  [words(flow.circuits, "–"), "circuit", relayText(flow.circuits, relays)],
  [relays[flow.circuits[0]]?.slice(1).join(" → ") ?? "–", "relays wide"],
  [flow.listener, "wide quiet"],
  [duration(flow.age_s), "number wide quiet"],
  [size(flow.bytes_up), "number"],
  [size(flow.bytes_down), "number"],
];

const peerRow = (flow) => [
  keyCell(flow.key),
  [flow.target, "target", flow.target],
  [flow.transport.replaceAll("_", " "), flow.transport === "v2" ? "good" : "wait"],
  [words(flow.circuits, "–"), "circuit"],
  [flow.session_id || "–", "session", flow.session_id],
  [flow.network ?? "–", "wide quiet"],
  [size(flow.bytes_up), "number"],
  [size(flow.bytes_down), "number"],
];

const count = (total, shown) =>
  total > shown ? `${number(total)}, the first ${number(shown)} shown` : number(total);

const endText = ({ outcome, ending, reason, closed_by, count }) => {
  const why = (reason ?? ending).replaceAll("_", " ");
  return `${number(count)} ${outcome.replaceAll("_", " ")} (${why}, closed by ${closed_by})`;
};

const showBitcoin = ({ flows, open, totals }) => {
  const v1 = totals.to_peer.v1_bytes + totals.to_client.v1_bytes;
  const v2 = totals.to_peer.v2_bytes + totals.to_client.v2_bytes;
  show(at("peers-section"), open > 0 || v1 > 0 || totals.ends.length > 0);
  say(at("peers-count"), count(open, flows.length));
  fill(at("peers"), flows.map(peerRow));
  show(at("savings"), v1 > 0);
  const saved = v1 > 0 ? ((v2 - v1) / v1) * 100 : 0;
  say(
    at("savings"),
    `Messages carried: ${size(v1)} as v1, ${size(v2)} as v2 (${saved > 0 ? "+" : "−"}${Math.abs(saved).toFixed(1)} %)`,
  );
  show(at("ends"), totals.ends.length > 0);
  say(at("ends"), `Ended: ${totals.ends.map(endText).join("; ")}`);
};

const showRefusals = (refusals) => {
  const entries = Object.entries(refusals);
  const list = at("refusals");
  show(at("refusals-section"), entries.length > 0);
  resize(list, entries.length, "li");
  entries.forEach(([kind, times], index) => {
    const item = list.children[index];
    if (!item.childElementCount) item.append("", document.createElement("b"));
    if (item.firstChild.data !== kind.replaceAll("_", " ")) item.firstChild.data = kind.replaceAll("_", " ");
    say(item.lastChild, number(times));
  });
};

// The last hour

const hour = { answer: undefined, asked: -Infinity, chosen: undefined };

const per = (rate) => `${size(rate)}/s`;
const milliseconds = (value) => (value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`);
const speeds = (up, down, text) => `↑ ${text(up)}  ↓ ${text(down)}`;

const showRates = (name, { up, down }, now) => {
  const svg = at(name === "identity" ? "identity-chart" : name);
  draw(svg, [["down", down], ["up", up]], HOUR);
  say(now, up.length ? speeds(newest(up), newest(down), per) : "");
  say(at(`${name}-most`), `at most ${speeds(largest(up), largest(down), per)}`);
};

const showHour = (answer) => {
  const minutes = Math.round((answer.up.length * answer.period_s) / 60);
  say(at("hour-length"), minutes < 60 ? `${plural(minutes, "minute")} so far` : "");
  showRates("throughput", answer, at("throughput-now"));
  for (const [name, series, text] of [
    ["streams", answer.streams, number],
    ["circuits", answer.circuits, number],
    ["lookups", answer.lookup_ms, milliseconds],
    ["refused", answer.refusals, number],
  ]) {
    draw(at(name), [["plain", series]], HOUR);
    const last = newest(series);
    say(at(`${name}-now`), last === null ? "–" : text(last));
    say(at(`${name}-most`), last === null ? "not known" : `at most ${text(largest(series))}`);
  }
  showIdentity();
};

const showIdentity = () => {
  const own = hour.answer?.identities[hour.chosen];
  show(at("identity"), hour.chosen !== undefined);
  if (hour.chosen === undefined) return;
  say(at("identity-name"), hour.chosen);
  if (own === undefined) {
    at("identity-chart").replaceChildren();
    say(at("identity-now"), "");
    say(at("identity-most"), "Nothing is known of it: it has just begun, or has ended.");
  } else showRates("identity", own, at("identity-now"));
};

const choose = (label) => {
  hour.chosen = hour.chosen === label ? undefined : label;
  for (const button of at("identities").querySelectorAll("button"))
    button.setAttribute("aria-pressed", button.textContent === hour.chosen);
  showIdentity();
};

const showIdentities = (identities) => {
  const body = at("identities");
  show(at("identities-section"), identities.length > 0);
  say(at("identities-count"), number(identities.length));
  resize(body, identities.length, "tr");
  identities.forEach((one, index) => {
    const row = body.children[index];
    if (!row.childElementCount) {
      const button = document.createElement("button");
      button.addEventListener("click", () => choose(button.textContent));
      const head = document.createElement("th");
      head.scope = "row";
      head.append(button);
      row.append(head);
    }
    resize(row, 7, "td");
    const button = row.querySelector("button");
    say(button, one.key);
    mark(button, "key");
    button.setAttribute("aria-pressed", one.key === hour.chosen);
    button.style.setProperty("--hue", parseInt(one.key.slice(0, 4), 16) % 360);
    [
      [number(one.streams), "number count streams"],
      [number(one.lookups), "number count lookups"],
      [number(one.bitcoin), "number count bitcoin"],
      [duration(one.age_s), "number wide quiet"],
      [size(one.bytes_up), "number"],
      [size(one.bytes_down), "number"],
    ].forEach(([text, kind], column) => {
      say(row.children[column + 1], text);
      mark(row.children[column + 1], kind);
    });
  });
};

const showAll = (status, now) => {
  say(at("about"), `${status.version}, up ${duration(status.uptime_s)}`);
  document.title = `isoproxy: ${plural(status.counters.open, "stream")}`;
  show(at("unscrubbed"), !status.scrubbed);
  document.body.classList.toggle("scrubbed", status.scrubbed);
  say(
    at("privacy"),
    status.scrubbed
      ? "Identities are labels of this process alone: no name, address or credential is shown."
      : "",
  );
  showTor(status.tor);
  showNames(status.names);
  showIsolation(status);
  showTraffic(status, now);
  fill(at("listeners"), [
    ...status.listeners.map(listenerRow("")),
    ...status.bitcoin.proxies.map(listenerRow("bitcoin")),
  ]);
  say(at("flows-count"), count(status.counters.open, status.flows.length));
  fill(at("flows"), status.flows.map(flowRow(status.relays)));
  show(at("flows-table"), status.flows.length > 0);
  show(at("flows-empty"), status.flows.length === 0);
  showIdentities(status.identities);
  showBitcoin(status.bitcoin);
  showRefusals(status.counters.refusals);
};

// Asking

const askHour = async (now) => {
  if (hour.answer !== undefined && now < hour.asked + hour.answer.period_s * 1000) return;
  hour.asked = now;
  const answer = await fetch("history.json", { signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  hour.answer = await answer.json();
  showHour(hour.answer);
};

const ask = async () => {
  try {
    const answer = await fetch("status.json", { signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    showAll(await answer.json(), performance.now());
    await askHour(performance.now());
    mark(at("live"), "good");
    say(at("live"), "live");
    document.body.classList.remove("stale");
  } catch {
    mark(at("live"), "bad");
    say(at("live"), "isoproxy does not answer");
    document.body.classList.add("stale");
  }
};

const rounds = async () => {
  while (true) {
    if (!document.hidden) await ask();
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, PERIOD_MS);
      document.addEventListener("visibilitychange", () => (clearTimeout(timer), resolve()), { once: true });
    });
  }
};

rounds();
