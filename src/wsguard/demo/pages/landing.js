// The landing page: renders the newest state that the demo's server sends, and leads one window through all cases.
// Everything that comes from elsewhere is put in as text, never as HTML.

const OUTCOMES = {
  idle: "Not tried yet",
  trying: "Trying…",
  connected: "Works",
  hijacked: "Hijacked",
  refused: "Refused",
  revoked: "Revoked",
  "turned-away": "Nothing stolen",
  failed: "No connection",
};
const COOKIES = ["__Host-session", "session_none"];
const APPS = { open: "Unprotected", guarded: "Behind wsguard", tickets: "Behind wsguard, with tickets" };
const TOUR = [
  ["own", "open"], ["own", "guarded"], ["own", "tickets"],
  ["cross-site", "open"], ["cross-site", "guarded"], ["cross-site", "tickets"],
  ["sibling", "open"], ["sibling", "guarded"], ["sibling", "tickets"],
  ["own", "tickets"], // stays open, to be revoked
];
const VERDICTS = {
  "handshake.refused": "refused",
  "session.opened": "opened",
  "session.closed": "closed",
  "session.revoked": "revoked",
  "ticket.sold": "ticket",
};
const BY = { client: "the client", upstream: "the app" };
const WINDOW = { width: 560, height: 740 };
const PACE_MS = 900; // a person should see what happens

const cards = new Map();
let feed = null;
let state = null;
let tour = null;
let lastLogNumber = 0;

// --- the feed -------------------------------------------------------------------------------------------------------

function follow() {
  feed = new WebSocket(`wss://${location.host}/feed`);
  feed.onopen = () => setLive(true);
  feed.onmessage = ({ data }) => {
    state = JSON.parse(data);
    render();
    advance();
  };
  feed.onclose = () => {
    setLive(false);
    setTimeout(follow, 1000);
  };
}

function setLive(on) {
  const live = document.getElementById("live");
  live.textContent = on ? "live" : "the demo is not running";
  live.toggleAttribute("data-on", on);
}

// --- rendering ------------------------------------------------------------------------------------------------------

function render() {
  for (const [app, origin] of Object.entries(state.origins)) {
    document.querySelector(`[data-origin=${app}]`).textContent = origin;
  }
  for (const seen of state.cases) renderCard(cardOf(seen), seen);
  renderLog();
}

function cardOf({ caller, app, page }) {
  const key = `${caller}/${app}`;
  if (!cards.has(key)) {
    const card = document.getElementById("card").content.firstElementChild.cloneNode(true);
    card.dataset.app = app;
    card.querySelector(".label").textContent = `${APPS[app]}: ${app}.localhost`;
    const visit = card.querySelector(".visit");
    visit.href = page;
    visit.setAttribute("aria-label", `Open ${page} in a new window`);
    visit.onclick = (event) => {
      event.preventDefault();
      openWindow(page, key);
    };
    card.querySelector(".revoke").onclick = () => feed.send("revoke");
    document.querySelector(`[data-caller=${caller}]`).append(card);
    cards.set(key, card);
  }
  return cards.get(key);
}

function renderCard(card, seen) {
  card.dataset.outcome = seen.outcome;
  card.querySelector(".outcome").textContent = OUTCOMES[seen.outcome];
  card.querySelector(".says").textContent = says(seen);
  card.querySelector(".revoke").hidden = !(seen.app === "tickets" && seen.outcome === "connected");
  renderStolen(card.querySelector(".stolen"), seen);
  renderFacts(card.querySelector(".facts"), seen);
}

function says(seen) {
  switch (seen.outcome) {
    case "connected": return seen.app === "tickets"
      ? "Signed in as Ada. A ticket opened the socket; the token that bought it is in this page’s hands alone."
      : "Signed in as Ada. The app’s own page reads the chat.";
    case "revoked": return "Closed at once, with code 3000. The token buys no other ticket.";
    case "hijacked": return "The app took the attacker’s socket for yours. The attacker’s server reads along, live:";
    case "refused": return whyRefused(seen);
    case "turned-away": return whyTurnedAway(seen);
    case "failed": return `Has this browser accepted the certificate of ${state.origins[seen.app]}?`;
    case "trying": return "The page is open.";
    default: return seen.caller === "own" ? "Opening it signs you in." : host(seen.origin);
  }
}

function whyRefused({ refusal, token_withheld }) {
  if (refusal.reason !== "credential.missing") return "Refused before the app heard of it. The attacker’s page only learns that it failed.";
  return token_withheld
    ? "Its origin may come in, but it has no ticket: the browser lets no other page read the token that buys one."
    : "Its origin may come in, but it has no ticket.";
}

function whyTurnedAway({ caller, sent }) {
  return caller === "cross-site" && sent.cookies.length === 0
    ? "This browser keeps cookies back from other sites. Stock Chrome would have sent session_none."
    : "Nobody is signed in: open the chat first.";
}

function renderStolen(list, { received }) {
  list.hidden = received.length === 0;
  list.replaceChildren(...received.map(({ sender, text }) => element("li", {}, element("b", {}, sender), text)));
  list.scrollTop = list.scrollHeight;
}

function renderFacts(list, { caller, app, outcome, origin, sent, refusal, token_withheld }) {
  const facts = [];
  if (sent || refusal) {
    facts.push(["Origin", element("code", {}, sent ? sent.origin : origin)]);
    facts.push(["Cookies", sent ? cookies(sent.cookies) : "not seen"]);
  }
  if (sent && caller !== "own") facts.push(["Sec-Fetch-Site", element("code", {}, sent.fetch_metadata["Sec-Fetch-Site"] ?? "not sent")]);
  if (refusal && outcome === "refused") {
    facts.push(["Answer", element("span", {}, element("code", {}, `${refusal.status}`), " because ", element("code", {}, refusal.reason))]);
    const listed = app === "tickets" ? [state.origins[app], state.listed_sibling] : [state.origins[app]];
    facts.push(["Allow-list", element("span", {}, ...listed.map((entry) => element("code", { class: "entry" }, entry)))]);
    if (token_withheld) facts.push(["Token", "asked for, not readable"]);
  }
  list.hidden = facts.length === 0;
  list.replaceChildren(...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

function cookies(sent) {
  const chips = COOKIES.map((name) => element("li", sent.includes(name) ? { class: "cookie", "data-sent": "" } : { class: "cookie" }, name));
  return element("ul", { class: "cookies" }, ...chips);
}

function renderLog() {
  const list = document.getElementById("log");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  for (const line of state.log.filter(({ number }) => number > lastLogNumber)) {
    list.append(logLine(line));
    lastLogNumber = line.number;
  }
  while (list.children.length > 80) list.firstElementChild.remove();
  document.getElementById("log-empty").hidden = list.children.length > 0;
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function logLine(line) {
  const verdict = VERDICTS[line.event] ?? line.event;
  const why = element("span", { class: "why" });
  if (line.event === "handshake.refused") why.append(`${line.status} ${line.reason} `, element("i", {}, line.hint ?? ""));
  if (line.event === "ticket.sold") why.append(element("i", {}, `to ${line.subject}, for ${line.path}`));
  if (line.event === "session.revoked") why.append(element("i", {}, `${line.subject}: ${line.closed} closed`));
  if (line.event === "session.opened") why.append(element("i", {}, `${line.host}${line.path}`));
  if (line.event === "session.closed") why.append(element("i", {}, `${line.code ?? "no code"} by ${BY[line.by] ?? line.by}, ${line.seconds} s`));
  return element(
    "li", { "data-verdict": verdict },
    element("time", {}, clock(line.time)),
    element("span", { class: "verdict" }, verdict),
    element("span", { class: "from" }, line.origin ?? `${line.host ?? ""}${line.path ?? ""}`),
    why,
  );
}

function clock(time) {
  const date = new Date(typeof time === "number" ? time * 1000 : time);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleTimeString("en-GB");
}

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function host(origin) {
  return origin.replace("https://", "");
}

// --- the tour: one window, all cases --------------------------------------------------------------------------------

function openWindow(url, name) {
  const left = screen.availLeft + screen.availWidth - WINDOW.width; // at the right edge, so that this page stays in sight
  return window.open(url, `wsguard-${name}`, `popup,width=${WINDOW.width},height=${WINDOW.height},left=${left},top=60`);
}

function startTour() {
  if (state === null) return;
  const shown = openWindow(caseOf(TOUR[0]).page, "tour");
  if (shown === null) {
    tell("The browser blocked the window. Allow it, or use the Open links below.");
    return;
  }
  tour = { shown, step: 0, before: caseOf(TOUR[0]).attempts };
  tellStep();
}

function advance() {
  if (tour === null || tour.moving || !isDone(caseOf(TOUR[tour.step]))) return;
  tour.moving = true;
  setTimeout(nextStep, PACE_MS);
}

function isDone({ attempts, outcome }) {
  return attempts > tour.before && outcome !== "trying";
}

function nextStep() {
  tour.step += 1;
  tour.moving = false;
  if (tour.step === TOUR.length) {
    tour = null;
    tell("Done. The window holds a chat that a ticket opened: press Revoke in the third column, and it closes.");
    document.body.dataset.tour = "done";
    return;
  }
  const next = caseOf(TOUR[tour.step]);
  tour.before = next.attempts;
  tour.shown.location = next.page;
  tellStep();
}

function tellStep() {
  const { caller, app, origin } = caseOf(TOUR[tour.step]);
  const what = caller === "own" ? `signing in to ${app}.localhost` : `${host(origin)} opens a socket to ${app}.localhost`;
  tell(`${tour.step + 1} of ${TOUR.length}: ${what}`);
}

function caseOf([caller, app]) {
  return state.cases.find((seen) => seen.caller === caller && seen.app === app);
}

function tell(text) {
  document.getElementById("progress").textContent = text;
}

document.getElementById("run").onclick = startTour;
follow();
