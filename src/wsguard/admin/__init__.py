"""
The admin socket: who may use this machine as wsguard's own user revokes, closes, lists and sells through it.

HTTP/1.1 on a Unix socket, 0600 in a folder of its own; the kernel says who is at the other end. Read it in this order:
`socket` (where it is, who may come), `server` (a request arrives), `requests` (what is done), `client` (the other end).
"""
