"""The command table and one module a family of commands."""
