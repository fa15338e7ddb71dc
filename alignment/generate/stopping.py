"""When an answer ends: at an end token, at a stop string, at its longest length."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from alignment.generate.completion import Completion, Settings


class Stopping:
    """End tokens and stop strings of one model; which tokens can complete a stop string is found once per token."""

    def __init__(self, ends: Collection[int], decode: Callable[[Sequence[int]], str]) -> None:
        self.ends, self.decode = ends, decode
        self._ends_stop: dict[tuple[str, ...], dict[int, bool]] = {}

    def completion(self, new: list[int], logprobs: list[float], settings: Settings) -> Completion | None:
        """Return the answer if its last token ends it."""
        last = new[-1]
        if last in self.ends:
            return Completion(self.decode(new[:-1]), new, logprobs, "stop")
        if settings.stop and self._may_end_stop(last, settings.stop):
            # a token is at least one byte, so a stop string that has just ended lies within this tail
            tail = self.decode(new[-max(len(stop.encode()) for stop in settings.stop) - 4 :])
            if any(stop in tail for stop in settings.stop):
                text = self.decode(new)
                cuts = [at for stop in settings.stop if (at := text.find(stop)) >= 0]
                if cuts:
                    return Completion(text[: min(cuts)], new, logprobs, "stop")
        if len(new) >= settings.max_new_tokens:
            return Completion(self.decode(new), new, logprobs, "length")
        return None

    def _may_end_stop(self, token: int, stop: tuple[str, ...]) -> bool:
        known = self._ends_stop.setdefault(stop, {})
        if token not in known:
            text = self.decode([token])
            known[token] = "\ufffd" in text or any(s[-1] in text or (s[-1].isspace() and not text.strip()) for s in stop)
        return known[token]
