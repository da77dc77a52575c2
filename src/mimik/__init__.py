"""mimik: one photo of a person in, a talking head out."""

from mimik.config import VERSION as __version__
from mimik.config import InputError, MediaError, ModelError, NoFaceError

__all__ = ["InputError", "MediaError", "ModelError", "NoFaceError", "__version__"]
