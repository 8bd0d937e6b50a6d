"""Which files of a folder, a bucket or a tar file are taken, and what is passed over."""

from __future__ import annotations

import fnmatch
import os
import re
from dataclasses import dataclass, field

from pipeline.sources.locations import is_url, printable
from pipeline.sources.recording import is_media

# What systems leave behind, as patterns for one name in any case: macOS, Windows, Synology, QNAP, NetApp.
LEFT_BEHIND = (
    *("._*", "__MACOSX", ".AppleDouble", ".DS_Store", ".Spotlight-V100", ".fseventsd", ".TemporaryItems"),
    *(".DocumentRevisions-V100", ".Trash", ".Trashes", ".Trash-*", "$RECYCLE.BIN", "RECYCLER"),
    *("System Volume Information", "Thumbs.db", "desktop.ini", "@eaDir", "#recycle", "#snapshot"),
    *("@Recycle", "@Recently-Snapshot", ".@__thumb", ".snapshot", "~snapshot", "lost+found"),
)
_LEFT_BEHIND = re.compile("|".join(fnmatch.translate(pattern.casefold()) for pattern in LEFT_BEHIND))


def is_left_behind(name: str) -> bool:
    """Whether a file, or a folder that it lies in, is one that systems leave behind; `name` is relative."""
    return any(_LEFT_BEHIND.match(part.casefold()) for part in name.split("/"))


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is taken of the inputs, and the names of what is not.

    Args:
        all_files: take files whatever their names.
        output: where the job writes, an absolute path or a URL: never input. None: nowhere.
    """

    all_files: bool = False
    output: str | None = None
    skipped: list[str] = field(default_factory=list)  # files without a media extension
    passed_over: list[str] = field(default_factory=list)  # left behind by systems, or the job's own

    def takes(self, name: str, container: str = "") -> bool:
        """Whether a file is taken, by its name relative to the input, or to the container that holds it."""
        if not is_left_behind(name) and (self.all_files or is_media(name)):
            return True
        names = self.passed_over if is_left_behind(name) else self.skipped
        names.append(printable(f"{container}/{name}" if container else name))
        return False

    def enters(self, name: str) -> bool:
        """Whether a folder is entered, by its name relative to the input."""
        if is_left_behind(name):
            self.passed_over.append(f"{printable(name)}/")
            return False
        return True

    def is_own(self, location: str, root: str) -> bool:
        """Whether what is found below `root` is the job's output, or lies in it."""
        return self.output is not None and _is_below(location, self.output) > _is_below(root, self.output)


def _is_below(location: str, folder: str) -> bool:
    if is_url(location) != is_url(folder):
        return False
    place = location if is_url(location) else os.path.realpath(location)
    return f"{place.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")
