// One image: large, with its mask, its label map, and its numbers.

const view = byId("view");
const MILLISECONDS_BETWEEN_STEPS = 70; // browsers refuse more than 200 addresses in ten seconds
const MIXES = { 1: 0, 2: 50, 3: 100 };
let shown = null; // the image in the dialog
let lastStep = 0;

// Returns a pane with the image, a map of classes over it, and the marks of wrong pixels.
function pane(image, title, map) {
  const stack = make("div", { class: "stack" });
  const [width, height] = image.size || [4, 3];
  stack.style.setProperty("--ratio", width / height);
  const caption = make("figcaption", {}, title);
  const add = (kind, url, small, alt) => {
    if (!url) return;
    const picture = make("img", { class: kind, src: url, alt });
    picture.addEventListener("error", () => {
      if (!small || picture.src.endsWith(small)) return;
      picture.src = small;
      caption.append(make("span", { class: "bad" }, ` (the ${alt} is not in its place: this is a small copy)`));
    });
    if (kind === "photo") {
      picture.addEventListener("load", () => {
        const ratio = picture.naturalWidth / picture.naturalHeight;
        stack.style.setProperty("--ratio", ratio);
      });
    }
    stack.append(picture);
  };
  add("photo", image.image || image.thumb, image.thumb, "image");
  add("mask", map, map === image.mask ? image.mask_thumb : null, title.toLowerCase());
  add("wrong", image.wrong, null, "wrong pixels");
  if (!stack.childElementCount) stack.append(make("div", { class: "empty" }, "no picture"));
  return make("figure", { class: "pane", tabindex: "0" }, caption, stack);
}

// A zoomed label map shows the same part as the mask.
function scrollTogether(moved, panes) {
  for (const other of panes) {
    if (other !== moved) other.scrollTo(moved.scrollLeft, moved.scrollTop);
  }
}

function classTable(image) {
  const ids = Object.keys({ ...image.classes, ...image.areas });
  ids.sort((a, b) => share(image, b) - share(image, a));
  const heads = image.areas ? ["class", "IoU", "share of the mask", ""] : ["class", "share of the mask", ""];
  const rows = ids.map((id) => {
    const [name, colour] = DATA.classes[id];
    const bar = make("span");
    bar.style.width = `${100 * share(image, id)}%`;
    const square = make("i");
    square.style.background = colour;
    const iou = classIou(image, id);
    const cells = [
      make("th", { scope: "row" }, square, name),
      make("td", {}, percent(share(image, id))),
      make("td", { class: "bar" }, share(image, id) ? bar : ""),
    ];
    if (image.areas) cells.splice(1, 0, make("td", {}, iou === undefined ? "" : iou.toFixed(3)));
    return make("tr", {}, ...cells);
  });
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  const table = make("table", { class: "bars" }, make("thead", {}, head), make("tbody", {}, ...rows));
  return make("div", { class: "wide", tabindex: "0" }, table);
}

function facts(image) {
  const lines = [];
  if (image.status === "failed") lines.push(make("li", { class: "bad" }, `failed: ${image.reason}`));
  if (image.status === "skipped") lines.push(make("li", {}, "skipped: made by an earlier run"));
  if (image.label_error) {
    lines.push(make("li", { class: "bad" }, `label map: ${image.label_error}`));
  }
  for (const note of image.notes || []) lines.push(make("li", { class: "bad" }, note));
  if (image.size) lines.push(make("li", {}, `${image.size[0]}x${image.size[1]} pixels`));
  if (image.iou !== undefined) lines.push(make("li", {}, `mean IoU ${image.iou.toFixed(4)}`));
  if (image.certainty !== undefined) {
    lines.push(make("li", {}, `certainty ${image.certainty.toFixed(3)}: the mean of its scores`));
  }
  for (const [kind, href] of Object.entries(image.links || {})) {
    lines.push(make("li", {}, make("a", { href, target: "_blank", rel: "noopener" }, kind)));
  }
  const list = make("ul", {}, ...lines);
  return image.classes || image.areas ? [list, classTable(image)] : [list];
}

function showView() {
  const image = IMAGES[state.image];
  if (!image) {
    if (view.open) view.close();
    return;
  }
  if (image !== shown || !view.open) {
    shown = image;
    byId("view-name").textContent = image.name;
    const title = image.classes ? "Mask" : "Picture";
    const panes = [pane(image, title, image.mask)];
    if (image.label) panes.push(pane(image, "Label map", image.label));
    byId("panes").replaceChildren(...panes);
    panes.forEach((each) => each.addEventListener("scroll", () => scrollTogether(each, panes)));
    byId("facts").replaceChildren(...facts(image));
    document.querySelector(".marks").hidden = !image.wrong;
  }
  const at = found.indexOf(image);
  byId("place").textContent = at < 0 ? "" : `${at + 1} of ${found.length}`;
  byId("before").disabled = at <= 0;
  byId("after").disabled = at < 0 || at >= found.length - 1;
  if (!view.open) view.showModal();
}

// Shows the image before or after the current one. The browser's Back leaves the dialog.
function stepImage(step) {
  const next = found[found.indexOf(shown) + step];
  if (!next || !found.includes(shown)) return;
  const page = Math.floor(found.indexOf(next) / PER_PAGE);
  go({ image: String(next.number), page: String(page) }, false);
}

function toggleMarks() {
  byId("marks").checked = !byId("marks").checked;
  byId("marks").dispatchEvent(new Event("change"));
}
function toggleZoom() {
  const isZoomed = view.classList.toggle("zoomed");
  byId("zoom").setAttribute("aria-pressed", isZoomed);
}

byId("before").addEventListener("click", () => stepImage(-1));
byId("after").addEventListener("click", () => stepImage(1));
byId("zoom").addEventListener("click", toggleZoom);
byId("close").addEventListener("click", () => view.close());
byId("marks").addEventListener("change", () => {
  view.classList.toggle("unmarked", !byId("marks").checked);
});
view.addEventListener("close", () => {
  if (state.image !== "") go({ image: "" }, false);
  const last = shown && document.querySelector(`[data-number="${shown.number}"]`);
  if (last) last.focus();
});

document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  const isArrow = key.startsWith("Arrow");
  const takesArrows = target.closest("input, .wide, .zoomed .pane") && target.type !== "checkbox";
  const isTyping = target.type === "search" || target.tagName === "SELECT";
  if (isTyping || (isArrow && takesArrows)) return;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (MIXES[key] !== undefined) setMix(MIXES[key]);
  else if (key === "ArrowLeft" || key === "ArrowRight") {
    const step = key === "ArrowLeft" ? -1 : 1;
    const isTooEarly = event.repeat && event.timeStamp - lastStep < MILLISECONDS_BETWEEN_STEPS;
    if (!isTooEarly) lastStep = event.timeStamp;
    if (isTooEarly) event.preventDefault();
    else if (view.open) stepImage(step);
    else turnPage(step);
  } else if (view.open && key === "m") toggleMarks();
  else if (view.open && key === "z") toggleZoom();
  else if (!view.open && key === "/") byId("text").focus();
  else return;
  event.preventDefault();
});

let drawn = null; // the part of the hash that the grid depends on
function render() {
  readHash();
  const hash = hashOf({ image: "" });
  if (hash !== drawn) {
    showControls();
    showGrid();
    drawn = hash;
  }
  showView();
}
window.addEventListener("hashchange", render);
fillControls();
setMix(50);
render();
