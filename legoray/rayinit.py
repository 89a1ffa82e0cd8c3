"""Ray's start, once and quiet: every layer that needs Ray calls `ensure_ray` and nothing else."""

from __future__ import annotations

import logging
import os
import re
import socket

from legoray.errors import InputError, Problem

# Read by Ray at import or at the start of its processes, so they are set before `import ray`.
# A user's own setting wins: that is why they are defaults.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # The raylet's own words on lost workers go to the screen even with `log_to_driver=False`.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Left open, a local start would write a token file into the home folder, and a head that is
    # started by hand would then demand a token which clients do not send.
    "RAY_AUTH_MODE": "disabled",
}


def quiet_environment() -> None:
    """Set the variables that keep Ray quiet, without importing it."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def ensure_ray(address: str | None = None, num_cpus: int | None = None) -> None:
    """Connect to a cluster or start a local Ray; nothing happens where Ray is initialised.

    Args:
        address: of an existing cluster (`auto`, `host:port`, `ray://...`); $RAY_ADDRESS where it is
            not given; where neither is, Ray starts on this machine alone.
        num_cpus: what a local Ray may use; all cores where it is not given.

    Raises:
        InputError: there is no cluster at that address.
    """
    quiet_environment()
    import ray

    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS") or None
    local = address is None or address == "local"
    if address and not local:
        _knock(address)
    try:
        # The dashboard stays on: without it Tune leaks placement groups when it stops a trial.
        ray.init(
            address="local" if local else address,
            num_cpus=num_cpus if local else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            ignore_reinit_error=True,
        )
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        if local:
            raise
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            Problem(f"Ray address '{address}'", f"no cluster answers: {reason}", "try `ray status`")
        ) from None


def _knock(address: str) -> None:
    """See whether anybody listens: Ray ends the whole process where it cannot connect."""
    found = re.fullmatch(r"(?:ray://)?(?P<host>[^/]+):(?P<port>\d+)", address)
    if not found:
        if address != "auto":
            expected = "expected host:port, ray://host:port or auto"
            raise InputError(Problem(f"Ray address '{address}'", f"is none: {expected}"))
        return
    try:
        socket.create_connection((found["host"], int(found["port"])), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            Problem(f"Ray address '{address}'", f"no cluster answers: {error}", "try `ray status`")
        ) from None
