"""``pyrope bench``: puts load on a server, and tells what it took."""
