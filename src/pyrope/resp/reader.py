"""Bytes from a client to its commands: the memo of layouts in front of the exact parser."""

from __future__ import annotations

from pyrope.resp.framer import Command, Framer
from pyrope.resp.limits import ReaderLimits
from pyrope.resp.shapes import ShapeMemo


class CommandReader:
    """The read side of one connection. No sockets, no clock: bytes in, commands out.

    The commands that precede bad bytes are always delivered. ``feed`` returns them and sets
    ``stalled``; the next call, with more data or with ``b""``, looks at the bad bytes again, and
    raises if they are still bad under the limits then in force::

        while True:
            for command in reader.feed(data):   # raises ProtocolError
                run(command)                    # AUTH may assign reader.limits
            if not reader.stalled:
                break
            data = b""
    """

    __slots__ = ("_framer", "_shapes")

    def __init__(self, limits: ReaderLimits) -> None:
        self._framer = Framer(limits)
        self._shapes = ShapeMemo()

    @property
    def limits(self) -> ReaderLimits:
        """The limits in force from the next header on; what was accepted stays accepted."""
        return self._framer.limits

    @limits.setter
    def limits(self, limits: ReaderLimits) -> None:
        self._framer.limits = limits
        self._shapes.clear()

    @property
    def idle(self) -> bool:
        """Whether everything received has been delivered: nothing is buffered, nothing is bad."""
        return self._framer.idle

    @property
    def stalled(self) -> bool:
        """Bad bytes follow the commands that were just returned: call ``feed`` again."""
        return self._framer.stalled

    @property
    def buffered(self) -> int:
        """Bytes received of a command that is not complete."""
        return self._framer.buffered

    @property
    def has_partial(self) -> bool:
        """Whether a command has begun to arrive and is not complete, to time slow clients."""
        return self._framer.buffered > 0

    def feed(self, data: bytes) -> list[Command]:
        """Return the commands that ``data`` completes, in order; arguments are copies.

        Raises:
            ProtocolError: the bytes are not RESP or break a limit, and all commands before them
                have been delivered. The reader is of no further use: it raises the same again.
        """
        framer = self._framer
        if not framer.idle:
            return framer.feed(data)
        commands = self._shapes.match(data)
        if commands is None:
            commands = framer.feed(data)
            if framer.idle:
                self._shapes.learn(data, commands)
        return commands
