// How the chat's page opens its socket where a ticket is wanted: its token buys one and, from time to time, renews it.

const token = async () => (await answered(await fetch("/token"))).text();

export async function open() {
  const { url, protocols, session, renew_after } = await ask("ticket", { path: "/ws/chat" });
  const socket = new WebSocket(url, protocols);
  const renewIn = (seconds) => {
    const timer = setTimeout(async () => renewIn((await ask("renew", { session })).renew_after), 1000 * seconds);
    socket.addEventListener("close", () => clearTimeout(timer));
  };
  renewIn(renew_after);
  return socket;
}

async function ask(what, body) {
  const headers = { Authorization: `Bearer ${(await token()).trim()}`, "Content-Type": "application/json" };
  return (await answered(await fetch(`/.wsguard/${what}`, { method: "POST", headers, body: JSON.stringify(body) }))).json();
}

function answered(answer) {
  return answer.ok ? answer : Promise.reject(new Error(`${answer.url}: ${answer.status}`));
}
