"""The Hugging Face hub: its library without log lines and progress bars, and its errors as one line."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gradatlas.core.errors import InputError


@contextmanager
def hub(
    label: str, source: str, revision: str = "", *, kind: str, source_fix: str, revision_fix: str, offline_fix: str
) -> Iterator[Any]:
    """The module huggingface_hub, imported late; its errors become `InputError`, with `label` (a row or file) in front.

    `kind` of `source`: ``model`` or ``dataset``. The fixes say what to do: where the hub does not show the source,
    where it has no such commit, and where it cannot be reached.
    """
    import httpx2
    import huggingface_hub
    from huggingface_hub import errors, utils

    utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    page = f"https://huggingface.co/{'datasets/' * (kind == 'dataset')}{source}"
    licence = f"accept its licence at {page} and set HF_TOKEN to a token of that account"
    at = f" at {revision}" if revision else ""
    try:
        yield huggingface_hub
    except errors.HFValidationError as error:
        raise InputError(f"{label}: {source} is no name on the hub ({error}); {source_fix}") from None
    except errors.GatedRepoError:
        raise InputError(f"{label}: {source} is gated; {licence}") from None
    except errors.RevisionNotFoundError:
        raise InputError(f"{label}: {source} has no commit {revision}; {revision_fix}") from None
    except errors.RepositoryNotFoundError:
        raise InputError(
            f"{label}: the hub shows no {kind} {source}; {source_fix}, or, if it is gated, {licence}"
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        fix = licence if status in (401, 403) else "try again later"
        raise InputError(f"{label}: the hub answers HTTP {status} for {source}{at}; {fix}") from None
    except (errors.EntryNotFoundError, errors.OfflineModeIsEnabled, httpx2.HTTPError) as error:
        raise InputError(
            f"{label}: {source}{at} cannot be fetched from the hub ({type(error).__name__}); check the network and "
            f"HF_HUB_OFFLINE, or {offline_fix}"
        ) from None
    except OSError as error:
        raise InputError(f"{label}: {source}{at} was fetched in part ({error}); run again") from None
