"""
`wsguard demo --headless-check`: the demo, judged by a machine in real browsers.

    browsers   Chromium and Firefox in throw-away profiles that trust the development CA
    victim     what the person in front of the browser does, and what came of it
    findings   what was found, and whether it is what must be found
    headless   all of it in order, and one last line
"""
