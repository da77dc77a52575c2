// Draws frames without a GPU: the operations of compositor.js, pixel by pixel, on a 2D canvas. It is required if a
// browser has no WebGL. Compared with software WebGL, it takes half of the processor time.

import { labelBox, drawLabel } from "./label.js";

const SHEET = 3; // upsampling factor of the image that frames are sampled from bilinearly
const SHEET_PIXELS = 24 << 20; // size limit of the upsampled image

export class CanvasCompositor {
  /** Arguments as in Compositor. */
  constructor(canvas, record, pictures) {
    const { person, frame_px: px } = record;
    const [width, height] = (this.size = [person.width, person.height]);
    Object.assign(canvas, { width, height });
    this.context = canvas.getContext("2d", { alpha: false });
    this.person = person;
    this.grid = record.grid;
    this.framePx = px;
    this.photo = values(pictures.photo);
    this.pictures = pictures;
    this.context.drawImage(pictures.photo, 0, 0);
    this.labeled = labelBox(width, height);
    this.canvas = [0, 0, 0, 0];
    if (!person.moving) return;
    const { crop: { left, top, side }, part } = person;
    const low = [left, top].map((edge) => Math.max(Math.floor(edge), 0));
    const high = [left, top].map((edge, axis) => Math.min(Math.ceil(edge + side), this.size[axis]));
    this.canvas = [...low, ...high.map((edge, axis) => edge - low[axis])];
    this.moving = enlarged(values(pictures.moving), part);
    this.plate = pictures.plate && values(pictures.plate);
  }

  /** Draws a frame that the worker computed. */
  draw(frame) {
    const { window: [left, top, side] } = frame;
    const [width, height] = this.size;
    const [x, y, wide, tall] = this.canvas;
    const isEmpty = !wide;
    const low = [isEmpty ? left : Math.min(left, x), isEmpty ? top : Math.min(top, y)].map((edge) => Math.max(Math.floor(edge), 0));
    const high = [
      Math.min(Math.ceil(Math.max(left + side, x + wide)), width),
      Math.min(Math.ceil(Math.max(top + side, y + tall)), height),
    ];
    const image = new ImageData(high[0] - low[0], high[1] - low[1]);
    this.#compose(frame, image, low);
    const [boxLeft, boxTop, boxWide, boxTall] = this.labeled;
    const isMarked = !this.begun || (high[0] > boxLeft && high[1] > boxTop);
    if (isMarked) this.context.drawImage(this.pictures.photo, boxLeft, boxTop, boxWide, boxTall, ...this.labeled);
    this.context.putImageData(image, ...low);
    if (isMarked) drawLabel(this.context);
    this.begun = true;
  }

  #compose({ window: [left, top, side], shown, answer, residual, seen, flows, mirror, layers, necks, ear, shading }, { data, width, height }, low) {
    const { person, photo, plate, grid, framePx: px } = this;
    const found = new Float32Array(4), at = new Float32Array(4);
    const cells = Math.sqrt(answer.length / 4);
    const { crop, part } = person;
    const [canvasLeft, canvasTop, canvasWide, canvasTall] = this.canvas;
    const perCell = grid / crop.side;
    const isTurned = mirror?.width > 0;
    const isShaded = shading?.values.some((value, i) => i % 2 === 0 && value !== 1);
    const perShade = shading?.width / grid;
    if (isTurned) this.lit ??= enlarged(values(this.pictures.lit), part);
    const { moving, lit } = this;
    const drawn = layers?.filter((layer) => layer.width) ?? [];
    const under = necks?.filter((layer) => layer.width) ?? [];
    const hidden = ear?.width ? ear.box : null;
    const fine = flows?.slice(1).filter((field) => field.width) ?? [];
    for (let row = 0, i = 0; row < height; row++) {
      const py = low[1] + row + 0.5, wy = (py - top) / side;
      const isRowSeen = wy >= 0 && wy <= 1;
      const isRowMoving = moving && py >= canvasTop && py < canvasTop + canvasTall;
      let still = 4 * ((low[1] + row) * photo.width + low[0]);
      for (let column = 0; column < width; column++, i += 4, still += 4) {
        const qx = low[0] + column + 0.5, wx = (qx - left) / side;
        let keep = 1, detail = 0, x = qx, y = py, dx = 0, dy = 0;
        if (isRowSeen && wx >= 0 && wx <= 1) {
          takeNumbers(answer, cells, cells, 4, wx * cells - 0.5, wy * cells - 0.5, at);
          dx = at[0];
          dy = at[1];
          keep = at[2];
          detail = at[3];
          x += dx * side;
          y += dy * side;
        }
        let r = photo.data[still], g = photo.data[still + 1], b = photo.data[still + 2], alpha = 1;
        const moves = isRowMoving && qx >= canvasLeft && qx < canvasLeft + canvasWide;
        if (moves) {
          const u = (x - crop.left) * perCell, v = (y - crop.top) * perCell;
          let field = flows[0];
          for (let n = 0; n < fine.length; n++) if (between(fine[n].box, u, v)) field = fine[n];
          const k = field.width / field.box[2];
          takeNumbers(field.values, field.width, field.height, 2, (u - field.box[0]) * k - 0.5, (v - field.box[1]) * k - 0.5, at);
          read(moving, x + at[0] * crop.side - part.left, y + at[1] * crop.side - part.top, found);
          r = found[0]; // premultiplied
          g = found[1];
          b = found[2];
          alpha = found[3] / 255;
          if (hidden && x >= hidden[0] && y >= hidden[1] && x < hidden[0] + hidden[2] && y < hidden[1] + hidden[3]) {
            takeBytes(ear.values, hidden[2], hidden[3], x - hidden[0] - 0.5, y - hidden[1] - 0.5, found);
            const kept = 1 - found[3] / 255;
            r *= kept;
            g *= kept;
            b *= kept;
            alpha *= kept;
          }
          if (isTurned && between(mirror.box, u, v)) {
            const mu = u - mirror.box[0] - 0.5, mv = v - mirror.box[1] - 0.5;
            takeNumbers(mirror.values, mirror.width, mirror.height, 4, mu + mirror.box[2], mv, at);
            const own = at[0];
            takeNumbers(mirror.values, mirror.width, mirror.height, 4, mu, mv, at);
            const weight = at[2];
            if (weight > 0) {
              const ox = x + at[0] * crop.side - part.left, oy = y + at[1] * crop.side - part.top;
              read(moving, ox, oy, found);
              const source = (at[3] * found[3]) / 255;
              const added = weight * (source + own * (alpha - source));
              read(lit, ox, oy, found);
              r = r * (1 - weight) + added * found[0];
              g = g * (1 - weight) + added * found[1];
              b = b * (1 - weight) + added * found[2];
              alpha = alpha * (1 - weight) + added;
            }
          }
          for (let n = 0; n < drawn.length; n++) {
            const { box, values: texels } = drawn[n];
            if (x < box[0] || y < box[1] || x >= box[0] + box[2] || y >= box[1] + box[3]) continue;
            takeBytes(texels, box[2], box[3], x - box[0] - 0.5, y - box[1] - 0.5, found);
            const through = 1 - found[3] / 255;
            r = r * through + alpha * found[0];
            g = g * through + alpha * found[1];
            b = b * through + alpha * found[2];
          }
          if (isShaded) {
            takeNumbers(shading.values, shading.width, shading.height, 2, u * perShade - 0.5, v * perShade - 0.5, at);
            r = Math.min(at[0] * r, 255 * alpha);
            g = Math.min(at[0] * g, 255 * alpha);
            b = Math.min(at[0] * b, 255 * alpha);
          }
        }
        if (keep < 1) {
          takeNumbers(residual, px, px, 4, wx * px - 0.5, wy * px - 0.5, at);
          if (seen) takeBytes(seen, px, px, (wx + dx) * px - 0.5, (wy + dy) * px - 0.5, found);
          else found.fill(127.5);
          const over = seen ? Math.max(detail, at[3]) : 0;
          const kept = keep + (1 - keep) * over, made = alpha * (1 - keep);
          r = kept * r + made * (level(found[0] + 127.5 * at[0]) - over * found[0]);
          g = kept * g + made * (level(found[1] + 127.5 * at[1]) - over * found[1]);
          b = kept * b + made * (level(found[2] + 127.5 * at[2]) - over * found[2]);
        }
        if (moves) {
          if (plate && alpha < 1) {
            const behind = 4 * ((low[1] + row - part.top) * plate.width + low[0] + column - part.left);
            let rest = 1 - alpha;
            for (let n = under.length - 1; n >= 0; n--) {
              const { box, values: texels } = under[n];
              const nx = qx - 0.5 - box[0], ny = py - 0.5 - box[1];
              if (nx < 0 || ny < 0 || nx >= box[2] || ny >= box[3]) continue;
              const texel = 4 * (ny * box[2] + nx);
              r += rest * texels[texel];
              g += rest * texels[texel + 1];
              b += rest * texels[texel + 2];
              rest *= 1 - texels[texel + 3] / 255;
            }
            r += rest * plate.data[behind];
            g += rest * plate.data[behind + 1];
            b += rest * plate.data[behind + 2];
          }
          if (shown < 1) {
            r = shown * r + (1 - shown) * photo.data[still];
            g = shown * g + (1 - shown) * photo.data[still + 1];
            b = shown * b + (1 - shown) * photo.data[still + 2];
          }
        }
        data[i] = r;
        data[i + 1] = g;
        data[i + 2] = b;
        data[i + 3] = 255;
      }
    }
  }
}

const level = (value) => (value < 0 ? 0 : value > 255 ? 255 : value);

/** Whether a point is between the centers of a box's outer cells. */
function between(box, u, v) {
  return u >= box[0] + 0.5 && u <= box[0] + box[2] - 0.5 && v >= box[1] + 0.5 && v <= box[1] + box[3] - 0.5;
}

// Separate functions for floats and bytes, because monomorphic functions compile to faster code.

/** Samples 2 or 4 channels of a field bilinearly; borders are clamped. */
function takeNumbers(values, width, height, channels, x, y, out) {
  x = x < 0 ? 0 : x > width - 1 ? width - 1 : x;
  y = y < 0 ? 0 : y > height - 1 ? height - 1 : y;
  const x0 = x | 0, y0 = y | 0, fx = x - x0, fy = y - y0;
  const i = channels * (y0 * width + x0);
  const right = i + (x0 < width - 1 ? channels : 0), step = y0 < height - 1 ? channels * width : 0;
  const down = i + step, both = right + step;
  const d = fx * fy, b = fx - d, c = fy - d, a = 1 - fx - c;
  out[0] = a * values[i] + b * values[right] + c * values[down] + d * values[both];
  out[1] = a * values[i + 1] + b * values[right + 1] + c * values[down + 1] + d * values[both + 1];
  if (channels === 2) return;
  out[2] = a * values[i + 2] + b * values[right + 2] + c * values[down + 2] + d * values[both + 2];
  out[3] = a * values[i + 3] + b * values[right + 3] + c * values[down + 3] + d * values[both + 3];
}

/** The same for RGBA in a Uint8Array. */
function takeBytes(values, width, height, x, y, out) {
  x = x < 0 ? 0 : x > width - 1 ? width - 1 : x;
  y = y < 0 ? 0 : y > height - 1 ? height - 1 : y;
  const x0 = x | 0, y0 = y | 0, fx = x - x0, fy = y - y0;
  const i = 4 * (y0 * width + x0);
  const right = i + (x0 < width - 1 ? 4 : 0), step = y0 < height - 1 ? 4 * width : 0;
  const down = i + step, both = right + step;
  const d = fx * fy, b = fx - d, c = fy - d, a = 1 - fx - c;
  out[0] = a * values[i] + b * values[right] + c * values[down] + d * values[both];
  out[1] = a * values[i + 1] + b * values[right + 1] + c * values[down + 1] + d * values[both + 1];
  out[2] = a * values[i + 2] + b * values[right + 2] + c * values[down + 2] + d * values[both + 2];
  out[3] = a * values[i + 3] + b * values[right + 3] + c * values[down + 3] + d * values[both + 3];
}

/** Premultiplied color and alpha of an upsampled picture, at a position of the original picture. */
function read({ values, width, height, times }, x, y, out) {
  takeBytes(values, width, height, x * times - 0.5, y * times - 0.5, out);
}

/** Premultiplies a picture and upsamples it bicubically by SHEET, unless the result is too large. */
function enlarged({ data, width, height }) {
  const whole = new Float32Array(data.length);
  for (let i = 0; i < data.length; i += 4) {
    for (let c = 0; c < 3; c++) whole[i + c] = (data[i + c] * data[i + 3]) / 255;
    whole[i + 3] = data[i + 3];
  }
  if (width * height * SHEET ** 2 > SHEET_PIXELS) return { values: Uint8Array.from(whole), width, height, times: 1 };
  const kernels = [2 / 3, 0, 1 / 3].map(weights); // kernels of the output pixels per input pixel
  const along = (from, length, lines, step, between, out, outStep, outBetween) => {
    for (let line = 0; line < lines; line++) {
      for (let n = 0; n < SHEET * length; n++) {
        const phase = n % SHEET, middle = Math.floor(n / SHEET) - (phase === 0 ? 1 : 0);
        const kernel = kernels[phase];
        for (let c = 0; c < 4; c++) {
          let sum = 0;
          for (let k = 0; k < 4; k++) {
            const at = Math.min(length - 1, Math.max(0, middle + k - 1));
            sum += kernel[k] * from[line * between + at * step + c];
          }
          out[line * outBetween + n * outStep + c] = sum;
        }
      }
    }
  };
  const wide = new Float32Array(SHEET * data.length);
  along(whole, width, height, 4, 4 * width, wide, 4, 4 * SHEET * width);
  const out = new Uint8ClampedArray(SHEET * SHEET * data.length);
  along(wide, height, SHEET * width, 4 * SHEET * width, 4, out, 4 * SHEET * width, 4);
  for (let i = 0; i < out.length; i += 4) for (let c = 0; c < 3; c++) out[i + c] = Math.min(out[i + c], out[i + 3]);
  return { values: new Uint8Array(out.buffer), width: SHEET * width, height: SHEET * height, times: SHEET };
}

/** Weights of bicubic interpolation, a = -0.75, as in OpenCV. */
function weights(t) {
  const a = -0.75, s = t + 1, r = 1 - t;
  const w = [((a * s - 5 * a) * s + 8 * a) * s - 4 * a, ((a + 2) * t - (a + 3)) * t * t + 1, ((a + 2) * r - (a + 3)) * r * r + 1];
  return [...w, 1 - w[0] - w[1] - w[2]];
}

/** Values of a picture as preserved by a canvas: colors are lost where alpha is 0. */
function values(bitmap) {
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}
