"""The modules of examples/browser in Node, without a browser and a network: they warp and shade as the program does."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="what exports is not installed: pip install '.[export]'")
pytest.importorskip("onnx", reason="what exports is not installed: pip install '.[export]'")
pytest.importorskip("onnxruntime", reason="what exports is not installed: pip install '.[export]'")
NODE = shutil.which("node")
if NODE is None:
    pytest.skip("there is no node; apt install nodejs", allow_module_level=True)

from mimik.animation.avatar import Avatar
from mimik.app.export import exporting
from mimik.app.export.settings import ExportConfig
from mimik.app.export.source import ExportSource
from mimik.app.export.stage import Stage
from mimik.config import AnimateConfig
from mimik.files import asset
from mimik.motion.files import Motion
from mimik.motion.kinds import bundled_motions

PAGE = Path(__file__).resolve().parents[2] / "examples" / "browser"
SIZE = 384
FRAMES = (0, 3, 5)  # of every eighth frame of the motion; in the last, the head hides an ear
# What the page of a format reads; raise EXPORT_FORMAT when it changes, or older pages draw nonsense.
LAYOUT = {
    "mimik export 4": (
        "brightened digital_source_type format frame_px graphs grid held host landmarks max_brighter model motions "
        "notice num_geometry person program redrawn rim shade_px window_in_face_heights",
        "windows:4 points:2 flow:2 geometry:4 shading:1 details_boxes:4 details:2 mirror_boxes:4 mirror:5 "
        "interior_boxes:4 interior:1 layers_boxes:4 layers:4 seen_layers_boxes:4 seen_layers:4 neck_boxes:4 neck:4 "
        "ears_boxes:4 ears:1",
    )
}


@pytest.mark.parametrize("path", sorted(PAGE.glob("*.js")), ids=lambda path: path.name)
def test_a_module_can_be_read(path: Path) -> None:
    command = [str(NODE), "--input-type=module", "--check"]
    subprocess.run(command, input=path.read_text(), text=True, check=True, timeout=60)


def test_the_modules_draw_what_the_program_draws(tmp_path: Path) -> None:
    whole = Motion.load(bundled_motions()["look-around"])
    kept = ("turn", "shift", "zoom", "offset", "blendshapes", "seen")
    motion = replace(whole, **{key: getattr(whole, key)[:64:8] for key in kept})
    motion.save(tmp_path / "part.motion")
    photo = asset("portraits/generated_man_1.jpg")
    config = ExportConfig(photo=photo, motions=(str(tmp_path / "part.motion"),), size=SIZE)
    folder = tmp_path / "out"
    exporting.export("texture", folder, config)
    record = json.loads((folder / "export.json").read_text())
    arrays = record["motions"][0]["arrays"]
    planes = (
        f"{one['name']}:{one.get('planes') or one['shape'][1 if len(one['shape']) == 4 else -1]}" for one in arrays
    )
    assert {record["format"]: (" ".join(sorted(record)), " ".join(planes))} == LAYOUT
    assert f'FORMAT = "{record["format"]}"' in (PAGE / "player.js").read_text()
    (folder / "motion.raw").write_bytes(gzip.decompress((folder / record["motions"][0]["file"]).read_bytes()))
    sizes = {}
    for name in ("photo", "moving", "lit", "plate", "reduced", "reduced_lit", "reduced_matte"):
        if file := record["person"].get(name, f"{name}.png"):
            picture = cv2.imread(str(folder / file), cv2.IMREAD_UNCHANGED)
            has_alpha = picture.shape[2] == 4
            cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA if has_alpha else cv2.COLOR_BGR2RGBA).tofile(
                folder / f"{name}.raw"
            )
            sizes[name] = picture.shape[1::-1]
    (folder / "sizes.json").write_text(json.dumps(sizes))
    script = Path(__file__).with_name("draw_page.mjs")
    command = [str(NODE), str(script), str(PAGE), str(folder), *map(str, FRAMES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr

    avatar = Avatar.from_photos([photo])
    source = avatar.source_frame(AnimateConfig(size=SIZE, model="geometry"))
    stage = Stage(avatar, ExportSource.of("texture", config).config, SIZE)
    shades, ears = [], []
    targets = stage.targets(Motion.load(tmp_path / "part.motion"), FRAMES)
    for place, target in zip(json.loads(done.stdout), targets, strict=True):
        flow = stage.warper.flow(target)
        gain = stage._paints.gain(flow)
        shades.append(0.0 if gain is None else float(np.abs(gain - 1).max()))
        seen, _ = stage._texture.network_inputs(flow, target, stage.window_at(target))
        found = np.fromfile(folder / f"seen_{place['index']}.raw", np.uint8).reshape(*seen.shape[:2], 4)
        assert cv2.PSNR(found[..., :3], seen) > 38
        shape = place["height"], place["width"], 4
        frame = np.fromfile(folder / f"frame_{place['index']}.raw", np.uint8).reshape(shape)
        expected = source.paint(source.flow(target), target)
        part = expected[place["y"] : place["y"] + shape[0], place["x"] : place["x"] + shape[1]]
        assert cv2.PSNR(frame[..., :3], part) > 48
        hidden = stage.ears(flow)[place["y"] : place["y"] + shape[0], place["x"] : place["x"] + shape[1]] > 128
        ears.append(int(hidden.sum()))
        if hidden.any():
            assert np.abs(frame[hidden, :3].astype(float) - part[hidden]).mean() < 1
    assert max(shades) > 0.02
    assert ears[:2] == [0, 0] and ears[2] > 500


PACE = """
const { Pace } = await import(process.argv[1]);
const pace = new Pace(25, Number(process.argv[2]));
const used = [];
for (const [count, other, network] of JSON.parse(process.argv[3])) {
  for (let i = 0; i < count; i++) pace.add(other + (i % pace.every ? 0 : network), i % pace.every ? null : network);
  used.push(pace.every);
}
process.stdout.write(JSON.stringify(used));
"""


def test_a_run_of_the_network_is_used_for_more_frames_only_where_frames_take_too_long() -> None:
    # Of 40 ms for a frame: 10 + 20; 18 + 42 and, over two frames, 39; 24 + 60 and 54, over three frames 44; then again
    # 10 + 20. Between 36 and 42 ms, nothing changes: 8 + 30.
    loads = [(60, 10, 20), (60, 18, 42), (60, 24, 60), (60, 8, 30), (60, 10, 20)]
    uses = []
    for most in (3, 1):
        command = [str(NODE), "--input-type=module", "--eval", PACE, (PAGE / "pace.js").as_uri(), str(most)]
        done = subprocess.run([*command, json.dumps(loads)], capture_output=True, text=True, check=True, timeout=60)
        uses.append(json.loads(done.stdout))
    assert uses == [[1, 2, 3, 2, 1], [1, 1, 1, 1, 1]]
