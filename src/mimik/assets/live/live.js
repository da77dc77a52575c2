// The page of a call: sends camera and microphone to the program, shows the person. No library, no requests elsewhere.
"use strict";

const by = (id) => document.getElementById(id);
const role = document.body.dataset.role;
const page = Math.random().toString(36).slice(2);  // id of this page load, by which the program distinguishes tabs
const person = by("person");
let connection = null;
let channel = null;
let camera = null;
let microphone = null;
let driver = "camera";
let lines = null;
let serverMs = null;
let shown = [];  // times in the last two seconds, with the number of frames presented until then
let downMs = [];  // time from a frame's arrival in the browser to its presentation
const LOOK_MS = 200;
let retry = null;
let beyondLoopback = false;  // Firefox does not connect to loopback addresses
const CONNECT_MS = 6000;
let latest = null;  // state of the program that was shown last
const changedAt = {};  // times at which the user changed controls, by name
const SETTLE_MS = 1000;
const QUALITIES = {
  full: "full",
  half: "half (network for every second frame)",
  warp: "warp (no network)",
  small: "small (no network, smaller picture)",
};

function say(text, isError = false) {
  const place = by("said");
  if (!place) return;
  place.textContent = text;
  place.classList.toggle("error", isError);
}

// Browsers play sound only after a click or a key (OBS plays it at once). Without this, the picture would not move either.
function playAloud() {
  person.play().catch((error) => {
    if (error.name !== "NotAllowedError") return; // interrupted by the next track, which calls this again
    person.muted = true;
    person.play().catch(() => {}); // interrupted by the next track, too: muted videos then play by themselves
    document.body.dataset.hint = "Click for sound";
    const unmute = () => {
      person.muted = false;
      delete document.body.dataset.hint;
    };
    for (const gesture of ["pointerdown", "keydown"]) addEventListener(gesture, unmute, { once: true });
  });
}

async function connect() {
  clearTimeout(retry);
  if (connection) connection.close();
  const peer = (connection = new RTCPeerConnection({ iceServers: [] }));
  peer.ontrack = (event) => {
    if (role === "camera" && event.track.kind === "audio") return;  // it would be muted
    // No jitter buffer: show the newest frame at once.
    event.receiver.jitterBufferTarget = 0;
    event.receiver.playoutDelayHint = 0;
    const stream = person.srcObject || new MediaStream();
    for (const old of stream.getTracks()) if (old.kind === event.track.kind) stream.removeTrack(old);
    stream.addTrack(event.track);
    person.srcObject = stream;
    if (!person.muted) playAloud();
  };
  peer.onconnectionstatechange = () => {
    if (peer !== connection) return;
    if (peer.connectionState === "connected") {
      clearTimeout(retry);
      say("Connected.");
    }
    if (["failed", "disconnected", "closed"].includes(peer.connectionState)) {
      enable(false);
      forget();
      clearTimeout(retry);
      say("Connection to the program lost; reconnecting.", true);
      retry = setTimeout(tryToConnect, 2000);
    }
  };
  if (role === "camera") {
    const film = camera ? camera.getVideoTracks()[0] : null;
    if (film) film.contentHint = "motion";
    peer.addTransceiver(film || "video", { direction: "sendrecv" });
    peer.addTransceiver(microphone ? microphone.getAudioTracks()[0] : "audio", { direction: "sendrecv" });
    channel = peer.createDataChannel("controls");
    channel.onopen = () => {
      enable(true);
      if (driver === "microphone") tell({ set: { driver } });
    };
    channel.onmessage = (event) => hear(JSON.parse(event.data));
  } else {
    peer.addTransceiver("video", { direction: "recvonly" });
    peer.addTransceiver("audio", { direction: "recvonly" });
  }
  await peer.setLocalDescription(await peer.createOffer());
  await new Promise((resolve) => {
    if (peer.iceGatheringState === "complete") return resolve();
    peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && resolve();
    setTimeout(resolve, 1500);
  });
  const response = await fetch("offer", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ sdp: peer.localDescription.sdp, role, page, beyond_loopback: beyondLoopback }),
  });
  const answer = await response.json();
  if (answer.error) throw new Error(answer.error);
  await peer.setRemoteDescription(answer);
  retry = setTimeout(() => {
    if (peer !== connection || peer.connectionState === "connected") return;
    beyondLoopback = !beyondLoopback;
    tryToConnect();
  }, CONNECT_MS);
}

async function tryToConnect() {
  try {
    await connect();
  } catch (error) {
    const gone = error instanceof TypeError;
    say(gone ? "The program does not respond; check that it is running." : error.message, true);
    retry = setTimeout(tryToConnect, 3000);
  }
}

// Latency and frame rate of the video. A callback for every frame would let the browser lay out the page as often.

function watch() {
  if (!("requestVideoFrameCallback" in HTMLVideoElement.prototype)) return;
  const seen = (now, about) => {
    if (shown.length && about.presentedFrames < shown.at(-1).frames) shown = []; // a new connection counts anew
    shown.push({ at: now, frames: about.presentedFrames });
    if (about.receiveTime) downMs.push(about.expectedDisplayTime - about.receiveTime);
    setTimeout(() => person.requestVideoFrameCallback(seen), LOOK_MS);
  };
  person.requestVideoFrameCallback(seen);
}

const median = (values) => values.slice().sort((a, b) => a - b)[Math.floor(values.length / 2)];

let before = null;
async function measure() {
  const now = performance.now();
  shown = shown.filter((one) => now - one.at < 2000);
  const first = shown[0], last = shown.at(-1);
  const fps = shown.length > 1 ? (1000 * (last.frames - first.frames)) / (last.at - first.at) : 0;
  if (!by("fps")) return;
  by("fps").textContent = fps.toFixed(0);
  if (!connection || !channel || serverMs === null || !downMs.length) return;
  const sent = { encode: 0, frames: 0, send: 0, packets: 0, roundTrip: 0 };
  for (const one of (await connection.getStats()).values()) {
    if (one.type === "outbound-rtp" && one.kind === "video") {
      sent.encode = one.totalEncodeTime || 0;
      sent.frames = one.framesEncoded || 0;
      sent.send = one.totalPacketSendDelay || 0;
      sent.packets = one.packetsSent || 0;
    }
    if (one.type === "candidate-pair" && one.nominated) sent.roundTrip = one.currentRoundTripTime || 0;
  }
  if (before && sent.frames > before.frames) {
    const encode = (sent.encode - before.encode) / (sent.frames - before.frames);
    const send = (sent.send - before.send) / Math.max(sent.packets - before.packets, 1);
    const up = 1000 * (encode + send + sent.roundTrip / 2);
    const down = 500 * sent.roundTrip + median(downMs);
    by("latency").textContent = (up + serverMs + down).toFixed(0);
    window.mimikLatency = { up, server: serverMs, down };
  }
  before = sent;
  downMs = [];
}

// Removes what was measured and detected over a connection that is lost.
function forget() {
  if (role !== "camera") return;
  serverMs = before = null;
  by("latency").textContent = "–";
  draw(null);
}

// Messages of the program.

function hear(message) {
  if (message.ms !== undefined) serverMs = serverMs === null ? message.ms : 0.9 * serverMs + 0.1 * message.ms;
  if (message.face !== undefined) draw(message.face);
  if (message.error) say(message.error, true);
  if (message.recorded) {
    const link = by("recorded");
    link.href = message.recorded;
    link.hidden = false;
    say("The recording is signed and ready to save.");
  }
  if (message.state) show(message.state);
}

// Sends a control that the user has changed. It keeps its value for a while: older states may still arrive.
function set(name, value) {
  changedAt[name] = performance.now();
  tell({ set: { [name]: value } });
  setTimeout(() => show(latest), SETTLE_MS + 10);
}

const settled = (name) => !(performance.now() - changedAt[name] < SETTLE_MS);

function show(state) {
  if (!state) return;
  latest = state;
  driver = state.driver;
  if (document.activeElement !== by("driver")) by("driver").value = driver;
  if (settled("mirror")) by("mirror").checked = state.mirror;
  document.querySelector(".own").classList.toggle("mirror", state.mirror);
  if (settled("regions")) {
    for (const box of document.querySelectorAll("[name=region]")) box.checked = state.regions.includes(box.value);
  }
  if (settled("strength") && document.activeElement !== by("strength")) by("strength").value = state.strength;
  by("strength-is").textContent = Number(state.strength).toFixed(2);
  by("freeze").setAttribute("aria-pressed", state.freeze);
  by("record").setAttribute("aria-pressed", state.recording);
  by("record").textContent = state.recording ? "Stop recording" : "Record";
  by("quality").textContent = QUALITIES[state.made];
  if (settled("label")) by("small-label").checked = state.label === "small";
  by("calibrate").textContent = state.calibrating ? "Keep looking neutral …" : "Look neutral, press here";
  if (state.broken) say(state.broken, true);
}

function draw(face) {
  const canvas = by("lines");
  const own = by("own");
  if (!lines || !own.videoWidth) return;
  const width = Math.round(canvas.clientWidth * devicePixelRatio), height = Math.round(canvas.clientHeight * devicePixelRatio);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  canvas.dataset.face = face ? "seen" : "lost";
  if (!face) return;
  pen.lineWidth = Math.max(1, canvas.width / 400);
  for (const line of lines.lines) {
    pen.strokeStyle = `rgb(${line.color.join(",")})`;
    pen.beginPath();
    line.points.forEach((i, n) => {
      const x = (face[2 * i] / 1000) * canvas.width;
      const y = (face[2 * i + 1] / 1000) * canvas.height;
      n ? pen.lineTo(x, y) : pen.moveTo(x, y);
    });
    if (line.closed) pen.closePath();
    pen.stroke();
  }
}

// Controls of the user.

function tell(message) {
  if (channel && channel.readyState === "open") channel.send(JSON.stringify(message));
}

function enable(on) {
  if (role !== "camera") return;
  for (const id of ["calibrate", "freeze", "record"]) by(id).disabled = !on;
}

async function openCamera() {
  const wanted = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } };
  const chosen = by("camera").value;
  if (chosen) wanted.deviceId = { exact: chosen };
  try {
    const opened = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
    if (camera) camera.getTracks().forEach((track) => track.stop());
    camera = opened;
  } catch (error) {
    const why = {
      NotAllowedError: "Camera access was denied; allow it in the browser's address bar, then press Start the camera.",
      NotFoundError: "No camera found; connect one, then press Start the camera.",
      NotReadableError: "Another program is using the camera; close it, then press Start the camera.",
    };
    say(why[error.name] || `The camera cannot be used: ${error.message}`, true);
    return;
  }
  by("own").srcObject = camera;
  by("start").hidden = true;
  watchCamera(camera.getVideoTracks()[0]);
  const cameras = (await navigator.mediaDevices.enumerateDevices()).filter((one) => one.kind === "videoinput");
  const used = camera.getVideoTracks()[0].getSettings().deviceId;
  by("camera").replaceChildren(
    ...cameras.map((one, n) => new Option(one.label || `Camera ${n + 1}`, one.deviceId, false, one.deviceId === used)),
  );
  await bring("video", camera.getVideoTracks()[0]);
}

// Handles a camera that is unplugged, taken by another program, or suspended with the computer.
function watchCamera(track) {
  const isUsed = () => camera && camera.getVideoTracks()[0] === track;
  track.onended = () => {
    if (!isUsed()) return;
    by("start").hidden = false;
    draw(null);
    say("The camera has stopped, so the portrait is paused; press Start the camera when it is available again.", true);
  };
  track.onmute = () => isUsed() && say("The camera sends no picture, so the portrait is paused.", true);
  track.onunmute = () => isUsed() && say("Connected.");
}

async function openMicrophone() {
  try {
    microphone = microphone || (await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 }, video: false }));
  } catch (error) {
    const why = {
      NotAllowedError: "Microphone access was denied; allow it in the browser's address bar, then choose it again.",
      NotFoundError: "No microphone found; connect one, then choose it again.",
    };
    say(why[error.name] || `The microphone cannot be used: ${error.message}`, true);
    return false;
  }
  await bring("audio", microphone.getAudioTracks()[0]);
  return true;
}

// Sends a track to the program over the existing connection, or over a new one.
async function bring(kind, track) {
  if (connection && connection.connectionState === "connected") {
    const place = connection.getTransceivers().find((one) => one.receiver.track.kind === kind);
    await place.sender.replaceTrack(track);
    return;
  }
  say("Connecting …");
  await tryToConnect();
}

async function chooseDriver() {
  const wanted = by("driver").value;
  by("driver").blur();
  if (wanted === "microphone" && !(await openMicrophone())) {
    by("driver").value = driver;
    return;
  }
  if (wanted === "camera") {
    if (microphone) microphone.getTracks().forEach((track) => track.stop());
    microphone = null;
    if (!camera) await openCamera();
  }
  driver = wanted;
  tell({ set: { driver } });
}

function begin() {
  watch();
  setInterval(measure, 1000);
  if (role !== "camera") {
    tryToConnect();
    return;
  }
  by("controls").addEventListener("submit", (event) => event.preventDefault());
  by("start").onclick = openCamera;
  by("camera").onchange = openCamera;
  by("driver").onchange = chooseDriver;
  by("calibrate").onclick = () => tell({ calibrate: true });
  by("freeze").onclick = () => tell({ set: { freeze: by("freeze").getAttribute("aria-pressed") !== "true" } });
  by("record").onclick = () => {
    by("recorded").hidden = true;
    tell({ record: by("record").getAttribute("aria-pressed") !== "true" });
  };
  by("mirror").onchange = () => set("mirror", by("mirror").checked);
  by("strength").oninput = () => set("strength", Number(by("strength").value));
  by("small-label").onchange = () => set("label", by("small-label").checked ? "small" : "normal");
  for (const box of document.querySelectorAll("[name=region]")) {
    box.onchange = () =>
      set("regions", [...document.querySelectorAll("[name=region]:checked")].map((one) => one.value));
  }
  if (!navigator.mediaDevices) {
    say("Browsers allow camera access only at https:// or 127.0.0.1; see docs/live.md.", true);
    return;
  }
  fetch("lines.json").then((response) => response.json()).then((found) => (lines = found));
  openCamera();
}

addEventListener("pagehide", () => connection && connection.close()); // so that another page can use the camera
begin();
