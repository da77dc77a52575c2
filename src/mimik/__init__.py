"""mimik: one photo of a person in, a talking head out."""

from mimik.animate import Avatar, Report
from mimik.config import VERSION, InputError, MediaError, ModelError, NoFaceError

__version__ = VERSION

__all__ = ["Avatar", "InputError", "MediaError", "ModelError", "NoFaceError", "Report", "__version__"]
