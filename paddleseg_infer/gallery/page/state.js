"use strict";
// The data of the page, what is shown of it, and which images that selects.
//
// An image has the fields of `Entry` in figures.py, without those that are empty, and `reason_key` if
// it failed: images with the same key failed for the same reason.

const DATA = JSON.parse(document.getElementById("data").textContent);
const IMAGES = DATA.images;
const PER_PAGE = 60;
const DEFAULTS = { text: "", show: "", class: "", sort: "name", page: "0", image: "" };
const byId = (id) => document.getElementById(id);

IMAGES.forEach((image, number) => {
  image.number = number;
  image.pixels = Object.values(image.classes || {}).reduce((sum, each) => sum + each, 0);
});
const inOrderOfNames = (() => {
  const { compare } = new Intl.Collator("en", { numeric: true });
  return [...IMAGES].sort((a, b) => compare(a.name, b.name));
})();

// What "Show" offers: for each its text, and which images it selects.
const SHOWS = {
  "": ["all", () => true],
  done: ["done", (image) => image.status === "done"],
  skipped: ["skipped: made by an earlier run", (image) => image.status === "skipped"],
  failed: ["failed", (image) => image.status === "failed"],
  uncompared: ["without a usable label map", (image) => Boolean(image.label_error)],
  noted: ["with missing or changed files", (image) => Boolean(image.notes)],
};
for (const { key, text } of DATA.reasons) {
  SHOWS[`failed: ${key}`] = [`failed: ${text}`, (image) => image.reason_key === key];
}

const share = (image, id) => ((image.classes || {})[id] || 0) / (image.pixels || 1);
const hasClass = (image, id) =>
  Boolean((image.classes || {})[id]) || Boolean(((image.areas || {})[id] || [])[2]);
function classIou(image, id) {
  const area = (image.areas || {})[id];
  const union = area ? area[1] + area[2] - area[0] : 0;
  return union ? area[0] / union : undefined;
}

// What "Sort by" offers: its text, the number that is sorted, the direction, what it needs.
const some = (field) => IMAGES.some((image) => image[field] !== undefined);
const SORTS = {
  name: ["name", null, 1, () => true],
  iou: ["IoU, the worst first", (image) => image.iou, 1, () => some("iou")],
  best: ["IoU, the best first", (image) => image.iou, -1, () => some("iou")],
  certainty: ["certainty, the lowest first", (image) => image.certainty, 1, () => some("certainty")],
  certain: ["certainty, the highest first", (image) => image.certainty, -1, () => some("certainty")],
  share: ["share of the class", (image) => share(image, state.class), -1, () => state.class !== ""],
  class: [
    "IoU of the class, the worst first",
    (image) => classIou(image, state.class), 1, () => state.class !== "" && some("areas"),
  ],
};

// The state is in the URL's hash, so that a link shows the same, and the browser's Back works.
let state = { ...DEFAULTS };
function hashOf(changes = {}) {
  const all = { ...state, ...changes };
  const changed = Object.entries(all).filter(([name, value]) => value !== DEFAULTS[name]);
  return `#${new URLSearchParams(changed)}` + (changed.length ? "" : "all"); // "#" would scroll up
}
const isNumber = (text) => /^[0-9]+$/.test(text);
function readHash() {
  state = { ...DEFAULTS };
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    if (Object.hasOwn(DEFAULTS, name)) state[name] = value;
  }
  if (!Object.hasOwn(SHOWS, state.show)) state.show = DEFAULTS.show;
  if (!Object.hasOwn(DATA.classes, state.class)) state.class = DEFAULTS.class;
  if (!Object.hasOwn(SORTS, state.sort) || !SORTS[state.sort][3]()) state.sort = DEFAULTS.sort;
  if (!isNumber(state.image) || !IMAGES[state.image]) state.image = DEFAULTS.image;
  if (!isNumber(state.page)) state.page = DEFAULTS.page;
}
// `isStep`: the browser's Back returns to the state before.
function go(changes, isStep) {
  const hash = hashOf(changes);
  if (isStep) location.hash = hash;
  else location.replace(hash);
}

// Returns the images that the filters select, in the chosen order. Those without a value are last.
function selected() {
  const text = state.text.toLowerCase();
  const isShown = SHOWS[state.show][1];
  const found = inOrderOfNames.filter(
    (image) =>
      isShown(image) &&
      (!text || image.name.toLowerCase().includes(text)) &&
      (state.class === "" || hasClass(image, state.class)),
  );
  const [, valueOf, direction] = SORTS[state.sort];
  if (!valueOf) return found;
  const keyed = found.map((image) => [valueOf(image), image]);
  keyed.sort(([a], [b]) => {
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
    return direction * (a - b);
  });
  return keyed.map(([, image]) => image);
}
