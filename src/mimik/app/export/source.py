"""Source of an export: a model, or a person with the model's networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mimik.animation.avatar import Avatar
from mimik.app.export.networks import Embedding
from mimik.app.export.settings import ExportConfig
from mimik.app.export.stage import embedded
from mimik.config import AVATAR_SUFFIX, ModelError, NetworkConfig
from mimik.inference.avatar_file import read_avatar
from mimik.inference.synthesis import BUNDLED_MODEL
from mimik.networks.checkpoint import load_generator, load_release
from mimik.networks.generators import Generator, Networks


@dataclass(frozen=True)
class ExportSource:
    """A model, optionally with a person."""

    name: str  # file name, or "texture"
    config: NetworkConfig  # sizes and form
    generator: Generator  # G in evaluation mode
    networks: Networks | None  # of a model without a person, whose E and P are exported, too
    psi: Tensor | None  # [1, 2 * features of all AdaIN layers] psi_hat of the person
    avatar: Avatar | None  # the person
    research_only: bool  # whether the weights are those of the package, or fine-tuned from them

    @classmethod
    def of(cls, what: str, config: ExportConfig) -> ExportSource:
        """Load a model or a person that settings.check_export has accepted. Raises InputError if it is damaged."""
        path = Path(what)
        if path.suffix.lower() == AVATAR_SUFFIX:
            person = read_avatar(path)
            networks, origin = person.preset.networks, person.record.get("model")
            try:
                generator = load_generator(networks, person.tensors)
            except ModelError:
                raise ModelError(
                    f"{path}: its generator's parts do not fit each other; run `mimik learn` again."
                ) from None
            shipped = isinstance(origin, dict) and origin.get("name") == BUNDLED_MODEL.name
            psi = torch.from_numpy(person.psi)[None]
            if psi.shape[1] != 2 * sum(generator.adain_sizes):
                raise ModelError(f"{path}: its psi' does not fit its generator; run `mimik learn` again.")
            return cls(path.name, networks, generator, None, psi, Avatar.load(path), shipped)
        release = load_release(BUNDLED_MODEL if what == "texture" else path)
        nets = release.networks
        known: Tensor | None = None
        avatar = None
        if config.photo is not None:
            avatar = Avatar.from_photos([config.photo], face=config.face)
            x, y = embedded(release.preset.networks, avatar.picture, avatar.face.points)
            with torch.inference_mode():
                known = Embedding(nets)(torch.from_numpy(x), torch.from_numpy(y)).clone()
        return cls(
            path.name, release.preset.networks, nets.G, None if avatar else nets, known, avatar, what == "texture"
        )
