// Plays a person exported by `mimik export`: a worker runs the network with onnxruntime-web, WebGL 2 warps and blends.
// The processing of a frame is specified in export.json under "host"; docs/phones.md explains it. Pixel coordinates
// start at the corner: the center of the first pixel is at 0.5. The top row of all pictures comes first.

import { CanvasCompositor } from "./canvas.js";
import { Compositor } from "./compositor.js";
import { Pace } from "./pace.js";

const FORMAT = "mimik export 4";
const AHEAD = 2; // frames that the worker is asked for, so that it never waits
const MOST_USES = 3; // frames for which a run of the network is used; the paper's form synthesizes each face as a whole
const REPORTED_MS = 500; // interval of the reports of a playing motion

export class Player {
  /**
   * Loads an export.
   * @param {string} folder its URL, with a trailing slash
   * @param {HTMLCanvasElement} canvas drawing target
   * @param {object} options runtime: URL of onnxruntime-web's dist, with a trailing slash; threads: of the network, 1 by
   *   default; provider: "wasm" or "webgpu", by default the faster one; drawing: "webgl" or "canvas", by default WebGL
   *   if it runs on a GPU
   */
  static async open(folder, canvas, { runtime, threads = 1, provider = null, drawing = null }) {
    const absolute = new URL(folder, location.href).href;
    const response = await fetch(`${absolute}export.json`);
    if (!response.ok) throw new Error(`There is no ${folder}export.json; write it: mimik export person.avatar -o person --motion talk`);
    const record = await response.json();
    if (record.format !== FORMAT) throw new Error(`${folder} is written in "${record.format}", and this page reads "${FORMAT}"; use the page and the export of one version of mimik: copy examples/browser anew, or export it again.`);
    if (!record.person || !record.motions.length) throw new Error(`${folder} has no person or no motion; export it with --motion talk.`);
    const { person } = record;
    const names = ["photo", "moving", "lit", "plate"].filter((name) => person[name]);
    const player = new Player(record);
    const [opened, ...pictures] = await Promise.all([
      player.#ask("open", { folder: absolute, record, runtime: new URL(runtime, location.href).href, threads, provider }),
      ...names.map((name) => picture(absolute + person[name])),
    ]);
    player.provider = opened.provider;
    player.drawing = drawing ?? (hasGraphics() ? "webgl" : "canvas");
    const Drawing = player.drawing === "webgl" ? Compositor : CanvasCompositor;
    player.compositor = new Drawing(canvas, record, Object.fromEntries(names.map((name, i) => [name, pictures[i]])));
    return player;
  }

  #worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  #waiting = new Map();
  #asked = 0;

  constructor(record) {
    this.record = record;
    this.#worker.onmessage = ({ data: { id, result, error } }) => {
      const { resolve, reject } = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error) reject(new Error(error));
      else resolve(result);
    };
    this.#worker.onerror = (event) => {
      for (const { reject } of this.#waiting.values()) reject(new Error(event.message || "The worker could not be started."));
      this.#waiting.clear();
    };
  }

  #ask(command, given) {
    return new Promise((resolve, reject) => {
      const id = this.#asked++;
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, command, ...given });
    });
  }

  /** Loads a motion by name, once; returns its record: name, fps, num_frames. */
  async motion(name) {
    await this.#ask("motion", { name });
    return this.record.motions.find((one) => one.name === name);
  }

  /** Computes a frame of a loaded motion in the worker; pace: null runs the network. */
  async prepare(motion, index, pace = null) {
    const frame = await this.#ask("frame", { name: motion.name, index, every: pace?.every ?? 1, reach: pace?.reach ?? 0 });
    pace?.add(frame.ms, frame.networkMs);
    return frame;
  }

  /** Draws a prepared frame and the label on the canvas. */
  show(frame) {
    this.compositor.draw(frame);
  }

  /** Draws one frame of a loaded motion. */
  async draw(motion, index) {
    this.show(await this.prepare(motion, index));
  }

  /**
   * Plays a motion: the next frames are computed while one is drawn. On a slow device, the network's outputs are used for
   * up to three frames, then frames are dropped; the speed is unchanged.
   * @param {object} motion a loaded motion
   * @param {(about: {rate: number, networkMs: number, every: number}) => void} onReport gets, twice a second, the frame
   *   rate of the last two seconds, the time of a run of the network, and the number of frames for which it is used
   * @returns {() => Promise<void>} stops
   */
  play(motion, onReport = () => {}) {
    let isPlaying = true;
    const run = async () => {
      const start = performance.now();
      const pace = new Pace(motion.fps, this.record.person.reduced ? MOST_USES : 1);
      const due = (ms) => Math.floor(((ms - start) / 1000) * motion.fps);
      const drawn = [], ahead = [];
      let number = -1, period = 0, reported = start;
      const ask = () => {
        number = Math.max(number + 1, due(performance.now() + (ahead.length + 1) * period));
        const frame = this.prepare(motion, number % motion.num_frames, pace);
        frame.catch(() => {}); // reported where it is awaited
        ahead.push([number, frame]);
      };
      while (ahead.length < AHEAD) ask();
      while (isPlaying) {
        const [shown, promised] = ahead.shift();
        const frame = await promised;
        ask();
        do await new Promise(requestAnimationFrame);
        while (isPlaying && due(performance.now()) < shown);
        if (!isPlaying) break;
        this.show(frame);
        const now = performance.now();
        drawn.push(now);
        if (drawn.length > 1) period += (now - drawn.at(-2) - period) * (period ? 0.2 : 1);
        while (drawn[0] < now - 2000) drawn.shift();
        if (now - reported < REPORTED_MS) continue;
        reported = now;
        onReport({ rate: ((drawn.length - 1) * 1000) / Math.max(now - drawn[0], 1), networkMs: pace.networkMs, every: pace.every });
      }
      await Promise.all(ahead.map(([, frame]) => frame));
    };
    const done = run();
    return async () => {
      isPlaying = false;
      await done;
    };
  }
}

/** Whether WebGL 2 is available and runs on a GPU. */
function hasGraphics() {
  const gl = new OffscreenCanvas(1, 1).getContext("webgl2");
  const about = gl?.getExtension("WEBGL_debug_renderer_info");
  const name = about ? gl.getParameter(about.UNMASKED_RENDERER_WEBGL) : "";
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return Boolean(gl) && !/swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
}

/** Loads a PNG file as an ImageBitmap with unmodified values. */
async function picture(address) {
  const blob = await (await fetch(address)).blob();
  return createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
}
