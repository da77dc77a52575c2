// Computes frames in a worker: inputs of the network, the network by onnxruntime-web, and data for drawing.

import { landmarkImage } from "./landmarks.js";
import { Motion } from "./motion.js";
import { warp } from "./warp.js";
import { WindowView, halved, prediction, synthesized } from "./window.js";

const NUM_TIMED = 4; // timed runs of each provider, to select the faster one

let state = null; // { folder, record, ort, session, provider, spare, view, motions }; spare: of WebGPU
let held = null; // outputs of the network's last run: { name, index, open, uses, outputs }

const COMMANDS = {
  async open({ folder, record, runtime, threads, provider }) {
    const graph = record.graphs.generator;
    const address = `${folder}${graph.file}`;
    const [started, view] = await Promise.all([start(graph, address, runtime, threads, provider), viewOf(folder, record)]);
    state = { folder, record, view, motions: new Map(), ...started };
    return { provider: state.provider };
  },

  async motion({ name }) {
    if (!state.motions.has(name)) {
      const about = state.record.motions.find((one) => one.name === name);
      const response = await fetch(state.folder + about.file);
      const stream = response.body.pipeThrough(new DecompressionStream("gzip"));
      state.motions.set(name, new Motion(about, await new Response(stream).arrayBuffer()));
    }
    return {};
  },

  /** every, reach: of Pace. */
  async frame({ name, index, every, reach }) {
    const started = performance.now();
    const motion = state.motions.get(name);
    const { record, view } = state;
    const [left, top, gate, shown] = motion.row("windows", index);
    const window = [left, top, record.person.window.side];
    const points = motion.row("points", index), { unit } = motion.arrays.points;
    const frame = { window, shown, networkMs: null };
    if (view) Object.assign(frame, { seen: new Uint8Array(view.draw(motion, index, window)), ...warp(motion, index) });
    const open = view ? apertures(record, points, unit) : [];
    const isRecent = held?.name === name && held.uses < every && index > held.index && index - held.index <= reach;
    if (view && isRecent && open.every((value, i) => Math.abs(value - held.open[i]) < record.held.most_opened)) held.uses++;
    else {
      const start = performance.now();
      const outputs = await answered(() => feedsOf(motion, index, frame.seen));
      frame.networkMs = performance.now() - start;
      held = { name, index, open, uses: 1, outputs };
    }
    const { outputs } = held;
    Object.assign(frame, view ? prediction(record, outputs, frame.seen, motion.parts("interior", index)[0], { points, unit }, gate) : synthesized(record, outputs));
    frame.ms = performance.now() - started;
    return frame;
  },
};

/** How far lips and lids are open, in sides of the window. */
function apertures({ held: { apertures: pairs }, landmarks: { image_px: px } }, points, unit) {
  return pairs.map(([a, b]) => (unit / px) * Math.hypot(points[2 * a] - points[2 * b], points[2 * a + 1] - points[2 * b + 1]));
}

/** Inputs of the network for a frame; seen: RGBA of its window. */
function feedsOf(motion, index, seen) {
  const { record, ort } = state;
  const px = record.landmarks.image_px;
  const tensor = (values, ...shape) => new ort.Tensor("float32", values, [1, ...shape]);
  const y = landmarkImage(record.landmarks, motion.row("points", index), motion.arrays.points.unit);
  if (!seen) return { y: tensor(y, 3, px, px) };
  const [{ values, planes, height, width, unit }] = motion.parts("geometry", index);
  const geometry = Float32Array.from(values, (v) => v * unit);
  return { y: tensor(y, 3, px, px), warped: tensor(halved(seen, record.frame_px), 3, px, px), geometry: tensor(geometry, planes, height, width) };
}

/** As run; where the graphics processor is lost, with WebAssembly from then on. */
async function answered(feeds) {
  try {
    return await run(feeds());
  } catch (error) {
    if (!state.spare) throw error;
    Object.assign(state, { ...state.spare, spare: null });
    return run(feeds());
  }
}

/** Runs the network; the arrays of its outputs, by name. */
async function run(feeds) {
  const results = await state.session.run(feeds);
  const outputs = Object.fromEntries(Object.entries(results).map(([key, tensor]) => [key, tensor.data]));
  for (const tensor of [...Object.values(feeds), ...Object.values(results)]) tensor.dispose();
  return outputs;
}

/** Starts the network with WebGPU if that is available and faster, else with WebAssembly. */
async function start(graph, address, runtime, threads, wanted) {
  const adapter = wanted === "wasm" ? null : await navigator.gpu?.requestAdapter().catch(() => null);
  const isReal = adapter && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
  const wasm = await session("ort.wasm.bundle.min.mjs", "wasm", address, runtime, threads);
  if (!(wanted === "webgpu" ? adapter : isReal)) return wasm;
  try {
    const gpu = await session("ort.webgpu.bundle.min.mjs", "webgpu", address, runtime, threads);
    const [a, b] = [await timed(wasm, graph), await timed(gpu, graph)];
    return wanted === "webgpu" || b < a ? { ...gpu, spare: wasm } : wasm;
  } catch (error) {
    if (wanted === "webgpu") throw error;
    return wasm;
  }
}

async function session(file, provider, address, runtime, threads) {
  const ort = await import(`${runtime}${file}`);
  ort.env.wasm.wasmPaths = runtime;
  ort.env.wasm.numThreads = threads;
  const options = { executionProviders: [provider], graphOptimizationLevel: "all" };
  return { ort, provider, session: await ort.InferenceSession.create(address, options) };
}

/** Milliseconds of the fastest of a few runs. */
async function timed({ ort, session }, graph) {
  let least = Infinity;
  for (let i = 0; i < NUM_TIMED; i++) {
    const feeds = {};
    for (const { name, shape } of graph.inputs) feeds[name] = new ort.Tensor("float32", new Float32Array(shape.reduce((a, b) => a * b)), shape);
    const start = performance.now();
    const results = await session.run(feeds);
    for (const tensor of Object.values(results)) await tensor.getData();
    least = Math.min(least, performance.now() - start);
  }
  return least;
}

async function viewOf(folder, record) {
  const { person } = record;
  if (!person.reduced) return null;
  const names = [person.reduced, person.reduced_lit, person.reduced_matte];
  const [reduced, lit, matte] = await Promise.all(names.map((name) => name && pixels(folder + name)));
  return new WindowView(record, { reduced, lit, matte });
}

/** Unmodified values of a PNG file without transparency. */
async function pixels(address) {
  const blob = await (await fetch(address)).blob();
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

let done = Promise.resolve(); // of the last command; the next one waits for it, because one session runs one frame at a time
self.onmessage = ({ data }) => {
  done = done.then(() => answer(data));
};

async function answer({ id, command, ...given }) {
  try {
    const result = await COMMANDS[command](given);
    const buffers = [];
    for (const value of Object.values(result)) for (const one of [value].flat()) {
      const buffer = (one?.values ?? one)?.buffer;
      if (buffer instanceof ArrayBuffer) buffers.push(buffer);
    }
    self.postMessage({ id, result }, [...new Set(buffers)]);
  } catch (error) {
    self.postMessage({ id, error: `${error.message ?? error}` });
  }
}
