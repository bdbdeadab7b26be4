"""Samples into one batch: voxels of a list of frames [t, t+n], images, pairs, segments."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from train.augment import PairedSample
from train.voxelize import VoxelConfig, voxelize


@dataclass(frozen=True)
class Cloud:
    """One voxelized cloud."""

    features: np.ndarray  # [V, C] float32
    cells: np.ndarray  # [V, 3] int32
    voxel_idx: np.ndarray  # [N] int64, voxel of each point
    segment: np.ndarray  # [N] uint16, 0 = none


@dataclass(frozen=True)
class Sample:
    """One training sample as the loader's worker hands it over."""

    row: int
    clouds: tuple[Cloud, ...]  # t, and t+n where there is a successor
    images: np.ndarray  # [I, 3, h, w] uint8
    ids: np.ndarray  # [I, h, w] int32
    pair_voxel: np.ndarray  # [M] int64, voxel of clouds[0]
    pair_image: np.ndarray  # [M] int64
    pair_row: np.ndarray  # [M] int64
    pair_col: np.ndarray  # [M] int64
    num_fallbacks: int  # crops and cuboids that the augmentation had to give up
    part: int = 0  # data set, where there are several

    @property
    def is_paired(self) -> bool:
        """Whether any pixel of a superpixel sees a point."""
        return bool(self.ids[self.pair_image, self.pair_row, self.pair_col].any())


@dataclass(frozen=True)
class Clouds:
    """The clouds of one time step of a batch."""

    features: Tensor  # [V, C] float32
    coordinates: Tensor  # [V, 4] int32 (sample, cell)
    rows: Tensor  # [A] int64, voxel of each clustered point
    segment: Tensor  # [A] int64, numbered over the batch


@dataclass(frozen=True)
class Batch:
    """What one step sees."""

    frames: tuple[Clouds, ...]  # t, t+n; only samples with a successor have voxels in the second
    segment_sample: Tensor  # [S] int64, sample that owns each segment
    images: Tensor  # [I, 3, h, w] uint8, of all samples
    ids: Tensor  # [I, h, w] int32
    pair_voxel: Tensor  # [M] int64, row of frames[0]
    pair_image: Tensor  # [M] int64
    pair_row: Tensor  # [M] int64
    pair_col: Tensor  # [M] int64
    num_samples: int
    num_fallbacks: int
    num_unpaired: int = 0  # samples without a pixel of a superpixel that sees a point
    rows: tuple[tuple[int, int], ...] = ()  # of each sample: data set, index row

    @property
    def num_segments(self) -> int:
        """S, over all samples."""
        return len(self.segment_sample)

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Return the batch in memory that a GPU copies from by itself; DataLoader calls this."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        frames = tuple(Clouds(*(change(t) for t in vars(f).values())) for f in self.frames)
        moved = {n: change(t) for n, t in vars(self).items() if isinstance(t, Tensor)}
        return replace(self, frames=frames, **moved)


def make_cloud(points: np.ndarray, segment: np.ndarray, voxels: VoxelConfig) -> Cloud:
    """Voxelize points [N, 4]; the feature is the intensity of each voxel's first point."""
    found = voxelize(points, voxels)
    features = np.ascontiguousarray(points[found.point_idx, 3:], np.float32)
    return Cloud(features, found.cells, found.voxel_idx, segment)


def make_sample(
    row: int, paired: PairedSample, later: Cloud | None, voxels: VoxelConfig, num_fallbacks: int
) -> Sample:
    """Turn an augmented sample, and the cloud of its successor, into what collate takes."""
    cloud = make_cloud(paired.points, paired.segment, voxels)
    images = np.stack(paired.images).transpose(0, 3, 1, 2)  # a view: colors stay last in memory
    return Sample(
        row=row,
        clouds=(cloud,) if later is None else (cloud, later),
        images=images,
        ids=np.stack(paired.ids, dtype=np.int32, casting="same_kind"),
        pair_voxel=cloud.voxel_idx[paired.pair_point],
        pair_image=paired.pair_image,
        pair_row=paired.pair_row,
        pair_col=paired.pair_col,
        num_fallbacks=num_fallbacks,
    )


def collate(samples: list[Sample]) -> Batch:
    """Join samples; voxels, images and segments are numbered over the batch."""
    num_segments = [
        max(int(cloud.segment.max(initial=0)) for cloud in sample.clouds) for sample in samples
    ]
    starts = np.concatenate([[0], np.cumsum(num_segments)]).astype(np.int64)
    num_frames = max(len(sample.clouds) for sample in samples)
    frames = tuple(_join_clouds(samples, frame, starts) for frame in range(num_frames))
    voxel_starts = _starts([len(sample.clouds[0].cells) for sample in samples])
    image_starts = _starts([len(sample.images) for sample in samples])

    def join(name: str, offsets: np.ndarray | None = None) -> Tensor:
        columns = [getattr(sample, name) for sample in samples]
        if offsets is not None:
            columns = [column + offset for column, offset in zip(columns, offsets, strict=False)]
        return torch.from_numpy(np.concatenate(columns))

    return Batch(
        frames=frames,
        segment_sample=torch.arange(len(samples)).repeat_interleave(torch.tensor(num_segments)),
        images=join("images"),
        ids=join("ids"),
        pair_voxel=join("pair_voxel", voxel_starts),
        pair_image=join("pair_image", image_starts),
        pair_row=join("pair_row"),
        pair_col=join("pair_col"),
        num_samples=len(samples),
        num_fallbacks=sum(sample.num_fallbacks for sample in samples),
        num_unpaired=sum(not sample.is_paired for sample in samples),
        rows=tuple((sample.part, sample.row) for sample in samples),
    )


def join_cells(clouds: list[Cloud]) -> tuple[Tensor, Tensor]:
    """Return features [V, C] and coordinates [V, 4] int32 of clouds with their batch numbers."""
    features = np.concatenate([cloud.features for cloud in clouds])
    numbers = np.repeat(np.arange(len(clouds)), [len(cloud.cells) for cloud in clouds])
    cells = np.concatenate([cloud.cells for cloud in clouds])
    coordinates = np.concatenate([numbers[:, None], cells], axis=1).astype(np.int32)
    return torch.from_numpy(features), torch.from_numpy(coordinates)


def _join_clouds(samples: list[Sample], frame: int, segment_starts: np.ndarray) -> Clouds:
    present = [(i, s.clouds[frame]) for i, s in enumerate(samples) if len(s.clouds) > frame]
    features, coordinates = join_cells([cloud for _, cloud in present])
    rows, segments, start = [], [], 0
    for number, cloud in present:
        clustered = np.flatnonzero(cloud.segment)
        rows.append(cloud.voxel_idx[clustered] + start)
        segments.append(cloud.segment[clustered].astype(np.int64) - 1 + segment_starts[number])
        start += len(cloud.cells)
    return Clouds(
        features,
        coordinates,
        torch.from_numpy(np.concatenate(rows)),
        torch.from_numpy(np.concatenate(segments)),
    )


def _starts(counts: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
