// Draws frames with WebGL 2: steps 3 and 7 to 10 of export.json's "host", and the label.

import { labelBox, labelPixels } from "./label.js";

const SHEET = 3; // upsampling factor of the image that frames are sampled from bilinearly, as in mimik
const SHEET_PIXELS = 24 << 20; // size limit of the upsampled image

const SHARED = `#version 300 es
precision highp float;
precision highp sampler2DArray;

vec4 weights(float t) { // of bicubic interpolation, a = -0.75, as in OpenCV
  const float a = -0.75;
  float s = t + 1.0, r = 1.0 - t;
  vec3 w = vec3(((a * s - 5.0 * a) * s + 8.0 * a) * s - 4.0 * a, ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0,
                ((a + 2.0) * r - (a + 3.0)) * r * r + 1.0);
  return vec4(w, 1.0 - w.x - w.y - w.z);
}

vec4 cubic(sampler2D image, vec2 p) {
  vec2 at = p - 0.5;
  ivec2 corner = ivec2(floor(at)), last = textureSize(image, 0) - 1;
  vec4 x = weights(fract(at.x)), y = weights(fract(at.y));
  vec4 sum = vec4(0);
  for (int j = 0; j < 4; j++)
    for (int i = 0; i < 4; i++)
      sum += x[i] * y[j] * texelFetch(image, clamp(corner + ivec2(i - 1, j - 1), ivec2(0), last), 0);
  return clamp(sum, 0.0, 1.0);
}
`;

// Upsample a picture once.
const ENLARGE = `${SHARED}
uniform sampler2D moving;
uniform float times;
out vec4 color;

void main() { color = cubic(moving, gl_FragCoord.xy / times); }`;

// The frame at the photo's resolution. Software WebGL evaluates every branch for every pixel, so a program contains
// only what its frame needs. One texture holds all flows, so that they are sampled once.
const COMPOSE = (needs) => `${SHARED}
${Object.keys(needs).filter((name) => needs[name]).map((name) => `#define ${name}`).join("\n")}
uniform sampler2D photo, answer, seen, residual; // answer: correction x, y; weight of the photo, of its detail
uniform vec3 window; // left, top, side
uniform float height;
out vec4 color;
#ifdef WARPS
uniform sampler2D moving, flow, layers, shading; // flow and layers: boxes side by side
uniform vec4 canvas, part; // left, top, width, height: of the moving part, and of its picture with a margin
uniform vec4 boxes[4], places[4], layerBoxes[5], layerPlaces[5]; // positions in the frame, and in their texture; last the neck and a hidden ear
uniform vec3 crop; // left, top, side
uniform float grid, shown;

bool between(vec2 u, vec4 box) { // between the centers of the outer cells
  return all(greaterThanEqual(u, box.xy + 0.5)) && all(lessThanEqual(u, box.xy + box.zw - 0.5));
}

bool within(vec2 p, vec4 box) { return all(greaterThanEqual(p, box.xy)) && all(lessThan(p, box.xy + box.zw)); }

vec2 placed(vec2 u, vec4 box, vec4 place) { return place.xy + (u - box.xy) * (place.zw / box.zw); }

vec2 flowAt(vec2 u) {
  vec2 at = placed(clamp(u, vec2(0.5), vec2(grid - 0.5)), boxes[0], places[0]);
  for (int i = 1; i < 4; i++) at = between(u, boxes[i]) ? placed(u, boxes[i], places[i]) : at;
  return crop.z * textureLod(flow, at / vec2(textureSize(flow, 0)), 0.0).xy;
}

vec4 movingAt(vec2 p) {
  vec2 at = p - part.xy;
#ifdef ENLARGED
  return textureLod(moving, at / part.zw, 0.0);
#else
  return cubic(moving, at);
#endif
}
#endif
#ifdef PLATE
uniform sampler2D plate;
#endif
#ifdef TURNED
uniform sampler2D lit, mirror;
uniform vec4 others;
#endif

void main() {
  vec2 p = vec2(gl_FragCoord.x, height - gl_FragCoord.y);
  vec3 still = texelFetch(photo, ivec2(p), 0).rgb;
  vec2 w = (p - window.xy) / window.z;
  bool isSeen = all(greaterThanEqual(w, vec2(0))) && all(lessThanEqual(w, vec2(1)));
  vec4 said = vec4(0, 0, 1, 0);
  if (isSeen) said = textureLod(answer, w, 0.0);
  vec3 rgb = still;
  float alpha = 1.0;
#ifdef WARPS
  vec2 q = p + said.xy * window.z;
  bool moves = within(p, canvas);
  if (moves) {
    vec2 u = (q - crop.xy) / crop.z * grid;
    vec4 found = movingAt(q + flowAt(u));
    rgb = found.rgb;
    alpha = found.a;
    if (within(q, layerBoxes[4])) alpha *= 1.0 - textureLod(layers, placed(q, layerBoxes[4], layerPlaces[4]) / vec2(textureSize(layers, 0)), 0.0).a;
#ifdef TURNED
    if (between(u, others)) {
      vec2 at = (u - others.xy) / others.zw * vec2(0.5, 1.0);
      vec4 other = textureLod(mirror, at, 0.0);
      float own = textureLod(mirror, at + vec2(0.5, 0.0), 0.0).x;
      vec2 place = q + crop.z * other.xy;
      float source = other.w * movingAt(place).a;
      float added = other.z * mix(source, alpha, own);
      alpha = alpha * (1.0 - other.z) + added;
      rgb = mix(rgb, cubic(lit, place - part.xy).rgb, added / max(alpha, 0.001));
    }
#endif
    for (int i = 0; i < 2; i++) {
      if (within(q, layerBoxes[i])) {
        vec4 over = textureLod(layers, placed(q, layerBoxes[i], layerPlaces[i]) / vec2(textureSize(layers, 0)), 0.0);
        rgb = rgb * (1.0 - over.a) + over.rgb;
      }
    }
    rgb = min(rgb * textureLod(shading, u / grid, 0.0).x, 1.0);
  }
#endif
  if (said.z < 1.0) {
    vec4 change = textureLod(residual, w, 0.0);
#ifdef WARPS
    vec3 below = textureLod(seen, w + said.xy, 0.0).rgb;
#else
    vec3 below = vec3(0.5);
#endif
    vec3 drawn = clamp(below + 0.5 * change.rgb, 0.0, 1.0);
#ifdef WARPS
    drawn += max(said.w, change.a) * (rgb - below);
#endif
    rgb = clamp(mix(drawn, rgb, said.z), 0.0, 1.0);
  }
#ifdef PLATE
  if (moves && alpha < 1.0) {
    vec3 behind = texelFetch(plate, ivec2(p - part.xy), 0).rgb;
    for (int i = 2; i < 4; i++) {
      if (within(p, layerBoxes[i])) {
        vec4 neck = texelFetch(layers, ivec2(placed(p, layerBoxes[i], layerPlaces[i])), 0);
        behind = behind * (1.0 - neck.a) + neck.rgb;
      }
    }
    rgb = mix(behind, rgb, alpha);
  }
#endif
#ifdef WARPS
  if (moves) rgb = mix(still, rgb, shown);
#endif
  color = vec4(rgb, 1);
}`;

// The label in a corner.
const MARK = `#version 300 es
precision highp float;
uniform sampler2D label;
uniform vec4 labeled;
uniform float height;
out vec4 color;

void main() { color = texelFetch(label, ivec2(vec2(gl_FragCoord.x, height - gl_FragCoord.y) - labeled.xy), 0); }`;

const CORNERS = `#version 300 es
void main() { gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0, 0, 1); }`;

const EMPTY = { box: [0, 0, 0, 0], width: 0, height: 0 };
const FLOWS = 1024; // minimum width of the textures that hold all flows and all layers

export class Compositor {
  /**
   * @param {HTMLCanvasElement} canvas drawing target
   * @param {object} record export.json
   * @param {object} pictures ImageBitmaps: photo; for the texture form also moving, lit, and plate if there is one
   */
  constructor(canvas, record, pictures) {
    const { person, frame_px: px } = record;
    const [width, height] = (this.size = [person.width, person.height]);
    Object.assign(canvas, { width, height });
    const gl = (this.gl = canvas.getContext("webgl2", { alpha: false, antialias: false, preserveDrawingBuffer: true }));
    if (!gl) throw new Error("This browser has no WebGL 2.");
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    const isPrecise = gl.getExtension("OES_texture_float_linear");
    this.formats = isPrecise ? { 2: gl.RG32F, 4: gl.RGBA32F } : { 2: gl.RG16F, 4: gl.RGBA16F }; // by number of channels
    this.framePx = px;
    this.textures = {};
    this.sizes = {};
    for (const [name, bitmap] of Object.entries(pictures)) this.#bitmap(name, bitmap);
    this.#bitmap("label", labelPixels(width, height));
    this.labeled = labelBox(width, height);
    this.marking = this.#program(MARK, ["label"], { labeled: this.labeled, height });

    const needs = { WARPS: Boolean(person.moving), PLATE: Boolean(person.plate) };
    const used = ["photo", "answer", "residual"];
    const values = { height };
    this.canvas = [0, 0, 0, 0];
    if (needs.WARPS) {
      const { crop: { left, top, side }, part } = person;
      const low = [left, top].map((edge) => Math.max(Math.floor(edge), 0));
      const high = [left, top].map((edge, axis) => Math.min(Math.ceil(edge + side), this.size[axis]));
      this.canvas = [...low, ...high.map((edge, axis) => edge - low[axis])];
      needs.ENLARGED = this.#enlarge(part);
      used.push("seen", "moving", "flow", "layers", "shading", ...(needs.PLATE ? ["plate"] : []));
      Object.assign(values, { canvas: this.canvas, part: [part.left, part.top, part.width, part.height], crop: [left, top, side], grid: record.grid });
    }
    this.composing = this.#program(COMPOSE(needs), used, values);
    if (needs.WARPS) this.turning = this.#program(COMPOSE({ ...needs, TURNED: true }), [...used, "lit", "mirror"], values);
  }

  /** Draws a frame that the worker computed. */
  draw({ window, shown, answer, residual, seen, flows, mirror = EMPTY, layers, necks, ear, shading }) {
    const { gl, framePx: px } = this;
    const cells = Math.sqrt(answer.length / 4);
    this.#values("answer", 4, cells, cells, answer);
    this.#values("residual", 4, px, px, residual);
    const values = { window };
    if (seen) {
      this.#bytes("seen", px, px, seen);
      const boxes = this.#together("flow", flows, (width, height, texels) => this.#values("flow", 2, width, height, texels), 2, Float32Array);
      const over = this.#together("layers", [...layers, ...necks, ear], (width, height, texels) => this.#bytes("layers", width, height, texels), 4, Uint8Array);
      this.#values("shading", 2, shading.width, shading.height, shading.values);
      if (mirror.width) this.#values("mirror", 4, mirror.width, mirror.height, mirror.values);
      Object.assign(values, { shown, boxes: boxes.boxes, places: boxes.places, layerBoxes: over.boxes, layerPlaces: over.places });
      if (mirror.width) values.others = mirror.box;
    }
    const [width, height] = this.size;
    gl.viewport(0, 0, width, height);
    // Outside of the moving part and the window, the frame is the photo, which was drawn with the first frame.
    let box = joined(this.canvas, [window[0], window[1], window[2], window[2]]);
    const isMarked = !this.begun || meet(box, this.labeled);
    if (isMarked) box = joined(box, this.labeled);
    if (this.begun) this.#clip(box);
    this.#run(mirror.width ? this.turning : this.composing, values);
    if (isMarked) {
      this.#clip(this.labeled);
      gl.enable(gl.BLEND);
      gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
      this.#run(this.marking, {});
      gl.disable(gl.BLEND);
    }
    gl.disable(gl.SCISSOR_TEST);
    this.begun = true;
  }

  #clip([left, top, width, height]) {
    const { gl } = this;
    const low = [Math.floor(left), Math.floor(top)], high = [Math.ceil(left + width), Math.ceil(top + height)];
    gl.enable(gl.SCISSOR_TEST);
    gl.scissor(low[0], this.size[1] - high[1], high[0] - low[0], high[1] - low[1]);
  }

  /** Packs fields into one texture, one pixel apart; returns their boxes, and their positions in it. */
  #together(name, fields, upload, channels, Kind) {
    const { gl } = this;
    const width = Math.max(FLOWS, ...fields.map((field) => field.width + 2));
    let x = 1, y = 1, tall = 0;
    const places = fields.map((field) => {
      if (x + field.width + 1 > width) [x, y, tall] = [1, y + tall + 1, 0];
      const place = [x, y, field.width, field.height];
      x += field.width + 1;
      tall = Math.max(tall, field.height);
      return place;
    });
    const size = this.sizes[name] ?? [0, 0];
    if (width > size[0] || y + tall + 1 > size[1]) {
      this.sizes[name] = [width, Math.max(2 * (y + tall + 1), 64)];
      upload(...this.sizes[name], new Kind(channels * width * this.sizes[name][1]));
    }
    this.#bind(name);
    const [format, type] = Kind === Float32Array ? [gl.RG, gl.FLOAT] : [gl.RGBA, gl.UNSIGNED_BYTE];
    fields.forEach((field, i) => field.width && gl.texSubImage2D(gl.TEXTURE_2D, 0, ...places[i], format, type, field.values));
    return { boxes: fields.flatMap((field) => field.box), places: places.flat() };
  }

  #run({ program, used, places }, values) {
    const { gl } = this;
    gl.useProgram(program);
    used.forEach((name, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, this.textures[name]);
    });
    this.#set(program, places, values);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  #set(program, places, values) {
    const { gl } = this;
    for (const [name, value] of Object.entries(values)) {
      if (!places.has(name)) places.set(name, gl.getUniformLocation(program, name));
      const place = places.get(name);
      if (typeof value === "boolean") gl.uniform1i(place, value);
      else if (typeof value === "number") gl.uniform1f(place, value);
      else if (value.length === 3) gl.uniform3fv(place, value);
      else gl.uniform4fv(place, value); // one or several vectors
    }
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
    const places = new Map();
    this.#set(program, places, values);
    return { program, used, places };
  }

  /** Upsamples the moving part by SHEET unless the result is too large; returns whether it did. */
  #enlarge({ width, height }) {
    const { gl } = this;
    const [wide, tall] = [SHEET * width, SHEET * height];
    if (wide * tall > SHEET_PIXELS || Math.max(wide, tall) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) return false;
    const enlarging = this.#program(ENLARGE, ["moving"], { times: SHEET });
    this.#bytes("sheet", wide, tall, null);
    const target = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, target);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, this.textures.sheet, 0);
    gl.viewport(0, 0, wide, tall);
    this.#run(enlarging, {});
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.deleteFramebuffer(target);
    gl.deleteTexture(this.textures.moving);
    this.textures.moving = this.textures.sheet;
    return true;
  }

  #bind(name) {
    const { gl } = this;
    const isNew = !this.textures[name];
    if (isNew) this.textures[name] = gl.createTexture();
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.textures[name]);
    if (!isNew) return;
    for (const parameter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, parameter, gl.LINEAR);
    for (const parameter of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, parameter, gl.CLAMP_TO_EDGE);
  }

  #bitmap(name, bitmap) {
    const { gl } = this;
    this.#bind(name);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  }

  #bytes(name, width, height, values) {
    const { gl } = this;
    this.#bind(name);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, width, height, 0, gl.RGBA, gl.UNSIGNED_BYTE, values);
  }

  /** Uploads values of 2 or 4 channels at the highest precision that this browser interpolates. */
  #values(name, channels, width, height, values) {
    const { gl } = this;
    this.#bind(name);
    gl.texImage2D(gl.TEXTURE_2D, 0, this.formats[channels], width, height, 0, channels === 2 ? gl.RG : gl.RGBA, gl.FLOAT, values);
  }
}

/** Bounding box of two boxes. */
function joined(a, b) {
  if (!a[2]) return b;
  const low = [0, 1].map((i) => Math.min(a[i], b[i]));
  return [...low, ...[0, 1].map((i) => Math.max(a[i] + a[i + 2], b[i] + b[i + 2]) - low[i])];
}

function meet(a, b) {
  return [0, 1].every((i) => a[i] < b[i] + b[i + 2] && b[i] < a[i] + a[i + 2]);
}
