"""Where result rows go: a journal that survives whatever happens, then one whole file or a folder of Parquet.

A run can be broken off at any moment. Its rows lie in the journal, a JSON line each, and beside it lies what they were
made from; the next run with the same manifest and bundle goes on from there.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, Any

from avgn.runtime.collections.job import Outcome
from avgn.runtime.documents import LARGEST, parse_json
from avgn.runtime.errors import InputError, MissingExtraError
from avgn.runtime.outputs import DirectFile, Place, WholeFile, find_place, write_error, write_whole
from avgn.runtime.outputs.locks import lock
from avgn.runtime.outputs.names import new_name
from avgn.runtime.regular import read_regular

ROWS_PER_FILE = 10_000
Facts = dict[str, Any]
Name = str | os.PathLike[str]


class Output:
    """The base of both kinds of output: rows are added to the journal and put in order by `finish`."""

    def __init__(self, path: Path, journal: Path, run: Path, failures: Path) -> None:
        self.path = path
        self.journal = journal
        self.run = run
        self.failures = failures
        self._file: IO[bytes] | None = None
        self._places: dict[str, tuple[int, int]] = {}
        self._before: set[str] = set()
        self._is_open = False

    def open(self, facts: Facts, ids: set[str]) -> set[str]:
        """Begin a run or go on with one; returns the ids that need not be run again.

        `facts`: what the rows are made from. Raises InputError when the output holds something else, is being written
        by another process or can't be written.
        """
        if self.run.is_file():
            _compare(self.path, _read_facts(self.run), facts)
        elif self._exists():
            raise InputError(f"output {self.path} exists and is no collection's output: choose another path")
        self._make_folder()
        write_whole(self.run, json.dumps(facts, indent=1) + "\n", "output")
        try:
            self._file = _open_journal(self.journal)
        except OSError as error:
            raise write_error(self.journal, error) from None
        if not lock(self._file.fileno()):
            raise InputError(f"output {self.path} is being written by another run: wait for it or choose another path")
        self._places = _scan(self.journal, self._file)
        self._before = self._finished()
        done = self._before | self._places.keys()
        if strange := sorted(done - ids):
            raise InputError(f"output {self.path} holds {strange[0]!r}, which the manifest doesn't list: remove it")
        self._is_open = True
        return done

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Write the rows of a chunk; they survive the end of this process."""
        assert self._file is not None
        try:
            for outcome in outcomes:
                if outcome.row is not None:
                    line = json.dumps(outcome.row, allow_nan=False).encode() + b"\n"
                    self._places[outcome.id] = (self._file.tell(), len(line))
                    self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise write_error(self.journal, error) from None

    def finish(self, order: Sequence[str], left_out: Sequence[Outcome]) -> None:
        """Put all rows in the manifest's order, and list what was left out."""
        assert self._file is not None
        try:
            self._write(order)
        except OSError as error:
            raise write_error(self.path, error) from None
        self._file.close()
        self._file = None
        self.journal.unlink(missing_ok=True)
        if left_out:
            lines = [json.dumps({"id": outcome.id, "reason": outcome.reason}) for outcome in left_out]
            write_whole(self.failures, "\n".join(lines) + "\n", "output")
        else:
            self.failures.unlink(missing_ok=True)

    def close(self) -> None:
        """Leave the journal as it is, but nothing where there are no rows yet."""
        if self._file is None:
            return
        empty = self._is_open and not self._places and not self._before
        with suppress(OSError):
            self._file.close()
        self._file = None
        if empty:
            self._remove()

    def _remove(self) -> None:
        for path in (self.journal, self.run):
            path.unlink(missing_ok=True)

    def _row(self, name: str) -> bytes:
        assert self._file is not None
        start, length = self._places[name]
        self._file.seek(start)
        return self._file.read(length)

    def _exists(self) -> bool:
        raise NotImplementedError

    def _make_folder(self) -> None:
        raise NotImplementedError

    def _finished(self) -> set[str]:
        raise NotImplementedError

    def _write(self, order: Sequence[str]) -> None:
        raise NotImplementedError


class JsonLinesOutput(Output):
    """One JSON line an item: results.jsonl, with results.run.json and results.failures.jsonl beside it."""

    def __init__(self, place: Place) -> None:
        path = place.path
        beside = path.with_suffix("")
        super().__init__(
            path,
            journal=path.with_name(path.name + ".partial"),
            run=beside.with_name(beside.name + ".run.json"),
            failures=beside.with_name(beside.name + ".failures.jsonl"),
        )
        self._place = place
        self._old: dict[str, tuple[int, int]] = {}

    def _exists(self) -> bool:
        return self.path.exists() or os.path.lexists(self.journal)

    def _make_folder(self) -> None:
        """The place was found in a folder that is there."""

    def _finished(self) -> set[str]:
        if self.path.is_file():
            with self.path.open("rb") as file:
                self._old = _scan(self.path, file)
        return set(self._old)

    def _write(self, order: Sequence[str]) -> None:
        new = WholeFile(self._place, alone=False)
        try:
            with self.path.open("rb") if self._old else nullcontext() as old:
                for name in order:
                    if old is not None and name in self._old:
                        start, length = self._old[name]
                        old.seek(start)
                        new.write(old.read(length))
                    elif name in self._places:
                        new.write(self._row(name))
            new.commit()
        finally:
            new.abort()


class DirectOutput(Output):
    """Rows to a device, a FIFO or standard output, as they are done; nothing is kept, and a run begins anew."""

    def __init__(self, place: Place) -> None:
        super().__init__(place.path, place.path, place.path, place.path)
        self._place = place
        self._out: DirectFile | None = None

    def open(self, facts: Facts, ids: set[str]) -> set[str]:
        """Open it: nothing was run before."""
        self._out = DirectFile(self._place)
        return set()

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Write the rows of a chunk."""
        assert self._out is not None
        try:
            for outcome in outcomes:
                if outcome.row is not None:
                    self._out.write(json.dumps(outcome.row, allow_nan=False).encode() + b"\n")
        except BrokenPipeError:
            raise
        except OSError as error:
            raise write_error(self._place.name, error) from None

    def finish(self, order: Sequence[str], left_out: Sequence[Outcome]) -> None:
        """Finish: all rows are written."""

    def close(self) -> None:
        """Close it."""
        if self._out is not None:
            self._out.abort()


class ParquetOutput(Output):
    """A folder of Parquet files; what begins with _ is passed over by readers of such folders."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("pyarrow", "cluster", error) from None
        super().__init__(path, path / "_rows.jsonl", path / "_run.json", path / "_failures.jsonl")

    def _exists(self) -> bool:
        return self.path.is_file() or (self.path.is_dir() and any(self.path.iterdir()))

    def _make_folder(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self.path, error) from None

    def _finished(self) -> set[str]:
        import pyarrow
        import pyarrow.parquet as parquet

        found: set[str] = set()
        for part in self._parts():
            try:
                found.update(parquet.read_table(part, columns=["id"]).column("id").to_pylist())
            except (pyarrow.ArrowException, OSError, KeyError) as error:
                reason = " ".join(str(error).split())[:120]
                raise InputError(f"{part} can't be read ({reason}): remove it and run again") from None
        return found

    def _write(self, order: Sequence[str]) -> None:
        import pyarrow
        import pyarrow.parquet as parquet

        names = [name for name in order if name in self._places and name not in self._before]
        first = len(self._parts())
        for start in range(0, len(names), ROWS_PER_FILE):
            rows = [json.loads(self._row(name)) for name in names[start : start + ROWS_PER_FILE]]
            part = self.path / f"part-{first + start // ROWS_PER_FILE:05d}.parquet"
            # readers of such folders pass over what begins with _
            partial = part.with_name("_" + new_name(part).name)
            with partial.open("xb") as file:
                parquet.write_table(pyarrow.Table.from_pylist(rows, schema=_schema(pyarrow)), file)
            partial.replace(part)

    def _remove(self) -> None:
        super()._remove()
        with suppress(OSError):
            self.path.rmdir()

    def _parts(self) -> list[Path]:
        return sorted(self.path.glob("part-*.parquet"))


def _schema(pyarrow: Any) -> Any:
    """Return all columns of still and video rows; those of the other kind are null."""
    floats, text = pyarrow.list_(pyarrow.float64()), pyarrow.string()
    source = {"label": text, "certainty": pyarrow.float64()}
    source |= {"audio_prob": pyarrow.float64(), "visual_prob": pyarrow.float64()}
    source |= {"on_screen": pyarrow.bool_(), "peak": floats, "box": floats}
    event = {"label": text, "start": pyarrow.float64(), "end": pyarrow.float64(), "on_screen": pyarrow.float64()}
    event |= {"mean": floats, "frames": pyarrow.int64()}
    return pyarrow.schema(
        {
            "id": text,
            "state": text,
            "sources": pyarrow.list_(pyarrow.struct(source)),
            "maps": text,
            "frames": pyarrow.int64(),
            "seconds": pyarrow.float64(),
            "corrupt": pyarrow.int64(),
            "events": pyarrow.list_(pyarrow.struct(event)),
        }
    )


def _scan(path: Path, file: IO[bytes]) -> dict[str, tuple[int, int]]:
    """Return where the row of each id lies (start, length); a last line that was cut off is cut away."""
    places: dict[str, tuple[int, int]] = {}
    file.seek(0)
    start = 0
    for number, line in enumerate(_lines(file), start=1):
        if not line.endswith(b"\n"):
            file.truncate(start)
            break
        try:
            name = parse_json(line)["id"]
            if not isinstance(name, str):
                raise ValueError("its id is no text")
        except (ValueError, TypeError, KeyError):
            raise InputError(f"{path} line {number} is not a result row: remove the line and run again") from None
        places[name] = (start, len(line))
        start += len(line)
    file.seek(0, os.SEEK_END)
    return places


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    while line := file.readline():
        yield line


def _read_facts(path: Path) -> Facts:
    try:
        facts = parse_json(read_regular(path, LARGEST))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} can't be read ({reason}): remove it with its output and run again") from None
    return facts if isinstance(facts, dict) else {}


def _compare(path: Path, old: Facts, new: Facts) -> None:
    for key in new:
        if old.get(key) != new[key]:
            raise InputError(
                f"output {path} was made with another {key} ({_show(old.get(key))}, not {_show(new[key])}): "
                "choose another path, or remove it to begin again"
            )


def _show(fact: Any) -> str:
    if isinstance(fact, dict):
        return f"{fact.get('name')} {str(fact.get('sha256'))[:12]}"
    return "none" if fact is None else str(fact)


def _open_journal(path: Path) -> IO[bytes]:
    """Open a journal to go on with; a link, which somebody else may have laid, is refused."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    facts = os.fstat(handle)
    if facts.st_nlink > 1:
        os.close(handle)
        raise InputError(f"{path} is a second name of another file, and the run's journal is to lie there: remove it")
    if not stat.S_ISREG(facts.st_mode):
        os.close(handle)
        raise InputError(f"{path} is no file, and the run's journal is to lie there: remove it")
    return os.fdopen(handle, "a+b")


def open_collection_output(json_path: Name | None, parquet: Name | None) -> Output:
    """Return the output that was asked for. Raises InputError for two or none, and for what can't be written."""
    if json_path is not None and parquet is None:
        place = find_place(json_path)
        return DirectOutput(place) if place.is_direct else JsonLinesOutput(place)
    if parquet is not None and json_path is None:
        return ParquetOutput(Path(parquet))
    raise InputError("a collection needs one output: give --json FILE or --parquet FOLDER")
