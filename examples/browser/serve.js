// Serves this folder on this computer: npm start [-- PORT]. Any static server works; this one sends the two headers
// that enable multithreaded WebAssembly.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { dirname, extname, join, normalize, sep } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(fileURLToPath(import.meta.url));
const types = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".png": "image/png",
  ".wasm": "application/wasm",
};

const server = createServer(async (request, response) => {
  const headers = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };
  try {
    const { pathname } = new URL(request.url, "http://localhost");
    const path = normalize(join(root, decodeURIComponent(pathname.endsWith("/") ? `${pathname}index.html` : pathname)));
    if (!path.startsWith(root + sep) || !(await stat(path)).isFile()) throw new Error("not a file of this folder");
    response.writeHead(200, { ...headers, "Content-Type": types[extname(path)] ?? "application/octet-stream" });
    createReadStream(path).pipe(response);
  } catch {
    response.writeHead(404, headers).end("There is no such file.");
  }
});

server.listen(Number(process.argv[2] ?? 8766), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}/`);
});
