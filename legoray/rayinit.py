"""Ray's start, once and quiet: every layer that needs Ray calls `ensure_ray` and nothing else."""

from __future__ import annotations

import logging
import os
import re
import socket
from pathlib import Path

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
        InputError: there is no cluster at that address, it wants another token, or Ray cannot be
            started here.
    """
    quiet_environment()
    import ray

    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS") or None
    local = address is None or address == "local"
    if address and not local:
        _knock(address)
        _check_token(address)
    try:
        # The dashboard stays on: without it Tune leaks placement groups when it stops a trial.
        ray.init(
            address="local" if local else address,
            num_cpus=num_cpus if local else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            ignore_reinit_error=True,
        )
    except Exception as error:  # a local start raises whatever went wrong, and bare exceptions
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if local:
            raise _not_started(reason) from None
        if not isinstance(error, ConnectionError | TimeoutError | RuntimeError | ValueError):
            raise
        hint = "try `ray status`"
        if str(address).startswith("ray://"):
            hint += "; a cluster that demands another token does not answer either"
        raise InputError(
            Problem(f"Ray address '{address}'", f"no cluster answers: {reason}", hint)
        ) from None


def _not_started(reason: str) -> InputError:
    """The error for a Ray that cannot be started on this machine."""
    hint = "the machine may be overloaded, or the disk of Ray's folder ($RAY_TMPDIR, /tmp) full"
    return InputError(Problem("this machine", f"Ray did not start: {reason}", hint))


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


def _check_token(address: str) -> None:
    """See whether the cluster takes our token: Ray asks for half a minute and then says too little.

    Raises:
        InputError: it does not, or there is none where the mode is `token`.
    """
    mode = os.environ["RAY_AUTH_MODE"]
    token, source = _token()
    hint = f"give the cluster's token in {_PLACES}"
    if mode == "token" and not token:
        raise InputError(Problem("RAY_AUTH_MODE", "is 'token', but there is no token", hint))
    if not _refused(address, token if mode == "token" else ""):
        return
    where = f"Ray address '{address}'"
    if mode != "token":
        message = f"this cluster demands a token, and RAY_AUTH_MODE is '{mode}'"
        raise InputError(Problem(where, message, f"set RAY_AUTH_MODE=token, and {hint}"))
    raise InputError(Problem(where, f"the cluster refuses the token in {source}", hint))


_PLACES = "RAY_AUTH_TOKEN, in the file that RAY_AUTH_TOKEN_PATH names, or in ~/.ray/auth_token"


def _token() -> tuple[str, str]:
    """The token that Ray would use, and where it is from; empty where there is none.

    Raises:
        InputError: the file that is named cannot be read.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"].strip(), "RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text(encoding="utf-8").strip(), str(path)
    except (OSError, UnicodeDecodeError) as error:
        if not named:
            return "", ""
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(
            Problem("RAY_AUTH_TOKEN_PATH", f"{path} cannot be read: {reason}")
        ) from None


def _refused(address: str, token: str) -> bool:
    """Whether a cluster's head turns us away for our token; what else is wrong is told later."""
    import grpc
    from ray._private.services import canonicalize_bootstrap_address

    if address.startswith("ray://"):
        return False  # a proxy answers there: it says so itself
    try:
        place = canonicalize_bootstrap_address(address)
        with grpc.insecure_channel(place) as channel:
            call = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")
            header = (("authorization", f"Bearer {token}"),) if token else ()
            call(b"", timeout=10, metadata=header)
    except grpc.RpcError as error:
        return error.code() == grpc.StatusCode.UNAUTHENTICATED
    except Exception:
        return False
    return False


def cluster_text() -> str:
    """What the cluster has: nodes, CPUs, GPUs and their kinds, memory."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    total = {name: sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU", "memory")}
    kinds = {
        name.partition(":")[2] for node in nodes for name in node if "accelerator_type" in name
    }
    parts = [f"{len(nodes)} node{'' if len(nodes) == 1 else 's'}", f"{total['CPU']:g} CPUs"]
    if total["GPU"]:
        parts.append(f"{total['GPU']:g} GPUs" + (f" ({', '.join(sorted(kinds))})" if kinds else ""))
    return ", ".join([*parts, f"{total['memory'] / 1e9:.0f} GB for tasks"])
