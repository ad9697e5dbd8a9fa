"""What the demo serves, one site a file; `server` gives each host name its site."""
