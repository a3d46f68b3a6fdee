"""Where a benchmark writes what it found: NAME-CPU-DATE.json."""

from datetime import UTC, datetime

from blankfill.runtime import cpu_name


def cpu_label():
    """The processor's first two words, such as amd-epyc."""
    words = "".join(c if c.isalnum() else " " for c in cpu_name().lower().replace("(r)", ""))
    return "-".join(words.split()[:2])


def result_path(folder, name):
    """The file of today's result; the folder is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}-{cpu_label()}-{datetime.now(UTC).date().isoformat()}.json"
