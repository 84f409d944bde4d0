"""Vector engines: exact scan and graphs behind one protocol, attribute filters, the executor."""
