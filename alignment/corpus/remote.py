"""Files of a data set on the hub, read as they come, without a copy on this machine."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from alignment.errors import HubError

SECRET = re.compile(r"(?<=Bearer )[^\s'\"]+|hf_[A-Za-z0-9]{20,}")  # a token, as an error of the transport may repeat it


class Remote(io.RawIOBase):
    """An open file on the hub. A connection that fails is no fault of the file: it raises HubError and stops the run.

    `path` is ORG/NAME@REVISION/FILE; `seeks` is for what is not read from its beginning to its end.
    """

    def __init__(self, path: str, *, seeks: bool) -> None:
        from huggingface_hub import HfFileSystem

        self.path = path
        with asking_hub(path):
            hub = HfFileSystem(endpoint=os.environ.get("HF_ENDPOINT"))
            self._file: IO[bytes] = hub.open(f"datasets/{path}", "rb", block_size=None if seeks else 0)
        self._seeks = seeks

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Whether it was opened so."""
        return self._seeks

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes."""
        with asking_hub(self.path):
            found = self._file.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go elsewhere."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Where the next byte stands."""
        return self._file.tell()


@contextmanager
def asking_hub(what: str) -> Iterator[None]:
    """Turn what the hub client raises into one sentence."""
    from httpx2 import HTTPError  # the transport of huggingface_hub
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except (HTTPError, HFValidationError, OSError) as error:
        reason = SECRET.sub("***", str(error)).strip().splitlines() or [type(error).__name__]
        raise HubError(
            f"{what}: the hub does not answer, or does not know it ({reason[0]}). "
            "Check name and network (HF_ENDPOINT names another hub), or use a local copy."
        ) from None
