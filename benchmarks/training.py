"""Cost of a training step by part: milliseconds, multiply-adds, their rate, and the share of the device's peak rate.

    python benchmarks/training.py --data SHARDS [--preset texture] [--batch 8] [--k 2] [--clips N] [--precision fp32]
        [--device cpu] [--steps 7] [--warm-up 4] [--workers 0] [--reuse 8] [-o OUT.json]

Prints a table; -o writes it as JSON. Every part runs separately, forward and backward, on the same batch: median and
interquartile range over --steps, after two warm-up steps; on a CPU, of processor time. If the weights of VGG19 and
VGGFace are missing, random ones are used, which take the same time.

Then whole steps with each loader: frames per second, and the share of the time spent waiting for batches. The peak rate
is that of one large convolution on the same device, with activations of the same precision.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils.parametrize import is_parametrized
from torch.utils.data import default_collate
from torch.utils.flop_counter import FlopCounterMode

from mimik.config import PRESETS, InputError, Preset
from mimik.data.augmentation import Augmentation
from mimik.data.episodes import Batch, Episodes
from mimik.data.index import read_index
from mimik.data.loading import loader
from mimik.data.on_device.batches import REUSE, DeviceLoader
from mimik.data.store import ClipStore
from mimik.networks import features, losses
from mimik.training import trainer as trainer_module
from mimik.training.distributed import World
from mimik.training.step import DiscriminatorInputs, weighted_content_loss
from mimik.training.trainer import Trainer
from reporting import commit, machine, markdown, write_json


def content_network(name: str) -> features.ContentNetwork:
    """As features.content_network, but with random weights if they are missing."""
    try:
        return features.content_network(name)
    except InputError:
        weights: dict[str, Tensor] = {}
        num_in, index = 3, 0
        for block in features._VGG_BLOCKS[name]:
            for num_out in block:
                weights[f"features.{index}.weight"] = torch.randn(num_out, num_in, 3, 3) * (2 / 9 / num_in) ** 0.5
                weights[f"features.{index}.bias"] = torch.zeros(num_out)
                num_in, index = num_out, index + 2
            index += 1
        with tempfile.TemporaryDirectory() as folder:
            save_file(weights, Path(folder, "random.safetensors"))
            print(f"{name}: random weights")
            return features.content_network(name, Path(folder, "random.safetensors"))


def episodes_of(preset: Preset, data: str, num_clips: int | None) -> Episodes:
    """Episodes as in meta_learning, with cached decoded clips; of the first clips, or all."""
    texture = preset.networks.form == "texture"
    px = preset.networks.image_px
    return Episodes(
        ClipStore(data, size=None if texture else px, cache_mb=2000),
        read_index(data)[:num_clips],
        num_sources=preset.train.num_sources,
        style=preset.networks.landmarks,
        target=preset.train.target,
        augment=Augmentation(),
        window_px=px if texture else None,
    )


class Clock:
    """Measures functions, with the device synchronized."""

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device, self.repeats = device, repeats
        self.rows: dict[str, dict[str, float]] = {}

    def run(self, function: Callable[[], Any]) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        # On a CPU: processor time, which other load affects least.
        now = time.perf_counter if self.device.type == "cuda" else time.process_time
        start = now()
        function()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return 1000 * (now() - start)

    def __call__(self, name: str, function: Callable[[], Any], per_step: float = 1.0) -> None:
        """Args: name: of the part; function: runs it once; per_step: calls per step."""
        with FlopCounterMode(display=False) as counter:
            function()
        self.run(function)
        times = [self.run(function) for _ in range(self.repeats)]
        low, middle, high = statistics.quantiles(times, n=4)
        gmac = counter.get_total_flops() / 2e9
        self.rows[name] = {
            "ms": middle * per_step,
            "iqr_ms": (high - low) * per_step,
            "gmac": gmac * per_step,
            "gmac_per_s": 1000 * gmac / middle,
        }


def roof(device: torch.device, precision: str) -> float:
    """GMAC/s of a 3 x 3 convolution with 256 channels."""
    gpu = device.type == "cuda"
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    count, px = (256, 64) if gpu else (1, 48)
    layer = torch.nn.Conv2d(256, 256, 3, padding=1, device=device, dtype=kind).to(memory_format=torch.channels_last)
    x = torch.randn(count, 256, px, px, device=device, dtype=kind).to(memory_format=torch.channels_last)
    clock = Clock(device, 7)
    with torch.no_grad():
        clock("roof", lambda: layer(x))
    return clock.rows["roof"]["gmac_per_s"]


def with_loader(
    trainer: Trainer, episodes: Episodes, name: str, num_workers: int, reuse: int, warm_up: int, steps: int
) -> dict[str, float]:
    """Frames per second of whole steps, and the share of waiting, after the warm-up.

    The device loader reaches its steady state after a block of warped frames, warps.BLOCK / batch steps.
    """
    batch_size, device = trainer.preset.train.batch_size, trainer.world.device
    began = time.perf_counter()
    batches: Iterator[Batch] = iter(
        DeviceLoader(episodes, device, batch_size=batch_size, num_workers=num_workers, reuse=reuse)
        if name == "device"
        else loader(episodes, batch_size=batch_size, num_workers=num_workers)
    )
    batch = next(batches)
    first_s, waited, start, used = time.perf_counter() - began, 0.0, 0.0, 0.0
    for number in range(warm_up + steps):
        if number == warm_up:
            waited, start, used = 0.0, time.perf_counter(), time.process_time()
        stats = trainer.train_step(batch)
        asked = time.perf_counter()
        batch = next(batches)  # as training: while a GPU computes
        waited += time.perf_counter() - asked
        torch.stack([value.float() for value in stats.values()]).tolist()
    seconds = time.perf_counter() - start
    return {
        "frames_per_s": steps * batch_size / seconds,
        "waiting": waited / seconds,
        "first_batch_s": first_s,
        "processor_ms_per_frame": 1000 * (time.process_time() - used) / steps / batch_size,
    }


def parts(trainer: Trainer, loaded: list[dict[str, Tensor]], clock: Clock) -> None:
    """All parts of a step with an update of D."""
    nets, preset = trainer.networks, trainer.preset
    batch = trainer.on_device(loaded[0])
    with torch.no_grad(), trainer._autocast():
        e, out = trainer.synthesizer(batch)
        psi_hat = nets.P(e.mean(1))
    x_hat = out.image.detach()
    seen = DiscriminatorInputs.of(batch, x_hat)

    def leaf(value: Tensor) -> Tensor:
        return value.detach().clone().requires_grad_()

    def embed() -> None:
        with trainer._autocast():
            made = nets.E(batch["x_s"], batch["y_s"])
        made.float().sum().backward()

    def generate() -> None:
        with trainer._autocast():
            made = nets.G(batch["y"], leaf(psi_hat), batch.get("warped"), batch.get("geometry"), batch.get("interior"))
        made.image.float().mean().backward()

    def content() -> None:
        fake = leaf(seen.x_hat)
        with trainer._autocast():
            value = weighted_content_loss(trainer.content, preset.losses, seen.x, fake)
        value.backward()

    def discriminator_step() -> None:
        fake = leaf(seen.x_hat)
        nets.D.requires_grad_(False)
        with trainer._autocast():
            output = trainer.discriminator_step.output(seen.x, fake, seen.y, batch["clip"])
            value = losses.adversarial_loss(output.score)
            value = value + losses.feature_matching_loss(output.fake_acts, output.real_acts)
        value.backward()
        nets.D.requires_grad_(True)

    def update_d() -> None:
        with trainer._autocast():
            score = trainer.discriminator_step(*seen, batch["clip"])
        real, fake = score.chunk(2)
        trainer.discriminator_adam.zero_grad()
        losses.discriminator_loss(real, fake).backward()

    def adam() -> None:
        trainer._clip(trainer._generator_parameters)
        trainer.generator_adam.step()
        trainer.ema.update(10**6)

    def spectral() -> None:
        for part in (nets.E, nets.P, nets.G, nets.D):
            out = [layer.weight for layer in part.modules() if is_parametrized(layer, "weight")]
            torch.autograd.backward(out, [one.detach() for one in out])

    clock("E, forward and backward", embed)
    clock("G, forward and backward", generate)
    clock("content loss", content)
    clock("D for G's loss", discriminator_step)
    clock("updates of D", update_d, preset.train.num_discriminator_updates)
    clock("Adam and averages of E, P, G", adam)
    trainer.step = 10**6
    clock("whole step", lambda: trainer.train_step(loaded[0]))
    clock("of which spectral norm of E, P, G and D, once", spectral)
    clock("of which moving and scaling the batch", lambda: trainer.on_device(loaded[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder or URL of shards")
    parser.add_argument("--preset", default="texture", choices=sorted(PRESETS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--k", type=int)
    parser.add_argument("--clips", type=int, help="number of clips to use; all if omitted")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--warm-up", type=int, default=4, help="warm-up steps of each loader")
    parser.add_argument("--workers", type=int, default=0, help="loader processes")
    parser.add_argument("--reuse", type=int, default=REUSE, help="episodes for each warped frame")
    parser.add_argument("-o", dest="out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(0)
    torch.set_float32_matmul_precision("high")
    preset = PRESETS[arguments.preset]
    k = arguments.k or preset.train.num_sources
    train = dataclasses.replace(preset.train, batch_size=arguments.batch, num_sources=k)
    preset = dataclasses.replace(preset, train=train)
    device = torch.device(arguments.device)
    trainer_module.content_network = content_network
    episodes = episodes_of(preset, arguments.data, arguments.clips)
    clock = Clock(device, arguments.steps)
    clips = len(episodes)

    def load() -> dict[str, Tensor]:
        return default_collate([episodes[number] for number in range(arguments.batch)])

    loaded = [load()]
    clock("loading, one process, clips decoded before", load)
    torch.manual_seed(0)
    trainer = Trainer(preset, clips, World(0, 1, device), precision=arguments.precision)
    trainer.step = 10**6  # with updates of D
    parts(trainer, loaded, clock)
    most = roof(device, arguments.precision)
    loaders = {
        name: with_loader(
            trainer, episodes, name, arguments.workers, arguments.reuse, arguments.warm_up, arguments.steps
        )
        for name in ("workers", "device")
    }
    print(f"\n{arguments.preset}, {arguments.batch} episodes, K = {k}, {arguments.precision}, {device}\n")
    rows = [[name, *(f"{value:.1f}" for value in row.values())] for name, row in clock.rows.items()]
    print(markdown(["part", "ms", "IQR", "GMAC", "GMAC/s"], rows))
    share = clock.rows["whole step"]["gmac_per_s"] / most
    print(f"\npeak {most:.0f} GMAC/s; a whole step reaches {100 * share:.1f} % of it")
    for name, row in loaders.items():
        print(
            f"loader {name}: {row['frames_per_s']:.1f} frames/s, {100 * row['waiting']:.1f} % waiting,"
            f" first batch after {row['first_batch_s']:.1f} s, {row['processor_ms_per_frame']:.1f} ms of this process"
        )
    result = {
        "arguments": {key: str(value) for key, value in vars(arguments).items() if key not in ("data", "out")},
        "rows": clock.rows,
        "roof_gmac_per_s": most,
        "share_of_roof": share,
        "loaders": loaders,
        "commit": commit(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "machine": machine("torch"),
    }
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
