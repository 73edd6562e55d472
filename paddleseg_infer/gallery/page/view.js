// One image: large, with its mask, its label map, and its numbers.

const view = byId("view");
const MIXES = { 1: 0, 2: 50, 3: 100 };
let shown = null; // the image in the dialog

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
      caption.append(make("span", { class: "bad" }, ` (the ${alt} was moved: this is a small copy)`));
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
  return make("figure", { class: "pane" }, caption, stack);
}

function classTable(image) {
  const ids = Object.keys({ ...image.classes, ...image.areas });
  ids.sort((a, b) => share(image, b) - share(image, a));
  const heads = image.areas ? ["class", "share", "", "IoU"] : ["class", "share", ""];
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
      make("td", { class: "bar" }, bar),
    ];
    if (image.areas) cells.push(make("td", {}, iou === undefined ? "" : iou.toFixed(3)));
    return make("tr", {}, ...cells);
  });
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  return make("table", { class: "bars" }, make("thead", {}, head), make("tbody", {}, ...rows));
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
    const title = image.links && image.links.mask ? "Mask" : "Picture";
    const panes = [pane(image, title, image.mask)];
    if (image.label) panes.push(pane(image, "Label map", image.label));
    byId("panes").replaceChildren(...panes);
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
  const isTyping = /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName) && target.type !== "checkbox";
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  if (MIXES[key] !== undefined) setMix(MIXES[key]);
  else if (key === "ArrowLeft" || key === "ArrowRight") {
    const step = key === "ArrowLeft" ? -1 : 1;
    if (view.open) stepImage(step);
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
