"""The long experiments on the city: every command is one that the programs take, and goes on."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import city_labels, city_timing, city_transfer, misaligned_city
from benchmarks.steps import Step, run_missing, run_tool, spread
from eval.__main__ import main as eval_main
from eval.probes.table import PROBES
from eval.results import write_result
from pipeline.__main__ import main as pipeline_main
from pipeline.config import override, to_plain
from pipeline.errors import UserError
from pipeline.files import write_atomically
from tests.eval.test_results import RESULT
from train.__main__ import main as train_main
from train.recipes import load_recipe
from train.stores import Stores

PROGRAMS = {"pipeline": pipeline_main, "train": train_main, "eval": eval_main}
WORK = Path("work")
ONE_SEED = replace(RESULT, seeds=(0,), per_class_iou=RESULT.per_class_iou[:1])


def parsed(command):
    """Return the options of a command as the program itself reads them."""
    program = PROGRAMS[command[0]].commands[command[1]]
    return program.make_context(command[1], list(command[2:])).params


def all_steps(module):
    places = module.Places(work=WORK)
    steps = list(module.prepare(places))
    return steps + [step for cell in module.cells() for step in module.job(places, cell)]


@pytest.mark.parametrize("module", [city_timing, city_transfer])
def test_every_command_and_setting_exists(module):
    steps = all_steps(module)
    assert len(steps) >= 20
    for step in steps:
        if step.command[0] not in PROGRAMS:
            continue
        options = parsed(step.command)
        if step.command[1] == "pretrain":
            override(load_recipe(options["recipe"]), options["settings"])
        elif step.command[1] in ("probe", "fewshot"):
            protocol = {"probe": "linear", "fewshot": "few_shot"}[step.command[1]]
            base = PROBES.load(protocol).settings("synthetic", False, "1pct")
            override(base, options["settings"])


def test_timing_compares_equal_steps_with_and_without_the_temporal_losses():
    places = city_timing.Places(work=WORK)
    found = {}
    for cell in city_timing.cells():
        options = parsed(city_timing.job(places, cell)[0].command)
        recipe = override(load_recipe(options["recipe"]), options["settings"])
        rest = to_plain(recipe) | {"losses": None, "seed": None, "name": None}
        found.setdefault(cell.losses, []).append((recipe.losses.weights.keys(), rest))
    assert all(each[1] == found["L_vfm"][0][1] for cells in found.values() for each in cells)
    assert found["L_vfm"][0][0] == {"superpixel_nce"}
    assert found["Seal, all three"][0][0] == {"superpixel_nce", "temporal_nce", "point_to_segment"}
    runs = {city_timing.job(places, cell)[0].done for cell in city_timing.cells()}
    assert len(runs) == len(city_timing.cells()) == 36


def test_timing_moves_the_cameras_and_takes_the_city_as_it_is_from_the_first_comparison():
    places = city_timing.Places(work=WORK)
    steps = list(city_timing.prepare(places))
    assert [step.command[-2:] for step in steps[::2]] == [("--delay-ms", "100"), ("--yaw-deg", "1")]
    for shift, runs in (("as it is", Path("runs/city_gain")), ("100 ms late", WORK)):
        pretrain, *_, robustness = city_timing.job(places, city_timing.Cell(shift, "L_vfm", 2))
        options = parsed(pretrain.command)
        assert options["run_name"] == "slidr-slic-2" and options["runs"].is_relative_to(runs)
        assert (options["stores"] == Path("stores")) == (shift == "as it is")
        assert parsed(robustness.command)["runs"] == options["runs"]


def test_timing_refuses_segments_that_were_not_made_alike(monkeypatch, tmp_path):
    places = city_timing.Places(work=WORK, pretrained=tmp_path)
    made = {places.stores_of(shift): "aa-v2" for shift in city_timing.SHIFTS}
    monkeypatch.setattr(city_timing, "find_folder", lambda stores, *_: stores)
    monkeypatch.setattr(
        Stores, "hashes", lambda self, stages: {"segments.zarr": made[self.paths.folder]}
    )
    run = tmp_path / "seal-slic-1" / "config.json"
    write_atomically(run, b'{"stores": {"segments.zarr": "aa-v2"}}')
    city_timing.check_segments(places)
    write_atomically(run, b'{"stores": {"segments.zarr": "aa-v1"}}')
    with pytest.raises(UserError, match="must be made alike, got .*seal-slic-1': 'aa-v1'"):
        city_timing.check_segments(places)
    run.unlink()
    made[places.stores] = "aa-v1"
    with pytest.raises(UserError, match="must be made alike, got {'as it is': 'aa-v1', '100 ms"):
        city_timing.check_segments(places)


def test_transfer_measures_the_other_city_with_the_first_ones_weights():
    cell = city_transfer.Cell("Seal", 1)
    places = city_transfer.Places(WORK, pretrained=Path("gain"))
    probe, fewshot = (parsed(step.command) for step in city_transfer.job(places, cell))
    assert probe["version"] == fewshot["version"] == "full-1-beams64"
    assert probe["checkpoint"] == Path("gain/seal-slic-1/checkpoint.pt")
    assert fewshot["split"] == "1pct" and fewshot["seeds"] == "1"


def test_done_steps_are_left_out(tmp_path, capfd):
    there = tmp_path / "there"
    there.touch()
    steps = [Step(("platform",), there), Step(("platform",), tmp_path / "missing")]
    run_missing([steps, steps], "1/2")
    assert capfd.readouterr().out.count("python -m platform") == 1


def test_a_failing_command_ends_the_benchmark_with_its_code(tmp_path, capfd):
    steps = [Step(("no_such_module",)), Step(("platform",))]
    with pytest.raises(SystemExit) as stop:
        run_missing([steps])
    assert stop.value.code == 1 and capfd.readouterr().out.count("python -m") == 1


@pytest.mark.parametrize("module", [city_timing, city_transfer, misaligned_city])
def test_bad_input_is_one_clear_line(module, monkeypatch, capfd, tmp_path):
    """A shard that is none is refused before anything is made; so is a city that is not there."""
    monkeypatch.chdir(tmp_path)
    words = ["--root", "none", "--out", "x"] if module is misaligned_city else ["--shard", "2/2"]
    monkeypatch.setattr("sys.argv", ["benchmark", *words])
    with pytest.raises(SystemExit) as stop:
        run_tool(module.main)
    assert stop.value.code == 2 and not list(tmp_path.iterdir())
    assert capfd.readouterr().err.startswith("error: ")


def test_tables_from_results(tmp_path):
    """10 and 12 percent: mean 11.0, sample deviation 1.4."""
    places = city_timing.Places(work=tmp_path / "timing", pretrained=tmp_path / "gain")
    for seed, miou in ((0, 10.0), (1, 12.0)):
        result = replace(ONE_SEED, split="train", miou=(miou,), seeds=(seed,))
        write_result(tmp_path / city_transfer.Cell("SLidR", seed).run, result)
        cell = city_timing.Cell("100 ms late", "L_vfm + L_tmp", seed)
        write_result(places.runs_of(cell.shift) / cell.run, result)
    assert "| SLidR | 11.0 +- 1.4 |  | 0 |" in city_transfer.table(tmp_path)
    assert "| 100 ms late | L_vfm + L_tmp | 11.0 +- 1.4 |  | 2, 0 |" in city_timing.table(places)
    assert spread([3.0]) == "3.0"


def test_labels_are_few_to_all_from_every_start_and_the_table_counts_missing_seeds(tmp_path):
    places = city_labels.Places(WORK, WORK / "gain", tmp_path)
    steps = [step for job in city_labels.jobs(places, ["1pct", "full"]) for step in job]
    assert len(steps) == len({step.done for step in steps}) == 3 * 2 * 5
    for step in steps:
        options = parsed(step.command)
        base = PROBES.load("few_shot").settings("synthetic", False, options["split"])
        override(base, options["settings"])
        assert (options["init"] == "random") == (options["checkpoint"] is None)
        folder = step.done.parents[1]
        assert folder.name == options["run_name"] and step.done.stem.endswith(options["split"])
    for seed in (0, 1):
        result = replace(ONE_SEED, protocol="few_shot", split="1pct", miou=(20.0 + seed,))
        write_result(tmp_path / f"random-{seed}", result)
    assert "20.5 +- 0.7 (2) |" in city_labels.table(places).splitlines()[2]
