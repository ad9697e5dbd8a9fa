"""Floor 6: from flags and a TOML file to the settings of a mount. Assembles, and decides nothing."""

from wsguard.config.assemble import assemble_gateway, load_gateway
from wsguard.config.file import GatewayConfig, read_config, render_toml, schema

__all__ = ["GatewayConfig", "assemble_gateway", "load_gateway", "read_config", "render_toml", "schema"]
