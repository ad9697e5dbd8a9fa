// How the chat's page opens its socket: any page can, and the browser signs it in.

export async function open() {
  return new WebSocket(`wss://${location.host}/chat`);
}
