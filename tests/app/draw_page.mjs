// Draws frames of an exported person with the page's own modules, without a browser and without a network.
// Arguments: folder of the page, folder of the export with PICTURE.raw and motion.raw, frame numbers.

import fs from "node:fs";
import { pathToFileURL } from "node:url";

const [page, folder, ...numbers] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(`${page}/${name}`));
const sizes = JSON.parse(fs.readFileSync(`${folder}/sizes.json`));
const picture = (name) => {
  if (!sizes[name]) return null;
  const [width, height] = sizes[name];
  return { width, height, data: new Uint8ClampedArray(fs.readFileSync(`${folder}/${name}.raw`)) };
};

// What the modules need of a browser.
const text = { measureText: () => ({ width: 20 }), fillText() {}, fillRect() {}, roundRect() {}, beginPath() {}, fill() {} };
let shown = null;
globalThis.ImageData = class {
  constructor(width, height) {
    Object.assign(this, { width, height, data: new Uint8ClampedArray(4 * width * height) });
  }
};
globalThis.OffscreenCanvas = class {
  getContext() {
    let drawn = null;
    return { ...text, drawImage: (image) => (drawn = image), getImageData: () => drawn };
  }
};
globalThis.self = {};
const record = JSON.parse(fs.readFileSync(`${folder}/export.json`));
const canvas = { width: record.person.width, height: record.person.height };
const context = { ...text, canvas, drawImage() {}, putImageData: (image, x, y) => (shown = { image, x, y }) };
canvas.getContext = () => context;

const [{ Motion }, { WindowView }, { CanvasCompositor }, { warp }] = await Promise.all(
  ["motion.js", "window.js", "canvas.js", "warp.js"].map(load),
);
const bytes = fs.readFileSync(`${folder}/motion.raw`);
const motion = new Motion(record.motions[0], bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
const view = new WindowView(record, { reduced: picture("reduced"), lit: picture("reduced_lit"), matte: picture("reduced_matte") });
const pictures = Object.fromEntries(["photo", "moving", "lit", "plate"].map((name) => [name, picture(name)]));
const compositor = new CanvasCompositor(canvas, record, pictures);
const px = record.frame_px;
const answer = Float32Array.from({ length: 4 * 16 * 16 }, (_, i) => Number(i % 4 === 2)); // the warped photo, unchanged
const frames = [];
for (const index of numbers.map(Number)) {
  const [left, top, , share] = motion.row("windows", index);
  const window = [left, top, record.person.window.side];
  const seen = new Uint8Array(view.draw(motion, index, window));
  compositor.draw({ window, shown: share, answer, residual: new Float32Array(4 * px * px), seen, ...warp(motion, index) });
  const { image, x, y } = shown;
  fs.writeFileSync(`${folder}/seen_${index}.raw`, seen);
  fs.writeFileSync(`${folder}/frame_${index}.raw`, image.data);
  frames.push({ index, x, y, width: image.width, height: image.height });
}
process.stdout.write(JSON.stringify(frames));
