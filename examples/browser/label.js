// The visible label, in the lower right corner, at the size of mimik's own.

const LABEL = "AI"; // required by law; drawn here and not in the page, so that no page omits it

const sizeOf = (width, height) => Math.max(12, Math.round(Math.min(width, height) / 16));
const fontOf = (size) => `600 ${size}px system-ui, sans-serif`;

/** Left, top, width and height of the label in a frame. */
export function labelBox(width, height) {
  const size = sizeOf(width, height);
  const context = new OffscreenCanvas(1, 1).getContext("2d");
  context.font = fontOf(size);
  const wide = Math.ceil(context.measureText(LABEL).width + 0.6 * size), tall = Math.round(1.3 * size);
  const margin = Math.round(0.3 * size);
  return [width - wide - margin, height - tall - margin, wide, tall];
}

/** Draws the label into a frame's corner. */
export function drawLabel(context) {
  const { width, height } = context.canvas;
  const [left, top, wide, tall] = labelBox(width, height);
  drawMark(context, left, top, wide, tall, sizeOf(width, height));
}

/** The label alone as ImageData, for a frame of this size. */
export function labelPixels(width, height) {
  const [, , wide, tall] = labelBox(width, height);
  const context = new OffscreenCanvas(wide, tall).getContext("2d");
  drawMark(context, 0, 0, wide, tall, sizeOf(width, height));
  return context.getImageData(0, 0, wide, tall);
}

function drawMark(context, left, top, wide, tall, size) {
  context.font = fontOf(size);
  context.fillStyle = "rgba(0, 0, 0, 0.6)";
  context.fillRect(left, top, wide, tall);
  context.fillStyle = "white";
  context.fillText(LABEL, left + 0.3 * size, top + 0.95 * size);
}
