"""The parts of motion/ under one name; import from the modules themselves."""

from mimik.motion.expression import ExpressionBasis, Float, expression_basis, pose_terms
from mimik.motion.extraction import LOOKAHEAD_S, stream_gestures
from mimik.motion.files import Motion, bundled_motions
from mimik.motion.frames import Gesture, Reference, rotation_matrix, rotation_vector, split, still
from mimik.motion.neutral import find_neutral, gesture_of_photo, usual_place
from mimik.motion.regions import region_weights
from mimik.motion.retargeting import Retarget
from mimik.motion.smoothing import OneEuro, Smoother, Steady, smoothed

__all__ = [
    "LOOKAHEAD_S",
    "ExpressionBasis",
    "Float",
    "Gesture",
    "Motion",
    "OneEuro",
    "Reference",
    "Retarget",
    "Smoother",
    "Steady",
    "bundled_motions",
    "expression_basis",
    "find_neutral",
    "gesture_of_photo",
    "pose_terms",
    "region_weights",
    "rotation_matrix",
    "rotation_vector",
    "smoothed",
    "split",
    "still",
    "stream_gestures",
    "usual_place",
]
