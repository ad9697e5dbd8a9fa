"""
Floor 5: the gateway mount. A WSS reverse proxy before any app in any language.

Read it in this order: `listener` (a connection arrives), `connection` (heads, one after the other), `handshake` (words
for the engine), `answer` (its decision, in bytes), `http_proxy` (pages), `upstream` (connections behind us), `relay`
(frames flow), `lifecycle` (start and end of it all).
"""
