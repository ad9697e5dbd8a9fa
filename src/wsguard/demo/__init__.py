"""
Floor 7: `wsguard demo`, cross-site WebSocket hijacking that a person can watch and a machine can check.

    places          who lives where: names, ports, origins, and the six cases (who opens a socket to which app)
    observations    what was seen of each case, and the gateway's decision log
    sites/          what the demo serves: the chat app twice, the attackers' pages, the landing page
    gateway_process the real `wsguard gateway`, as a subprocess
    running         all of it together, on loopback
    interactive     for a person: terminal output and a browser
    check/          for a machine: `wsguard demo --headless-check`
    pages/          the HTML, CSS and JavaScript, as package data
"""
