// What buttons, keys and pointers do. Modes of the page: "empty", "painting", "comparing"; `waiting` for the server.

import { Painting } from "./painting.js";
import { ask, knowToken } from "./server.js";
import { View } from "./view.js";

const $ = (id) => document.getElementById(id);
const { body } = document;
const canvas = $("paint");
const context = canvas.getContext("2d");
const view = new View($("stage"), $("sheet"));
const COLOUR = getComputedStyle(document.documentElement).getPropertyValue("--hole");

let settings = { filler: "", max_bytes: Infinity, max_pixels: Infinity };
let round = null; // { file: what the server completes, shown: its address here, painting }
let earlier = []; // rounds whose completed pictures were gone on from
let completed = null; // { file, shown }
let name = "";
let erasing = false;
let abort = null; // ends what is waited for

// ---- waiting for the server ----

// Await an answer to `request`, with words for it; what comes before this one is asked meanwhile. Undefined: there is none.
async function during(words, request) {
  abort = new AbortController();
  const { signal } = abort;
  const ticket = [...crypto.getRandomValues(new Uint32Array(4))].map((n) => n.toString(36)).join("");
  const headers = { "X-Ticket": ticket };
  const look = async () => {
    const { ahead } = await (await ask("queue", { headers, signal })).json();
    if (!signal.aborted) tell(ahead ? `${ahead} before you …` : words);
  };
  const looking = setInterval(() => look().catch(() => {}), 1000);
  body.classList.add("waiting");
  complain("");
  tell(words);
  refresh();
  try {
    return await request({ method: "POST", headers, signal });
  } catch (error) {
    if (error.name !== "AbortError") complain(error.message);
  } finally {
    clearInterval(looking);
    abort.abort();
    abort = null;
    body.classList.remove("waiting");
    refresh();
  }
}

function tell(words) {
  if ($("doing").textContent !== words) $("doing").textContent = $("news").textContent = words;
}

function complain(sentence) {
  $("problem").firstElementChild.textContent = sentence;
  $("problem").classList.toggle("shown", sentence !== "");
}

// ---- what there is to do ----

async function open(file) {
  if (abort || !file) return;
  if (file.size > settings.max_bytes) {
    const [size, most] = [file.size, settings.max_bytes].map((bytes) => (bytes / 1e6).toFixed(1));
    complain(`The file has ${size} MB, and ${most} are taken here.`);
    return;
  }
  const shown = await during("Opening …", async (options) => (await ask("open", { ...options, body: file })).blob());
  if (!shown) return;
  for (const { shown: address } of [round, completed, ...earlier].filter(Boolean)) URL.revokeObjectURL(address);
  earlier = [];
  completed = null;
  name = file.name ?? "";
  $("name").textContent = name.replace(/[\p{Cc}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, "\ufffd");
  await paint({ file, shown: URL.createObjectURL(shown), painting: new Painting() });
  $("news").textContent = "Opened. Paint over what should go.";
}

async function paint(next) {
  round = next;
  const picture = $("before");
  picture.src = round.shown;
  await picture.decode();
  body.dataset.mode = "painting";
  const { naturalWidth: width, naturalHeight: height } = picture;
  if (width !== view.width || height !== view.height) view.show(width, height);
  redraw();
  refresh();
  canvas.focus({ preventScroll: true });
}

async function complete() {
  if (abort || body.dataset.mode !== "painting" || round.painting.empty) return;
  const file = await during("Completing …", async (options) => {
    const mask = await round.painting.mask(view.width, view.height);
    const headers = { ...options.headers, "X-Mask-Bytes": String(mask.size) };
    return (await ask("complete", { ...options, headers, body: new Blob([mask, round.file]) })).blob();
  });
  if (!file) return;
  if (completed) URL.revokeObjectURL(completed.shown);
  completed = { file, shown: URL.createObjectURL(file) };
  $("after").src = completed.shown;
  await $("after").decode();
  body.dataset.mode = "comparing";
  divide(50);
  refresh();
  $("divider").focus({ preventScroll: true });
  $("news").textContent = "Completed. The slider compares before and after.";
}

function back() {
  if (abort) abort.abort();
  else if (body.dataset.mode === "comparing") paint(round);
}

function goOn() {
  if (abort || body.dataset.mode !== "comparing") return;
  earlier.push(round);
  const next = { ...completed, painting: new Painting() };
  completed = null;
  paint(next);
}

function undo() {
  if (abort) return;
  if (body.dataset.mode === "comparing") back();
  else if (round?.painting.done.length) change((painting) => painting.undo());
  else if (earlier.length) {
    URL.revokeObjectURL(round.shown);
    paint(earlier.pop());
  }
}

function change(how) {
  if (abort || body.dataset.mode !== "painting") return;
  how(round.painting);
  redraw();
  refresh();
}

function save() {
  if (body.dataset.mode !== "comparing") return;
  const link = document.createElement("a");
  link.href = completed.shown;
  link.download = `${name.replace(/\.[^.]*$/, "") || "picture"}-completed.png`;
  link.click();
}

function divide(percent) {
  const place = Math.min(Math.max(percent, 0), 100);
  $("divider").value = place;
  $("sheet").style.setProperty("--divide", `${place}%`);
}

function choose(eraser) {
  erasing = eraser;
  $("brush").setAttribute("aria-pressed", !eraser);
  $("eraser").setAttribute("aria-pressed", eraser);
}

const brushSize = () => Number($("size").value); // CSS pixels

function setBrushSize(pixels) {
  $("size").value = $("pixels").value = Math.round(pixels);
  moveRing();
}

// What can be done now.
function refresh() {
  for (const button of document.querySelectorAll("header button, footer button")) button.disabled = abort !== null;
  canvas.tabIndex = body.dataset.mode === "painting" ? 0 : -1; // what is compared has its slider
  const painting = round?.painting;
  $("undo").disabled ||= !painting?.done.length && !earlier.length;
  $("redo").disabled ||= !painting?.undone.length;
  $("clear").disabled ||= !painting || painting.empty;
  $("complete").disabled ||= !painting || painting.empty;
  const size = round ? `${view.width} × ${view.height} · ` : "";
  $("facts").textContent = `${size}${settings.filler}`;
}

// ---- drawing ----

const density = () => window.devicePixelRatio || 1;

function onPicture(draw) {
  const scale = view.scale * density();
  context.save();
  context.setTransform(scale, 0, 0, scale, view.left * density(), view.top * density());
  context.beginPath();
  context.rect(0, 0, view.width, view.height);
  context.clip();
  draw();
  context.restore();
}

function redraw() {
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (round) onPicture(() => round.painting.draw(context, COLOUR));
  moveRing();
}

function resize() {
  canvas.width = Math.round($("stage").clientWidth * density());
  canvas.height = Math.round($("stage").clientHeight * density());
  view.place();
  redraw();
}

const ring = { x: 0, y: 0, shown: false }; // CSS pixels of the stage

function moveRing(at = {}) {
  Object.assign(ring, at);
  const size = brushSize();
  Object.assign($("ring").style, {
    width: `${size}px`,
    height: `${size}px`,
    transform: `translate(${ring.x - size / 2}px, ${ring.y - size / 2}px)`,
    visibility: ring.shown ? "visible" : "hidden",
  });
}

// ---- pointers ----

const pointers = new Map(); // id -> [x, y], CSS pixels of the stage
let gesture = null; // "paint", "divide", "pan" or "pinch"
let stroke = null;

const placeOf = ({ clientX, clientY }) => {
  const { left, top } = $("stage").getBoundingClientRect();
  return [clientX - left, clientY - top];
};

function beginStroke(erase, x, y) {
  stroke = round.painting.begin(erase, brushSize() / view.scale, ...view.pictureAt(x, y));
  onPicture(() => round.painting.drawStroke(context, COLOUR, stroke));
}

function growStroke(places) {
  const from = stroke.points.length / 2 - 1;
  for (const [x, y] of places) stroke.points.push(...view.pictureAt(x, y));
  onPicture(() => round.painting.drawStroke(context, COLOUR, stroke, from));
}

function endStroke() {
  gesture = stroke = null;
  redraw(); // at its edges a stroke in one piece differs from one of many
  refresh();
}

canvas.addEventListener("pointerdown", (event) => {
  if (abort || ![0, 1, 5].includes(event.button)) return; // 1: the wheel; 5: a pen's eraser
  event.preventDefault();
  canvas.focus({ preventScroll: true });
  canvas.setPointerCapture(event.pointerId);
  const [x, y] = placeOf(event);
  pointers.set(event.pointerId, [x, y]);
  if (pointers.size > 1) {
    if (gesture === "paint") {
      round.painting.drop();
      redraw();
    }
    gesture = "pinch";
  } else if (event.button === 1) gesture = "pan";
  else if (body.dataset.mode === "comparing") {
    gesture = "divide";
    divideAt(x);
  } else {
    gesture = "paint";
    moveRing({ x, y, shown: true });
    beginStroke(erasing || event.button === 5, x, y);
  }
});

canvas.addEventListener("pointermove", (event) => {
  const [x, y] = placeOf(event);
  const before = pointers.get(event.pointerId);
  if (!pointers.size && event.pointerType !== "touch") moveRing({ x, y, shown: true });
  if (!before) return;
  if (gesture === "pinch") {
    const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) pinch(before, [x, y], other);
  } else if (gesture === "pan") {
    view.move(x - before[0], y - before[1]);
    redraw();
  } else if (gesture === "divide") divideAt(x);
  else if (gesture === "paint") {
    moveRing({ x, y });
    const steps = event.getCoalescedEvents?.() ?? [];
    growStroke((steps.length ? steps : [event]).map(placeOf));
  }
  pointers.set(event.pointerId, [x, y]);
});

for (const kind of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(kind, (event) => {
    if (!pointers.delete(event.pointerId)) return;
    if (event.pointerType === "touch") moveRing({ shown: false });
    if (!pointers.size) endStroke();
  });
}
canvas.addEventListener("pointerleave", () => moveRing({ shown: false }));

// One of two fingers has moved: their distance zooms about their middle, and the middle moves the picture.
function pinch(from, to, other) {
  const distance = ([x, y]) => Math.hypot(x - other[0], y - other[1]) || 1;
  view.move((to[0] - from[0]) / 2, (to[1] - from[1]) / 2);
  view.zoom(distance(to) / distance(from), (to[0] + other[0]) / 2, (to[1] + other[1]) / 2);
  redraw();
}

function divideAt(x) {
  divide((100 * view.pictureAt(x, 0)[0]) / view.width);
}

canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const unit = event.deltaMode ? 16 : 1; // lines, or CSS pixels
  if (event.ctrlKey) view.zoom(Math.exp((-event.deltaY * unit) / 200), ...placeOf(event));
  else view.move(-event.deltaX * unit, -event.deltaY * unit);
  redraw();
}, { passive: false });

function zoom(factor) {
  if (factor) view.zoom(factor);
  else view.fit();
  redraw();
}

// ---- keys ----

const STEP = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

canvas.addEventListener("keydown", (event) => {
  if (body.dataset.mode === "comparing") {
    const [right] = STEP[event.key] ?? [0];
    divide(Number($("divider").value) + 2 * right);
    return;
  }
  const isSpace = event.key === " ";
  if (abort || (!isSpace && !STEP[event.key])) return;
  event.preventDefault();
  if (!ring.shown) Object.assign(ring, { x: canvas.clientWidth / 2, y: canvas.clientHeight / 2 });
  const [right, down] = STEP[event.key] ?? [0, 0];
  const far = Math.max(brushSize() / 3, 2);
  moveRing({ x: ring.x + far * right, y: ring.y + far * down, shown: true });
  if (isSpace && !stroke) beginStroke(erasing, ring.x, ring.y);
  else if (stroke && !gesture) growStroke([[ring.x, ring.y]]);
});
canvas.addEventListener("keyup", (event) => {
  if (event.key === " " && !gesture) endStroke();
});
canvas.addEventListener("blur", () => {
  if (stroke && !gesture) endStroke();
});

const KEYS = {
  o: () => $("file").click(),
  b: () => choose(false),
  e: () => choose(true),
  "[": () => setBrushSize(brushSize() / 1.2),
  "]": () => setBrushSize(brushSize() * 1.2),
  delete: () => change((painting) => painting.clear()),
  backspace: () => change((painting) => painting.clear()),
  enter: complete,
  escape: back,
  n: goOn,
  s: save,
  "+": () => zoom(1.5),
  "=": () => zoom(1.5),
  "-": () => zoom(1 / 1.5),
  0: () => zoom(0),
  "?": () => $("keys").showModal(),
};
const WITH_CTRL = {
  z: undo,
  "shift+z": () => change((painting) => painting.redo()),
  y: () => change((painting) => painting.redo()),
  o: KEYS.o,
  s: save,
};

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.altKey || document.querySelector("dialog[open]") || stroke) return;
  const key = event.key.toLowerCase();
  const ctrl = event.ctrlKey || event.metaKey;
  if (key === "enter" && event.target.closest("button")) return;
  if (!ctrl && key.length === 1 && !$("letters").checked) return;
  const action = ctrl ? WITH_CTRL[event.shiftKey ? `shift+${key}` : key] : KEYS[key];
  if (!action) return;
  event.preventDefault();
  action();
});

// ---- files ----

const carries = ({ files }) => files[0];

document.addEventListener("paste", (event) => {
  if (event.target.closest?.("dialog")) return;
  if (carries(event.clipboardData)) open(carries(event.clipboardData));
  else complain("There is no picture in the clipboard.");
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  body.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) body.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  body.classList.remove("over");
  if (carries(event.dataTransfer)) open(carries(event.dataTransfer));
  else complain("What was dropped is no file. Save the picture first, then drop its file.");
});
$("file").addEventListener("change", (event) => {
  open(event.target.files[0]);
  event.target.value = ""; // the same file may be opened again
});

// ---- the page ----

const CLICKS = {
  open: KEYS.o,
  begin: KEYS.o,
  help: KEYS["?"],
  brush: KEYS.b,
  eraser: KEYS.e,
  undo,
  redo: WITH_CTRL.y,
  clear: KEYS.delete,
  complete,
  back,
  more: goOn,
  save,
  out: KEYS["-"],
  in: KEYS["+"],
  fit: KEYS[0],
  cancel: () => abort?.abort(),
  understood: () => complain(""),
};
for (const [id, action] of Object.entries(CLICKS)) $(id).addEventListener("click", () => action());
$("size").addEventListener("input", () => setBrushSize(brushSize()));
$("divider").addEventListener("input", () => divide(Number($("divider").value)));
new ResizeObserver(resize).observe($("stage"));

knowToken();
window.addEventListener("unhandledrejection", ({ reason }) => complain(reason.message)); // no memory to show a picture
window.addEventListener("hashchange", () => location.reload()); // an address with another token
refresh();
try {
  settings = await (await ask("settings")).json();
  refresh();
} catch (error) {
  complain(error.message);
}
