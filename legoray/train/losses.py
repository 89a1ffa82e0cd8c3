"""What a task minimises, summed over the samples of a micro-batch."""

from __future__ import annotations

import os
import shutil
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from legoray.config import TrainConfig
from legoray.errors import Problem

Loss = Literal["cross-entropy", "binary", "squared"]


def loss_of(config: TrainConfig) -> Loss:
    """The loss that `train.loss: auto` stands for: cross-entropy in matching, else binary."""
    if config.loss != "auto":
        return config.loss
    return "cross-entropy" if config.task == "matching" else "binary"


def check_train(config: TrainConfig, where: str = "train") -> list[Problem]:
    """What does not fit together in the training's settings, or cannot be had on this machine."""
    problems = []
    if config.task == "ranking" and config.loss == "cross-entropy":
        message = "'cross-entropy' compares candidates, but ranking looks at one at a time"
        hint = "take binary or squared, or task: matching"
        problems.append(Problem(f"{where}.loss", message, hint))
    if config.compile and not _compiler():
        message = "torch.compile needs a C++ compiler, and there is none on this machine's path"
        hint = "install g++ (or name another in the variable CXX), or set compile: false"
        problems.append(Problem(f"{where}.compile", message, hint))
    return problems


def _compiler() -> str | None:
    """The C++ compiler that torch would call."""
    return shutil.which(os.environ.get("CXX") or "g++")


def summed_loss(scores: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    """The sum over samples of the loss of `scores [B, K]` against `labels [B, K]`.

    Each sample counts once, whatever its number of candidates:

    - `cross-entropy`: -log softmax(scores)[0], the click standing first
    - `binary`: the mean over K of -y log s(x) - (1 - y) log(1 - s(x)), s the sigmoid
    - `squared`: the mean over K of (y - s(x))^2
    """
    scores = scores.float()
    if loss == "cross-entropy":
        first = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
        return F.cross_entropy(scores, first, reduction="sum")
    if loss == "binary":
        total = F.binary_cross_entropy_with_logits(scores, labels, reduction="sum")
    else:
        total = F.mse_loss(torch.sigmoid(scores), labels, reduction="sum")
    return total / scores.shape[1]
