"""What the dashboard at ``/`` is told, once a second; see docs/http.md."""
