"""Gives the disk back what a drained backlog has left free in a SQLite file.

Owns: when that is worth while, and how much of it at a time. Must not know: tables, and who asks.

SQLite keeps free pages for what comes next, and so does this: only what is free beyond SPARE and a part of the file
goes. Pages from the end of the file are moved into free ones, a few at a time (`auto_vacuum = INCREMENTAL`). A file
that was made without that is rewritten once, when little is left in it.
"""

import os
import shutil
import sqlite3

#: Bytes that may be free in any case, and the part of the file that may be.
SPARE = 16 << 20
PART = 0.25
#: Pages (of 4 KiB) that are given back in one step: some 10 ms of work.
STEP = 512
#: Bytes in use above which a file is not rewritten: others wait for that long.
MOST = 32 << 20

INCREMENTAL = 2


def give_back(db: sqlite3.Connection, path: str) -> bool:
    """One step. True: there is more to give back."""
    mode, size, pages, free = (
        db.execute(f"PRAGMA {what}").fetchone()[0]
        for what in ("auto_vacuum", "page_size", "page_count", "freelist_count")
    )
    if free * size <= SPARE or free <= pages * PART:
        # The file gets shorter when the log is written back.
        if os.path.getsize(path) > pages * size:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        return False
    if mode == INCREMENTAL:
        # It gives a row for each page, without a column, at which `execute` would stop.
        db.executescript(f"PRAGMA incremental_vacuum({STEP})")
        return True
    used = (pages - free) * size
    # It is written to the log first, and from there to the file: a crash in between loses nothing.
    if used <= MOST and shutil.disk_usage(os.path.dirname(path)).free > 2 * used + SPARE:
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    return False
