"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const segments = all(".segment");
const search = document.getElementById("search");
const doubtful = document.getElementById("doubtful");
const found = document.getElementById("found");
const audioOf = (segment) => segment.closest(".recording").querySelector("audio");
const seconds = (element, name) => Number(element.dataset[name]);
const plain = (text) => text.normalize("NFKD").replace(/\p{Mn}/gu, "").toLowerCase();
const texts = segments.map((segment) => plain(segment.querySelector("div").textContent));
let current = null;

function select(segment) {
  if (current) current.classList.remove("now");
  current = segment;
  if (!segment) return;
  segment.classList.add("now");
  segment.scrollIntoView({ block: "nearest" });
}

function playFrom(segment, start) {
  const audio = audioOf(segment);
  select(segment);
  if (!audio) return;
  for (const other of all("audio")) if (other !== audio) other.pause();
  audio.currentTime = seconds(audio, "offset") + start;
  audio.play().catch(() => {});
}

function filter() {
  const wanted = plain(search.value.trim());
  let number = 0;
  segments.forEach((segment, i) => {
    const shown = texts[i].includes(wanted) && (!doubtful.checked || segment.classList.contains("doubtful"));
    segment.hidden = !shown;
    number += shown;
  });
  found.value = wanted || doubtful.checked ? `${number} of ${segments.length} segments` : "";
}

function step(by, chosen = () => true) {
  const shown = segments.filter((segment) => !segment.hidden && (segment === current || chosen(segment)));
  const next = shown[shown.indexOf(current) + by];
  if (next) {
    next.focus({ preventScroll: true });
    playFrom(next, seconds(next, "start"));
  }
}

function follow(audio) {
  const time = audio.currentTime - seconds(audio, "offset");
  const own = all(".segment", audio.closest(".recording"));
  const heard = own.findLast((segment) => seconds(segment, "start") <= time + 0.05);
  if (heard && heard !== current && time < seconds(heard, "end") + 0.5) select(heard);
  for (const word of all(".w.now")) word.classList.remove("now");
  const word = heard && all(".w", heard).findLast((one) => seconds(one, "start") <= time + 0.05);
  if (word) word.classList.add("now");
}

for (const segment of segments) {
  segment.addEventListener("click", (event) => {
    if (String(getSelection())) return;  // text is being marked
    const word = event.target.closest(".w");
    playFrom(segment, seconds(word || segment, "start"));
  });
}
for (const audio of all("audio")) {
  audio.addEventListener("timeupdate", () => follow(audio));
  audio.addEventListener("error", () => {
    const note = document.createElement("p");
    note.className = "error";
    note.textContent = "The audio is not where it was, or this browser cannot play it.";
    audio.replaceWith(note);
  });
}
search.addEventListener("input", filter);
doubtful.addEventListener("change", filter);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === search) {
    if (event.key === "Escape") { search.value = ""; filter(); search.blur(); }
    return;
  }
  if (event.target.closest("audio, a, label")) return;
  const audio = current ? audioOf(current) : document.querySelector("audio");
  const keys = {
    " ": () => audio && (audio.paused ? audio.play().catch(() => {}) : audio.pause()),
    Enter: () => current && playFrom(current, seconds(current, "start")),
    ArrowLeft: () => { if (audio) audio.currentTime -= 5; },
    ArrowRight: () => { if (audio) audio.currentTime += 5; },
    j: () => step(1),
    k: () => step(-1),
    d: () => step(1, (segment) => segment.classList.contains("doubtful")),
    "/": () => search.focus(),
  };
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});
filter();
