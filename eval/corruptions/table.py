"""The corruptions by name, and how one is applied to one scan.

A corruption module has a frozen `Config`, `SEVERITIES` (name -> Config, light to heavy) and
`corrupt(scan, config, rng) -> Scan`.
"""

import zlib

import numpy as np

from eval.scan import Scan, check_rings
from pipeline.errors import unknown_name
from pipeline.tables import Table

SEED = 1205  # Robo3D's
SEVERITIES = ("light", "moderate", "heavy")
CORRUPTIONS = Table(
    kind="corruption",
    modules={
        "fog": "eval.corruptions.fog",
        "wet_ground": "eval.corruptions.wet_ground",
        "snow": "eval.corruptions.snow",
        "motion_blur": "eval.corruptions.motion_blur",
        "beam_missing": "eval.corruptions.beam_missing",
        "crosstalk": "eval.corruptions.crosstalk",
        "incomplete_echo": "eval.corruptions.incomplete_echo",
        "cross_sensor": "eval.corruptions.cross_sensor",
    },
    install={},
)


def corrupt(scan: Scan, kind: str, severity: str, key: str, seed: int = SEED) -> Scan:
    """Return a corrupted copy of a scan; a function of its arguments alone.

    The severity is no part of the random key, so the three severities of a scan share their draws
    and differ in strength only.

    Args:
        scan: labeled keyframe.
        kind: name of a corruption.
        severity: 'light', 'moderate' or 'heavy'.
        key: what tells this scan from others, such as its frame id.
        seed: other draws.

    Raises:
        UserError: unknown kind or severity, or rings outside 0..31.
    """
    module = CORRUPTIONS.load(kind)
    if severity not in SEVERITIES:
        raise unknown_name("severity", severity, SEVERITIES)
    check_rings(scan)
    entropy = [seed, zlib.crc32(kind.encode()), zlib.crc32(key.encode())]
    return module.corrupt(scan, module.SEVERITIES[severity], np.random.default_rng(entropy))
