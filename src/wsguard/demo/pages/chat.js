// The chat's own page. Messages are put in as text, never as HTML.

import { open } from "/socket.js";

const COOKIES = ["__Host-session", "session_none"];

const messages = document.getElementById("messages");
let socket = null;

open().then(follow, () => end("Not connected. Reload to sign in again."));

function follow(opened) {
  socket = opened;
  socket.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (event.kind === "session") greet(event);
    if (event.kind === "message") show(event);
  };
  socket.onclose = ({ code, reason }) => {
    document.body.dataset.code = code;
    end(reason ? `Closed: ${code} ${reason}. Reload to sign in again.` : "Not connected. Reload to sign in again.");
  };
}

function end(why) {
  document.body.dataset.state = "closed";
  document.getElementById("who").textContent = why;
  document.getElementById("where").textContent = "";
}

function greet({ user, cookies }) {
  document.body.dataset.state = "connected";
  document.body.dataset.user = user;
  document.getElementById("who").textContent = `Signed in as ${user} at`;
  document.getElementById("where").textContent = location.host;
  document.title = `Chat at ${location.host}`;
  document.getElementById("cookies").replaceChildren(...COOKIES.map((name) => chip(name, cookies.includes(name))));
}

function chip(name, sent) {
  const item = document.createElement("li");
  item.className = "cookie";
  item.toggleAttribute("data-sent", sent);
  item.textContent = name;
  return item;
}

function show({ sender, text }) {
  const item = document.createElement("li");
  item.textContent = text;
  item.toggleAttribute("data-mine", sender === document.body.dataset.user);
  messages.append(item);
  messages.scrollTop = messages.scrollHeight;
}

document.getElementById("form").onsubmit = (event) => {
  event.preventDefault();
  const field = document.getElementById("text");
  if (socket?.readyState === WebSocket.OPEN) socket.send(field.value);
  field.value = "";
};
