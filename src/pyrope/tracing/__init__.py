"""Traces of commands: what took how long in which of their parts.

Nothing here is imported from OpenTelemetry until a share of the commands is to be traced, which
takes 0.2 s and 20 MB.
"""
