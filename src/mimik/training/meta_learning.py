"""Meta-learning, stage 1 of the method: trains E, P, G and D on clips of many people.

`mimik train`, or `python -m mimik.training.meta_learning` if only torch, numpy, opencv and safetensors are installed;
under torchrun the same on many GPUs and machines. docs/training.md describes its use, docs/paper.md the computation.

The training state contains everything that the next step depends on: on the CPU, a resumed run has the same weights,
bit for bit, as an uninterrupted one.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import logging
import os
import sys
import time
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import default_collate

from mimik.config import VERSION, InputError, options_of
from mimik.data.augmentation import Augmentation
from mimik.data.episodes import Batch, Episodes, each_tensor
from mimik.data.index import ClipInfo
from mimik.data.loading import loader
from mimik.data.on_device.batches import REUSE, DeviceCorpus, DeviceLoader
from mimik.data.store import ClipStore
from mimik.files import DRAFT_SUFFIX, hold, write_atomically
from mimik.networks import checkpoint
from mimik.networks.preset_json import preset_from_json, preset_to_json
from mimik.training.arguments import RUN_MARK, TrainArguments
from mimik.training.distributed import World, join_world
from mimik.training.reporting import Meter, RunLog, StopSignals, peak_memory_gb, progress_line, sample_grid
from mimik.training.trainer import Trainer

log = logging.getLogger(__name__)


RELEASE_NAME = "model.safetensors"
SETTINGS_NAME = "settings.json"
_LOCK_WAIT_S = 20.0  # time in which a process notices that another one has ended
_VALIDATION_EPISODES = 48
_VALIDATION_SEED = 20190520  # other frames than in training, the same in every run
_COLLAPSED_EMBEDDING = 0.05  # share of E's outputs that differ between people, below which a warning is logged
_GPU_SHARE = 0.5  # of its free memory, for decoded clips; the rest is for networks, activations and warped frames
_GRID_ROWS = 4  # rows of a sample grid
_LOG_EVERY_S = 5.0
_CURVE_POINTS = 50  # of the held-out curve in a release
_TOTALS = ("steps", "episodes", "seconds", "device", "data", "before")  # record fields that a follow-up run repeats


@dataclass(frozen=True)
class TrainOutcome:
    """Result of a run."""

    step: int  # done, and requested
    num_steps: int  # done, and requested
    signal: int | None  # the signal that ended the run, or None
    release: Path  # the model's file
    validation: dict[str, float]  # latest metrics on held-out clips


def train(arguments: TrainArguments, *, progress: Callable[[int, int], None] | None = None) -> TrainOutcome:
    """Trains, or resumes, until the number of steps or the time limit is reached, or a signal arrives.

    Args:
        arguments: the run.
        progress: called with steps done and requested after every step, in the first process.

    Raises:
        InputError: if an input cannot be used, the disk is full, or a loss is not finite; the last good state is kept.
    """
    arguments.check_files()
    with join_world(arguments.device) as world:
        run = _Run(arguments, world)
        try:
            with StopSignals() as signals:  # before, there is nothing to save
                return run.run(signals, progress or (lambda step, num_steps: None))
        except RuntimeError as error:  # follow-up failure of another process; gloo has no exception type for it
            if world.size == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
                raise
            raise InputError(
                f"step {run.trainer.step}: another process has ended. torchrun resumes from the newest saved state as "
                "often as --max-restarts allows; rerunning the command does too."
            ) from error
        except OSError as error:
            where = error.filename or arguments.out
            raise InputError(
                f"{where}: {error.strerror or error}; no newer state is saved, {run.kept}. Check the disk, and rerun "
                "the command to resume."
            ) from error
        finally:
            run.close()


class _Run:
    """One run of `mimik train` in one process."""

    def __init__(self, arguments: TrainArguments, world: World) -> None:
        self.started = time.monotonic()
        self.arguments, self.world = arguments, world
        self.preset = arguments.resolved()
        train = self.preset.train
        if arguments.fsdp and world.size == 1:
            raise InputError("--fsdp: there is only one process; start more with torchrun.")
        if train.batch_size % world.size:
            raise InputError(f"--batch {train.batch_size}: use a multiple of the {world.size} processes.")
        self.index, self.held_out = arguments.clips
        self.fingerprint = _fingerprint(self.index)
        self.lock, state = self._lock_and_load()
        if state is not None:
            self._check_state(state)
        held_out = self._episodes(arguments.val or arguments.data, self.held_out, augment=None, seed=_VALIDATION_SEED)
        count = min(_VALIDATION_EPISODES, 8 * len(held_out))
        numbers = np.array_split(np.arange(count), -(-count // 8))
        self.validation = [default_collate([held_out[int(n)] for n in part]) for part in numbers]
        torch.manual_seed(arguments.seed)
        init, precision = None, arguments.precision
        self.before: dict[str, Any] | None = None  # record of the run given by --init, with the same fields
        if arguments.init is not None and state is None:
            release = self._init(arguments.init)
            init = release.networks
            self.before = {name: release.record[name] for name in _TOTALS if name in release.record}
        if precision == "auto":
            precision = "bf16" if world.device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
        self.trainer = Trainer(
            self.preset,
            len(self.index),
            world,
            precision=precision,
            init=init,
            fresh=arguments.fresh_networks,
            people=self.validation,
            fsdp=arguments.fsdp,
        )
        self.episodes, self.seconds, self.curve = 0, 0.0, list[dict[str, float]]()
        if state is not None:
            self._load(state)
        self.saved_step = self.trainer.step if state is not None else -1
        self.training = self._episodes(arguments.data, self.index, augment=Augmentation(), seed=arguments.seed)
        per_epoch = len(self.training)
        self.loads_on_device = self._loads_on_device()
        self.num_steps = train.num_steps or max(1, train.num_epochs * per_epoch // train.batch_size)
        self.diary = RunLog(arguments.out) if world.first else None
        if world.first:
            self._write_settings()

    # Before the first step.

    def _lock_and_load(self) -> tuple[IO[str] | None, dict[str, Any] | None]:
        """Locks the run folder; returns the lock and the newest state on any machine.

        The first process changes when machines join or leave. If machines have different folders, each keeps the
        states, so that the run survives the loss of any machine.
        """
        world = self.world
        lock = self._lock_folder() if world.first else None
        world.shared(None)  # the first process locks before the others try
        if world.is_first_on_machine and not world.first:
            with suppress(InputError):  # locked if it is the first process's folder on a shared disk
                lock = self._lock_folder(wait_s=0)
        state = checkpoint.read_state(self.arguments.out) if lock is not None else None
        steps = world.gathered(-1 if state is None else state["step"])
        newest = int(np.argmax(steps))
        return lock, world.shared(state, newest) if steps[newest] >= 0 else None

    def _lock_folder(self, wait_s: float = _LOCK_WAIT_S) -> IO[str]:
        """Creates and locks the run folder.

        Args: wait_s: time to wait for another process's lock, which under torchrun may be of this run and ending.
        """
        out = self.arguments.out
        try:
            out.mkdir(parents=True, exist_ok=True)
            until = time.monotonic() + (wait_s if dist.is_torchelastic_launched() else 0)
            while (lock := hold(out / RUN_MARK)) is None:
                if time.monotonic() >= until:
                    raise InputError(f"--out {out}: another run is writing there; wait for it, or use another folder.")
                time.sleep(0.5)
        except OSError as error:
            raise InputError(f"--out {out}: is not writable ({error.strerror}); use another folder.") from error
        for left in out.glob(f".*{DRAFT_SUFFIX}"):  # of a run that was killed
            left.unlink()
        return lock

    def _check_state(self, state: Mapping[str, Any]) -> None:
        """Raises if the settings, except the number of steps, differ from those of the state."""
        changed = checkpoint.differences(preset_from_json(state["preset"]), self.preset)
        for name in ("train.num_steps", "train.num_epochs"):
            changed.pop(name, None)
        for name, now in (("data", self.fingerprint), ("seed", self.arguments.seed)):
            if state[name] != now:
                changed[name] = state[name], now
        if changed:
            name, (old, new) = next(iter(changed.items()))
            what = "other clips" if name == "data" else f"{name} {old}, not {new}"
            raise InputError(f"--out {self.arguments.out}: was trained with {what}; use the same, or a new folder.")

    def _init(self, path: Path) -> checkpoint.TrainedModel:
        release = checkpoint.load_release(path)
        for name, (old, new) in checkpoint.differences(release.preset, self.preset).items():
            if name.startswith("networks."):
                raise InputError(f"--init {path}: has {name} {old}, not {new}; use another --preset.")
        return release

    def _episodes(self, source: str, index: Sequence[ClipInfo], *, augment: Augmentation | None, seed: int) -> Episodes:
        networks, train = self.preset.networks, self.preset.train
        texture = networks.form == "texture"
        cache_mb = 0.0  # held-out episodes are read once
        if augment is not None:
            given = self.arguments.cache_mb
            cache_mb = (_quarter_of_memory_mb() if given is None else given) / self.world.local_size
        return Episodes(
            ClipStore(source, size=None if texture else networks.image_px, cache_mb=cache_mb),
            index,
            num_sources=train.num_sources,
            style=networks.landmarks,
            target=train.target,
            augment=augment,
            seed=seed,
            skip_damaged=True,
            window_px=networks.image_px if texture else None,
            scene=train.scene if texture else "warp",
            stills_share=train.stills_share,
        )

    def _loads_on_device(self) -> bool:
        """Whether batches are made on the networks' device. Raises InputError if requested and impossible."""
        arguments, device = self.arguments, self.world.device
        if arguments.loader == "workers" or (arguments.loader == "auto" and device.type != "cuda"):
            if arguments.reuse is not None:
                raise InputError(f"--reuse {arguments.reuse}: without a GPU, also pass --loader device, or omit it.")
            return False
        needed = DeviceCorpus.num_bytes(self.training)
        if arguments.cache_mb is not None:
            limit = arguments.cache_mb * 1_000_000
        elif device.type == "cuda":
            limit = int(_GPU_SHARE * torch.cuda.mem_get_info(device)[0])
        else:
            limit = _quarter_of_memory_mb() * 1_000_000 // self.world.local_size
        takes = f"the decoded clips take {needed / 1e9:.2f} GB, and {limit / 1e9:.2f} GB are for them"
        if needed <= limit:
            log.info("batches are prepared on %s: %s", device, takes)
            return True
        if arguments.loader == "device" or arguments.reuse is not None:
            raise InputError(f"--loader device: {takes}. Raise --cache-mb, or pass --loader workers without --reuse.")
        log.warning("batches are prepared by worker processes, because %s; raise --cache-mb to load on the GPU", takes)
        return False

    def _batches(self) -> Iterator[Batch]:
        """The batches of this process, from the first unfinished episode."""
        workers = self.arguments.workers
        if workers is None:
            cores = (os.cpu_count() or 1) // self.world.local_size
            workers = min(8, max(1, cores)) if self.world.device.type == "cuda" else 1
        share = {
            "batch_size": self.preset.train.batch_size // self.world.size,
            "num_workers": workers,
            "start_episode": self.episodes,
            "rank": self.world.rank,
            "world_size": self.world.size,
        }
        if self.loads_on_device:
            return iter(DeviceLoader(self.training, self.world.device, **share, reuse=self.arguments.reuse or REUSE))
        return iter(loader(self.training, **share, pin_memory=self.world.device.type == "cuda"))

    # The loop.

    def run(self, signals: StopSignals, progress: Callable[[int, int], None]) -> TrainOutcome:
        """Train until the end or a reason to stop."""
        trainer, arguments = self.trainer, self.arguments
        meter, saved = Meter(), time.monotonic()
        batches = self._batches() if trainer.step < self.num_steps else iter(())
        if trainer.step == 0:
            self._validate()
        stop, batch = False, None
        while trainer.step < self.num_steps and not stop:
            began, wait_s = time.monotonic(), 0.0
            if batch is None:
                batch = next(batches)
                wait_s = time.monotonic() - began
            stats = trainer.train_step(batch)
            now = time.monotonic()
            if trainer.step < self.num_steps:
                batch = next(batches)  # while a GPU still computes the step
                wait_s += time.monotonic() - now
            # Clocks and signals differ between processes: if one process requests something, all do it.
            wishes = {
                "stop": float(signals.received is not None or now - self.started > 60 * (arguments.max_minutes or 1e9)),
                "save": float(now - saved > 60 * arguments.save_minutes),
            }
            seen = self._checked(stats, wishes)
            self.episodes += self.preset.train.batch_size
            self.seconds += time.monotonic() - began
            stop, save = seen.pop("stop") > 0, seen.pop("save") > 0
            meter.add(seen, self.preset.train.batch_size, wait_s)
            if self.world.first:
                progress(trainer.step, self.num_steps)
                if meter.elapsed_s > _LOG_EVERY_S:
                    self._log(meter)
                    meter = Meter()
            if trainer.step % arguments.val_every == 0 or trainer.step == self.num_steps:
                self._validate()
            if save:
                self._save()
                saved = time.monotonic()
        if self.world.first and meter.images:
            self._log(meter)
        if self.saved_step != trainer.step:
            self._save()
        return TrainOutcome(
            trainer.step,
            self.num_steps,
            signals.received,
            arguments.out / RELEASE_NAME,
            self.curve[-1] if self.curve else {},
        )

    @property
    def kept(self) -> str:
        """What is left of the run, for messages."""
        return f"that of step {self.saved_step} is kept" if self.saved_step >= 0 else "none was saved before"

    def _checked(self, stats: Mapping[str, Tensor], wishes: Mapping[str, float]) -> dict[str, float]:
        """Means over processes, as floats, in one transfer. Raises InputError if one is not finite."""
        more = torch.tensor(list(wishes.values()), device=self.world.device)
        values = torch.cat([torch.stack([value.float() for value in stats.values()]), more])
        means = dict(zip((*stats, *wishes), self.world.mean(values).tolist(), strict=True))
        if bad := next((name for name, value in means.items() if not np.isfinite(value)), None):
            raise InputError(
                f"step {self.trainer.step}: {bad} is not finite; this state is not saved, {self.kept}. Rerun the "
                "command to resume from it; if it happens again, train with --precision fp32."
            )
        return means

    def _log(self, meter: Meter) -> None:
        assert self.diary is not None
        means = {**meter.means(), "memory_gb": peak_memory_gb(self.world.device)}
        self.diary.numbers(self.trainer.step, {**means, "seconds": self.seconds})
        log.info("%s", progress_line(self.trainer.step, self.num_steps, means, self.preset.train))

    def _validate(self) -> None:
        """Validate on the held-out clips; every process computes the same."""
        values = self.trainer.validate(self.validation)
        self.curve.append({"step": self.trainer.step, "seconds": round(self.seconds, 1), **values})
        batch = each_tensor(self.trainer.on_device(self.validation[0]), lambda value: value[:_GRID_ROWS])
        out = self.trainer.synthesize(batch)
        if self.diary is not None:
            self.diary.numbers(self.trainer.step, values, "val_")
            log.info("step %d  held-out: %s", self.trainer.step, ", ".join(f"{n} {v:.4g}" for n, v in values.items()))
            if values["embedding"] < _COLLAPSED_EMBEDDING:
                log.warning(
                    "step %d: the embedding has collapsed: only %.1f %% of its values differ between people, so "
                    "psi_hat hardly depends on the person; restart with a smaller weight of L_MCH, or another --seed",
                    self.trainer.step,
                    100 * values["embedding"],
                )
            caption = f"synthetic - mimik training sample, step {self.trainer.step}"
            self.diary.grid(self.trainer.step, sample_grid(batch, out, caption))

    # States.

    def _save(self) -> None:
        random = [torch.get_rng_state()]
        if self.world.device.type == "cuda":
            random.append(torch.cuda.get_rng_state())
        randoms = self.world.gathered(random)
        state, released = self.trainer.state(), self.trainer.release_tensors()
        if self.lock is None:
            self.saved_step = self.trainer.step
            return
        state |= {
            "episodes": self.episodes,
            "seconds": self.seconds,
            "curve": self.curve,
            "random": randoms,
            "preset": preset_to_json(self.preset),
            "data": self.fingerprint,
            "seed": self.arguments.seed,
            "before": self.before,
        }
        checkpoint.write_state(self.arguments.out, state)
        if self.world.first:
            path = self.arguments.out / RELEASE_NAME
            checkpoint.write_release(path, released, self.preset, self._record())
        self.saved_step = self.trainer.step
        log.info("step %d  saved", self.trainer.step)

    def _load(self, state: Mapping[str, Any]) -> None:
        self.trainer.load_state(state)
        self.episodes, self.seconds, self.curve = state["episodes"], state["seconds"], list(state["curve"])
        self.before = state.get("before")
        if self.world.rank < len(state["random"]):
            cpu, *cuda = state["random"][self.world.rank]
            torch.set_rng_state(cpu)
            if cuda and self.world.device.type == "cuda":
                torch.cuda.set_rng_state(cuda[0])
        log.info("resuming from step %d", self.trainer.step)

    def _record(self) -> dict[str, Any]:
        """The training record of a release."""
        thin = self.curve[:: -(-len(self.curve) // _CURVE_POINTS)] if self.curve else []
        cuda = self.world.device.type == "cuda"
        return {
            "version": VERSION,
            "preset": self.arguments.preset,
            "steps": self.trainer.step,
            "episodes": self.episodes,
            "seconds": round(self.seconds, 1),
            "before": self.before,
            "device": torch.cuda.get_device_name(self.world.device) if cuda else "cpu",
            "processes": self.world.size,
            "precision": self.trainer.precision,
            "torch": torch.__version__,
            "data": _description(self.index),
            "held_out": _description(self.held_out),
            "curve": thin + self.curve[-1:] if thin[-1:] != self.curve[-1:] else thin,
            "best": min(self.curve, key=lambda point: point["content"], default=None),
        }

    def _write_settings(self) -> None:
        """Writes the run's settings for people."""
        text = {
            "arguments": {k: v for k, v in dataclasses.asdict(self.arguments).items() if v is not None},
            "num_steps": self.num_steps,
            "preset": dataclasses.asdict(self.preset),
            "data": _description(self.index),
            "held_out": _description(self.held_out),
        }
        write_atomically(self.arguments.out / SETTINGS_NAME, (json.dumps(text, indent=2, default=str) + "\n").encode())

    def close(self) -> None:
        if self.diary is not None:
            self.diary.close()
        if self.lock is not None:
            self.lock.close()


def _quarter_of_memory_mb() -> int:
    """Of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4_000_000


def _fingerprint(index: Sequence[ClipInfo]) -> str:
    """Hash of the clips and their order, the order of W's rows."""
    return hashlib.sha256("\n".join(clip.to_json() for clip in index).encode()).hexdigest()


def _description(index: Sequence[ClipInfo]) -> dict[str, Any]:
    """Summary of the clips, without names and paths."""
    return {
        "clips": len(index),
        "people": len({clip.person for clip in index}),
        "hours": round(sum(clip.num_frames / clip.fps for clip in index) / 3600, 3),
        "fingerprint": _fingerprint(index),
    }


# Without the command line of `mimik`.


def main() -> int:
    """`python -m mimik.training.meta_learning`: the options of `mimik train` without typer and rich."""
    parser = argparse.ArgumentParser(prog="python -m mimik.training.meta_learning", description=__doc__.splitlines()[0])
    hints = typing.get_type_hints(TrainArguments)
    options = options_of(TrainArguments)
    for field in dataclasses.fields(TrainArguments):
        kind = next(iter(typing.get_args(hints[field.name])), hints[field.name])  # of `int | None`, int
        required = field.default is dataclasses.MISSING
        how = {"type": kind, "required": required, "default": None if required else field.default}
        option = options[field.name]
        parser.add_argument(
            *option.flag.split(), help=option.help, **({"action": "store_true"} if kind is bool else how)
        )
    given = vars(parser.parse_args())
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        outcome = train(TrainArguments(**given))
    except InputError as error:
        log.error("mimik: %s", error)
        return 2
    return 128 + outcome.signal if outcome.signal else 0


if __name__ == "__main__":
    sys.exit(main())
