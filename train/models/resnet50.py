"""ResNet-50 without classifier: the paper's teacher, with or without dilation.

In: normalized images. Out: the last stage's feature map. Written without torchvision, whose builds
do not match every torch; attribute names are its own, so that its keys fit.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class _Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut."""

    def __init__(self, inside: int, width: int, stride: int, dilation: int, shortcut: bool) -> None:
        super().__init__()
        out = width * 4
        self.conv1 = nn.Conv2d(inside, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(
            width, width, 3, stride, padding=dilation, dilation=dilation, bias=False
        )
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = None
        if shortcut:
            self.downsample = nn.Sequential(
                nn.Conv2d(inside, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(
            self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x))
        )


class ResNet50(nn.Module):
    """ResNet-50 at stride 32, or at stride 4 with the strides of stages 2 to 4 made dilations.

    Source: method.md 3.3. Dilated, the first block of a stage keeps the dilation of the stage
    before: layer2 1 then 2, layer3 2 then 4, layer4 4 then 8.
    """

    DIM = 2048

    def __init__(self, dilated: bool) -> None:
        super().__init__()
        self.stride = 4 if dilated else 32
        step, dilations = (1, (1, 2, 4, 8)) if dilated else (2, (1, 1, 1, 1))
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, 3, 1, 1, 1)
        self.layer2 = _stage(256, 128, 4, step, *dilations[0:2])
        self.layer3 = _stage(512, 256, 6, step, *dilations[1:3])
        self.layer4 = _stage(1024, 512, 3, step, *dilations[2:4])

    def forward(self, images: Tensor) -> Tensor:
        """Return [I, 2048, ceil(H / stride), ceil(W / stride)] of normalized [I, 3, H, W]."""
        x = F.relu(self.bn1(self.conv1(images)))
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def _stage(
    inside: int, width: int, blocks: int, stride: int, first_dilation: int, dilation: int
) -> nn.Module:
    first = _Bottleneck(inside, width, stride, first_dilation, shortcut=True)
    rest = [_Bottleneck(width * 4, width, 1, dilation, shortcut=False) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)
