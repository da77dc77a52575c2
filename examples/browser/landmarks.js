// Draws the landmark image.

/**
 * y of a frame, planes of RGB in -1..1. Lines are drawn like those of OpenCV, which mimik and its training use.
 * @param {object} landmarks of export.json
 * @param {Int16Array} at x, y of each point
 * @param {number} unit of `at`, in pixels
 */
export function landmarkImage(landmarks, at, unit) {
  const px = landmarks.image_px;
  const image = new Float32Array(3 * px * px);
  const smooth = landmarks.style === "smooth";
  const place = (value) => (smooth ? value * unit - 0.5 : Math.floor(value * unit));
  const line = smooth ? smoothLine : plainLine;
  for (const { points: chosen, color, closed } of landmarks.lines) {
    for (let i = closed ? -1 : 0; i < chosen.length - 1; i++) {
      const [from, to] = [chosen.at(i), chosen[i + 1]];
      line(image, px, place(at[2 * from]), place(at[2 * from + 1]), place(at[2 * to]), place(at[2 * to + 1]), color);
    }
  }
  for (let i = 0; i < image.length; i++) image[i] = image[i] / 127.5 - 1;
  return image;
}

function blend(image, px, x, y, color, alpha) {
  if (x < 0 || y < 0 || x >= px || y >= px) return;
  for (let c = 0; c < 3; c++) {
    const i = (c * px + y) * px + x;
    image[i] = Math.round(image[i] + (color[c] - image[i]) * alpha);
  }
}

/** One pixel wide with soft edges: Gaussian profile across, half a pixel longer at each end. */
function smoothLine(image, px, x0, y0, x1, y1, color) {
  const steep = Math.abs(y1 - y0) > Math.abs(x1 - x0);
  let [a0, b0, a1, b1] = steep ? [y0, x0, y1, x1] : [x0, y0, x1, y1]; // a along the line, b across
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
      blend(image, px, steep ? row : a, steep ? a : row, color, alpha);
    }
  }
}

/** Two pixels wide without anti-aliasing: a rectangle with its outline, and a plus at each end. */
function plainLine(image, px, x0, y0, x1, y1, color) {
  const set = (x, y) => blend(image, px, x, y, color, 1);
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
