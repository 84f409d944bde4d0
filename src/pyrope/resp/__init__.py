"""Sans-IO RESP: bytes in, commands out; values in, bytes out."""
