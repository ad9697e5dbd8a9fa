"""uvicorn's WebSocket side, mended where the end of the server would break on a client who is just leaving."""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State


class MendedWebSocketProtocol(WebSocketsSansIOProtocol):
    """
    The protocol that uvicorn calls ``websockets-sansio``.

    At the server's end uvicorn 0.54 sends a Close to every socket, and where the client's own has come already but its
    connection still stands (TLS waits for an answer, for half a minute), that raises: the other sockets are left as
    they are, the app's lifespan hears of no shutdown, and the process ends with a traceback.

    And a handshake that is still being judged it answers with 500, but tells nobody: whoever is then let in is served
    on a dead connection, until that too ends in a traceback.
    """

    def shutdown(self) -> None:
        """End the connection; without a Close where one has been sent in answer to the client's."""
        if not self.handshake_complete and self.initial_response is None:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1012})
            self.send_500_response()
            self.handshake_complete = self.disconnected = True  # what is sent from now on raises
            self.transport.close()
        elif self.handshake_complete and not self.close_sent and self.conn.state is not State.OPEN:
            self.stop_keepalive()
            self.transport.close()
        else:
            super().shutdown()
