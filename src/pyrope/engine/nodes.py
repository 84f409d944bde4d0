"""Which node of a graph stands for which slots, so that equal vectors share one node.

Why share: HNSW links a node to its nearest neighbours unless another neighbour is nearer to them
(Malkov and Yashunin, arXiv:1603.09320, algorithm 4), and among equal vectors, all at distance 0,
nothing is nearer. A node with as many twins as links is linked to them alone; the clique is a
trap that searches do not leave. Measured (20,000 sentence embeddings, M 16, beam 64): 500 equal
vectors inserted first lower recall@10 from 0.998 to 0.85; 10,000 lower it to 0.71, and a quarter
of all queries then find nothing that is right. A cache of prompts sees such data.

Terms. The label of a node is a slot number. The node stands for its *members*: usually the slot
of the same number alone, which is its *owner*; slots with an equal vector join it as *guests*.
A slot that is deleted leaves its node, but the owner's node stays in the graph, a tombstone if it
has no guests, and is written over when the slot is used again. Before that happens, one of the
guests inherits: it gets a node of its own, and the others move there.

Invariants:
- Only a node that its own slot belongs to (live or deleted) has guests. A slot that leaves its
  node to be a guest elsewhere gives up its guests and its digest first, so nobody joins later.
- `stands[label]` iff the node has a live member.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyrope.engine.digests import DigestTable
from pyrope.engine.slot_table import grown
from pyrope.types import Mask, Slots


@dataclass(frozen=True, slots=True)
class Inheritance:
    """The node of `owner` is to be written anew as that of `heir`, with the same vector."""

    owner: int
    heir: int


class Nodes:
    """The nodes of one graph. Liveness of slots is kept elsewhere and passed in.

    Attributes:
        known: bool, by label: the graph has a node of this label.
        stands: bool, by label: the node has a live member.
        shared: bool, by label: the node has guests.
        node_of: int32, by slot: the label of its node; -1 where it has none.
        guests: the guests of shared nodes, all of them live.
        digests: of the vectors in the nodes that may be joined.
    """

    def __init__(self) -> None:
        self.known: Mask = np.zeros(0, dtype=np.bool_)
        self.stands: Mask = np.zeros(0, dtype=np.bool_)
        self.shared: Mask = np.zeros(0, dtype=np.bool_)
        self.node_of = np.zeros(0, dtype=np.int32)
        self.guests: dict[int, set[int]] = {}
        self.digests = DigestTable()
        self.known_count = 0
        self.standing_count = 0

    @property
    def nbytes(self) -> int:
        arrays = (self.known, self.stands, self.shared, self.node_of, self.digests)
        # A set costs 216 bytes while it is small, an entry of a large one 32 or so.
        # (Listed in one step, as another thread may be merging.)
        guests = sum(max(216, 40 * len(guests)) for guests in list(self.guests.values()))
        return sum(array.nbytes for array in arrays) + guests

    def ensure(self, size: int) -> None:
        """Have room for slots and labels below `size`."""
        if (size := grown(len(self.known), size)) == len(self.known):
            return
        more = np.zeros(size - len(self.known), dtype=np.bool_)
        self.known = np.concatenate([self.known, more])
        self.stands = np.concatenate([self.stands, more])
        self.shared = np.concatenate([self.shared, more])
        self.node_of = np.concatenate([self.node_of, np.full(len(more), -1, np.int32)])

    # -- changing ---------------------------------------------------------------------------------

    def own(self, slot: int) -> None:
        """Give a slot, which belongs to no node, the node of its own label."""
        self.node_of[slot] = slot
        if not self.known[slot]:
            self.known[slot] = True
            self.known_count += 1
        self._stand(slot, standing=True)

    def revive(self, slot: int) -> None:
        """A deleted slot is live again, in the node that it owns still."""
        self._stand(slot, standing=True)

    def join(self, slot: int, label: int) -> None:
        """Make a slot, which belongs to no node, a guest."""
        self.node_of[slot] = label
        self.guests.setdefault(label, set()).add(slot)
        self.shared[label] = True
        self._stand(label, standing=True)

    def leave(self, slot: int, live: Mask) -> None:
        """Take a guest from its node."""
        label = int(self.node_of[slot])
        self.node_of[slot] = -1
        guests = self.guests[label]
        guests.remove(slot)
        if not guests:
            del self.guests[label]
            self.shared[label] = False
            self._stand(label, standing=bool(live[label]))

    def abandon(self, slot: int) -> Inheritance | None:
        """Take an owner from its node, and nobody stays behind.

        The heir is the least of the guests, and owner of its node from now on.
        """
        digest = self.digests.digest(slot)
        self.digests.forget(slot)
        self.node_of[slot] = -1
        self._stand(slot, standing=False)
        guests = self.guests.pop(slot, None)
        if guests is None:
            return None
        self.shared[slot] = False
        heir = min(guests)
        guests.remove(heir)
        self.own(heir)
        self.digests.put(heir, digest)
        for guest in guests:
            self.join(guest, heir)
        return Inheritance(slot, heir)

    def delete(self, slots: Slots, live: Mask) -> None:
        """Slots have been deleted, which `live` shows already."""
        if not self.guests:
            self.standing_count -= len(slots)
            self.stands[slots] = False
            return
        for slot in slots.tolist():
            if self.node_of[slot] == slot:
                self._stand(slot, standing=bool(self.shared[slot]))
            else:
                self.leave(slot, live)

    def adopt(self, labels: Slots, live: Slots, digests: NDArray[np.uint64]) -> None:
        """Take in nodes that the graph has and this does not know, each owned by its slot.

        Args:
            labels: theirs; distinct.
            live: those of them whose owners are live.
            digests: of the vectors that the nodes hold.
        """
        self.ensure(int(labels.max()) + 1)
        self.known[labels] = True
        self.stands[live] = True
        self.node_of[labels] = labels
        self.known_count += len(labels)
        self.standing_count += len(live)
        self.digests.put_all(labels, digests)

    def _stand(self, label: int, *, standing: bool) -> None:
        self.standing_count += standing - int(self.stands[label])
        self.stands[label] = standing

    # -- asking -----------------------------------------------------------------------------------

    def owns(self, slot: int) -> bool:
        """Whether a slot, live or deleted, belongs to the node of its own label."""
        return bool(self.node_of[slot] == slot)

    def is_guest(self, slot: int) -> bool:
        return int(self.node_of[slot]) not in (-1, slot)

    def members(self, label: int, part: Mask) -> list[int]:
        """Slots that a node stands for and that take part, ascending."""
        members = [label] if self.owns(label) else []
        members += self.guests.get(label, ())
        return sorted(slot for slot in members if slot < len(part) and part[slot])

    def matching(self, part: Mask) -> Mask:
        """Bool by label: whether a node stands for a live slot that takes part.

        Args:
            part: live slots that take part, shape (<= size,).
        """
        matching = np.zeros(len(self.known), dtype=np.bool_)
        if self.guests:
            matching[self.node_of[np.flatnonzero(part)]] = True
        else:
            matching[: len(part)] = part
        return matching
