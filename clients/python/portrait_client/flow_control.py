"""FlowControl: how many frames may be unanswered."""


class FlowControl:
    """Additive increase, multiplicative decrease, as in TCP; used on one event loop.

    The window grows by one for every window of replies that came as soon as they could, and is halved when frames were
    dropped or waited behind others for longer than two frames' work. So a short link keeps one frame in work and one on
    its way, and a long one as many as keep the server busy.
    """

    LEAST = 1

    def __init__(self, start: int, most: int) -> None:
        if most < self.LEAST:
            raise ValueError(f"max_in_flight: got {most}, expected {self.LEAST} or more")
        self._size, self._most, self._asked = float(min(start, most)), most, most
        self._fastest = float("inf")
        self._spared = 0

    @property
    def window(self) -> int:
        """Frames that may be unanswered; 1 or more."""
        return int(self._size)

    def limit(self, most: int) -> None:
        """Apply a server's own limit, 1 or more, until the next server has another."""
        self._most = min(self._asked, most)
        self._size = min(self._size, self._most)

    def replied(self, round_trip: float, work: float, dropped: int) -> None:
        """Note a reply: seconds since its frame was sent, seconds of work, frames dropped before it."""
        self._fastest = min(self._fastest, round_trip)
        # The round trip of a long link varies by a quarter by itself.
        if dropped or round_trip - self._fastest > 2 * work + self._fastest / 4:
            # The replies that are already on their way are about the same moment, for which the window is halved once.
            if not self._spared:
                self._spared = self.window
                self._size = max(self.LEAST, self._size / 2)
        else:
            self._size = min(self._most, self._size + 1 / self._size)
        self._spared = max(0, self._spared - 1)
