// The controls above the images, and the grid of small pictures.

let found = [];

// Returns a new element. `content` is a list of elements and texts.
function make(name, attributes = {}, ...content) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(key, value);
  }
  element.append(...content);
  return element;
}
const percent = (part) => (part >= 0.001 || !part ? `${(100 * part).toFixed(1)} %` : "<0.1 %");

function option(value, text, count) {
  return make("option", { value }, count === undefined ? text : `${text} (${count})`);
}

function fillControls() {
  for (const [key, [text, isShown]] of Object.entries(SHOWS)) {
    const count = IMAGES.filter(isShown).length;
    if (count || !key) byId("show").append(option(key, text, count));
  }
  const counts = {};
  for (const image of IMAGES) {
    for (const id of Object.keys({ ...image.classes, ...image.areas })) {
      if (hasClass(image, id)) counts[id] = (counts[id] || 0) + 1;
    }
  }
  byId("class").append(option("", "any"));
  for (const [id, [name]] of Object.entries(DATA.classes)) {
    if (counts[id]) byId("class").append(option(id, name, counts[id]));
  }
}

function showControls() {
  const possible = Object.entries(SORTS).filter(([, [, , , isPossible]]) => isPossible());
  byId("sort").replaceChildren(...possible.map(([key, [text]]) => option(key, text)));
  for (const name of ["text", "show", "class", "sort"]) {
    if (byId(name).value !== state[name]) byId(name).value = state[name];
  }
}

function card(image) {
  const stack = make("span", { class: "stack" });
  if (image.thumb) {
    stack.append(make("img", { src: image.thumb, alt: "", loading: "lazy", decoding: "async" }));
  }
  if (image.mask_thumb) {
    stack.append(make("img", { class: "mask", src: image.mask_thumb, alt: "", loading: "lazy" }));
  }
  if (!stack.childElementCount) stack.append(make("span", { class: "empty" }, "no picture"));
  const numbers = [];
  if (image.iou !== undefined) numbers.push(`IoU ${image.iou.toFixed(3)}`);
  if (image.certainty !== undefined) numbers.push(`certainty ${image.certainty.toFixed(3)}`);
  if (state.class !== "") {
    const isOnlyTrue = !(image.classes || {})[state.class];
    const part = isOnlyTrue ? "only in the label map" : percent(share(image, state.class));
    numbers.push(`${DATA.classes[state.class][0]} ${part}`);
  }
  const parts = [
    make("span", { class: "frame" }, stack),
    make("span", { class: "name" }, image.name),
  ];
  if (numbers.length) parts.push(make("span", { class: "numbers" }, numbers.join(", ")));
  if (image.status === "failed") {
    parts.push(make("span", { class: "bad" }, `failed: ${image.reason}`));
  }
  if (image.label_error) {
    parts.push(make("span", { class: "bad" }, `label map: ${image.label_error}`));
  }
  if (image.notes) parts.push(make("span", { class: "bad" }, "missing or changed files"));
  const kind = image.status === "failed" ? " failed" : image.notes ? " noted" : "";
  const href = hashOf({ image: String(image.number) });
  return make("li", {}, make("a", { class: `card${kind}`, href, "data-number": image.number }, ...parts));
}

function showGrid() {
  found = selected();
  const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
  const page = Math.min(Number(state.page), pages - 1);
  state.page = String(page);
  const first = page * PER_PAGE;
  const cards = found.slice(first, first + PER_PAGE).map(card);
  byId("grid").replaceChildren(...cards);
  byId("found").textContent = found.length
    ? `${first + 1} to ${first + cards.length} of ${found.length} images`
    : "No image fits these filters.";
  for (const button of document.querySelectorAll("[data-step]")) {
    const next = page + Number(button.dataset.step);
    button.disabled = next < 0 || next >= pages;
  }
}

// The opacity of all masks, 0 to 100.
function setMix(percentage) {
  document.documentElement.style.setProperty("--mix", percentage / 100);
  for (const slider of document.querySelectorAll(".mix")) slider.value = percentage;
  for (const button of document.querySelectorAll("[data-mix]")) {
    button.setAttribute("aria-pressed", button.dataset.mix === String(percentage));
  }
}

function turnPage(step) {
  const buttons = document.querySelectorAll(`[data-step="${step}"]`);
  if (buttons[0].disabled) return;
  go({ page: String(Number(state.page) + step) }, true);
  window.scrollTo({ top: byId("controls").offsetTop });
}

byId("controls").addEventListener("submit", (event) => event.preventDefault());
for (const name of ["text", "show", "class", "sort"]) {
  byId(name).addEventListener("input", (event) => {
    const changes = { [name]: event.target.value, page: "0" };
    if (name === "class" && !changes.class && ["share", "class"].includes(state.sort)) {
      changes.sort = DEFAULTS.sort; // these need a class
    }
    go(changes, name !== "text");
  });
}
document.addEventListener("click", (event) => {
  const { step, mix, class: id, show } = (event.target.closest("button") || { dataset: {} }).dataset;
  if (step) turnPage(Number(step));
  if (mix) setMix(Number(mix));
  if (id) go({ class: id, page: "0" }, true);
  if (show) go({ show, page: "0" }, true);
  if (id || show) byId("controls").scrollIntoView();
});
for (const slider of document.querySelectorAll(".mix")) {
  slider.addEventListener("input", () => setMix(Number(slider.value)));
  slider.addEventListener("pointerup", () => slider.blur()); // so that the arrow keys change images
}
