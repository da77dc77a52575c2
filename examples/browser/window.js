// The network's window of a frame: its input, and processing of the prediction. Steps 2, 4, 6, 7 and 8 of export.json's
// "host". Pixel coordinates start at the corner: the center of the first pixel is at 0.5.

/** The warped photo in the network's window. */
export class WindowView {
  /**
   * @param {object} record export.json
   * @param {{reduced: ImageData, lit: ImageData, matte: ImageData | null}} pictures of the person, scaled by person.scale
   */
  constructor(record, pictures) {
    Object.assign(this, { record, ...pictures });
    const px = record.frame_px;
    this.x = new Float32Array(px * px); // source offset of each pixel, in sides of the crop
    this.y = new Float32Array(px * px);
    this.other = [0, 1, 2, 3, 4].map(() => new Float32Array(px * px)); // of the mirrored source; weight, opacity, own
    this.pixels = new Uint8ClampedArray(4 * px * px);
  }

  /** RGBA of a frame's window with layers, frame_px wide; valid until the next call. */
  draw(motion, index, [left, top, side]) {
    const { record, pixels, x, y } = this;
    const { person, frame_px: px, grid } = record;
    const { crop } = person;
    // Grid coordinates of the first pixel, and step per pixel, in cells of the flow.
    const step = (side / px / crop.side) * grid;
    const first = [left, top].map((edge, axis) => ((edge - [crop.left, crop.top][axis]) / crop.side) * grid + step / 2);
    const whole = { left: 0, top: 0, right: px, bottom: px };
    const fill = (out, part, plane, cells, at) => enlarge(out, px, part, plane, cells * step, first.map((u, axis) => cells * (u - at[axis]) - 0.5), this.area);
    const [flow] = motion.parts("flow", index);
    this.area = whole;
    [x, y].forEach((out, plane) => fill(out, flow, plane, 1, [0, 0]));
    const { fine } = motion.arrays.details;
    for (const part of motion.parts("details", index)) {
      this.area = within(part.box, first, step, px);
      [x, y].forEach((out, plane) => fill(out, part, plane, fine, part.box));
    }
    this.#sample(person, [left, top], side / px);
    const [mirror] = motion.parts("mirror", index);
    if (mirror.values.length) {
      this.area = within(mirror.box, first, step, px);
      this.other.forEach((out, plane) => fill(out, mirror, plane, 1, mirror.box));
      this.#addOther(person, [left, top], side / px);
    }
    for (const layer of motion.parts("seen_layers", index)) over(pixels, px, layer);
    const [shading] = motion.parts("shading", index);
    if (shading.values.some((value) => value)) {
      this.area = whole;
      fill(x, shading, 0, shading.width / grid, [0, 0]);
      for (let i = 0; i < px * px; i++) {
        const gain = x[i] ? Math.exp(x[i]) : 1;
        for (let c = 0; c < 3; c++) pixels[4 * i + c] *= gain;
      }
    }
    return pixels;
  }

  #sample({ crop, scale, reduced_part: part }, [left, top], step) {
    const { record, x, y, pixels, reduced } = this;
    const px = record.frame_px;
    for (let row = 0, i = 0; row < px; row++) {
      const py = top + (row + 0.5) * step;
      for (let column = 0; column < px; column++, i++) {
        const sx = (left + (column + 0.5) * step + x[i] * crop.side) * scale - part.left - 0.5;
        const sy = (py + y[i] * crop.side) * scale - part.top - 0.5;
        bilinear(reduced, sx, sy, pixels, 4 * i);
      }
    }
  }

  #addOther({ crop, scale, reduced_part: part }, [left, top], step) {
    const { record, pixels, lit, matte, area } = this;
    const [x, y, weight, opacity, own] = this.other;
    const found = new Float32Array(4);
    const alphaAt = (sx, sy) => {
      if (!matte) return 1;
      bilinear(matte, sx, sy, found, 0);
      return found[0] / 255;
    };
    for (let row = area.top; row < area.bottom; row++) {
      for (let column = area.left; column < area.right; column++) {
        const i = row * record.frame_px + column;
        if (weight[i] <= 0) continue;
        const place = (dx, dy) => [
          (left + (column + 0.5) * step + dx * crop.side) * scale - part.left - 0.5,
          (top + (row + 0.5) * step + dy * crop.side) * scale - part.top - 0.5,
        ];
        const alpha = alphaAt(...place(this.x[i], this.y[i]));
        const other = place(x[i], y[i]);
        const source = opacity[i] * alphaAt(...other);
        const added = weight[i] * (source + own[i] * (alpha - source));
        const share = added / Math.max(alpha * (1 - weight[i]) + added, 1e-3);
        bilinear(lit, ...other, found, 0);
        for (let c = 0; c < 3; c++) pixels[4 * i + c] += share * (found[c] - pixels[4 * i + c]);
      }
    }
  }
}

/** Pixels whose centers are between the centers of a box's outer cells. */
function within([left, top, width, height], first, step, px) {
  const low = (edge, axis) => Math.min(px, Math.max(0, Math.ceil((edge + 0.5 - first[axis]) / step)));
  const high = (edge, axis) => Math.min(px, Math.max(0, Math.floor((edge - 0.5 - first[axis]) / step) + 1));
  if (!width) return { left: 0, top: 0, right: 0, bottom: 0 };
  return { left: low(left, 0), top: low(top, 1), right: high(left + width, 0), bottom: high(top + height, 1) };
}

/** Samples a plane of cells bilinearly at an area's pixels: pixel i is at from + i * step cells. */
function enlarge(out, px, { values, width, height, unit }, plane, step, from, area) {
  const base = plane * width * height;
  const clamp = (v, last) => Math.min(last, Math.max(0, v));
  for (let row = area.top; row < area.bottom; row++) {
    const v = clamp(from[1] + row * step, height - 1);
    const v0 = Math.min(Math.floor(v), Math.max(height - 2, 0));
    const upper = base + v0 * width;
    const lower = height > 1 ? upper + width : upper;
    const fv = v - v0;
    for (let column = area.left, u = from[0] + area.left * step; column < area.right; column++, u += step) {
      const at = u < 0 ? 0 : u > width - 1 ? width - 1 : u;
      const u0 = at | 0;
      const u1 = u0 < width - 1 ? u0 + 1 : u0;
      const fu = at - u0;
      const above = values[upper + u0] + fu * (values[upper + u1] - values[upper + u0]);
      const below = values[lower + u0] + fu * (values[lower + u1] - values[lower + u0]);
      out[row * px + column] = unit * (above + fv * (below - above));
    }
  }
}

/** Samples RGB of a picture bilinearly; borders are clamped. */
function bilinear({ data, width, height }, x, y, out, at) {
  x = x < 0 ? 0 : x > width - 1 ? width - 1 : x;
  y = y < 0 ? 0 : y > height - 1 ? height - 1 : y;
  const x0 = x | 0, y0 = y | 0, fx = x - x0, fy = y - y0;
  const right = x0 < width - 1 ? 4 : 0, down = y0 < height - 1 ? 4 * width : 0;
  const i = 4 * (y0 * width + x0);
  const a = (1 - fx) * (1 - fy), b = fx * (1 - fy), c = (1 - fx) * fy, d = fx * fy;
  out[at] = a * data[i] + b * data[i + right] + c * data[i + down] + d * data[i + down + right];
  out[at + 1] = a * data[i + 1] + b * data[i + right + 1] + c * data[i + down + 1] + d * data[i + down + right + 1];
  out[at + 2] = a * data[i + 2] + b * data[i + right + 2] + c * data[i + down + 2] + d * data[i + down + right + 2];
}

/** Composites a layer with premultiplied alpha: pixels are multiplied by 1 - A, then its color is added. */
function over(pixels, px, { box: [left, top, width, height], values }) {
  const size = width * height;
  for (let row = 0, i = 0; row < height; row++) {
    for (let column = 0, at = 4 * ((top + row) * px + left); column < width; column++, at += 4, i++) {
      const through = 1 - values[3 * size + i] / 255;
      for (let c = 0; c < 3; c++) pixels[at + c] = pixels[at + c] * through + values[c * size + i];
    }
  }
}

/** Converts the planes of a layer to interleaved RGBA. */
export function interleaved({ values, width, height }) {
  const size = width * height;
  const out = new Uint8Array(4 * size);
  for (let c = 0; c < 4; c++) for (let i = 0; i < size; i++) out[4 * i + c] = values[c * size + i];
  return out;
}

/** The network's input `warped`: RGBA pixels reduced to half the size, as planes in -1..1. */
export function halved(pixels, px) {
  const half = px / 2;
  const out = new Float32Array(3 * half * half);
  for (let c = 0, i = 0; c < 3; c++) {
    for (let y = 0; y < half; y++) {
      for (let x = 0; x < half; x++, i++) {
        const at = 4 * (2 * y * px + 2 * x) + c;
        const sum = pixels[at] + pixels[at + 4] + pixels[at + 4 * px] + pixels[at + 4 * px + 4];
        out[i] = Math.round(sum / 4) / 127.5 - 1;
      }
    }
  }
  return out;
}

/**
 * Converts a prediction of the texture form to data for drawing.
 * @param {object} record export.json
 * @param {object} results of the network: correction, mask, residual
 * @param {Uint8ClampedArray} seen RGBA pixels of the network's input
 * @param {object} interior part of the mouth's mask
 * @param {{points: ArrayLike<number>, unit: number}} landmarks x and y of each point; pixels per unit
 * @param {number} gate weight of the prediction, 0..1
 * @returns {{answer: Float32Array, residual: Float32Array}} answer: [cells, cells, 4]: correction x and y, in sides of
 *   the window; blend weight of the photo; weight of its detail over the residual. residual: [frame_px, frame_px, 4]
 *   RGB and the mouth's mask, 0..1.
 */
export function prediction(record, { correction, mask, residual: given }, seen, interior, landmarks, gate) {
  const px = record.frame_px, cells = Math.sqrt(mask.length);
  const residual = pixelwise(given, px * px, record.person.grey);
  fillMask(residual, px, interior);
  shadeOnly(residual, seen, px, interior.box, record);
  const { largest, brighter, inside } = cellsOf(residual, px, cells);
  const detail = detailKept(largest, cells, record.redrawn);
  const border = fade(cells, record.rim);
  const { most } = record.brightened;
  const far = farFromFeatures(cells, record.brightened, landmarks.points, landmarks.unit / record.landmarks.image_px);
  const answer = new Float32Array(4 * cells * cells);
  for (let i = 0; i < cells * cells; i++) {
    const weight = border[i] * gate;
    const moves = weight * (1 - inside[i]);
    const share = 1 - far[i] * (1 - most / Math.max(brighter[i], most)); // far from eyes and mouth, it brightens little
    answer[4 * i] = correction[i] * moves;
    answer[4 * i + 1] = correction[cells * cells + i] * moves;
    answer[4 * i + 2] = 1 - (1 - mask[i]) * weight * share;
    answer[4 * i + 3] = detail[i];
  }
  return { answer, residual };
}

/** The same for the paper's form: the synthesized window, faded out at its border. */
export function synthesized(record, { x_hat: image }) {
  const px = record.frame_px;
  const answer = new Float32Array(4 * px * px);
  const border = fade(px, record.rim);
  for (let i = 0; i < px * px; i++) answer[4 * i + 2] = 1 - border[i];
  return { answer, residual: pixelwise(image, px * px, false) };
}

/** Interleaves three planes and a fourth channel of 0; isGray: with their mean instead. */
function pixelwise(planes, size, isGray) {
  const out = new Float32Array(4 * size);
  for (let i = 0, at = 0; i < size; i++, at += 4) {
    const r = planes[i], g = planes[size + i], b = planes[2 * size + i], mean = (r + g + b) / 3;
    out[at] = isGray ? mean : r;
    out[at + 1] = isGray ? mean : g;
    out[at + 2] = isGray ? mean : b;
  }
  return out;
}

/** Writes the mouth's mask into the fourth channel. */
function fillMask(residual, px, { box: [left, top, width, height], values }) {
  for (let row = 0, i = 0; row < height; row++) {
    for (let column = 0; column < width; column++, i++) residual[4 * ((top + row) * px + left + column) + 3] = values[i] / 255;
  }
}

/** Removes detail finer than k pixels from the residual inside the mouth (mask: its fourth channel), and limits it. */
function shadeOnly(residual, seen, px, [left, top, width, height], { shade_px: k, max_brighter: most }) {
  if (!width) return;
  const cells = px / k;
  // Whole squares, and a margin of one.
  const low = [left, top].map((edge) => Math.max(Math.floor(edge / k) - 1, 0));
  const high = [left + width, top + height].map((edge) => Math.min(Math.ceil(edge / k) + 1, cells));
  const wide = high[0] - low[0], tall = high[1] - low[1];
  const area = { left, top, right: left + width, bottom: top + height };
  const from = low.map((edge) => 0.5 / k - edge - 0.5);
  const smooth = new Float32Array(px * (top + height));
  for (let c = 0; c < 3; c++) {
    const coarse = new Float32Array(wide * tall), limit = new Float32Array(wide * tall);
    for (let row = 0; row < tall * k; row++) {
      for (let column = 0; column < wide * k; column++) {
        const cell = Math.floor(row / k) * wide + Math.floor(column / k), at = 4 * ((low[1] * k + row) * px + low[0] * k + column) + c;
        coarse[cell] += residual[at] / (k * k);
        limit[cell] += (most / 127.5) * (seen[at] / (k * k));
      }
    }
    for (let i = 0; i < coarse.length; i++) coarse[i] = Math.min(coarse[i], limit[i]);
    enlarge(smooth, px, { values: coarse, width: wide, height: tall, unit: 1 }, 0, 1 / k, from, area);
    for (let row = top; row < top + height; row++) {
      for (let i = row * px + left; i < row * px + left + width; i++) residual[4 * i + c] += residual[4 * i + 3] * (smooth[i] - residual[4 * i + c]);
    }
  }
}

/** Of each cell: the largest absolute residual; the mean residual in gray levels; the share of the mouth. */
function cellsOf(residual, px, cells) {
  const k = px / cells;
  const [largest, brighter, inside] = [0, 1, 2].map(() => new Float32Array(cells * cells));
  for (let y = 0, at = 0; y < px; y++) {
    const row = Math.floor(y / k) * cells;
    for (let cell = row; cell < row + cells; cell++) {
      let most = largest[cell], sum = 0, mouth = 0;
      for (const end = at + 4 * k; at < end; at += 4) {
        const r = residual[at], g = residual[at + 1], b = residual[at + 2];
        most = Math.max(most, Math.abs(r), Math.abs(g), Math.abs(b));
        sum += r + g + b;
        mouth += residual[at + 3];
      }
      largest[cell] = most;
      brighter[cell] += (127.5 / 3) * (sum / (k * k));
      inside[cell] += mouth / (k * k);
    }
  }
  return { largest, brighter, inside };
}

/** 0 around eyes and mouth, 1 on hair and ears: cells * cells numbers. unit: sides of the window per unit of the points. */
function farFromFeatures(cells, { begins, ends, points: corners }, points, unit) {
  const middle = [0, 1].map((axis) => (corners.reduce((sum, n) => sum + points[2 * n + axis], 0) / corners.length) * unit);
  return Float32Array.from({ length: cells * cells }, (_, i) => {
    const x = ((i % cells) + 0.5) / cells - middle[0], y = (Math.floor(i / cells) + 0.5) / cells - middle[1];
    return smoothstep(Math.hypot(x, y), begins, ends);
  });
}

/** Weight of the photo's fine detail: small where the residual, of which `largest` has the maxima, is large nearby. */
function detailKept(largest, cells, [low, high]) {
  let most = largest;
  for (const step of [1, cells]) most = filtered(most, cells, step, (from, a, b, c) => Math.max(from[a], from[b], from[c]));
  for (const step of [1, cells]) {
    most = filtered(most, cells, step, (from, a, b, c, d, e) => (from[d] + from[e] + 4 * (from[a] + from[c]) + 6 * from[b]) / 16);
  }
  return most.map((value) => 1 - smoothstep(127.5 * value, low, high));
}

/** Filters cells along the axis of this step; sum: of the cell b, its neighbors a and c, and theirs d and e, clamped at borders. */
function filtered(from, cells, step, sum) {
  const out = new Float32Array(from.length);
  for (let i = 0; i < out.length; i++) {
    const at = step === 1 ? i % cells : Math.floor(i / cells), last = cells - 1 - at;
    const near = (by) => i + step * Math.max(-at, Math.min(by, last));
    out[i] = sum(from, near(-1), i, near(1), near(-2), near(2));
  }
  return out;
}

/** 0 up to low, 1 from high on, smooth in between. */
function smoothstep(value, low, high) {
  const t = Math.min(1, Math.max(0, (value - low) / (high - low)));
  return t * t * (3 - 2 * t);
}

const fades = new Map();

/** Weights that fade from 1 inside to 0 at the window's border: cells * cells numbers. */
function fade(cells, rim) {
  if (!fades.has(cells)) {
    fades.set(cells, Float32Array.from({ length: cells * cells }, (_, i) => {
      const [x, y] = [((i % cells) + 0.5) / cells, (Math.floor(i / cells) + 0.5) / cells];
      return smoothstep(Math.min(x, 1 - x, y, 1 - y), 0, rim);
    }));
  }
  return fades.get(cells);
}
