"""Edit MinkowskiEngine 0.5.4's unpacked PyPI source so that it compiles with CUDA 12 and 13.

    python environment/minkowski_edits.py FOLDER

Each edit is a place that must occur an exact number of times and what stands there afterwards; all
places are looked up before the first file is written, so a source that is not 0.5.4's is left as it
was. The same edited source serves both CUDA versions: where they differ, it asks CUDART_VERSION.
Who found what: the issue numbers are those of NVIDIA/MinkowskiEngine.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

VERSION = "0.5.4"


@dataclass(frozen=True)
class Edit:
    """One change: `old` stands `count` times in `path` and becomes `new`."""

    name: str
    path: str  # below the source's root
    old: str
    new: str
    count: int = 1


def include_thrust(path: str, anchor: str, *headers: str) -> Edit:
    """Return the edit that adds thrust headers above the only line that is `anchor`."""
    lines = "".join(f"#include <thrust/{header}.h>\n" for header in headers)
    name = f"thrust headers of {Path(path).name}"
    return Edit(name, path, f"\n{anchor}\n", f"\n{lines}{anchor}\n")


MAP = "src/3rdparty/concurrent_unordered_map.cuh"
PREFETCH = """
namespace {
// CUDA 13 takes a place instead of a device number, and flags
inline cudaError_t prefetch_to_device(void const *start, size_t num_bytes,
                                      int device, cudaStream_t stream) {
#if CUDART_VERSION >= 13000
  cudaMemLocation place{};
  place.type = cudaMemLocationTypeDevice;
  place.id = device;
  return cudaMemPrefetchAsync(start, num_bytes, place, 0, stream);
#else
  return cudaMemPrefetchAsync(start, num_bytes, device, stream);
#endif
}
} // namespace
"""

EDITS = (
    # CUDA 12.0 and later: CCCL's headers no longer include one another (#543, #594, #601, #638)
    include_thrust("src/convolution_kernel.cuh", '#include "gpu.cuh"', "execution_policy"),
    include_thrust(
        "src/coordinate_map_gpu.cu",
        "#include <thrust/copy.h>",
        "fill",
        "for_each",
        "functional",
        "pair",
        "reduce",
        "remove",
        "scan",
        "sequence",
        "transform",
        "tuple",
        "unique",
        "iterator/zip_iterator",
    ),
    include_thrust(
        "src/spmm.cu", "#include <cusparse.h>", "execution_policy", "reduce", "sequence", "sort"
    ),
    include_thrust(
        "src/broadcast_kernel.cu", '#include "allocators.cuh"', "execution_policy", "sort"
    ),
    include_thrust("src/pooling_max_kernel.cu", '#include "allocators.cuh"', "sequence"),
    include_thrust(MAP, "#include <thrust/count.h>", "execution_policy"),
    # CUDA 12.3 and later: the bundled copy of NVTX3 clashes with the toolkit's (#614, #621)
    Edit("NVTX header", MAP, "#include <cudf/detail/nvtx/ranges.hpp>\n", ""),
    Edit("NVTX range", MAP, "    CUDF_FUNC_RANGE();\n", ""),
    # CUDA 12.4 and later with GCC 11 and later: std::__to_address is ambiguous in a shared_ptr to a
    # device type (#596); the map has one owner, and create() returns this very type
    Edit(
        "owner of the hash map",
        "src/coordinate_map_gpu.cuh",
        "std::shared_ptr<map_type> m_map;",
        "std::unique_ptr<map_type, std::function<void(map_type *)>> m_map;",
    ),
    # CUDA 13: CCCL 3 has no unary_function; its only users read nothing of it
    Edit(
        "unary_function",
        "src/coordinate_map_functors.cuh",
        "struct find_coordinate\n"
        "    : public thrust::unary_function<uint32_t,\n"
        "                                    thrust::pair<uint32_t, uint32_t>> {\n",
        "struct find_coordinate {\n",
    ),
    # CUDA 13: another signature
    Edit(
        "prefetch wrapper",
        MAP,
        "\nnamespace {\ntemplate <std::size_t N>\nstruct packed {\n",
        f"{PREFETCH}\nnamespace {{\ntemplate <std::size_t N>\nstruct packed {{\n",
    ),
    Edit(
        "prefetch of the table",
        MAP,
        "cudaMemPrefetchAsync(m_hashtbl_values, m_capacity * sizeof(value_type), dev_id, stream)",
        "prefetch_to_device(m_hashtbl_values, m_capacity * sizeof(value_type), dev_id, stream)",
        count=2,
    ),
    Edit(
        "prefetch of the map",
        MAP,
        "cudaMemPrefetchAsync(this, sizeof(*this), dev_id, stream)",
        "prefetch_to_device(this, sizeof(*this), dev_id, stream)",
    ),
    # C++20, torch's standard: std::iterator is deprecated, its five types are named instead
    Edit(
        "std::iterator",
        "src/utils.hpp",
        "  class iterator\n"
        "      : public std::iterator<std::input_iterator_tag, // iterator_category\n"
        "                             index_type,              // value_type\n"
        "                             index_type,              // difference_type\n"
        "                             const index_type *,      // pointer\n"
        "                             index_type               // reference\n"
        "                             > {\n",
        "  class iterator {\n"
        "  public:\n"
        "    using iterator_category = std::input_iterator_tag;\n"
        "    using value_type = index_type;\n"
        "    using difference_type = index_type;\n"
        "    using pointer = const index_type *;\n"
        "    using reference = index_type;\n"
        "\n"
        "  private:\n",
    ),
    # torch 1.11 and later: at::Tensor is incomplete in CUDAUtils.h (#453, #481, #485)
    Edit(
        "tensor header",
        "src/spmm.cu",
        "#include <ATen/cuda/CUDAContext.h>\n",
        "#include <ATen/core/Tensor.h>\n#include <ATen/cuda/CUDAContext.h>\n",
    ),
    # setup.py uninstalls whatever MinkowskiEngine the first `pip` on PATH knows
    Edit("uninstall", "setup.py", 'run_command("pip", "uninstall", "MinkowskiEngine", "-y")\n', ""),
)


def apply(folder: Path, edits: tuple[Edit, ...] = EDITS) -> list[str]:
    """Apply all edits or none and return their names.

    Raises:
        ValueError: a file is missing, or a place does not occur as often as it must.
    """
    texts: dict[str, str] = {}
    for edit in edits:
        path = folder / edit.path
        if not path.is_file():
            raise ValueError(
                f"{edit.path}: edit '{edit.name}' must find this file, got none in {folder}; give "
                f"the unpacked source of MinkowskiEngine {VERSION}"
            )
        text = texts.setdefault(edit.path, path.read_text())
        found = text.count(edit.old)
        if found != edit.count:
            raise ValueError(
                f"{edit.path}: edit '{edit.name}' must find its place {edit.count} time(s), got "
                f"{found}; give the unpacked source of MinkowskiEngine {VERSION}, not edited before"
            )
        texts[edit.path] = text.replace(edit.old, edit.new)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [edit.name for edit in edits]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: minkowski_edits.py FOLDER")
    try:
        names = apply(Path(sys.argv[1]))
    except ValueError as error:
        sys.exit(f"environment: {error}")
    print(f"[env] {len(names)} edits for CUDA: {', '.join(names)}")
