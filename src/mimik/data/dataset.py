"""Names of the modules of this folder under one roof, until every caller names the module itself."""

from mimik.data.augmentation import Augmentation, Change, flip_permutation  # noqa: F401
from mimik.data.episodes import (  # noqa: F401
    TARGETS,
    Episodes,
    EpisodeSampler,
    EvaluationEpisode,
    evaluation_episodes,
    load_evaluation,
    loader,
    to_model_range,
    view_of,
)
from mimik.data.index import INDEX_NAME, ClipInfo, read_index, split_people  # noqa: F401
from mimik.data.remote import DamagedClipError  # noqa: F401
from mimik.data.store import ClipFrames, ClipStore  # noqa: F401
from mimik.data.tracks import Tracks, pack_tracks, unpack_tracks  # noqa: F401
