"""What request and response heads alike are refused for, whatever the parser says (RFC 9112 §2.2, §5.2)."""

from __future__ import annotations

import re

END_OF_HEAD = b"\r\n\r\n"
BARE_LINE_END = re.compile(rb"(?<!\r)\n|\r(?!\n)")
OBS_FOLD = re.compile(rb"\n[ \t]")
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
