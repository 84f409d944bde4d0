"""The asyncio shell: connections, listeners, lifecycle."""
