// Plays a person that `mimik export` wrote: the network by onnxruntime-web, warping and blending by WebGL 2.
//
// What happens to a frame stands in export.json under "host"; docs/phones.md explains it. Pixels are counted from their
// corners: the first one's centre is at 0.5. All pictures are kept with their top row first.

const LABEL = "AI"; // the law and decency ask for it: it is drawn here and not in the page, so that no page forgets it

export class Player {
  /**
   * Loads an export.
   * @param {string} folder its address, with a slash at the end
   * @param {HTMLCanvasElement} canvas what is drawn on
   * @param {object} ort the module onnxruntime-web
   */
  static async open(folder, canvas, ort) {
    const response = await fetch(`${folder}export.json`);
    if (!response.ok) throw new Error(`There is no ${folder}export.json; write it: mimik export person.avatar -o person --motion talk`);
    const record = await response.json();
    if (record.format !== "mimik export 1") throw new Error(`${folder} is an export of another version; export it again.`);
    if (!record.person || !record.motions.length) throw new Error(`${folder} has no person or no motion; export it with --motion talk.`);
    const graph = record.graphs.generator;
    const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };
    const [session, photo, reduced] = await Promise.all([
      ort.InferenceSession.create(`${folder}${graph.file}`, options),
      picture(`${folder}${record.person.photo}`),
      picture(`${folder}${record.person.reduced}`),
    ]);
    return new Player(folder, canvas, ort, record, session, photo, reduced);
  }

  constructor(folder, canvas, ort, record, session, photo, reduced) {
    Object.assign(this, { folder, canvas, ort, record, session });
    this.texture = record.model.form === "texture";
    this.networkMs = 0;
    this.motions = new Map();
    canvas.width = record.person.width;
    canvas.height = record.person.height;
    this.painter = new Painter(record, photo, reduced);
  }

  /** A motion's numbers, by its name; they are loaded once. */
  async motion(name) {
    if (!this.motions.has(name)) this.motions.set(name, this.#load(this.record.motions.find((one) => one.name === name)));
    return this.motions.get(name);
  }

  async #load(about) {
    const response = await fetch(this.folder + about.file);
    const stream = response.body.pipeThrough(new DecompressionStream("gzip"));
    const bytes = await new Response(stream).arrayBuffer();
    const motion = { ...about, shown: -1 };
    for (const array of about.arrays) motion[array.name] = { ...array, values: read(bytes, array) };
    let at = 0; // where each frame's patch begins
    motion.patchAt = Array.from({ length: about.num_frames }, (_, i) => {
      const begin = at;
      if (motion.boxes) at += 4 * motion.boxes.values[4 * i + 2] * motion.boxes.values[4 * i + 3];
      return begin;
    });
    return motion;
  }

  /** Draws one frame of a motion on the canvas, with its label. */
  async draw(motion, index) {
    const { ort, record, painter } = this;
    const px = record.landmarks.image_px;
    const [left, top, say] = motion.windows.values.subarray(3 * index, 3 * index + 3);
    const side = record.person.window.side;
    const feeds = { y: new ort.Tensor("float32", landmarkImage(record.landmarks, motion.points, index), [1, 3, px, px]) };
    if (this.texture) {
      painter.see(motion, index, [left, top, side]);
      feeds.warped = new ort.Tensor("float32", painter.read(), [1, 3, px, px]);
      const { values, shape, unit } = motion.geometry;
      const size = shape[1] * shape[2] * shape[3];
      const geometry = Float32Array.from(values.subarray(index * size, (index + 1) * size), (v) => v * unit);
      feeds.geometry = new ort.Tensor("float32", geometry, [1, ...shape.slice(1)]);
    }
    const start = performance.now();
    const results = await this.session.run(feeds);
    this.networkMs += (performance.now() - start - this.networkMs) * (this.networkMs ? 0.1 : 1);
    if (this.texture) painter.answer(results.correction.data, results.mask.data, results.change.data, say);
    else painter.answer(null, null, results.x_hat.data, say);
    painter.compose([left, top, side]);
    const context = this.canvas.getContext("2d");
    context.drawImage(painter.canvas, 0, 0);
    label(context);
    for (const tensor of [...Object.values(feeds), ...Object.values(results)]) tensor.dispose();
  }
}

/** A PNG file as an ImageBitmap with the values that stand in it. */
async function picture(address) {
  const blob = await (await fetch(address)).blob();
  return createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
}

/** The visible mark: the size of mimik's own, in the lower right corner. */
function label(context) {
  const { width, height } = context.canvas;
  const size = Math.max(12, Math.round(Math.min(width, height) / 16));
  context.font = `600 ${size}px system-ui, sans-serif`;
  const wide = context.measureText(LABEL).width + 0.6 * size;
  context.fillStyle = "rgba(0, 0, 0, 0.6)";
  context.fillRect(width - wide - 0.3 * size, height - 1.6 * size, wide, 1.3 * size);
  context.fillStyle = "white";
  context.fillText(LABEL, width - wide, height - 0.65 * size);
}

// Numbers of a motion file.

const KINDS = { float32: Float32Array, int16: Int16Array, int8: Int8Array, uint8: Uint8Array };

/** One array of a motion file; mimik's export.unpacked is the same in Python. */
export function read(bytes, { type, shape, coding, offset }) {
  const count = shape.reduce((a, b) => a * b, 1);
  const Kind = KINDS[type];
  if (coding === "plain") return new Kind(bytes, offset, count);
  const planes = new Uint8Array(bytes, offset, count * Kind.BYTES_PER_ELEMENT);
  const out = new Kind(count); // sums wrap around as the differences did
  const [height, width] = shape.slice(-2);
  for (let i = 0, x = 0, y = 0; i < count; i++) {
    const zigzag = Kind.BYTES_PER_ELEMENT === 2 ? planes[i] | (planes[count + i] << 8) : planes[i];
    const step = (zigzag >> 1) ^ -(zigzag & 1);
    out[i] = step + (x ? out[i - 1] : 0) + (y ? out[i - width] : 0) - (x && y ? out[i - width - 1] : 0);
    if (++x === width) [x, y] = [0, (y + 1) % height];
  }
  return out;
}

// The landmark image.

/** y of a frame, planes of RGB in -1..1. The lines are those of OpenCV, by which mimik and its training draw. */
function landmarkImage(landmarks, points, index) {
  const px = landmarks.image_px;
  const image = new Float32Array(3 * px * px);
  const count = points.shape[1];
  const at = points.values.subarray(2 * count * index, 2 * count * (index + 1));
  const smooth = landmarks.style === "smooth";
  const place = (value) => (smooth ? value * points.unit - 0.5 : Math.floor(value * points.unit));
  const line = smooth ? smoothLine : plainLine;
  for (const { points: chosen, colour, closed } of landmarks.lines) {
    for (let i = closed ? -1 : 0; i < chosen.length - 1; i++) {
      const [from, to] = [chosen.at(i), chosen[i + 1]];
      line(image, px, place(at[2 * from]), place(at[2 * from + 1]), place(at[2 * to]), place(at[2 * to + 1]), colour);
    }
  }
  for (let i = 0; i < image.length; i++) image[i] = image[i] / 127.5 - 1;
  return image;
}

function blend(image, px, x, y, colour, alpha) {
  if (x < 0 || y < 0 || x >= px || y >= px) return;
  for (let c = 0; c < 3; c++) {
    const i = (c * px + y) * px + x;
    image[i] = Math.round(image[i] + (colour[c] - image[i]) * alpha);
  }
}

/** One pixel wide with soft edges: a bell curve across, half a pixel more at each end. */
function smoothLine(image, px, x0, y0, x1, y1, colour) {
  const steep = Math.abs(y1 - y0) > Math.abs(x1 - x0);
  let [a0, b0, a1, b1] = steep ? [y0, x0, y1, x1] : [x0, y0, x1, y1]; // a along, b across
  if (a1 < a0) [a0, b0, a1, b1] = [a1, b1, a0, b0];
  const slope = a1 > a0 ? (b1 - b0) / (a1 - a0) : 0;
  const strength = 0.992 * Math.sqrt((1 + slope * slope) / 2);
  for (let a = Math.floor(a0); a <= Math.floor(a1) + 1; a++) {
    const cover = Math.min(a1 + 0.5, a + 0.5) - Math.max(a0 - 0.5, a - 0.5);
    if (cover <= 0) continue;
    const b = b0 + slope * (a - a0);
    const middle = Math.round(b);
    for (let row = middle - 1; row <= middle + 1; row++) {
      const alpha = cover * strength * Math.exp(-(((row - b) / 0.75) ** 2));
      blend(image, px, steep ? row : a, steep ? a : row, colour, alpha);
    }
  }
}

/** Two pixels wide, hard: a rectangle with its outline, and a plus at each end. */
function plainLine(image, px, x0, y0, x1, y1, colour) {
  const set = (x, y) => blend(image, px, x, y, colour, 1);
  for (const [x, y] of [[x0, y0], [x1, y1]]) {
    for (const [dx, dy] of [[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]) set(x + dx, y + dy);
  }
  const [dx, dy] = [x1 - x0, y1 - y0];
  const length = Math.hypot(dx, dy);
  if (!length) return;
  for (let y = Math.min(y0, y1) - 1; y <= Math.max(y0, y1) + 1; y++) {
    for (let x = Math.min(x0, x1) - 1; x <= Math.max(x0, x1) + 1; x++) {
      const t = ((x - x0) * dx + (y - y0) * dy) / length;
      const across = Math.abs((x - x0) * dy - (y - y0) * dx) / length;
      if (t >= 0 && t <= length && across <= 1) set(x, y);
    }
  }
  const [nx, ny] = [dy / length, -dx / length];
  const corners = [[x0 + nx, y0 + ny], [x0 - nx, y0 - ny], [x1 - nx, y1 - ny], [x1 + nx, y1 + ny]];
  corners.forEach((from, i) => {
    const to = corners[(i + 1) % 4];
    const steps = Math.max(Math.round(Math.abs(to[0] - from[0])), Math.round(Math.abs(to[1] - from[1])), 1);
    for (let k = 0; k <= steps; k++) {
      const [x, y] = [0, 1].map((c) => Math.round(from[c] + ((to[c] - from[c]) * k) / steps));
      set(x, y);
    }
  });
}

// Warping and blending.

const SHARED = `#version 300 es
precision highp float;
precision highp sampler2DArray;
uniform vec3 crop, window; // left, top, side, in pixels of the photo
uniform sampler2DArray flow; // x, y, in sides of the crop

vec2 flowAt(vec2 p) {
  vec2 u = (p - crop.xy) / crop.z;
  return crop.z * vec2(texture(flow, vec3(u, 0)).x, texture(flow, vec3(u, 1)).x);
}

vec4 weights(float t) { // of cubic interpolation, a = -0.75, as OpenCV has it
  const float a = -0.75;
  float s = t + 1.0, r = 1.0 - t;
  vec3 w = vec3(((a * s - 5.0 * a) * s + 8.0 * a) * s - 4.0 * a, ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0,
                ((a + 2.0) * r - (a + 3.0)) * r * r + 1.0);
  return vec4(w, 1.0 - w.x - w.y - w.z);
}

vec3 cubic(sampler2D image, vec2 p) {
  vec2 at = p - 0.5;
  ivec2 corner = ivec2(floor(at)), last = textureSize(image, 0) - 1;
  vec4 x = weights(fract(at.x)), y = weights(fract(at.y));
  vec3 sum = vec3(0);
  for (int j = 0; j < 4; j++)
    for (int i = 0; i < 4; i++)
      sum += x[i] * y[j] * texelFetch(image, clamp(corner + ivec2(i - 1, j - 1), ivec2(0), last), 0).rgb;
  return clamp(sum, 0.0, 1.0);
}
`;

// What the network sees: the window of the warped photo.
const SEE = `${SHARED}
uniform sampler2D reduced, patchwork;
uniform float scale, framePx;
out vec4 colour;

void main() {
  vec2 p = window.xy + gl_FragCoord.xy / framePx * window.z;
  vec3 warped = texture(reduced, (p + flowAt(p)) * scale / vec2(textureSize(reduced, 0))).rgb;
  vec4 over = texelFetch(patchwork, ivec2(gl_FragCoord.xy), 0);
  colour = vec4(warped * (1.0 - over.a) + over.rgb, 1);
}`;

// The frame, at the photo's own size.
const COMPOSE = `${SHARED}
uniform sampler2D photo, seen, patchwork;
uniform sampler2D said; // correction x, y; how much of the photo is kept; how much of its detail stays over the drawing
uniform sampler2DArray change;
uniform float height;
uniform bool texture_form;
out vec4 colour;

void main() {
  vec2 p = vec2(gl_FragCoord.x, height - gl_FragCoord.y);
  vec2 w = (p - window.xy) / window.z;
  bool inside = all(greaterThanEqual(w, vec2(0))) && all(lessThanEqual(w, vec2(1)));
  vec4 answer = inside ? texture(said, w) : vec4(0, 0, 1, 0);
  vec2 q = p + answer.xy * window.z, v = w + answer.xy;
  vec3 moved = cubic(photo, texture_form ? q + flowAt(q) : p);
  vec3 below = vec3(0.5);
  if (texture_form) {
    bool painted = all(greaterThanEqual(v, vec2(0))) && all(lessThanEqual(v, vec2(1)));
    vec4 over = painted ? texture(patchwork, v) : vec4(0);
    moved = moved * (1.0 - over.a) + over.rgb;
    below = texture(seen, v).rgb;
  }
  vec3 added = vec3(texture(change, vec3(w, 0)).x, texture(change, vec3(w, 1)).x, texture(change, vec3(w, 2)).x);
  vec3 drawn = clamp(below + 0.5 * added, 0.0, 1.0) + answer.w * (moved - below);
  colour = vec4(mix(drawn, moved, answer.z), 1);
}`;

const CORNERS = `#version 300 es
void main() { gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0, 0, 1); }`;

class Painter {
  constructor(record, photo, reduced) {
    const { width, height, crop, scale } = record.person;
    this.record = record;
    this.canvas = document.createElement("canvas");
    Object.assign(this.canvas, { width, height });
    const gl = (this.gl = this.canvas.getContext("webgl2", { alpha: false, antialias: false, preserveDrawingBuffer: true }));
    if (!gl) throw new Error("This browser has no WebGL 2.");
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    const px = (this.framePx = record.frame_px);
    this.textures = {
      photo: this.#image(photo),
      reduced: this.#image(reduced),
      seen: this.#empty(gl.RGBA8, px, px),
      patchwork: this.#empty(gl.RGBA8, px, px),
      said: gl.createTexture(),
      flow: gl.createTexture(),
      change: gl.createTexture(),
    };
    if (record.grid === undefined) this.#planes("flow", new Float32Array(2), 1, 1, 2);
    this.target = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, this.textures.seen, 0);
    const square = [crop.left, crop.top, crop.side];
    this.seeing = this.#program(SEE, ["reduced", "patchwork", "flow"], { crop: square, scale, framePx: px });
    const form = { texture_form: record.model.form === "texture" };
    const used = ["photo", "seen", "patchwork", "said", "change", "flow"];
    this.composing = this.#program(COMPOSE, used, { crop: square, height, ...form });
    this.fade = fade(px / (record.model.form === "texture" ? 4 : 1), record.rim);
    this.finer = record.model.form === "texture" && scale < 1; // the photo has detail that the network does not see
    this.pixels = new Uint8Array(px * px * 4);
    this.patch = new Uint8Array(px * px * 4);
  }

  /** Warps the photo as the network is to see it. */
  see(motion, index, window) {
    const { gl, framePx: px, patch } = this;
    const { values, shape, unit } = motion.flow;
    const [, planes, height, width] = shape;
    const size = planes * height * width;
    const flow = Float32Array.from(values.subarray(index * size, (index + 1) * size), (v) => v * unit);
    this.#planes("flow", flow, width, height, planes);
    const [x, y, w, h] = motion.boxes.values.subarray(4 * index, 4 * index + 4);
    patch.fill(0);
    for (let row = 0; row < h; row++) {
      const from = motion.patchAt[index] + 4 * row * w;
      patch.set(motion.patches.values.subarray(from, from + 4 * w), 4 * ((y + row) * px + x));
    }
    gl.bindTexture(gl.TEXTURE_2D, this.textures.patchwork);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, px, px, gl.RGBA, gl.UNSIGNED_BYTE, patch);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
    gl.viewport(0, 0, px, px);
    this.#run(this.seeing, window);
  }

  /** The network's input `warped`: half as wide as what was drawn. */
  read() {
    const { gl, framePx: px, pixels } = this;
    gl.readPixels(0, 0, px, px, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
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

  /** Takes what the network says: correction and mask (null: the paper's form has none), and what is to be drawn. */
  answer(correction, mask, change, say) {
    const { gl, fade } = this;
    const cells = fade.length;
    const side = Math.sqrt(cells);
    const said = new Float32Array(4 * cells);
    const detail = this.finer ? detailKept(change, this.framePx, side, this.record.redrawn) : null;
    for (let i = 0; i < cells; i++) {
      const weight = fade[i] * say;
      said[4 * i] = correction ? correction[i] * weight : 0;
      said[4 * i + 1] = correction ? correction[cells + i] * weight : 0;
      said[4 * i + 2] = 1 - (mask ? 1 - mask[i] : 1) * weight;
      said[4 * i + 3] = detail ? detail[i] : 0;
    }
    gl.bindTexture(gl.TEXTURE_2D, this.textures.said);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA16F, side, side, 0, gl.RGBA, gl.FLOAT, said);
    this.#smooth(gl.TEXTURE_2D);
    this.#planes("change", change, this.framePx, this.framePx, 3);
  }

  /** Draws the frame. */
  compose(window) {
    const { gl } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    const { width, height } = this.canvas;
    gl.viewport(0, 0, width, height);
    // Outside the crop and the window the frame is the photo, which stands there since the first frame.
    const { left, top, side } = this.record.person.crop;
    const low = [0, 1].map((i) => Math.floor(Math.min([left, top][i], window[i])));
    const high = [0, 1].map((i) => Math.ceil(Math.max([left, top][i] + side, window[i] + window[2])));
    if (this.begun) gl.enable(gl.SCISSOR_TEST);
    gl.scissor(low[0], height - high[1], high[0] - low[0], high[1] - low[1]);
    this.#run(this.composing, window);
    gl.disable(gl.SCISSOR_TEST);
    this.begun = true;
  }

  #run({ program, used, places }, window) {
    const { gl } = this;
    gl.useProgram(program);
    used.forEach((name, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(name === "flow" || name === "change" ? gl.TEXTURE_2D_ARRAY : gl.TEXTURE_2D, this.textures[name]);
    });
    gl.uniform3fv(places.window, window);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  #program(fragment, used, values) {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, CORNERS], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    gl.useProgram(program);
    used.forEach((name, unit) => gl.uniform1i(gl.getUniformLocation(program, name), unit));
    for (const [name, value] of Object.entries(values)) {
      const place = gl.getUniformLocation(program, name);
      if (Array.isArray(value)) gl.uniform3fv(place, value);
      else if (typeof value === "boolean") gl.uniform1i(place, value);
      else gl.uniform1f(place, value);
    }
    return { program, used, places: { window: gl.getUniformLocation(program, "window") } };
  }

  #image(bitmap) {
    const { gl } = this;
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
    this.#smooth(gl.TEXTURE_2D);
    return texture;
  }

  #empty(format, width, height) {
    const { gl } = this;
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texStorage2D(gl.TEXTURE_2D, 1, format, width, height);
    this.#smooth(gl.TEXTURE_2D);
    return texture;
  }

  #planes(name, values, width, height, planes) {
    const { gl } = this;
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, this.textures[name]);
    gl.texImage3D(gl.TEXTURE_2D_ARRAY, 0, gl.R16F, width, height, planes, 0, gl.RED, gl.FLOAT, values);
    this.#smooth(gl.TEXTURE_2D_ARRAY);
  }

  #smooth(kind) {
    const { gl } = this;
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(kind, name, gl.LINEAR);
    for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(kind, name, gl.CLAMP_TO_EDGE);
  }
}

/** How much of the photo's fine detail stays where the network changes it: little where it changes much close by. */
function detailKept(change, px, cells, [low, high]) {
  const k = px / cells;
  const most = new Float32Array(cells * cells); // of each cell
  for (let c = 0, i = 0; c < 3; c++) {
    for (let y = 0; y < px; y++) {
      for (let x = 0; x < px; x++, i++) {
        const cell = Math.floor(y / k) * cells + Math.floor(x / k);
        most[cell] = Math.max(most[cell], Math.abs(change[i]));
      }
    }
  }
  const along = (values, reach, sum) => { // each cell from those beside it, then from those above and below
    for (const step of [1, cells]) {
      const from = values.slice();
      for (let i = 0; i < values.length; i++) {
        const at = step === 1 ? i % cells : Math.floor(i / cells);
        const near = (by) => from[i + (Math.min(cells - 1, Math.max(0, at + by)) - at) * step];
        values[i] = sum(Array.from({ length: 2 * reach + 1 }, (_, j) => near(j - reach)));
      }
    }
  };
  along(most, 1, (near) => Math.max(...near));
  along(most, 2, ([a, b, c, d, e]) => (a + e + 4 * (b + d) + 6 * c) / 16);
  return most.map((value) => {
    const t = Math.min(1, Math.max(0, (127.5 * value - low) / (high - low)));
    return 1 - t * t * (3 - 2 * t);
  });
}

/** 1 inside, smoothly to zero at the window's border: cells * cells numbers. */
function fade(cells, rim) {
  return Float32Array.from({ length: cells * cells }, (_, i) => {
    const [x, y] = [((i % cells) + 0.5) / cells, (Math.floor(i / cells) + 0.5) / cells];
    const t = Math.min(1, Math.min(x, 1 - x, y, 1 - y) / rim);
    return t * t * (3 - 2 * t);
  });
}
