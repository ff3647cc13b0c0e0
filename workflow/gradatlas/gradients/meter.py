"""Progress of a job: a line every few seconds in a log, a bar on a terminal."""

import sys
import time

from tqdm import tqdm

from gradatlas.core.command import progress

# Seconds between two lines of progress.
_PERIOD = 5.0


class Meter:
    """Counts computed rows and tokens: done, rates, time left. `recalled`: rows that the journal had."""

    def __init__(self, total: int, recalled: int):
        self.total, self.recalled, self.done, self.tokens = total, recalled, 0, 0
        self.started = self.last_line = time.monotonic()
        progress(f"{total} distinct rows to compute, {recalled} found in the journal")
        self._bar = tqdm(total=total, unit="row", file=sys.stderr) if sys.stderr.isatty() else None

    def advance(self, rows: int, tokens: int) -> None:
        """Count a finished batch."""
        self.done += rows
        self.tokens += tokens
        now = time.monotonic()
        seconds = max(now - self.started, 1e-9)
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self.tokens / seconds:.0f} tokens/s, {self.recalled} from the journal", False)
            self._bar.update(rows)
        elif now - self.last_line >= _PERIOD:
            self.last_line = now
            left = seconds / self.done * (self.total - self.done)
            progress(
                f"{self.done} of {self.total} rows, {self.done / seconds:.1f} rows/s, "
                f"{self.tokens / seconds:.0f} tokens/s, {left:.0f} s left, {self.recalled} from the journal"
            )

    def print(self, line: str) -> None:
        """Print a line, above the bar."""
        if self._bar is None:
            progress(line)
        else:
            self._bar.write(line, file=sys.stderr)

    def close(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
