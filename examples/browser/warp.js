// Data of a motion for warping, shading and layers, as the compositors take them.

import { interleaved } from "./window.js";

/** Data for warping in the page: the flow and its details, [x, y] each; the mirrored source; layers; the neck behind;
 * the ear that is hidden. */
export function warp(motion, index) {
  const field = (part, channels) => {
    const size = part.width * part.height;
    const values = new Float32Array(channels * size);
    for (let c = 0; c < part.planes; c++) for (let i = 0; i < size; i++) values[channels * i + c] = part.unit * part.values[c * size + i];
    return { box: Array.from(part.box ?? [0, 0, part.width, part.height]), width: part.width, height: part.height, values };
  };
  const layer = (part) => ({ box: Array.from(part.box), width: part.width, height: part.height, values: interleaved(part) });
  return {
    flows: [...motion.parts("flow", index), ...motion.parts("details", index)].map((part) => field(part, 2)),
    mirror: besides(motion.parts("mirror", index)[0]),
    layers: motion.parts("layers", index).map(layer),
    necks: motion.parts("neck", index).map(layer),
    ear: opaque(motion.parts("ears", index)[0]),
    shading: gains(motion.parts("shading", index)[0]),
  };
}

/** A mask as the alpha of a layer. */
function opaque({ values, width, height, box }) {
  const out = new Uint8Array(4 * width * height);
  values.forEach((value, i) => (out[4 * i + 3] = value));
  return { box: Array.from(box), width, height, values: out };
}

/** The gain of shading, [gain, 0] of each cell. */
function gains({ values, width, height, unit }) {
  const out = new Float32Array(2 * width * height);
  for (let i = 0; i < width * height; i++) out[2 * i] = Math.exp(unit * values[i]);
  return { width, height, values: out };
}

/** The mirrored source: [x, y, weight, opacity], and at the right [own, 0, 0, 0], in one field of twice the width. */
function besides({ values, width, height, box, unit }) {
  const out = new Float32Array(8 * width * height);
  for (let c = 0, i = 0; c < 5; c++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) out[4 * (y * 2 * width + (c < 4 ? x : width + x)) + (c % 4)] = unit * values[i];
    }
  }
  return { box: Array.from(box), width: 2 * width, height, values: out };
}
