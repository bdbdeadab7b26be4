"""The corruptions by name, and how one is applied to one scan.

A corruption module has a frozen `Config`, `SEVERITIES` (name -> Config, light to heavy) and
`corrupt(scan, config, rng) -> Scan`.
"""

import zlib

import numpy as np

from eval.scan import Scan, check_rings
from pipeline.config import override
from pipeline.errors import check, unknown_name
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


def check_settings(settings: tuple[str, ...]) -> None:
    """Refuse settings that are no 'kind.severity.key=value'.

    Raises:
        UserError: unknown kind, severity or key, or a value of another type.
    """
    for setting in settings:
        parts = setting.partition("=")[0].split(".")
        check(
            len(parts) == 3,
            f"--set {setting}: must be KIND.SEVERITY.KEY=VALUE, like motion_blur.heavy.sigma_m=0.5",
        )
        level(parts[0], parts[1], settings)


def level(kind: str, severity: str, settings: tuple[str, ...] = ()):
    """Return the config of one corruption and severity.

    Args:
        kind: name of a corruption.
        severity: 'light', 'moderate' or 'heavy'.
        settings: 'kind.severity.key=value'; those of others are passed over.

    Raises:
        UserError: unknown kind, severity or key, or a value of another type.
    """
    module, prefix = CORRUPTIONS.load(kind), f"{kind}.{severity}."
    if severity not in SEVERITIES:
        raise unknown_name("severity", severity, SEVERITIES)
    own = [setting.removeprefix(prefix) for setting in settings if setting.startswith(prefix)]
    return override(module.SEVERITIES[severity], own)


def corrupt(
    scan: Scan,
    kind: str,
    severity: str,
    key: str,
    seed: int = SEED,
    settings: tuple[str, ...] = (),
) -> Scan:
    """Return a corrupted copy of a scan; a function of its arguments alone.

    The severity is no part of the random key, so the three severities of a scan share their draws
    and differ in strength only.

    Args:
        scan: labeled keyframe.
        kind: name of a corruption.
        severity: 'light', 'moderate' or 'heavy'.
        key: what tells this scan from others, such as its frame id.
        seed: other draws.
        settings: 'kind.severity.key=value' in place of the published levels.

    Raises:
        UserError: unknown kind or severity, or rings outside 0..31.
    """
    config = level(kind, severity, settings)
    check_rings(scan)
    entropy = [seed, zlib.crc32(kind.encode()), zlib.crc32(key.encode())]
    return CORRUPTIONS.load(kind).corrupt(scan, config, np.random.default_rng(entropy))
