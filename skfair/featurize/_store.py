"""The feature store: one SQLite file with a row of features per sample, found by content."""

import contextlib
import functools
import hashlib
import os
import sqlite3
import stat
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from skfair._images._content import add_content
from skfair.featurize._shards import LARGEST_ROW, Shards, row_checksum
from skfair.utils._shown import as_label

_APPLICATION_ID = 0x736B6661  # "skfa", in the header of the file
_SCHEMA_VERSION = 1
_FILE_NAME = "features.sqlite"  # in a directory
_KEYS_PER_QUERY = 500
_CREATE_TABLE = (
    "CREATE TABLE features (key BLOB PRIMARY KEY, value BLOB NOT NULL, checksum BLOB NOT NULL)"
)
_WAIT_WARNING_SECONDS = 60
_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")  # ends a journal that names another one


class FeatureStore:
    """A sqlite file of float32 rows, shared by any number of processes.

    Open it (``with``) in the process and for the call that uses it: connections do not survive
    a fork.

    A missing row is computed *inside* the transaction that writes it. So no other process computes
    it meanwhile, a killed process leaves the file as it was before the batch, and an exception
    undoes only the current batch. Readers never wait (write-ahead log). Each row carries a
    checksum of key and value. A row counts as missing if the checksum does not match, if it is
    not float32, or if it is larger than 64 MiB.

    A file from a stranger can hold wrong features, but no code that sqlite would execute: its
    schema must equal the schema of this class. A folder from a stranger cannot lead sqlite to
    other files: this class refuses links, pipes and devices, as the file and as the files that
    sqlite keeps beside it.

    Parameters
    ----------
    path : path-like
        The file, which is created if it does not exist; or a directory, for the file
        ``features.sqlite`` in it. Rows are then also found in the shards of the directory, which
        the workers of dask wrote.

    Raises
    ------
    ValueError
        The file is not a database, is damaged, or was written by another program or a newer
        sqlite; or the file, or a file of sqlite's beside it, is a link, a pipe or a device.
    OSError
        The file cannot be opened or written.
    """

    def __init__(self, path: str | os.PathLike):
        name = os.fspath(path)
        if not name or ":memory:" in name:
            raise ValueError(
                f"memory={name!r} is SQLite's name for a database that is gone after the call. "
                "Name a file or a directory, or leave memory out."
            )
        self.path = Path(path).absolute()
        self._shards = None
        if self.path.is_dir():
            self._shards = Shards(self.path)
            self.path /= _FILE_NAME
        elif name.endswith(("/", os.sep)):
            raise FileNotFoundError(
                f"memory={name!r} is a directory that does not exist. Make it first."
            )

    def __enter__(self) -> "FeatureStore":
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"memory={str(self.path)!r} is in a directory that does not exist. Make it first."
            )
        self._check_files()
        # Check the mode too: root can write to a read-only file, but must not.
        if self.path.exists() and not (
            os.access(self.path, os.W_OK) and self.path.stat().st_mode & 0o222
        ):
            raise PermissionError(
                f"memory={str(self.path)!r} is read-only. Make it writable or name another file."
            )
        with self._errors():
            self._connection = sqlite3.connect(self.path, timeout=1, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    @staticmethod
    def keys(fingerprint: bytes, batch: np.ndarray | list, first: int = 0) -> list[bytes]:
        """Make the keys of a batch of samples.

        Parameters
        ----------
        fingerprint : bytes
            Fingerprint of the encoder.
        batch : ndarray of shape (n, ...), C-contiguous, or list of n items
            The samples before preprocessing.
        first : int, default=0
            Number of the first row, for messages.

        Returns
        -------
        list of n bytes

        Raises
        ------
        TypeError
            The content of an item is not known.
        """
        prefix = hashlib.sha256(fingerprint)
        items = isinstance(batch, list)
        # The first letter keeps items and images apart.
        kind = "item:" if isinstance(batch, list) else repr((batch.dtype.str, batch.shape[1:]))
        prefix.update(kind.encode())
        keys = []
        for row, sample in enumerate(batch, first):
            digest = prefix.copy()
            if items:
                add_content(digest.update, sample, f"X[{row}]")
            else:
                digest.update(sample)
            keys.append(digest.digest()[:20])
        return keys

    def get(self, keys: Iterable[bytes]) -> dict[bytes, np.ndarray]:
        """Return the rows that the store has.

        Parameters
        ----------
        keys : iterable of bytes

        Returns
        -------
        dict of bytes to ndarray of shape (n_features,)
            Without rows that are missing or damaged.
        """
        wanted = list(dict.fromkeys(keys))
        found = {}
        with self._errors():
            for start in range(0, len(wanted), _KEYS_PER_QUERY):
                some = wanted[start : start + _KEYS_PER_QUERY]
                # sqlite finds type and length in the head of a row: it reads no suspicious value.
                query = (
                    "SELECT key, value, checksum FROM features WHERE key IN "
                    f"({','.join('?' * len(some))}) "
                    f"AND typeof(value) = 'blob' AND length(value) <= {LARGEST_ROW} "
                    "AND length(value) % 4 = 0 "
                    "AND typeof(checksum) = 'blob' AND length(checksum) = 8"
                )
                for key, value, checksum in self._execute(query, some):
                    if row_checksum(key, value) == checksum:
                        found[key] = np.frombuffer(value, dtype="<f4")
        if self._shards is not None:
            found.update(self._shards.get([key for key in wanted if key not in found]))
        return found

    def get_or_encode(
        self, keys: list[bytes], encode: Callable[[list[int]], np.ndarray]
    ) -> dict[bytes, np.ndarray]:
        """Return rows; compute and store those that are missing.

        Parameters
        ----------
        keys : list of bytes
            Without duplicates.
        encode : callable
            Takes the positions of the missing keys in `keys`, and returns their rows.

        Returns
        -------
        dict of bytes to ndarray of shape (n_features,)
            All rows.
        """
        with self._transaction():
            rows = self.get(keys)  # another process may have been faster
            missing = [position for position, key in enumerate(keys) if key not in rows]
            if missing:
                features = encode(missing)
                made = {
                    keys[position]: row for position, row in zip(missing, features, strict=True)
                }
                values = [(key, row.astype("<f4").tobytes()) for key, row in made.items()]
                with self._errors():
                    self._connection.executemany(
                        "INSERT OR REPLACE INTO features VALUES (?, ?, ?)",
                        [(key, value, row_checksum(key, value)) for key, value in values],
                    )
                rows.update(made)
        return rows

    def _check_files(self) -> None:
        """Refuse files that would make sqlite write to, or delete, other files."""
        for suffix in ("", "-wal", "-shm", "-journal"):
            file = f"{self.path}{suffix}"
            try:
                state = os.lstat(file)
            except FileNotFoundError:
                continue
            reason = ""
            if not stat.S_ISREG(state.st_mode) or (suffix and state.st_nlink > 1):
                reason = "is a link, a pipe, a device or a folder"
            elif suffix == "-journal" and _names_another_journal(file):
                reason = "names a file for sqlite to delete"
            if reason:
                raise ValueError(
                    f"memory={str(self.path)!r} cannot be opened safely: {file!r} {reason}. Name "
                    "the file itself, or another one."
                )

    def _prepare(self) -> None:
        """Check that the file is a feature store; create the table in an empty file."""
        self._connection.execute("PRAGMA trusted_schema=OFF")
        self._connection.text_factory = functools.partial(str, encoding="utf-8", errors="replace")
        # Write nothing, not even the journal mode, before the file is known to be a feature store.
        if self._is_empty():
            if self._execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
                raise OSError(
                    f"memory={str(self.path)!r} is on a file system without the shared memory "
                    "that several processes need. Name a file on a local disk."
                )
            with self._transaction():
                if self._is_empty():
                    self._connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
                    self._connection.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")
                    self._connection.execute(_CREATE_TABLE)
        application = self._execute("PRAGMA application_id").fetchone()[0]
        version = self._execute("PRAGMA user_version").fetchone()[0]
        # A view, a trigger or an expression in a table would be code from a stranger.
        schema = set(self._execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))
        ours = {
            ("table", "features", "features", _CREATE_TABLE),
            ("index", "sqlite_autoindex_features_1", "features", None),
        }
        if (application, version, schema) != (_APPLICATION_ID, _SCHEMA_VERSION, ours):
            raise ValueError(
                f"memory={str(self.path)!r} is a database that this version of skfair did not "
                "make. Name another file."
            )
        # Safe against killed processes; after a power failure the last batches may be missing.
        self._connection.execute("PRAGMA synchronous=NORMAL")

    def _is_empty(self) -> bool:
        n_tables = self._execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        return n_tables == 0 and self._execute("PRAGMA application_id").fetchone()[0] == 0

    def _execute(self, query: str, parameters: Sequence[bytes] = ()) -> sqlite3.Cursor:
        """Execute a query; wait without limit while another process holds the lock."""
        started = time.monotonic()
        warned = False
        while True:
            try:
                return self._connection.execute(query, parameters)
            except sqlite3.OperationalError as error:
                # Short waits in a loop, so that an interrupt can stop them.
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
            if not warned and time.monotonic() - started > _WAIT_WARNING_SECONDS:
                warned = True
                warnings.warn(
                    f"memory={str(self.path)!r} has been locked by another process for "
                    f"{_WAIT_WARNING_SECONDS} seconds; still waiting.",
                    UserWarning,
                )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        with self._errors():
            self._execute("COMMIT")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Name the file in sqlite's errors, and what to do."""
        try:
            yield
        except (
            sqlite3.DatabaseError,
            UnicodeDecodeError,
        ) as error:  # the latter while sqlite's message is decoded
            name = f"memory={str(self.path)!r}"
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_NOTADB:
                raise ValueError(f"{name} is not a database. Name another file.") from error
            if code == sqlite3.SQLITE_CORRUPT or isinstance(error, UnicodeDecodeError):
                raise ValueError(f"{name} is damaged. Delete it or name another file.") from error
            reason = f"{name} cannot be used: {as_label(error)}."
            if code == sqlite3.SQLITE_ERROR:  # sqlite reads the file, but not all of its contents
                raise ValueError(f"{reason} Name another file.") from error
            raise OSError(reason) from error


def _names_another_journal(file: str) -> bool:
    """Whether sqlite would open another journal to roll back the work of a killed process."""
    with (
        contextlib.suppress(FileNotFoundError),
        open(file, "rb") as journal,
    ):  # another process may delete it
        journal.seek(0, os.SEEK_END)
        journal.seek(max(0, journal.tell() - len(_SUPER_JOURNAL)))
        return journal.read() == _SUPER_JOURNAL
    return False
