const find = (id) => document.getElementById(id);
let socket;

function enter(path) {
  socket = new WebSocket(`wss://${location.host}${path}`);
  socket.onopen = () => { find("state").textContent = "open"; };
  socket.onclose = (event) => { find("state").textContent = `closed ${event.code}`; };
  socket.onmessage = (event) => {
    const { name, says } = JSON.parse(event.data);
    if (says === undefined) return;
    const line = document.createElement("li");
    line.textContent = `${name}: ${says}`;
    find("lines").append(line);
  };
}

find("login").onsubmit = async (event) => {
  event.preventDefault();
  const { name, password } = Object.fromEntries(new FormData(event.target));
  const answer = await fetch("/login", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ name, password }),
  });
  if (answer.ok) enter(password ? "/ws/chat" : "/ws/listen");
  else find("state").textContent = `refused ${answer.status}`;
};

find("logout").onclick = () => fetch("/logout", { method: "POST" });

find("speak").onsubmit = (event) => {
  event.preventDefault();
  socket.send(new FormData(event.target).get("text"));
  event.target.reset();
};
