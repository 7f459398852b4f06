"""The training loop: precision, clipping, schedule, validation, early stopping, checkpoints, resuming.

All randomness of a step is drawn from (seed, step): together with the order of the rows (`EpochOrder`) this makes the
random state and the data position a function of the step number, so a resumed run ends bit for bit like one that was
never interrupted, on the same machine with the same settings.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import torch

from mcip.core.device import autocast, pick_device, pick_precision
from mcip.core.errors import ArtefactError, ConfigError
from mcip.core.processes import check_one_process, explain_lost, processes
from mcip.core.progress import Advance, console, progress
from mcip.core.shards import is_sharded, optimizer_parts
from mcip.training.averaging import WeightAverage
from mcip.training.checkpoint import Checkpoints, copy_into
from mcip.training.health import REPORT, Health, stack_norms
from mcip.training.log import METRICS, MetricsLog
from mcip.training.objective import Batch, Divisible, Objective
from mcip.training.optimizer import make_optimizer, set_learning_rates
from mcip.training.remaining import Remaining
from mcip.training.settings import Fit, FitSettings, learning_rate_factor
from mcip.training.trackers import RUNS, TENSORBOARD

CHECKPOINTS = "checkpoints"
# What a run's folder holds beside its result: how it went, which differs from run to run.
LOGS = (CHECKPOINTS, METRICS, TENSORBOARD, RUNS, "wandb", REPORT)


def fit(objective: Objective, folder: Path, settings: FitSettings) -> Fit:
    """Train `objective`, resuming from the checkpoint in `folder` if there is one.

    Afterwards the objective's tensors hold the best validated weights, or the last ones where nothing is validated.

    Args:
        objective: What to train.
        folder: Where checkpoints are kept; the log lies in its parent.
        settings: How to train.

    Raises:
        ConfigError: A loss or a gradient is not finite or the loss leapt (`stopped.json` says more), the settings do
            not fit the objective or the machine, or this is one of several processes of one run and the objective
            cannot be trained by them.
        ProcessError: Another process of the run has failed.
        ArtefactError: A checkpoint is damaged or does not fit.

    Example:
        >>> objective = ImageTuning(model, images, order, class_loss, lr=1e-6, class_lr=1e-4)  # doctest: +SKIP
        >>> fit(objective, Path("runs/mine/checkpoints"), FitSettings(steps=1000)).steps  # doctest: +SKIP
        1000
    """
    if not objective.split:
        check_one_process()
    with torch.random.fork_rng(), explain_lost():
        return _Loop(objective, folder, settings).run()


class _Loop:
    def __init__(self, objective: Objective, folder: Path, settings: FitSettings) -> None:
        self.objective, self.folder, self.settings = objective, folder, settings
        self.device = pick_device(settings.device)
        precision = pick_precision(settings.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.team = processes()
        self.whole_gradients: Callable[[], None] = self._spread() if self.team.several else lambda: None
        self.optimizer = make_optimizer(objective.groups, settings.betas, settings.eps, settings.optimizer)
        self.average = WeightAverage(objective.tensors, settings.ema) if settings.ema else None
        self.checkpoints = Checkpoints(folder)
        self.done = Fit()

    def run(self) -> Fit:
        if "latest" in self.checkpoints:
            self._restore()
        log = MetricsLog(self.folder.parent, self.done.steps, self.settings.report_to)
        names = [group.name for group in self.objective.groups]
        means = self.team.share(log.earlier("loss"))
        self.health = Health(self.folder.parent, names, self.settings.max_loss_ratio, means)
        settings, start = self.settings, self.done.steps
        remaining = Remaining(settings.title, range(start, settings.steps), settings.validate_every)
        try:
            self._train_mode(True)
            if start == 0 and settings.validate_every:
                began = time.perf_counter()
                self._validate(log)
                remaining.validation_seconds = time.perf_counter() - began
            total, before = settings.steps * settings.per_step, start * settings.per_step
            with progress(settings.title, total, settings.unit, before) as advance:
                self._train(log, advance, remaining)
        finally:
            log.close()
        self.health.check(self.checkpoints.step("latest"))
        self._train_mode(False)
        self._keep_best()
        self._share_unreadable()
        return self.done

    def _spread(self) -> Callable[[], None]:
        """Let the processes sum the gradients of what sees a part of the rows each; the rest is left to the result."""
        from mcip.training.distributed import average_gradients, sum_gradients

        objective, team = self.objective, self.team
        every = [parameter for group in objective.groups for parameter in group.parameters]
        if any(map(is_sharded, every)):
            if self.scaler.is_enabled():
                raise ConfigError("Sharded weights cannot be trained in fp16: use --precision bf16 or fp32.")
            if self.settings.optimizer != "adamw":
                raise ConfigError(f"Weights or class centers in shards do not go with {self.settings.optimizer}.")
        split = {id(parameter) for name in objective.split for parameter in objective.modules[name].parameters()}
        for name in objective.split:
            objective.modules[name] = sum_gradients(objective.modules[name])
        alike = [parameter for parameter in every if id(parameter) not in split]
        return lambda: average_gradients(alike, team)

    def _train(self, log: MetricsLog, advance: Advance, remaining: Remaining) -> None:
        settings, since = self.settings, time.perf_counter()
        steps = range(self.done.steps, settings.steps)
        for step, batch in enumerate(self.objective.batches(steps), steps.start):
            if self._stopped_early():
                break
            self._step(step, batch)
            self.done.steps = step + 1
            advance(settings.per_step)
            remaining.step_made(self.done.steps)
            if self.health.steps and (self.done.steps % settings.log_every == 0 or self.done.steps == settings.steps):
                made = self.health.steps
                values = self.health.means(self.done.steps, self.checkpoints.step("latest"))
                rate, since = made * settings.per_step / (time.perf_counter() - since), time.perf_counter()
                lr = float(self.optimizer.param_groups[0]["lr"])
                log.write(self.done.steps, {**values, "lr": lr, f"{settings.unit}_per_second": rate})
                advance(0, f"loss {values['loss']:.3f}")
            if settings.validate_every and self.done.steps % settings.validate_every == 0:
                began = time.perf_counter()
                self._validate(log)
                since += time.perf_counter() - began
            if self.done.steps % settings.checkpoint_every == 0 and self.done.steps < settings.steps:
                self._checkpoint()

    def _step(self, step: int, batch: Batch) -> None:
        settings = self.settings
        factor = learning_rate_factor(step, settings.steps, settings.warmup, settings.min_lr_ratio)
        set_learning_rates(self.optimizer, factor)
        torch.manual_seed(settings.seed * 1_000_003 + step)
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        losses = self._backward(batch, generator)
        if not losses:
            return
        self.whole_gradients()
        # Clipping has to see the true gradients: clipping scaled ones makes the steps many times too small.
        self.scaler.unscale_(self.optimizer)
        norms, broken = stack_norms(
            [
                torch.nn.utils.clip_grad_norm_(group.parameters, settings.max_grad_norm)
                for group in self.objective.groups
            ]
        )
        if not self.scaler.is_enabled():
            # The optimiser makes no step then; with fp16 its scaler sees to that.
            self.optimizer.found_inf = broken  # type: ignore[attr-defined]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.objective.after_step()
        if self.average is not None:
            self.average.update()
        self.health.add(step + 1, losses, None if self.scaler.is_enabled() else norms)

    def _backward(self, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Add up the gradients of a batch, part by part, and give its losses."""
        parts = [batch]
        if self.settings.accumulate > 1:
            if not isinstance(self.objective, Divisible):
                raise ConfigError("accumulate: the batches of this objective cannot be taken in parts.")
            parts = self.objective.parts(batch, self.settings.accumulate, generator)
        total: dict[str, torch.Tensor] = {}
        for number, part in enumerate(parts, 1):
            with self._summed(number == len(parts)):
                with autocast(self.device, self.settings.precision):
                    losses = self.objective.losses(part, generator)
                if losses:
                    self.scaler.scale(losses["loss"]).backward()
            total = {name: total.get(name, 0) + loss.detach() for name, loss in losses.items()} or total
        return total

    def _summed(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """The gradients of several processes are summed with the last part of a batch: DDP sums what is there."""
        if last or not self.team.several:
            return contextlib.nullcontext()
        from mcip.training.distributed import keep_gradients

        return keep_gradients(self.objective.modules[name] for name in self.objective.split)

    def _train_mode(self, on: bool) -> None:
        for module in self.objective.modules.values():
            module.train(on)

    def _validate(self, log: MetricsLog) -> None:
        self.health.check(self.checkpoints.step("latest"))
        with self._averaged():
            self._score(log)

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        return self.average.applied() if self.average is not None else contextlib.nullcontext()

    def _score(self, log: MetricsLog) -> None:
        self._train_mode(False)
        scores = self._scores()
        self._train_mode(True)
        if not scores:
            return
        step, select = self.done.steps, self.settings.select
        if select != "mean" and select not in scores:
            raise ConfigError(f"select is {select!r}; the validation gives {sorted(scores)}, or use 'mean'.")
        score = sum(scores.values()) / len(scores) if select == "mean" else scores[select]
        log.write(step, {f"validation/{name}": value for name, value in scores.items()})
        self.done.validation[str(step)] = scores
        shown = ", ".join(f"{name} {100 * value:.1f}" for name, value in scores.items())
        console.print(f"  step {step}: {shown}", markup=False)
        if self.done.best_score is None or score > self.done.best_score:
            self.done.best_step, self.done.best_score = step, score
            self.checkpoints.write("best", step, {"tensors": self.objective.tensors})

    def _scores(self) -> dict[str, float]:
        """Those of the first process. A tower in shards needs all processes to run, so then all validate."""
        modules = (self.objective.modules[name] for name in self.objective.split)
        if any(is_sharded(parameter) for module in modules for parameter in module.parameters()):
            return self.team.share(self.objective.validate())
        return self.team.by_first(self.objective.validate)

    def _share_unreadable(self) -> None:
        for unreadable in self.team.gather_json(self.objective.unreadable):
            self.objective.unreadable.update(unreadable)

    def _stopped_early(self) -> bool:
        settings = self.settings
        if not settings.patience or self.done.best_score is None:
            return False
        waited = (self.done.steps - self.done.best_step) // settings.validate_every
        return waited >= settings.patience

    def _checkpoint(self) -> None:
        self.health.check(self.checkpoints.step("latest"))
        self._share_unreadable()
        state = {
            "tensors": self.objective.tensors,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average is not None else {},
            "best_step": self.done.best_step,
            "best_score": self.done.best_score,
            "validation": self.done.validation,
            "unreadable": self.objective.unreadable,
        }
        self.checkpoints.write("latest", self.done.steps, state)
        self.checkpoints.commit()

    def _restore(self) -> None:
        state = self.checkpoints.load("latest")
        copy_into(self.objective.tensors, state["tensors"], self.folder)
        parameters = [parameter for part in self.optimizer.param_groups for parameter in part["params"]]
        self.optimizer.load_state_dict(optimizer_parts(state["optimizer"], parameters))
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"], self.folder)
        self.objective.unreadable.update(state["unreadable"])
        self.done = Fit(state["step"], state["best_step"], state["best_score"], state["validation"])
        if self.done.best_score is not None and self.checkpoints.step("best") != self.done.best_step:
            raise ArtefactError(
                f"{self.folder} holds the best weights of step {self.checkpoints.step('best')}, but step "
                f"{self.done.best_step} was the best: remove it to train from the start again."
            )
        console.print(f"Resuming from step {self.done.steps} of {self.settings.steps}.")

    def _keep_best(self) -> None:
        if self.average is not None:
            copy_into(self.objective.tensors, self.average.tensors, self.folder)
        if self.done.best_score is None:
            self.done.best_step = self.done.steps
        elif self.done.best_step != self.done.steps:
            copy_into(self.objective.tensors, self.checkpoints.load("best")["tensors"], self.folder)
