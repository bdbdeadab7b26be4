import torch

from pipeline.xdecoder.deformable import DeformableAttention, pixel_centers

SIZES = [(4, 6), (2, 3)]


def _attention(heads=2, dim=8, points=3):
    torch.manual_seed(0)
    net = DeformableAttention(dim, heads, len(SIZES), points)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape))
    return net


def sample(grid: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """Bilinear value of grid [h, w, d] at x, y in 0 .. 1; zeros outside."""
    height, width, _ = grid.shape
    column, row = x * width - 0.5, y * height - 0.5
    total = torch.zeros(grid.shape[2])
    for i in (int(row // 1), int(row // 1) + 1):
        for j in (int(column // 1), int(column // 1) + 1):
            if 0 <= i < height and 0 <= j < width:
                total += (1 - abs(row - i)) * (1 - abs(column - j)) * grid[i, j]
    return total


def attend_slowly(net, query, boxes, memory, sizes):
    """The formula, one sample at a time."""
    heads, levels, points = net.heads, net.levels, net.points
    steps = net.sampling_offsets(query).reshape(len(query), heads, levels, points, 2)
    weights = net.attention_weights(query).reshape(len(query), heads, -1).softmax(-1)
    weights = weights.reshape(len(query), heads, levels, points)
    values = net.value_proj(memory).split([h * w for h, w in sizes])
    out = torch.zeros(len(query), heads, query.shape[1] // heads)
    for q in range(len(query)):
        for head in range(heads):
            for level, (h, w) in enumerate(sizes):
                grid = values[level].reshape(h, w, heads, -1)[:, :, head]
                for point in range(points):
                    dx, dy = steps[q, head, level, point].tolist()
                    if boxes.shape[1] == 2:
                        dx, dy = dx / w, dy / h
                    else:
                        dx, dy = (
                            step / points * float(side) * 0.5
                            for step, side in zip((dx, dy), boxes[q, 2:], strict=True)
                        )
                    place = float(boxes[q, 0]) + dx, float(boxes[q, 1]) + dy
                    out[q, head] += weights[q, head, level, point] * sample(grid, *place)
    return net.output_proj(out.flatten(1))


def test_equals_its_slow_twin_around_points_and_boxes():
    net = _attention()
    query, memory = torch.randn(5, 8), torch.randn(30, 8)
    for boxes in (torch.rand(5, 2), torch.rand(5, 4)):
        want = attend_slowly(net, query, boxes, memory, SIZES)
        found = net(query[None], boxes[None], memory[None], SIZES)[0]
        torch.testing.assert_close(found, want, atol=1e-4, rtol=1e-4)


def test_every_image_of_a_batch_is_its_own():
    net = _attention()
    query, memory, boxes = torch.randn(2, 5, 8), torch.randn(2, 30, 8), torch.rand(2, 5, 4)
    both = net(query, boxes, memory, SIZES)
    for i in range(2):
        alone = net(query[i : i + 1], boxes[i : i + 1], memory[i : i + 1], SIZES)[0]
        torch.testing.assert_close(both[i], alone, atol=1e-5, rtol=1e-5)


def test_centers_by_hand():
    found = pixel_centers(1, 2, torch.device("cpu"))
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.5], [0.75, 0.5]]))
